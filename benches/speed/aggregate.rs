//! A streaming aggregate against the same query run by DataFusion as one batch, CPU against CPU.
//!
//! 10 M rows in memory, 100 triggers of 100,000 rows, five
//! aggregates, update mode with every changed key emitted, one pinned core, median of 5. Bars: at
//! most 1.6 × the batch's CPU with 1 M keys, at most 2.0 × with 1 k keys.

use std::sync::Arc;

use crate::support::{cpu_seconds, median, report};
use highwater::datafusion::arrow::array::{Float64Array, Int64Array, RecordBatch};
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::datafusion::datasource::MemTable;
use highwater::datafusion::prelude::{SessionConfig, SessionContext};
use highwater::prelude::*;

const TRIGGERS: i64 = 100;
const ROWS: i64 = 100_000;
const BATCH_ROWS: usize = 8_192;
const RUNS: usize = 5;
const QUERY: &str = "SELECT k, count(*) AS n, sum(v) AS s, min(v) AS lo, max(v) AS hi, avg(d) AS a \
    FROM events GROUP BY k";

pub(crate) async fn against_batch() -> highwater::Result<()> {
    compare(1_000_000, 1.6).await?;
    compare(1_000, 2.0).await
}

async fn compare(keys: i64, bar: f64) -> highwater::Result<()> {
    let schema = highwater::parse_schema("k BIGINT, v BIGINT, d DOUBLE").map(Arc::new)?;
    let data: Vec<RecordBatch> = (0..TRIGGERS)
        .map(|t| rows(&schema, t * ROWS, keys))
        .collect();
    let (mut batch, mut stream) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let batch_cpu = batch_cpu(&schema, &data).await?;
        let stream_cpu = stream_cpu(&schema, &data).await?;
        if run > 0 {
            batch.push(batch_cpu);
            stream.push(stream_cpu);
        }
    }
    let (batch, stream) = (median(&mut batch), median(&mut stream));
    println!(
        "{:<72} {batch:>9.3} s",
        format!("DataFusion batch, 10 M rows, {keys} keys, CPU")
    );
    println!(
        "{:<72} {stream:>9.3} s",
        format!("Highwater, 100 triggers, {keys} keys, CPU")
    );
    report(
        &format!("streaming against batch, {keys} keys"),
        stream / batch,
        "×",
        true,
        bar,
    );
    Ok(())
}

/// One batch query over all rows, on one partition.
async fn batch_cpu(schema: &SchemaRef, data: &[RecordBatch]) -> highwater::Result<f64> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let pieces = data.iter().flat_map(pieces).collect();
    ctx.register_table(
        "events",
        Arc::new(MemTable::try_new(Arc::clone(schema), vec![pieces])?),
    )?;
    let start = cpu_seconds();
    let answer = ctx.sql(QUERY).await?.collect().await?;
    let used = cpu_seconds() - start;
    assert!(!answer.is_empty(), "the batch answered");
    Ok(used)
}

/// The same rows, one trigger after the other.
async fn stream_cpu(schema: &SchemaRef, data: &[RecordBatch]) -> highwater::Result<f64> {
    let session = StreamSession::new();
    let events = MemoryStream::new(&session, schema)?;
    events.to_frame().create_or_replace_temp_view("events")?;
    let query = session
        .sql(QUERY)
        .await?
        .write_stream()
        .output_mode(OutputMode::Update)
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

/// 100,000 rows from row number `first` on, the keys in no order.
fn rows(schema: &SchemaRef, first: i64, keys: i64) -> RecordBatch {
    let scatter = |i: i64| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as i64 % keys;
    let numbers = first..first + ROWS;
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(numbers.clone().map(scatter))) as _,
        Arc::new(Int64Array::from_iter_values(numbers.clone())) as _,
        Arc::new(Float64Array::from_iter_values(numbers.map(|i| i as f64))) as _,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("three columns of the schema")
}
