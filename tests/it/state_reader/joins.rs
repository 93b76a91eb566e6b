//! The sides of a join as they are read: the rows that wait, and whether they have matched.

use highwater::Result;
use highwater::prelude::*;
use tempfile::TempDir;

use super::lines;

/// Two streams whose watermarks follow their rows, as the views `i` (impressions) and `c` (clicks), and a query.
struct Ads {
    session: StreamSession,
    impressions: MemoryStream,
    clicks: MemoryStream,
    folder: TempDir,
    query: StreamingQuery,
}

impl Ads {
    /// Runs `SELECT … FROM i <join> c` for clicks up to ten seconds after the impression.
    async fn start(select: &str, join: &str) -> Result<Self> {
        let session = StreamSession::new();
        // With a micro-batch for each call of `add`, the test can say which one does what.
        session.sql("SET highwater.no_data_batches = false").await?;
        let impressions = MemoryStream::new(&session, "ts TIMESTAMP, ad BIGINT, shown BIGINT")?;
        let clicks = MemoryStream::new(&session, "at TIMESTAMP, ad BIGINT, matched STRING")?;
        let (i, c) = (impressions.to_frame(), clicks.to_frame());
        i.with_watermark("ts", "0 seconds")?
            .create_or_replace_temp_view("i")?;
        c.with_watermark("at", "0 seconds")?
            .create_or_replace_temp_view("c")?;
        let sql = format!(
            "SELECT {select} FROM i {join} c \
             ON i.ad = c.ad AND c.at >= i.ts AND c.at <= i.ts + INTERVAL '10' SECOND"
        );
        let folder = tempfile::tempdir()?;
        let writer = session.sql(&sql).await?.write_stream().format("noop");
        let writer = writer.checkpoint_location(folder.path().display().to_string());
        Ok(Self {
            query: writer.start().await?,
            session,
            impressions,
            clicks,
            folder,
        })
    }

    /// One micro-batch of impressions: second, ad, number.
    async fn shown(&self, rows: &[(u32, i64, i64)]) -> Result<()> {
        let rows = rows.iter().map(|(at, ad, n)| (time(*at), *ad, *n));
        self.impressions.add_data(rows)?;
        self.query.process_all_available().await
    }

    /// One micro-batch of clicks: second, ad, name.
    async fn clicked(&self, rows: &[(u32, i64, &str)]) -> Result<()> {
        let rows = rows
            .iter()
            .map(|(at, ad, name)| (time(*at), *ad, (*name).to_owned()));
        self.clicks.add_data(rows)?;
        self.query.process_all_available().await
    }

    async fn left(&self, batch: u64) -> Result<Vec<String>> {
        self.state("ad, shown, matched, pane", "left", batch).await
    }

    async fn state(&self, shown: &str, side: &str, batch: u64) -> Result<Vec<String>> {
        let at = self.folder.path().display();
        let sql = format!(
            "SELECT {shown} FROM state('{at}', operator => 'join.{side}', batch => {batch})"
        );
        lines(&self.session, &sql).await
    }

    async fn changes(&self, shown: &str, side: &str) -> Result<Vec<String>> {
        let at = self.folder.path().display();
        let sql = format!(
            "SELECT batch_id, change, {shown} FROM state_changes('{at}', operator => 'join.{side}')"
        );
        lines(&self.session, &sql).await
    }
}

fn time(second: u32) -> String {
    format!("2024-05-01 00:00:{second:02}")
}

