//! What streaming aggregation costs, beside DataFusion's own batch aggregation of the same rows.
//!
//! `cargo bench -p highwater-plan --bench aggregate` prints each figure beside its bar. All figures are
//! CPU time of the process on one pinned core, the median of [`REPEATS`] runs.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_plan::collect;
use highwater_core::OutputMode;
use highwater_plan::cell::BatchCell;
use highwater_plan::operators::StatefulOperator;
use highwater_plan::operators::aggregate::StatefulAggregateExec;

#[path = "../src/operators/aggregate/replay.rs"]
#[expect(dead_code, reason = "shared with the tests of the operator")]
mod replay;

use replay::{Query, Replay, session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SQL: &str = "SELECT k, count(*), sum(v), min(v), max(v), avg(d) FROM t GROUP BY k";
const ROWS: usize = 10_000_000;
const BATCH_ROWS: usize = 8_192;
const TRIGGERS: usize = 100;
const SMALL_TRIGGERS: usize = 10_000;
const REPEATS: usize = 5;
const SMALL_KEYS: u64 = 1_000;
const LARGE_KEYS: u64 = 1_000_000;

/// CPU of the streaming query as a multiple of the batch query's, at most.
const BAR_LARGE: f64 = 1.6;
const BAR_SMALL: f64 = 2.0;
/// Time of a small trigger over much state as a multiple of that over little, at most.
const BAR_GROWTH: f64 = 2.0;

fn main() -> Result<()> {
    pin_to_one_core();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        println!("{SQL}\n{ROWS} rows, batches of {BATCH_ROWS}, update mode, median of {REPEATS}");
        against_batch(LARGE_KEYS, BAR_LARGE).await?;
        against_batch(SMALL_KEYS, BAR_SMALL).await?;
        small_triggers().await
    })
}

/// All rows in [`TRIGGERS`] triggers, every changed key emitted, against one batch query.
async fn against_batch(keys: u64, bar: f64) -> Result<()> {
    let rows = ROWS / TRIGGERS;
    let triggers: Vec<Vec<RecordBatch>> = (0..TRIGGERS)
        .map(|n| batches(n as u64, keys, rows, BATCH_ROWS))
        .collect::<Result<_>>()?;
    let (mut batch, mut streaming) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        batch.push(batch_seconds(&triggers).await?);
        streaming.push(streaming_seconds(&triggers).await?);
    }
    let (batch, streaming) = (median(batch), median(streaming));
    println!("{TRIGGERS} triggers, {keys} keys: batch {batch:.3} s, streaming {streaming:.3} s");
    report(streaming / batch, bar);
    Ok(())
}

async fn batch_seconds(triggers: &[Vec<RecordBatch>]) -> Result<f64> {
    let context = session();
    let replay = Replay::new(schema());
    replay.put(triggers.iter().flatten().cloned().collect());
    context.register_table("t", Arc::new(replay))?;
    let plan = context.sql(SQL).await?.create_physical_plan().await?;
    let before = cpu_seconds();
    let output = collect(plan, context.task_ctx()).await?;
    assert!(!output.is_empty());
    Ok(cpu_seconds() - before)
}

async fn streaming_seconds(triggers: &[Vec<RecordBatch>]) -> Result<f64> {
    let mut query = Query::try_new(SQL, schema(), OutputMode::Update).await?;
    let before = cpu_seconds();
    for trigger in triggers {
        assert!(!query.run(trigger.clone()).await?.is_empty());
        query.commit();
    }
    Ok(cpu_seconds() - before)
}

/// Triggers of 1,000 rows over much state and over little.
async fn small_triggers() -> Result<()> {
    let mut medians = Vec::new();
    for keys in [SMALL_KEYS, LARGE_KEYS] {
        let mut query = Query::try_new(SQL, schema(), OutputMode::Update).await?;
        query.run(all_keys(keys)?).await?;
        query.commit();
        let rows = ROWS / SMALL_TRIGGERS;
        let triggers = batches(7, keys, ROWS, rows)?;
        let mut seconds = Vec::new();
        for _ in 0..REPEATS {
            let before = cpu_seconds();
            for trigger in &triggers {
                query.run(vec![trigger.clone()]).await?;
                query.commit();
            }
            seconds.push(cpu_seconds() - before);
        }
        let micros = median(seconds) / SMALL_TRIGGERS as f64 * 1e6;
        println!("{SMALL_TRIGGERS} triggers of {rows} rows, {keys} keys: {micros:.1} µs a trigger");
        medians.push(micros);
    }
    report(medians[1] / medians[0], BAR_GROWTH);
    Ok(())
}

fn report(ratio: f64, bar: f64) {
    let verdict = if ratio <= bar { "meets" } else { "MISSES" };
    println!("  ratio {ratio:.2}, bar {bar:.2}: {verdict} it");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    println!("  runs: {figures:.3?}");
    figures[figures.len() / 2]
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, true),
        Field::new("d", DataType::Float64, true),
    ]))
}

/// Rows with random keys below `keys`, always the same for one seed.
fn batches(seed: u64, keys: u64, rows: usize, batch_rows: usize) -> Result<Vec<RecordBatch>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    (0..rows)
        .step_by(batch_rows)
        .map(|from| {
            let count = batch_rows.min(rows - from);
            let numbers = Int64Array::from_iter_values((0..count).map(|_| random(keys) as i64));
            rows_with(numbers, &mut random)
        })
        .collect()
}

/// One row of each key.
fn all_keys(keys: u64) -> Result<Vec<RecordBatch>> {
    let keys: Vec<i64> = (0..keys as i64).collect();
    let batch = |part: &[i64]| rows_with(Int64Array::from(part.to_vec()), |below| below / 2);
    keys.chunks(BATCH_ROWS).map(batch).collect()
}

fn rows_with(keys: Int64Array, mut random: impl FnMut(u64) -> u64) -> Result<RecordBatch> {
    let count = keys.len();
    let v = Int64Array::from_iter_values((0..count).map(|_| random(1_000_000) as i64));
    let d = Float64Array::from_iter_values((0..count).map(|_| random(1_000_000) as f64 / 8.0));
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(v), Arc::new(d)];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// CPU time this process has used.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock writes into a `timespec` of ours.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "the CPU clock of a process can be read");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Keeps this process on its last core; where that is refused, it runs where it may.
fn pin_to_one_core() {
    #[cfg(target_os = "linux")]
    // SAFETY: the set is ours, zeroed and as large as we say.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let cores = libc::sysconf(libc::_SC_NPROCESSORS_ONLN).max(1) as usize;
        libc::CPU_SET(cores - 1, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
