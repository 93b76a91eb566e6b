//! The examples' queries over the bundled data give DataFusion's batch figures over the same files.
//!
//! `HIGHWATER_RETAIL` and `HIGHWATER_SENSORS` name other folders with files of the same columns.

use highwater::Result;
use highwater::datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use highwater::prelude::*;
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::{Harness, Row, TestStream, Value, row, value};

#[path = "../../examples/late_rows.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod late_rows;

#[path = "../../examples/retail.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod retail;

#[path = "../../examples/sensors.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod sensors;

#[path = "../../examples/sessions.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod sessions;

const RETAIL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/retail/by-day");
const SENSORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sensors");

fn folder(variable: &str, bundled: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| bundled.to_owned())
}

async fn streamed(frame: StreamFrame, mode: OutputMode) -> Result<Vec<Row>> {
    let mut harness = Harness::new(frame, mode)?.with_trigger(Trigger::AvailableNow);
    harness.finish().await?;
    match mode {
        OutputMode::Complete => harness.last(),
        _ => Ok(harness.take_new()?.concat()),
    }
}

async fn batch(context: &SessionContext, sql: &str) -> Result<Vec<Row>> {
    value::rows(&context.sql(sql).await?.collect().await?)
}

fn assert_same(expected: &[Row], actual: &[Row]) {
    assert!(!expected.is_empty());
    assert_eq!(difference(expected, actual, false), None);
}

/// The retail files as a table `retail` of a batch session.
async fn retail_table() -> Result<SessionContext> {
    let context = SessionContext::new();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let schema = schema(&[
        ("invoiceno", DataType::Utf8View),
        ("stockcode", DataType::Utf8View),
        ("description", DataType::Utf8View),
        ("quantity", DataType::Int64),
        ("invoicedate", time),
        ("unitprice", DataType::Float64),
        ("customerid", DataType::Float64),
        ("country", DataType::Utf8View),
    ]);
    let files = CsvReadOptions::new().has_header(true).schema(&schema);
    let folder = folder("HIGHWATER_RETAIL", RETAIL);
    context.register_csv("retail", &folder, files).await?;
    Ok(context)
}

#[tokio::test]
async fn retail_spending_is_the_batch_answer() -> Result<()> {
    let context = retail_table().await?;
    let folder = folder("HIGHWATER_RETAIL", RETAIL);
    let expected = batch(
        &context,
        "SELECT customerid, date_trunc('day', invoicedate) AS day,
                sum(unitprice * quantity) AS spent, count(*) AS lines
         FROM retail GROUP BY 1, 2",
    )
    .await?;
    let frame = retail::spending(&StreamSession::new(), &folder).await?;
    assert_same(&expected, &streamed(frame, OutputMode::Complete).await?);
    Ok(())
}

#[tokio::test]
async fn visits_are_the_batch_answer() -> Result<()> {
    // A visit begins where the purchase before is more than an hour ago; equal times are one instant.
    let expected = batch(
        &retail_table().await?,
        "WITH buys AS (
           SELECT customerid, invoicedate, unitprice * quantity AS cost,
                  CASE WHEN invoicedate <= lag(invoicedate) OVER w + INTERVAL '1' HOUR
                       THEN 0 ELSE 1 END AS begins
           FROM retail WHERE customerid IS NOT NULL
           WINDOW w AS (PARTITION BY customerid ORDER BY invoicedate)),
         numbered AS (
           SELECT *, sum(begins) OVER (PARTITION BY customerid ORDER BY invoicedate) AS visit
           FROM buys)
         SELECT customerid, min(invoicedate), max(invoicedate) + INTERVAL '1' HOUR,
                sum(cost), count(*)
         FROM numbered GROUP BY customerid, visit",
    )
    .await?;
    let folder = folder("HIGHWATER_RETAIL", RETAIL);
    let visits = sessions::visits(&StreamSession::new(), &folder).await?;
    let mut harness = Harness::new(visits, OutputMode::Append)?
        .with_trigger(Trigger::AvailableNow)
        .with_writer(|writer| writer.option("flushOnEnd", true));
    harness.finish().await?;
    assert_same(&expected, &harness.take_new()?.concat());
    Ok(())
}

