//! The examples' queries over the bundled data give DataFusion's batch figures over the same files.
//!
//! `HIGHWATER_RETAIL` and `HIGHWATER_SENSORS` name other folders with files of the same columns.

use highwater::Result;
use highwater::datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use highwater::prelude::*;
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::{Harness, Row, value};

#[path = "../../examples/retail.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod retail;

#[path = "../../examples/sensors.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod sensors;

const RETAIL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/retail/by-day");
const SENSORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sensors");

fn folder(variable: &str, bundled: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| bundled.to_owned())
}

async fn streamed(frame: StreamFrame, mode: OutputMode) -> Result<Vec<Row>> {
    let mut harness = Harness::new(frame, mode)?.with_trigger(Trigger::AvailableNow);
    harness.start().await?.await_termination().await?;
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

#[tokio::test]
async fn retail_spending_is_the_batch_answer() -> Result<()> {
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
    let readings = sensors::readings(&StreamSession::new(), &folder).await?;
    let alerting = sensors::alerts(readings.clone())?;
    assert_same(&alerts, &streamed(alerting, OutputMode::Append).await?);
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
