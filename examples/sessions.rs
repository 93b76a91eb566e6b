//! What you learn: sessions, a group for each burst of activity; append mode, where each comes out once, when it is
//! over; `flushOnEnd`, which closes those that are still open when the input ends.
//!
//! `cargo run --release --example sessions [-- FOLDER]`, by default on the small data set in `data/`.

use highwater::Result;
use highwater::prelude::*;

const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/retail/by-day");

/// The columns of every file, in the order of its header.
const COLUMNS: &str = "InvoiceNo STRING, StockCode STRING, Description STRING, Quantity BIGINT, \
                       InvoiceDate TIMESTAMP, UnitPrice DOUBLE, CustomerID DOUBLE, Country STRING";

/// The visits of each customer: a visit ends when the customer buys nothing for an hour.
///
/// The watermark stays six hours behind the latest purchase: a file may bring purchases in any order of up to six
/// hours, and after that a visit is over.
pub(crate) async fn visits(session: &StreamSession, folder: &str) -> Result<StreamFrame> {
    session
        .read_stream()
        .schema(COLUMNS)
        .option("header", true)
        .option("maxFilesPerTrigger", 1)
        .csv(folder)
        .await?
        .filter(col("customerid").is_not_null())?
        .with_column("cost", col("unitprice") * col("quantity"))?
        .with_watermark("invoicedate", "6 hours")?
        .group_by([
            session_window(col("invoicedate"), "1 hour"),
            col("customerid"),
        ])
        .agg([sum(col("cost")).alias("spent"), count_all().alias("lines")])?
        .select_exprs(&[
            "customerid",
            "session_window.start AS came",
            "session_window.end AS left_by",
            "spent",
            "lines",
        ])
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| BUNDLED.into());
    let session = StreamSession::new();
    let query = visits(&session, &folder)
        .await?
        .write_stream()
        .format("memory")
        .query_name("visits")
        .trigger(Trigger::AvailableNow)
        .option("flushOnEnd", true)
        .start()
        .await?;
    query.await_termination().await?;

    show(
        &session,
        "SELECT count(*) AS visits, count(DISTINCT customerid) AS customers,
                sum(lines) AS lines, round(avg(spent), 2) AS spent_each FROM visits",
    )
    .await?;
    show(
        &session,
        "SELECT customerid, came, left_by - INTERVAL '1' HOUR AS last_purchase,
                round(spent, 2) AS spent, lines
         FROM visits ORDER BY lines DESC, came, customerid LIMIT 10",
    )
    .await
}

async fn show(session: &StreamSession, sql: &str) -> Result<()> {
    session.sql(sql).await?.show().await
}
