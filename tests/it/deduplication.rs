//! `drop_duplicates`, `drop_duplicates_within_watermark` and `distinct`, from the outside.

use highwater::datafusion::arrow::array::RecordBatch;
use highwater::datafusion::assert_batches_eq;
use highwater::prelude::*;
use highwater::{ErrorKind, Result};

const CLICKS: &str = "ts TIMESTAMP, user STRING, page STRING";

async fn rows(session: &StreamSession, sql: &str) -> Result<Vec<RecordBatch>> {
    session.sql(sql).await?.collect().await
}

async fn start(frame: StreamFrame, name: &str) -> Result<StreamingQuery> {
    let writer = frame.write_stream().format("memory").query_name(name);
    writer.start().await
}

#[tokio::test]
async fn the_first_row_of_a_key_passes_and_no_other() -> Result<()> {
    let session = StreamSession::new();
    let clicks = MemoryStream::new(&session, CLICKS)?;
    let users = start(clicks.to_frame().drop_duplicates(&["user"])?, "users").await?;
    let all = start(clicks.to_frame().distinct()?, "all_clicks").await?;
    clicks.add_data([
        ("2024-05-01 00:00:03", "ann", "home"),
        ("2024-05-01 00:00:03", "ann", "home"),
        ("2024-05-01 00:00:05", "ann", "cart"),
    ])?;
    users.process_all_available().await?;
    clicks.add_data([
        ("2024-05-01 00:00:05", "ann", "cart"),
        ("2024-05-01 00:00:01", "bob", "home"),
    ])?;
    users.process_all_available().await?;
    all.process_all_available().await?;
    assert_batches_eq!(
        [
            "+------+------+",
            "| user | page |",
            "+------+------+",
            "| ann  | home |",
            "| bob  | home |",
            "+------+------+"
        ],
        &rows(&session, "SELECT user, page FROM users ORDER BY user").await?
    );
    assert_eq!(session.table("all_clicks").await?.count().await?, 3);
    users.stop().await?;
    all.stop().await
}

#[tokio::test]
async fn a_batch_frame_has_no_watermark_and_datafusions_distinct() -> Result<()> {
    let session = StreamSession::new();
    let sql = "SELECT * FROM (VALUES (TIMESTAMP '2024-05-01 00:00:00', 'a', 1), \
               (TIMESTAMP '2024-05-01 00:00:00', 'a', 1), (TIMESTAMP '2024-05-01 00:00:09', 'a', 1)) t(ts, k, v)";
    let frame = session.sql(sql).await?.with_watermark("ts", "1 second")?;
    assert_eq!(frame.clone().distinct()?.count().await?, 2);
    assert_eq!(
        frame.clone().drop_duplicates(&["k", "v"])?.count().await?,
        1
    );
    let error = frame.clone().drop_duplicates_within_watermark(&["k"]);
    let error = error.expect_err("a batch");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.operator(), Some("dedup"));
    for (column, delay) in [("k", "1 s"), ("zz", "1 s"), ("ts", "soon"), ("ts", "-1 s")] {
        let error = frame.clone().with_watermark(column, delay);
        assert!(error.is_err(), "{column}, {delay}");
    }
    Ok(())
}

#[tokio::test]
async fn within_the_watermark_a_stream_needs_one() -> Result<()> {
    let session = StreamSession::new();
    let clicks = MemoryStream::new(&session, CLICKS)?;
    let frame = clicks.to_frame();
    let within = frame.clone().drop_duplicates_within_watermark(&["user"])?;
    let error = start(within, "within").await.expect_err("no watermark");
    assert!(
        error
            .message()
            .starts_with("dropDuplicatesWithinWatermark is not supported"),
        "{error}"
    );
    let error = frame
        .clone()
        .drop_duplicates(&["nobody"])
        .expect_err("no column");
    assert_eq!(error.column(), Some("nobody"));
    let twice = frame
        .with_watermark("ts", "1 s")?
        .with_watermark("ts", "2 s")?;
    let error = start(twice, "twice").await.expect_err("two watermarks");
    assert!(
        error.message().starts_with("Redefining watermark"),
        "{error}"
    );
    Ok(())
}
