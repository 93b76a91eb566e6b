//! Sessions in update mode, which Spark refuses: each row says which earlier sessions of its key it replaces.

use highwater::Result;
use highwater::datafusion::assert_batches_sorted_eq;
use highwater::prelude::*;

const SQL: &str = "SELECT session_window.start AS start, session_window.end AS until, k, count(*) AS n \
    FROM events GROUP BY session_window(ts, '5 seconds'), k";

#[tokio::test]
async fn a_session_in_update_mode_says_what_it_replaces() -> Result<()> {
    let session = StreamSession::new();
    let events = MemoryStream::new(&session, "ts TIMESTAMP, k STRING")?;
    let timed = events.to_frame().with_watermark("ts", "20 seconds")?;
    timed.create_or_replace_temp_view("events")?;
    let query = session
        .sql(SQL)
        .await?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("memory")
        .query_name("sessions")
        .start()
        .await?;
    // Two sessions of `a`, 00:01 to 00:06 and 00:08 to 00:13, and one of `b`.
    events.add_data([
        ("2024-05-01 00:00:01", "a"),
        ("2024-05-01 00:00:08", "a"),
        ("2024-05-01 00:00:20", "b"),
    ])?;
    query.process_all_available().await?;
    // 00:04 to 00:09 meets both: one session is left of the three.
    events.add_data([("2024-05-01 00:00:04", "a")])?;
    query.process_all_available().await?;
    query.stop().await?;
    let rows = session
        .sql("SELECT start, until, k, n, superseded FROM sessions")
        .await?
        .collect()
        .await?;
    assert_batches_sorted_eq!(
        [
            "+---------------------+---------------------+---+---+------------------------------------------------------------------------------------------------------------------+",
            "| start               | until               | k | n | superseded                                                                                                       |",
            "+---------------------+---------------------+---+---+------------------------------------------------------------------------------------------------------------------+",
            "| 2024-05-01T00:00:01 | 2024-05-01T00:00:06 | a | 1 | []                                                                                                               |",
            "| 2024-05-01T00:00:01 | 2024-05-01T00:00:13 | a | 3 | [{start: 2024-05-01T00:00:01, end: 2024-05-01T00:00:06}, {start: 2024-05-01T00:00:08, end: 2024-05-01T00:00:13}] |",
            "| 2024-05-01T00:00:08 | 2024-05-01T00:00:13 | a | 1 | []                                                                                                               |",
            "| 2024-05-01T00:00:20 | 2024-05-01T00:00:25 | b | 1 | []                                                                                                               |",
            "+---------------------+---------------------+---+---+------------------------------------------------------------------------------------------------------------------+",
        ],
        &rows
    );
    Ok(())
}
