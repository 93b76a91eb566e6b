//! Event time against DataFusion's batch, CPU against CPU: tumbling and sliding windows, deduplication.
//!
//! 10 M rows of one day in memory, in order of time, in 100 triggers of 100,000 rows, one pinned core, median
//! of 5. Bars: tumbling windows in append mode over 1 k keys at most 1.5 × the batch's `GROUP BY date_bin(…), k`;
//! sliding windows of 12 slides at most 2 × the tumbling ones of the same rows; deduplication of 1 M keys
//! within the watermark at most 1.5 × the batch's DISTINCT of the same rows.

use std::sync::Arc;

use highwater::datafusion::arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::prelude::*;

use crate::support::{batch_cpu, median, report, stream_cpu, timed};

const TRIGGERS: i64 = 100;
const ROWS: i64 = 100_000;
const RUNS: usize = 5;
/// 10 M rows in a day.
const STEP_US: i64 = 8_640;

const BATCH_WINDOWS: &str = "SELECT date_bin(INTERVAL '1 hour', ts) AS hour, k, count(*) AS n, sum(v) AS s, \
    max(v) AS hi FROM events GROUP BY 1, 2";

pub(crate) async fn windows() -> highwater::Result<()> {
    let schema = highwater::parse_schema("ts TIMESTAMP, k BIGINT, v BIGINT").map(Arc::new)?;
    let data = data(&schema, 1_000);
    let windows = |spec: &'static str| {
        let data = &data;
        let schema = &schema;
        async move {
            stream_cpu(schema, data, OutputMode::Append, |events| {
                let key = match spec {
                    "tumbling" => window(col("ts"), "1 hour"),
                    _ => window(col("ts"), sliding("1 hour", "5 minutes")),
                };
                events
                    .with_watermark("ts", "10 seconds")?
                    .group_by([key, col("k")])
                    .agg([
                        count_all().alias("n"),
                        sum(col("v")).alias("s"),
                        max(col("v")).alias("hi"),
                    ])
            })
            .await
        }
    };
    let (mut batch, mut tumbling, mut slide) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let figures = [
            batch_cpu(&schema, &data, BATCH_WINDOWS).await?,
            windows("tumbling").await?,
            windows("sliding").await?,
        ];
        if run > 0 {
            batch.push(figures[0]);
            tumbling.push(figures[1]);
            slide.push(figures[2]);
        }
    }
    let (batch, tumbling) = (median(&mut batch), median(&mut tumbling));
    let slide = median(&mut slide);
    timed(
        "DataFusion batch, 10 M rows, hour and 1,000 keys, CPU",
        batch,
    );
    timed(
        "tumbling windows of an hour, append, 1,000 keys, CPU",
        tumbling,
    );
    timed(
        "sliding windows of 12 slides, append, 1,000 keys, CPU",
        slide,
    );
    report(
        "tumbling append against batch",
        tumbling / batch,
        "×",
        true,
        1.5,
    );
    report(
        "12 slides against tumbling",
        slide / tumbling,
        "×",
        true,
        2.0,
    );
    Ok(())
}

pub(crate) async fn dedup() -> highwater::Result<()> {
    let schema = highwater::parse_schema("ts TIMESTAMP, k BIGINT, v BIGINT").map(Arc::new)?;
    let data = data(&schema, 1_000_000);
    let (mut batch, mut stream) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let distinct = batch_cpu(&schema, &data, "SELECT DISTINCT k FROM events").await?;
        let dedup = stream_cpu(&schema, &data, OutputMode::Append, |events| {
            events
                .with_watermark("ts", "1 day")?
                .drop_duplicates_within_watermark(&["k"])?
                .select_columns(&["k"])
        })
        .await?;
        if run > 0 {
            batch.push(distinct);
            stream.push(dedup);
        }
    }
    let (batch, stream) = (median(&mut batch), median(&mut stream));
    timed(
        "DataFusion batch DISTINCT, 10 M rows, 1,000,000 keys, CPU",
        batch,
    );
    timed("deduplication within the watermark, CPU", stream);
    report(
        "deduplication against batch DISTINCT",
        stream / batch,
        "×",
        true,
        1.5,
    );
    Ok(())
}

/// The rows of each trigger: one every 8.64 ms, the keys in no order.
fn data(schema: &SchemaRef, keys: i64) -> Vec<RecordBatch> {
    let scatter = |i: i64| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as i64 % keys;
    (0..TRIGGERS)
        .map(|trigger| {
            let numbers = trigger * ROWS..(trigger + 1) * ROWS;
            let start = 1_714_521_600_000_000;
            let times = numbers.clone().map(|i| start + i * STEP_US);
            let columns = vec![
                Arc::new(TimestampMicrosecondArray::from_iter_values(times)) as _,
                Arc::new(Int64Array::from_iter_values(numbers.clone().map(scatter))) as _,
                Arc::new(Int64Array::from_iter_values(numbers)) as _,
            ];
            RecordBatch::try_new(Arc::clone(schema), columns).expect("three columns of the schema")
        })
        .collect()
}