/// Micro-batch 0: impressions. 1: a click on ad 1 matches. The watermark is then 00:05, the lower of 00:05 and 00:06.
/// 2: by it the click of 00:03 is over, as an impression before it could only be late; no impression is.
/// 3: the watermark is 00:06 before it and min(00:20, 00:30) after it. 4: all but the last row of each side is over.
#[tokio::test]
async fn a_left_join_is_seen_with_what_has_matched() -> Result<()> {
    let ads = Ads::start("i.ad, i.shown, c.matched", "LEFT JOIN").await?;
    ads.shown(&[(0, 1, 10), (0, 2, 20), (5, 3, 30)]).await?;
    ads.clicked(&[(3, 1, "x"), (6, 9, "y")]).await?;
    ads.shown(&[(20, 9, 90)]).await?;
    ads.clicked(&[(30, 7, "z")]).await?;
    ads.clicked(&[(30, 6, "w")]).await?;

    let first = [
        "1 10 false 00:00:00",
        "2 20 false 00:00:00",
        "3 30 false 00:00:05",
    ];
    assert_eq!(ads.left(0).await?, first);
    let matched = ["1 10 true 00:00:00", first[1], first[2]];
    assert_eq!(ads.left(1).await?, matched);
    let more = [&matched[..], &["9 90 false 00:00:20"]].concat();
    assert_eq!(ads.left(2).await?, more);
    assert_eq!(ads.left(4).await?, more[3..]);
    // A column of the rows that has the name of ours has another one here.
    let clicks = |batch| ads.state("ad, matched_2", "right", batch);
    assert_eq!(clicks(0).await?, [""; 0]);
    assert_eq!(clicks(1).await?, ["1 x", "9 y"]);
    assert_eq!(clicks(2).await?, ["9 y"]);
    assert_eq!(clicks(4).await?, ["6 w", "7 z"]);

    assert_eq!(
        ads.changes("ad, shown, matched", "left").await?,
        [
            "0 put 1 10 false",
            "0 put 2 20 false",
            "0 put 3 30 false",
            "1 put 1 10 true",
            "2 put 9 90 false",
            "4 evict 1 10 true",
            "4 evict 2 20 false",
            "4 evict 3 30 false",
        ]
    );
    assert_eq!(
        ads.changes("ad, matched_2", "right").await?,
        [
            "1 put 1 x",
            "1 put 9 y",
            "2 evict 1 x",
            "3 put 7 z",
            "4 evict 9 y",
            "4 put 6 w",
        ]
    );
    ads.query.stop().await
}

/// Late is judged by the watermark of the micro-batch before, so a row may match one that leaves at once.
#[tokio::test]
async fn what_matches_and_is_over_in_one_micro_batch_is_told_in_that_order() -> Result<()> {
    let ads = Ads::start("i.ad, i.shown, c.matched", "LEFT JOIN").await?;
    ads.shown(&[(0, 1, 10)]).await?;
    ads.clicked(&[(1, 8, "x")]).await?;
    ads.shown(&[(30, 2, 20)]).await?;
    ads.clicked(&[(30, 8, "y")]).await?;
    // Micro-batch 4: late is what is not after 00:01, and over what is before 00:30.
    ads.clicked(&[(5, 1, "z")]).await?;
    assert_eq!(
        ads.left(3).await?,
        ["1 10 false 00:00:00", "2 20 false 00:00:30"]
    );
    assert_eq!(ads.left(4).await?, ["2 20 false 00:00:30"]);
    let changes = ads.changes("ad, matched", "left").await?;
    assert_eq!(changes[2..], ["4 evict 1 true", "4 put 1 true"]);
    ads.query.stop().await
}

/// A row of a semi join leaves when it has matched.
#[tokio::test]
async fn what_leaves_because_it_matched_is_removed() -> Result<()> {
    let ads = Ads::start("i.ad, shown", "LEFT SEMI JOIN").await?;
    ads.shown(&[(0, 1, 10), (0, 2, 20)]).await?;
    ads.clicked(&[(3, 1, "x")]).await?;
    let left = |batch| ads.state("ad, shown", "left", batch);
    assert_eq!(left(0).await?, ["1 10", "2 20"]);
    assert_eq!(left(1).await?, ["2 20"]);
    assert_eq!(
        ads.changes("ad, shown", "left").await?,
        ["0 put 1 10", "0 put 2 20", "1 remove 1 10"]
    );
    ads.query.stop().await
}
