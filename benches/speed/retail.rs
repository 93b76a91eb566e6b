//! Retail by day, one file a trigger, against DataFusion reading the same files in one batch.
//!
//! The folder holds one CSV a day; without one a data set of the same shape is generated (305 days).
//! Bar: at least a third of the rows per second that
//! DataFusion's batch reaches, warm cache, no checkpoint, update mode.

use std::path::Path;

use crate::support::{median, now, report};
use highwater::datafusion::arrow::array::Int64Array;
use highwater::datafusion::prelude::CsvReadOptions;
use highwater::prelude::*;

const RUNS: usize = 5;
const SCHEMA: &str = "invoiceno STRING, stockcode STRING, description STRING, quantity BIGINT, \
    invoicedate TIMESTAMP, unitprice DOUBLE, customerid DOUBLE, country STRING";
const QUERY: &str = "SELECT customerid, date_trunc('day', invoicedate) AS day, \
    sum(quantity * unitprice) AS spent, count(*) AS lines FROM retail GROUP BY customerid, date_trunc('day', invoicedate)";

pub(crate) async fn against_batch(dir: Option<&Path>) -> highwater::Result<()> {
    if let Some(dir) = dir {
        return compare(dir).await;
    }
    let generated = tempfile::tempdir()?;
    let folder = generated.path().join("retail/by-day");
    std::fs::create_dir_all(&folder)?;
    for file in highwater_testkit::data::retail_days(305, 1_777, 7) {
        std::fs::write(generated.path().join(&file.path), &file.text)?;
    }
    compare(&folder).await
}

async fn compare(dir: &Path) -> highwater::Result<()> {
    let (mut batch, mut stream, mut rows) = (Vec::new(), Vec::new(), 0);
    for run in 0..=RUNS {
        let (batch_seconds, counted) = batch_seconds(dir).await?;
        let stream_seconds = stream_seconds(dir).await?;
        if run > 0 {
            batch.push(batch_seconds);
            stream.push(stream_seconds);
            rows = counted;
        }
    }
    let (batch, stream) = (median(&mut batch), median(&mut stream));
    println!("{rows} rows in {} files", std::fs::read_dir(dir)?.count());
    println!(
        "{:<72} {:>9.0} rows/s",
        "DataFusion, one batch over all files",
        rows as f64 / batch
    );
    println!(
        "{:<72} {:>9.0} rows/s",
        "Highwater, one file a trigger, update mode",
        rows as f64 / stream
    );
    report(
        "rows per second against the batch",
        batch / stream,
        "×",
        false,
        1.0 / 3.0,
    );
    Ok(())
}

/// One batch query over all files, and the rows it read.
async fn batch_seconds(dir: &Path) -> highwater::Result<(f64, i64)> {
    let session = StreamSession::new();
    let schema = highwater::parse_schema(SCHEMA)?;
    let options = CsvReadOptions::new().schema(&schema).has_header(true);
    session
        .context()
        .register_csv("retail", dir.to_string_lossy(), options)
        .await?;
    let start = now();
    let answer = session.context().sql(QUERY).await?.collect().await?;
    let seconds = start.elapsed().as_secs_f64();
    let lines = answer.iter().map(|b| {
        let counts = b.column(3).as_any().downcast_ref::<Int64Array>();
        counts.map_or(0, |c| c.values().iter().sum::<i64>())
    });
    Ok((seconds, lines.sum()))
}

/// The same as a stream, one file a trigger.
async fn stream_seconds(dir: &Path) -> highwater::Result<f64> {
    let session = StreamSession::new();
    session
        .read_stream()
        .schema(SCHEMA)
        .option("header", true)
        .option("maxFilesPerTrigger", 1)
        .csv(dir.to_string_lossy())
        .await?
        .create_or_replace_temp_view("retail")?;
    let frame = session.sql(QUERY).await?;
    let start = now();
    frame
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("noop")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?
        .await_termination()
        .await?;
    Ok(start.elapsed().as_secs_f64())
}