#[tokio::test]
async fn the_rows_that_the_example_calls_late_are() -> Result<()> {
    let session = StreamSession::new();
    let readings = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING, psi DOUBLE")?;
    let counts = late_rows::counts(readings.to_frame())?;
    let mut script = TestStream::new(counts, OutputMode::Append)?
        .with_writer(|writer| writer.late_rows_to("late"));
    for rows in late_rows::ARRIVALS {
        script = script.add_data(&readings, rows.iter().copied()).process();
    }
    let at = |second: u32| Value::time(&format!("2024-05-01 12:00:{second:02}"));
    script
        .check_new([
            row![at(0), "ALDER", 2, 90.0],
            row![at(10), "ALDER", 1, 92.0],
            row![at(20), "BIRCH", 1, 88.0],
        ])
        .check_late(3)
        .check_watermark("2024-05-01 12:00:45")
        .check_sql(
            &session,
            "SELECT psi FROM late",
            [row![0.1], row![0.2], row![0.3]],
        )
        .run()
        .await
}

#[tokio::test]
async fn sensor_figures_are_the_batch_answer() -> Result<()> {
    let context = SessionContext::new();
    let mut columns = vec![
        ("resid", DataType::Utf8View),
        ("date", DataType::Utf8View),
        ("time", DataType::Utf8View),
    ];
    for name in ["hz", "disp", "flo", "sedppm", "psi", "chlppm"] {
        columns.push((name, DataType::Float64));
    }
    let schema = schema(&columns);
    let files = CsvReadOptions::new().has_header(false).schema(&schema);
    let folder = folder("HIGHWATER_SENSORS", SENSORS);
    context
        .register_csv("readings", &format!("{folder}/sensordata.csv"), files)
        .await?;
    let alerts = batch(
        &context,
        "SELECT resid, date, time, psi FROM readings WHERE psi < 0.5",
    )
    .await?;
    let daily = batch(
        &context,
        "SELECT resid, date, count(*), avg(hz), avg(flo), min(psi), max(psi), max(sedppm)
         FROM readings GROUP BY 1, 2",
    )
    .await?;
    let session = StreamSession::new();
    let readings = sensors::readings(&session, &folder).await?;
    let alerting = sensors::alerts(readings.clone())?;
    let streamed_alerts = streamed(alerting.clone(), OutputMode::Append).await?;
    assert_same(&alerts, &streamed_alerts);
    let vendors = "resid STRING, pump STRING, purchased STRING, installed STRING, vendor STRING, \
                   latitude DOUBLE, longitude DOUBLE";
    let vendors = highwater::parse_schema(vendors)?;
    let files = CsvReadOptions::new().has_header(false).schema(&vendors);
    context
        .register_csv("vendors", &format!("{folder}/sensorvendor.csv"), files)
        .await?;
    let known = batch(
        &context,
        "SELECT r.resid, date, time, psi, pump, vendor FROM readings r
         LEFT JOIN vendors v ON r.resid = v.resid WHERE psi < 0.5",
    )
    .await?;
    let alerting = sensors::with_vendor(&session, &folder, alerting).await?;
    assert_same(&known, &streamed(alerting, OutputMode::Append).await?);
    let counting = sensors::daily(readings)?;
    assert_same(&daily, &streamed(counting, OutputMode::Complete).await?);
    Ok(())
}

fn schema(columns: &[(&str, DataType)]) -> Schema {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
        .collect();
    Schema::new(fields)
}

#[test]
fn the_bundled_data_is_what_the_generator_writes() {
    for file in highwater_testkit::data::files() {
        let path = format!("{}/data/{}", env!("CARGO_MANIFEST_DIR"), file.path);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, file.text, "{}", file.path);
    }
}
