//! Shared by the benchmarks: a pinned core, the process CPU clock, medians, one line a figure.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use highwater::Result;
use highwater::datafusion::arrow::array::RecordBatch;
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::datafusion::datasource::MemTable;
use highwater::prelude::*;

/// Rows of a batch that DataFusion's readers would give.
const BATCH_ROWS: usize = 8_192;

/// CPU seconds of one batch query over all the rows, as table `events`, on one partition.
pub(crate) async fn batch_cpu(schema: &SchemaRef, data: &[RecordBatch], sql: &str) -> Result<f64> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let pieces = data.iter().flat_map(pieces).collect();
    ctx.register_table(
        "events",
        Arc::new(MemTable::try_new(Arc::clone(schema), vec![pieces])?),
    )?;
    let start = cpu_seconds();
    let answer = ctx.sql(sql).await?.collect().await?;
    let used = cpu_seconds() - start;
    assert!(!answer.is_empty(), "the batch answered");
    Ok(used)
}

/// CPU seconds of the streaming query that `query` makes of a frame of the rows: a trigger for each batch.
pub(crate) async fn stream_cpu(
    schema: &SchemaRef,
    data: &[RecordBatch],
    mode: OutputMode,
    query: impl FnOnce(StreamFrame) -> Result<StreamFrame>,
) -> Result<f64> {
    let session = StreamSession::new();
    let events = MemoryStream::new(&session, schema)?;
    let query = query(events.to_frame())?
        .write_stream()
        .output_mode(mode)
        .format("noop")
        .start()
        .await?;
    let start = cpu_seconds();
    for batch in data {
        events.add_batch(batch.clone())?;
        query.process_all_available().await?;
    }
    let used = cpu_seconds() - start;
    query.stop().await?;
    Ok(used)
}

/// A trigger's rows in the pieces that DataFusion's readers would give.
fn pieces(batch: &RecordBatch) -> Vec<RecordBatch> {
    (0..batch.num_rows())
        .step_by(BATCH_ROWS)
        .map(|from| batch.slice(from, BATCH_ROWS.min(batch.num_rows() - from)))
        .collect()
}

/// Runs `work` on a runtime of its own, whose threads start on the cores this thread may use.
pub(crate) fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// Keeps this process, and the threads it starts from now on, on one core.
///
/// Does nothing where the system has no such call.
pub(crate) fn pin_to_one_core() {
    #[cfg(target_os = "linux")]
    // SAFETY: a zeroed `cpu_set_t` is the empty set, and the pointer is to a live local of that size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// CPU seconds that all threads of this process have used.
#[must_use]
pub(crate) fn cpu_seconds() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live local of the type the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Wall time, for latencies; the library itself is given its clock.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#[must_use]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The value in the middle.
#[must_use]
pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which the share `q` of the values lies.
#[must_use]
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// Prints a time.
pub(crate) fn timed(what: &str, seconds: f64) {
    println!("{what:<72} {seconds:>9.3} s");
}

/// Prints one figure beside its bar.
pub(crate) fn report(what: &str, figure: f64, unit: &str, at_most: bool, bar: f64) {
    let met = if at_most {
        figure <= bar
    } else {
        figure >= bar
    };
    let sign = if at_most { "≤" } else { "≥" };
    println!(
        "{what:<72} {figure:>9.2} {unit:<4} bar {sign} {bar} {unit}  {}",
        if met { "met" } else { "MISSED" }
    );
}
