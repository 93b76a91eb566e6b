//! What a checkpoint costs: of a small trigger, of throughput, against the size of the state, and while a large state
//! is written out piece by piece.
//!
//! Everything is wall time on all cores, with the checkpoint in the system's folder for temporary files, which should be
//! on a local disk. Bars: a trigger of 10 rows takes at most 2 ms (median), and with `durability=fsync` at most 3 × one
//! bare write, fsync and rename of the same run; 100,000-row triggers with a checkpoint reach 90 % of the throughput
//! without at 1 k keys, and at 1 M keys 40 % from memory and 60 % from Parquet; 1,000-row triggers cost at 1 M keys at
//! most 1.5 × those at 10 k keys; writing out 10 M keys stalls no trigger by more than 20 ms.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use highwater::datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use highwater::datafusion::arrow::compute;
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::datafusion::dataframe::DataFrameWriteOptions;
use highwater::prelude::*;
use highwater::{DataStreamWriter, Result};
use tempfile::TempDir;

use crate::support::{cpu_seconds, median, now, quantile, report, timed};

/// The columns of the key benches: a key and two values.
pub(crate) const COLUMNS: &str = "k BIGINT, v BIGINT, d BIGINT";
/// Rows of a large trigger.
pub(crate) const LARGE: i64 = 100_000;
const SMALL: i64 = 1_000;
const RUNS: usize = 3;
/// About as long as an entry of a log.
const ENTRY_BYTES: usize = 400;

/// The cost of one durable micro-batch of 10 rows, beside what the disk takes for one bare file.
pub(crate) async fn trigger(scale: f64) -> Result<()> {
    let triggers = scaled(5_000, scale);
    let renamed = bare_files(triggers, false)?;
    let synced = bare_files(triggers, true)?;
    println!(
        "{:<72} {renamed:>9.3} ms",
        "one bare write and rename, median"
    );
    println!(
        "{:<72} {synced:>9.3} ms",
        "one bare write, fsync and rename, median"
    );
    let none = ten_rows(triggers, None, None).await?;
    tell_trigger("no checkpoint", &none);
    let folder = tempfile::tempdir()?;
    let process = ten_rows(triggers, Some(folder.path()), None).await?;
    tell_trigger("checkpoint", &process);
    report(
        "10-row trigger, windowed aggregate, checkpoint, median",
        process.median,
        "ms",
        true,
        2.0,
    );
    let folder = tempfile::tempdir()?;
    let fsync = match ten_rows(triggers, Some(folder.path()), Some("fsync")).await {
        Err(error) if error.option() == Some("durability") => {
            println!("10-row trigger, checkpoint with fsync: {error}");
            return Ok(());
        }
        fsync => fsync?,
    };
    tell_trigger("checkpoint with fsync", &fsync);
    report(
        "10-row trigger with fsync against one bare write, fsync and rename",
        fsync.median / synced,
        "×",
        true,
        3.0,
    );
    Ok(())
}

struct Millis {
    median: f64,
    p99: f64,
}

fn tell_trigger(what: &str, millis: &Millis) {
    let Millis { median, p99 } = millis;
    println!(
        "{:<72} {median:>9.3} ms   p99 {p99:.3} ms",
        format!("10-row trigger, {what}, median")
    );
}

/// Milliseconds of each write of one small file; the median.
fn bare_files(count: i64, sync: bool) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let bytes = [b'x'; ENTRY_BYTES];
    let mut millis = Vec::new();
    for number in 0..count {
        let aside = folder.path().join("aside");
        let start = now();
        let mut file = File::create(&aside)?;
        file.write_all(&bytes)?;
        if sync {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(&aside, folder.path().join(number.to_string()))?;
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&mut millis))
}

/// From `add_batch` to the commit, ten rows at a time.
async fn ten_rows(
    triggers: i64,
    checkpoint: Option<&Path>,
    durability: Option<&str>,
) -> Result<Millis> {
    let session = StreamSession::new();
    let readings = MemoryStream::new(&session, "ts TIMESTAMP, pump BIGINT, psi BIGINT")?;
    let mut writer = readings
        .to_frame()
        .group_by([window(col("ts"), "10 seconds"), col("pump")])
        .agg([count_all().alias("n"), min(col("psi")).alias("low")])?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("memory")
        .query_name("ten_rows");
    if let Some(folder) = checkpoint {
        writer = writer.checkpoint_location(folder.to_string_lossy());
    }
    if let Some(durability) = durability {
        writer = writer.option("durability", durability);
    }
    let query = writer.start().await?;
    let mut millis = Vec::new();
    for trigger in 0..triggers {
        let first = trigger * 10;
        let rows = (first..first + 10).map(|i| (1_700_000_000_000_000 + i * 1_000, i % 10, i));
        let rows = timed_rows(readings.schema(), rows)?;
        let start = now();
        readings.add_batch(rows)?;
        query.process_all_available().await?;
        millis.push(start.elapsed().as_secs_f64() * 1e3);
    }
    query.stop().await?;
    let warm = &mut millis[triggers as usize / 10..];
    Ok(Millis {
        median: median(warm),
        p99: quantile(warm, 0.99),
    })
}

