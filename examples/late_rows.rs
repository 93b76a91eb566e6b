//! What you learn: a watermark and what it does to rows that come late: they are left out of the windows they missed,
//! and `late_rows_to` keeps them in a table, so that they are never lost in silence.
//!
//! `cargo run --release --example late_rows`

use highwater::Result;
use highwater::prelude::*;

/// What comes, one micro-batch a line; the windows are 10 seconds long and the watermark stays 10 seconds behind.
pub(crate) const ARRIVALS: [&[(&str, &str, f64)]; 3] = [
    // The watermark goes to 12:00:15: the window from 12:00:00 is over and comes out.
    &[
        ("2024-05-01 12:00:03", "ALDER", 91.0),
        ("2024-05-01 12:00:08", "ALDER", 90.0),
        ("2024-05-01 12:00:25", "BIRCH", 88.0),
    ],
    // 12:00:09 is late: its window is gone. 12:00:12 is behind the watermark and counts: its window is open.
    &[
        ("2024-05-01 12:00:09", "ALDER", 0.1),
        ("2024-05-01 12:00:12", "ALDER", 92.0),
        ("2024-05-01 12:00:40", "BIRCH", 87.0),
    ],
    // The watermark stands at 12:00:30: both are late.
    &[
        ("2024-05-01 12:00:14", "ALDER", 0.2),
        ("2024-05-01 12:00:29", "BIRCH", 0.3),
        ("2024-05-01 12:00:55", "BIRCH", 86.0),
    ],
];

/// Readings of each pump in each 10 seconds, once they are over.
pub(crate) fn counts(readings: StreamFrame) -> Result<StreamFrame> {
    readings
        .with_watermark("ts", "10 seconds")?
        .group_by([window(col("ts"), "10 seconds"), col("pump")])
        .agg([count_all().alias("readings"), min(col("psi")).alias("low")])?
        .select_exprs(&["window.start AS start", "pump", "readings", "low"])
}

#[tokio::main]
async fn main() -> Result<()> {
    let session = StreamSession::new();
    let readings = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING, psi DOUBLE")?;
    let query = counts(readings.to_frame())?
        .write_stream()
        .format("memory")
        .query_name("counts")
        .late_rows_to("late")
        .start()
        .await?;
    for rows in ARRIVALS {
        readings.add_data(rows.iter().copied())?;
        query.process_all_available().await?;
    }

    session
        .sql("SELECT * FROM counts ORDER BY start, pump")
        .await?
        .show()
        .await?;
    session
        .sql("SELECT * FROM late ORDER BY _batch_id, psi")
        .await?
        .show()
        .await?;
    query.stop().await
}
