//! What you learn: two queries over one folder: rows that pass a filter go to the console as they
//! come, and statistics by pump and day grow in a table.
//!
//! `cargo run --release --example sensors [-- FOLDER]`, by default on the small data set in `data/`.

use highwater::Result;
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

    let alerting = alerts(readings.clone())?
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