/// Rows under a schema whose first column is a time in microseconds.
fn timed_rows(
    schema: &SchemaRef,
    rows: impl Iterator<Item = (i64, i64, i64)>,
) -> Result<RecordBatch> {
    let rows: Vec<(i64, i64, i64)> = rows.collect();
    let long = |column: fn(&(i64, i64, i64)) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(column)))
    };
    let times = long(|row| row.0);
    let times = compute::cast(&times, schema.field(0).data_type())?;
    let columns = vec![times, long(|row| row.1), long(|row| row.2)];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Rows a second with a checkpoint, as a share of those without.
pub(crate) async fn throughput(scale: f64) -> Result<()> {
    let triggers = scaled(100, scale);
    for (keys, bar) in [(1_000, 90.0), (1_000_000, 40.0)] {
        let batches = triggers_of(triggers, LARGE, keys);
        let what = format!("100 k-row triggers from memory, {keys} keys");
        compare(&what, bar, || {
            let batches = &batches;
            async move |folder: Option<&Path>| from_memory(batches, folder).await
        })
        .await?;
    }
    let files = tempfile::tempdir()?;
    write_parquet(files.path(), triggers_of(triggers, LARGE, 1_000_000)).await?;
    compare(
        "100 k-row triggers from Parquet, 1000000 keys",
        60.0,
        || {
            let files = files.path();
            async move |folder: Option<&Path>| from_parquet(files, folder).await
        },
    )
    .await
}

/// Runs with and without a checkpoint in turn, and reports the share.
async fn compare<F: AsyncFn(Option<&Path>) -> Result<f64>>(
    what: &str,
    bar: f64,
    make: impl Fn() -> F,
) -> Result<()> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let plain = make()(None).await?;
        let folder = tempfile::tempdir()?;
        let durable = make()(Some(folder.path())).await?;
        if run > 0 {
            without.push(plain);
            with.push(durable);
        }
    }
    let (without, with) = (median(&mut without), median(&mut with));
    timed(&format!("{what}, no checkpoint"), without);
    timed(&format!("{what}, checkpoint"), with);
    let share = without / with * 100.0;
    report(&format!("{what}: throughput kept"), share, "%", false, bar);
    Ok(())
}

/// Seconds for all triggers.
async fn from_memory(batches: &[RecordBatch], folder: Option<&Path>) -> Result<f64> {
    let session = StreamSession::new();
    let events = MemoryStream::new(&session, COLUMNS)?;
    let query = start(&events.to_frame(), folder).await?;
    let begun = now();
    for batch in batches {
        events.add_batch(batch.clone())?;
        query.process_all_available().await?;
    }
    let took = begun.elapsed().as_secs_f64();
    query.stop().await?;
    Ok(took)
}

/// Seconds from the start to the end of the query.
async fn from_parquet(files: &Path, folder: Option<&Path>) -> Result<f64> {
    let session = StreamSession::new();
    let events = session
        .read_stream()
        .schema(COLUMNS)
        .option("maxFilesPerTrigger", 1)
        .parquet(files.to_string_lossy())
        .await?;
    let begun = now();
    let writer = figures(&events)?.trigger(Trigger::AvailableNow);
    let query = placed(writer, folder).start().await?;
    query.await_termination().await?;
    Ok(begun.elapsed().as_secs_f64())
}

async fn write_parquet(folder: &Path, batches: Vec<RecordBatch>) -> Result<()> {
    let context = SessionContext::new();
    for (number, batch) in batches.into_iter().enumerate() {
        let file = folder.join(format!("{number:04}.parquet"));
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        let rows = context.read_batch(batch)?;
        let file = file.to_string_lossy();
        rows.write_parquet(&file, options, None).await?;
    }
    Ok(())
}

/// 1,000-row triggers over a small and a large state, enough of them that the large one is written out several times.
pub(crate) async fn state_size(scale: f64) -> Result<()> {
    let mut costs = Vec::new();
    for keys in [10_000, 1_000_000] {
        let folder = tempfile::tempdir()?;
        let rig = Rig::filled(scaled(keys, scale), Some(&folder)).await?;
        let batches = triggers_of(100, SMALL, rig.keys);
        let count = scaled(4_000, scale);
        let (begun, cpu) = (now(), cpu_seconds());
        for trigger in 0..count {
            rig.run(&batches[trigger as usize % batches.len()]).await?;
        }
        let per = |seconds: f64| seconds / count as f64 * 1e3;
        let (wall, cpu) = (per(begun.elapsed().as_secs_f64()), per(cpu_seconds() - cpu));
        println!(
            "{:<72} {wall:>9.3} ms   CPU {cpu:.3} ms",
            format!("1,000-row trigger with a checkpoint, {keys} keys, mean")
        );
        rig.query.stop().await?;
        costs.push((wall, cpu));
    }
    let ((small, small_cpu), (large, large_cpu)) = (costs[0], costs[1]);
    let what = "1,000-row trigger with a checkpoint: 1 M keys against 10 k keys";
    report(what, large / small, "×", true, 1.5);
    report(
        &format!("{what}, CPU"),
        large_cpu / small_cpu,
        "×",
        true,
        1.5,
    );
    Ok(())
}

