//! What `docs/joins.md` and `examples/ad_attribution.rs` say of joins is so.

use highwater::datafusion::arrow::array::RecordBatch;
use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::prelude::*;
use highwater::{Result, StreamingQueryProgress};
use highwater_core::Watermark;

#[path = "../../examples/ad_attribution.rs"]
#[expect(dead_code, reason = "its main is for the example")]
mod ad_attribution;

/// The rows as text, in their order, without what all times begin with.
fn lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let text = pretty_format_batches(batches)?.to_string();
    let lines = text.lines().skip(3).filter(|line| line.starts_with('|'));
    let words = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        let cells = cells.map(|cell| cell.strip_prefix("2024-05-01T").unwrap_or(cell));
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    Ok(lines.map(words).collect())
}

/// A second of the first minute of 2024-05-01.
fn at(second: i64) -> String {
    format!("2024-05-01 00:00:{second:02}")
}

/// 2024-05-01, in milliseconds since 1970.
const DAY_MS: i64 = 1_714_521_600_000;

/// Impressions with the click that follows within ten seconds; both watermarks without delay.
struct Ads {
    session: StreamSession,
    impressions: MemoryStream,
    clicks: MemoryStream,
    query: StreamingQuery,
}

impl Ads {
    async fn start(no_data_batches: bool) -> Result<Self> {
        let session = StreamSession::builder()
            .config("highwater.no_data_batches", no_data_batches.to_string())
            .build()?;
        let impressions = MemoryStream::new(&session, "shown TIMESTAMP, ad BIGINT")?;
        let clicks = MemoryStream::new(&session, "clicked TIMESTAMP, ad BIGINT")?;
        let marked = impressions
            .to_frame()
            .with_watermark("shown", "0 seconds")?;
        marked.create_or_replace_temp_view("impressions")?;
        let marked = clicks.to_frame().with_watermark("clicked", "0 seconds")?;
        marked.create_or_replace_temp_view("clicks")?;
        let frame = session
            .sql(
                "SELECT i.ad, shown, clicked FROM impressions i LEFT JOIN clicks c
                 ON i.ad = c.ad AND clicked BETWEEN shown AND shown + INTERVAL '10' SECOND",
            )
            .await?;
        let writer = frame.write_stream().format("memory").query_name("out");
        let query = writer.start().await?;
        Ok(Self {
            session,
            impressions,
            clicks,
            query,
        })
    }

    /// What the table holds after these rows.
    async fn shown(&self, rows: &[(i64, i64)]) -> Result<Vec<String>> {
        self.impressions
            .add_data(rows.iter().map(|(s, ad)| (at(*s), *ad)))?;
        self.out().await
    }

    /// What the table holds after these rows.
    async fn clicked(&self, rows: &[(i64, i64)]) -> Result<Vec<String>> {
        self.clicks
            .add_data(rows.iter().map(|(s, ad)| (at(*s), *ad)))?;
        self.out().await
    }

    async fn out(&self) -> Result<Vec<String>> {
        self.query.process_all_available().await?;
        let sql = "SELECT * FROM out ORDER BY ad";
        lines(&self.session.sql(sql).await?.collect().await?)
    }

    /// Of each micro-batch: its watermark in seconds, the rows that left the state, the rows that came out.
    fn batches(&self) -> Vec<(Option<i64>, u64, Option<i64>)> {
        let progress = self.query.recent_progress();
        let of = |p: &StreamingQueryProgress| {
            let removed: u64 = p.state_operators.iter().map(|o| o.num_rows_removed).sum();
            let seconds = |Watermark(ms): Watermark| (ms - DAY_MS) / 1_000;
            let watermark = p.event_time.watermark.filter(|w| w.0 > 0).map(seconds);
            (watermark, removed, p.sink.num_output_rows.map(|n| n as i64))
        };
        progress.iter().map(|p| of(p)).collect()
    }
}

/// The table and the picture of "When the row without a match comes".
#[tokio::test]
async fn the_row_without_a_match_comes_one_batch_later() -> Result<()> {
    let ads = Ads::start(true).await?;
    let pair = "1 00:00:10 00:00:12";
    assert!(ads.shown(&[(10, 1), (11, 2)]).await?.is_empty());
    assert_eq!(ads.clicked(&[(12, 1)]).await?, [pair]);
    assert_eq!(ads.shown(&[(30, 3)]).await?, [pair]);
    assert_eq!(ads.clicked(&[(21, 9)]).await?, [pair]);
    assert_eq!(ads.clicked(&[(22, 9)]).await?, [pair, "2 00:00:11"]);
    let expected = [
        (None, 0, 0),
        (None, 0, 1),
        (Some(11), 0, 0),
        (Some(11), 0, 0),
        (Some(12), 0, 0),
        (Some(12), 0, 0),
        // Impression 1 leaves, and the click on it.
        (Some(21), 2, 0),
        (Some(21), 0, 0),
        // Impression 2 leaves and comes out; the click of 00:21 leaves.
        (Some(22), 2, 1),
    ];
    let expected = expected.map(|(w, removed, out)| (w, removed, Some(out)));
    assert_eq!(ads.batches(), expected);
    ads.query.stop().await
}

/// Without micro-batches without data it waits for the next rows, whatever they are.
#[tokio::test]
async fn without_batches_without_data_it_waits_for_the_next_rows() -> Result<()> {
    let ads = Ads::start(false).await?;
    let pair = "1 00:00:10 00:00:12";
    ads.shown(&[(10, 1), (11, 2)]).await?;
    ads.clicked(&[(12, 1)]).await?;
    ads.shown(&[(30, 3)]).await?;
    assert_eq!(ads.clicked(&[(22, 9)]).await?, [pair]);
    assert_eq!(ads.shown(&[(31, 4)]).await?, [pair, "2 00:00:11"]);
    ads.query.stop().await
}

#[tokio::test]
async fn the_example_attributes_what_its_comments_say() -> Result<()> {
    let session = StreamSession::new();
    let impressions = MemoryStream::new(
        &session,
        "shown TIMESTAMP, impression BIGINT, campaign STRING",
    )?;
    let clicks = MemoryStream::new(&session, "clicked TIMESTAMP, impression BIGINT")?;
    let frame = ad_attribution::attributed(&session, impressions.to_frame(), clicks.to_frame());
    let writer = frame.await?.write_stream().format("memory");
    let query = writer.query_name("out").start().await?;
    let steps = [
        vec!["1 shoes 12:00:00 12:00:25"],
        vec![
            "1 shoes 12:00:00 12:00:25",
            "2 boots 12:00:20",
            "3 shoes 12:00:40 12:01:35",
            "4 boots 12:02:00 12:02:05",
        ],
    ];
    for (step, (shown, clicked)) in ad_attribution::ARRIVALS.into_iter().enumerate() {
        impressions.add_data(shown.iter().copied())?;
        clicks.add_data(clicked.iter().copied())?;
        query.process_all_available().await?;
        let out = session.sql("SELECT * FROM out ORDER BY impression").await?;
        assert_eq!(lines(&out.collect().await?)?, steps[step.min(1)]);
    }
    let progress = query.recent_progress();
    let late = progress.iter().flat_map(|p| &p.state_operators);
    assert_eq!(late.map(|o| o.num_late_rows).sum::<u64>(), 0);
    query.stop().await
}
