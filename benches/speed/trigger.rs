//! Time per trigger: of one row, and against the size of the state.
//!
//! Bars: a one-row trigger of a windowed aggregate into the
//! memory sink, wake-up included, takes at most 80 µs (p50); 1,000-row triggers over 1 M keys of
//! state take at most twice the time of those over 1 k keys.

use std::sync::Arc;

use crate::support::{cpu_seconds, median, now, quantile, report};
use highwater::prelude::*;

use highwater::datafusion::arrow::array::{
    ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use highwater::datafusion::arrow::datatypes::{DataType, SchemaRef};

const ONE_ROW_TRIGGERS: usize = 20_000;
const TRIGGERS: i64 = 10_000;
const ROWS: i64 = 1_000;
const RUNS: usize = 5;

/// From `add_batch` to the row being visible in the memory sink.
pub(crate) async fn one_row_triggers() -> highwater::Result<()> {
    let session = StreamSession::new();
    let readings = MemoryStream::new(&session, "ts TIMESTAMP, pump BIGINT, psi BIGINT")?;
    let query = readings
        .to_frame()
        .group_by([window(col("ts"), "10 seconds"), col("pump")])
        .agg([count_all().alias("n"), min(col("psi")).alias("low")])?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("memory")
        .query_name("one_row")
        .start()
        .await?;
    let mut micros = Vec::with_capacity(ONE_ROW_TRIGGERS);
    for i in 0..ONE_ROW_TRIGGERS as i64 {
        let row = rows(readings.schema(), i..i + 1, |i| {
            [1_700_000_000_000_000 + i * 1_000, i % 10, i]
        });
        let start = now();
        readings.add_batch(row)?;
        query.process_all_available().await?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    query.stop().await?;
    let warm = &mut micros[ONE_ROW_TRIGGERS / 10..];
    report(
        "one-row trigger, windowed aggregate, memory sink, p50",
        median(warm),
        "µs",
        true,
        80.0,
    );
    println!("{:<72} {:>9.2} µs", "  p99", quantile(warm, 0.99));
    Ok(())
}

/// 10,000 triggers of 1,000 rows over a small and a large state.
pub(crate) async fn state_size() -> highwater::Result<()> {
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        small.push(per_trigger(1_000).await?);
        large.push(per_trigger(1_000_000).await?);
    }
    let (small, large) = (median(&mut small), median(&mut large));
    println!(
        "{:<72} {small:>9.2} µs",
        "1,000-row trigger, 1 k keys of state, CPU"
    );
    println!(
        "{:<72} {large:>9.2} µs",
        "1,000-row trigger, 1 M keys of state, CPU"
    );
    report(
        "1,000-row trigger: 1 M keys against 1 k keys",
        large / small,
        "×",
        true,
        2.0,
    );
    Ok(())
}

/// CPU µs per trigger once `keys` keys are in the state.
async fn per_trigger(keys: i64) -> highwater::Result<f64> {
    let session = StreamSession::new();
    let events = MemoryStream::new(&session, "k BIGINT, v BIGINT, d BIGINT")?;
    let query = events
        .to_frame()
        .group_by([col("k")])
        .agg([
            count_all().alias("n"),
            sum(col("v")).alias("s"),
            min(col("v")).alias("lo"),
            max(col("v")).alias("hi"),
            avg(col("d")).alias("a"),
        ])?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("noop")
        .start()
        .await?;
    let schema = Arc::clone(events.schema());
    for first in (0..keys).step_by(100_000) {
        events.add_batch(rows(&schema, first..keys.min(first + 100_000), |i| {
            [i, i, i]
        }))?;
    }
    query.process_all_available().await?;
    let batches: Vec<RecordBatch> = (0..TRIGGERS)
        .map(|t| {
            rows(&schema, t * ROWS..(t + 1) * ROWS, |i| {
                [scatter(i) % keys, i, i]
            })
        })
        .collect();
    let start = cpu_seconds();
    for batch in batches {
        events.add_batch(batch)?;
        query.process_all_available().await?;
    }
    let used = cpu_seconds() - start;
    query.stop().await?;
    Ok(used / TRIGGERS as f64 * 1e6)
}

/// Spreads consecutive numbers over all keys, the same way each time.
fn scatter(i: i64) -> i64 {
    ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as i64
}

/// Rows of three columns; the first is a time where the schema says so.
fn rows(
    schema: &SchemaRef,
    range: std::ops::Range<i64>,
    row: impl Fn(i64) -> [i64; 3],
) -> RecordBatch {
    let column = |c: usize| range.clone().map(|i| row(i)[c]).collect::<Vec<_>>();
    let first: ArrayRef = if schema.field(0).data_type() == &DataType::Int64 {
        Arc::new(Int64Array::from_iter_values(column(0)))
    } else {
        Arc::new(TimestampMicrosecondArray::from_iter_values(column(0)))
    };
    let columns = vec![
        first,
        Arc::new(Int64Array::from_iter_values(column(1))) as _,
        Arc::new(Int64Array::from_iter_values(column(2))) as _,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("three columns of the schema")
}
