//! What you learn: a folder of CSV files as a stream, one file a trigger; an aggregate that grows;
//! its whole result in a table that SQL asks while the query runs.
//!
//! `cargo run --release --example retail [-- FOLDER]`, by default on the small data set in `data/`.

use highwater::Result;
use highwater::prelude::*;

const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/retail/by-day");

/// The columns of every file, in the order of its header.
const COLUMNS: &str = "InvoiceNo STRING, StockCode STRING, Description STRING, Quantity BIGINT, \
                       InvoiceDate TIMESTAMP, UnitPrice DOUBLE, CustomerID DOUBLE, Country STRING";

/// What each customer spends on each day.
pub(crate) async fn spending(session: &StreamSession, folder: &str) -> Result<StreamFrame> {
    session
        .read_stream()
        .schema(COLUMNS)
        .option("header", true)
        .option("maxFilesPerTrigger", 1)
        .csv(folder)
        .await?
        .select_exprs(&["customerid", "invoicedate", "unitprice * quantity AS cost"])?
        .group_by([col("customerid"), window(col("invoicedate"), "1 day")])
        .agg([sum(col("cost")).alias("spent"), count_all().alias("lines")])?
        .select_exprs(&["customerid", "window.start AS day", "spent", "lines"])
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| BUNDLED.into());
    let session = StreamSession::new();
    let query = spending(&session, &folder)
        .await?
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name("spending")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;

    // The table `spending` is there from the start and grows with every file.
    while !query.await_termination_timeout("250 ms").await? {
        show(
            &session,
            "SELECT count(DISTINCT day) AS days, sum(lines) AS lines FROM spending",
        )
        .await?;
    }
    show(
        &session,
        "SELECT customerid, day, round(spent, 2) AS spent, lines FROM spending
         WHERE customerid IS NOT NULL ORDER BY spent DESC LIMIT 10",
    )
    .await
}

async fn show(session: &StreamSession, sql: &str) -> Result<()> {
    session.sql(sql).await?.show().await
}
