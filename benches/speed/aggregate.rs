//! A streaming aggregate against the same query run by DataFusion as one batch, CPU against CPU.
//!
//! 10 M rows in memory, 100 triggers of 100,000 rows, five
//! aggregates, update mode with every changed key emitted, one pinned core, median of 5. Bars: at
//! most 1.6 × the batch's CPU with 1 M keys, at most 2.0 × with 1 k keys.

use std::sync::Arc;

use crate::support::{batch_cpu, median, report, stream_cpu, timed};
use highwater::datafusion::arrow::array::{Float64Array, Int64Array, RecordBatch};
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::prelude::*;

const TRIGGERS: i64 = 100;
const ROWS: i64 = 100_000;
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
        let batch_cpu = batch_cpu(&schema, &data, QUERY).await?;
        let stream_cpu = stream_cpu(&schema, &data, OutputMode::Update, |events| {
            events.group_by([col("k")]).agg([
                count_all().alias("n"),
                sum(col("v")).alias("s"),
                min(col("v")).alias("lo"),
                max(col("v")).alias("hi"),
                avg(col("d")).alias("a"),
            ])
        })
        .await?;
        if run > 0 {
            batch.push(batch_cpu);
            stream.push(stream_cpu);
        }
    }
    let (batch, stream) = (median(&mut batch), median(&mut stream));
    timed(
        &format!("DataFusion batch, 10 M rows, {keys} keys, CPU"),
        batch,
    );
    timed(
        &format!("Highwater, 100 triggers, {keys} keys, CPU"),
        stream,
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