/// The slowest trigger while a state of 10 M keys is written out at least once.
pub(crate) async fn snapshot(scale: f64) -> Result<()> {
    for durable in [false, true] {
        let folder = tempfile::tempdir()?;
        let keys = scaled(10_000_000, scale);
        let rig = Rig::filled(keys, durable.then_some(&folder)).await?;
        let batches = triggers_of(100, SMALL, keys);
        let mut millis = Vec::new();
        // A state is written out once while as many records change as it has.
        for trigger in 0..keys / SMALL * 6 / 5 {
            let start = now();
            rig.run(&batches[trigger as usize % batches.len()]).await?;
            millis.push(start.elapsed().as_secs_f64() * 1e3);
        }
        rig.query.stop().await?;
        let (middle, slowest) = (median(&mut millis), quantile(&mut millis, 1.0));
        let p999 = quantile(&mut millis, 0.999);
        let what = if durable {
            "a checkpoint"
        } else {
            "no checkpoint"
        };
        println!(
            "{:<72} {middle:>9.3} ms   p99.9 {p999:.3} ms",
            format!("1,000-row trigger, 10 M keys, {what}, median")
        );
        let stall = slowest - middle;
        if durable {
            let what = "10 M keys written out: the slowest trigger over the median";
            report(what, stall, "ms", true, 20.0);
        } else {
            println!("{:<72} {stall:>9.3} ms", "  the slowest over the median");
        }
    }
    Ok(())
}

/// A query with a state of so many keys.
pub(crate) struct Rig {
    events: MemoryStream,
    keys: i64,
    pub(crate) query: StreamingQuery,
}

impl Rig {
    /// Starts a query and puts `keys` keys into its state.
    pub(crate) async fn filled(keys: i64, folder: Option<&TempDir>) -> Result<Self> {
        let session = StreamSession::new();
        let events = MemoryStream::new(&session, COLUMNS)?;
        let query = start(&events.to_frame(), folder.map(TempDir::path)).await?;
        let rig = Self {
            events,
            keys,
            query,
        };
        for first in (0..keys).step_by(LARGE as usize) {
            rig.run(&rows(first..keys.min(first + LARGE), |i| i))
                .await?;
        }
        Ok(rig)
    }

    /// Runs one trigger.
    pub(crate) async fn run(&self, rows: &RecordBatch) -> Result<()> {
        self.events.add_batch(rows.clone())?;
        self.query.process_all_available().await
    }

    /// Stops the query and starts it again; seconds that the start took.
    pub(crate) async fn restart(&mut self, folder: &TempDir) -> Result<f64> {
        self.query.stop().await?;
        let begun = now();
        self.query = start(&self.events.to_frame(), Some(folder.path())).await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// Five figures of each key, into nothing.
fn figures(events: &StreamFrame) -> Result<DataStreamWriter> {
    let frame = events.clone().group_by([col("k")]).agg([
        count_all().alias("n"),
        sum(col("v")).alias("s"),
        min(col("v")).alias("lo"),
        max(col("v")).alias("hi"),
        avg(col("d")).alias("a"),
    ])?;
    let writer = frame.write_stream().output_mode(OutputMode::Update);
    Ok(writer.format("noop"))
}

fn placed(writer: DataStreamWriter, folder: Option<&Path>) -> DataStreamWriter {
    match folder {
        Some(folder) => writer.checkpoint_location(folder.to_string_lossy()),
        None => writer,
    }
}

async fn start(events: &StreamFrame, folder: Option<&Path>) -> Result<StreamingQuery> {
    placed(figures(events)?, folder).start().await
}

/// So many triggers of `rows` rows, the keys in no order.
pub(crate) fn triggers_of(triggers: i64, rows_each: i64, keys: i64) -> Vec<RecordBatch> {
    let scatter = |i: i64| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as i64 % keys;
    let firsts = (0..triggers).map(|trigger| trigger * rows_each);
    firsts
        .map(|first| rows(first..first + rows_each, scatter))
        .collect()
}

fn rows(numbers: std::ops::Range<i64>, key: impl Fn(i64) -> i64) -> RecordBatch {
    let schema = highwater::parse_schema(COLUMNS).expect("three columns");
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone()));
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.map(key)));
    let columns = vec![keys, Arc::clone(&values), values];
    RecordBatch::try_new(Arc::new(schema), columns).expect("three columns of the schema")
}

/// `full`, or the share of it that a trial asks for.
pub(crate) fn scaled(full: i64, scale: f64) -> i64 {
    ((full as f64 * scale) as i64).max(20)
}
