//! What you learn: a join of two streams that are both unfinished, and when a row without a partner comes out:
//! impressions of ads, each with the click that followed within a minute, or with none.
//!
//! `cargo run --release --example ad_attribution`

use highwater::Result;
use highwater::prelude::*;

/// An impression: when the ad was shown, which impression it is, of which campaign.
type Impression = (&'static str, i64, &'static str);
/// A click: when, on which impression.
type Click = (&'static str, i64);

/// What comes, step by step. Both watermarks stay 30 seconds behind, and the query's is the lesser of the two.
pub(crate) const ARRIVALS: [(&[Impression], &[Click]); 3] = [
    // Impression 1 is clicked after 25 seconds: the pair comes out at once.
    (
        &[
            ("2024-05-01 12:00:00", 1, "shoes"),
            ("2024-05-01 12:00:20", 2, "boots"),
            ("2024-05-01 12:00:40", 3, "shoes"),
        ],
        &[("2024-05-01 12:00:25", 1)],
    ),
    // Clicks may be out of order: the one on impression 3, 55 seconds after it, still counts.
    // The watermark goes to 12:01:30. A click that is still to come is after that, so what was shown before 12:00:30 is
    // decided: impression 1 leaves in silence, and impression 2, which nobody clicked, comes out without a click.
    (
        &[("2024-05-01 12:02:00", 4, "boots")],
        &[("2024-05-01 12:02:05", 4), ("2024-05-01 12:01:35", 3)],
    ),
    // A click 71 seconds after impression 3 is no match. The watermark goes to 12:03:20: impressions 3 and 4 leave.
    // Impression 5 may still be clicked: it is in no row of the result yet.
    (
        &[("2024-05-01 12:04:00", 5, "shoes")],
        &[("2024-05-01 12:01:51", 3), ("2024-05-01 12:03:50", 9)],
    ),
];

/// Every impression with each click within a minute of it; without one when there can be none any more.
pub(crate) async fn attributed(
    session: &StreamSession,
    impressions: StreamFrame,
    clicks: StreamFrame,
) -> Result<StreamFrame> {
    impressions
        .with_watermark("shown", "30 seconds")?
        .create_or_replace_temp_view("impressions")?;
    clicks
        .with_watermark("clicked", "30 seconds")?
        .create_or_replace_temp_view("clicks")?;
    session
        .sql(
            "SELECT i.impression, i.campaign, i.shown, c.clicked
             FROM impressions i LEFT JOIN clicks c
               ON c.impression = i.impression
              AND c.clicked BETWEEN i.shown AND i.shown + INTERVAL '1' MINUTE",
        )
        .await
}

#[tokio::main]
async fn main() -> Result<()> {
    let session = StreamSession::new();
    let impressions = MemoryStream::new(
        &session,
        "shown TIMESTAMP, impression BIGINT, campaign STRING",
    )?;
    let clicks = MemoryStream::new(&session, "clicked TIMESTAMP, impression BIGINT")?;
    let query = attributed(&session, impressions.to_frame(), clicks.to_frame())
        .await?
        .write_stream()
        .format("memory")
        .query_name("attributed")
        .start()
        .await?;
    for (shown, clicked) in ARRIVALS {
        impressions.add_data(shown.iter().copied())?;
        clicks.add_data(clicked.iter().copied())?;
        query.process_all_available().await?;
    }

    // 1, 3 and 4 with their clicks, 2 without one; 5 is still waited for.
    show(
        &session,
        "SELECT impression, campaign, shown, clicked FROM attributed ORDER BY impression",
    )
    .await?;
    // Half of the decided impressions of boots were clicked, and all of shoes.
    show(
        &session,
        "SELECT campaign, count(*) AS decided, count(clicked) AS clicked FROM attributed
         GROUP BY campaign ORDER BY campaign",
    )
    .await?;
    query.stop().await
}

async fn show(session: &StreamSession, sql: &str) -> Result<()> {
    session.sql(sql).await?.show().await
}
