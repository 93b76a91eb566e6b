//! What you learn: two queries over one folder: rows that pass a filter go to the console as they
//! come, with the vendor of the pump from a static table, and statistics by pump and day grow in a table.
//!
//! `cargo run --release --example sensors [-- FOLDER]`, by default on the small data set in `data/`.

use highwater::Result;
use highwater::datafusion::arrow::datatypes::Schema;
use highwater::datafusion::common::JoinType;
use highwater::prelude::*;

const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sensors");

/// The columns of a reading; the files have no header.
const COLUMNS: &str = "resid STRING, date STRING, time STRING, hz DOUBLE, disp DOUBLE, \
                       flo DOUBLE, sedppm DOUBLE, psi DOUBLE, chlppm DOUBLE";

/// Every reading of every pump. The folder may hold other files too.
pub(crate) async fn readings(session: &StreamSession, folder: &str) -> Result<StreamFrame> {
    session
        .read_stream()
        .schema(COLUMNS)
        .option("pathGlobFilter", "sensordata*.csv")
        .csv(folder)
        .await
}

/// Readings of a pump that has lost its pressure.
pub(crate) fn alerts(readings: StreamFrame) -> Result<StreamFrame> {
    readings
        .filter(col("psi").lt(lit(0.5)))?
        .select_columns(&["resid", "date", "time", "psi"])
}

/// Who made which pump; this file has no header either.
const PUMPS: &str = "resid STRING, pump STRING, purchased STRING, installed STRING, vendor STRING, \
                     latitude DOUBLE, longitude DOUBLE";

/// Alerts with what is known of the pump. The table is read once, and again when its file has changed.
pub(crate) async fn with_vendor(
    session: &StreamSession,
    folder: &str,
    alerts: StreamFrame,
) -> Result<StreamFrame> {
    let schema: Schema = highwater::parse_schema(PUMPS)?;
    let options = CsvReadOptions::new().has_header(false).schema(&schema);
    let path = format!("{folder}/sensorvendor.csv");
    let pumps = session.context().read_csv(path, options).await?;
    let pumps = pumps.select_columns(&["resid", "pump", "vendor"])?;
    alerts.join_using(pumps, JoinType::Left, &["resid"])
}

/// What each pump did on each day.
pub(crate) fn daily(readings: StreamFrame) -> Result<StreamFrame> {
    readings.group_by([col("resid"), col("date")]).agg([
        count_all().alias("readings"),
        avg(col("hz")).alias("hz"),
        avg(col("flo")).alias("flow"),
        min(col("psi")).alias("low"),
        max(col("psi")).alias("high"),
        max(col("sedppm")).alias("sediment"),
    ])
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| BUNDLED.into());
    let session = StreamSession::new();
    let readings = readings(&session, &folder).await?;

    let alerting = with_vendor(&session, &folder, alerts(readings.clone())?)
        .await?
        .write_stream()
        .format("console")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;
    let counting = daily(readings)?
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name("daily")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;

    alerting.await_termination().await?;
    counting.await_termination().await?;
    session
        .sql("SELECT * FROM daily ORDER BY resid, date")
        .await?
        .show()
        .await
}
