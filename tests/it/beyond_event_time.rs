//! `flushOnEnd`, `late_rows_to`, `idleTimeout` and `maxEventTimeSkew` as a user types them.

use std::sync::Arc;

use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::prelude::*;
use highwater::{LateRows, Result, Sink};
use highwater_connectors::noop::NoopSink;

/// A stream of times (seconds of 2024-05-01 00:00), keys and values, named `readings`, with a watermark of no delay.
async fn readings(session: &StreamSession, rows: &[(u32, &str, i64)]) -> Result<MemoryStream> {
    let readings = MemoryStream::new(session, "ts TIMESTAMP, k STRING, v BIGINT")?;
    add(&readings, rows)?;
    let marked = readings.to_frame().with_watermark("ts", "0 seconds")?;
    marked.create_or_replace_temp_view("readings")?;
    Ok(readings)
}

fn add(readings: &MemoryStream, rows: &[(u32, &str, i64)]) -> Result<()> {
    let rows = rows.iter().map(|(second, k, v)| {
        let ts = format!("2024-05-01 00:{:02}:{:02}", second / 60, second % 60);
        (ts, (*k).to_owned(), *v)
    });
    readings.add_data(rows).map(drop)
}

/// The rows of `sql`, a line each, without the day.
async fn lines(session: &StreamSession, sql: &str) -> Result<Vec<String>> {
    let rows = session.sql(sql).await?.collect().await?;
    let text = pretty_format_batches(&rows)?.to_string();
    let lines = text.lines().skip(3).filter(|line| line.starts_with('|'));
    let lines = lines.map(|line| {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        cells
            .collect::<Vec<_>>()
            .join(" ")
            .replace("2024-05-01T", "")
    });
    Ok(lines.collect())
}

async fn flushed(sql: &str, order: &str) -> Result<Vec<String>> {
    let session = StreamSession::new();
    let rows = [(3, "a", 1), (8, "a", 2), (9, "b", 4), (21, "a", 8)];
    let _readings = readings(&session, &rows).await?;
    let writer = session.sql(sql).await?.write_stream();
    let writer = writer.format("memory").query_name("out");
    let writer = writer.trigger(Trigger::AvailableNow);
    let query = writer.option("flushOnEnd", true).start().await?;
    query.await_termination().await?;
    lines(&session, &format!("SELECT * FROM out ORDER BY {order}")).await
}

/// Without the flush the last windows of each would never come out; with it every window does, once.
#[tokio::test]
async fn the_flush_gives_every_open_window() -> Result<()> {
    let tumbling = "SELECT window.start AS s, k, sum(v) AS v FROM readings GROUP BY window(ts, '10 seconds'), k";
    assert_eq!(
        flushed(tumbling, "s, k").await?,
        ["00:00:00 a 3", "00:00:00 b 4", "00:00:20 a 8"]
    );
    let sliding = "SELECT window.start AS s, sum(v) AS v FROM readings GROUP BY window(ts, '10 seconds', '5 seconds')";
    assert_eq!(
        flushed(sliding, "s").await?,
        [
            "2024-04-30T23:59:55 1",
            "00:00:00 7",
            "00:00:05 6",
            "00:00:15 8",
            "00:00:20 8"
        ]
    );
    let sessions = "SELECT session_window.start AS s, session_window.end AS e, k, sum(v) AS v FROM readings \
                    GROUP BY session_window(ts, '6 seconds'), k";
    assert_eq!(
        flushed(sessions, "s, k").await?,
        [
            "00:00:03 00:00:14 a 3",
            "00:00:09 00:00:15 b 4",
            "00:00:21 00:00:27 a 8"
        ]
    );
    let chained = "SELECT window.start AS s, sum(n) AS n FROM \
                   (SELECT window AS w, count(*) AS n FROM readings GROUP BY window(ts, '10 seconds')) \
                   GROUP BY window(w, '1 minute')";
    assert_eq!(flushed(chained, "s").await?, ["00:00:00 4"]);
    Ok(())
}

/// What `current_watermark()` tells in the final micro-batch is a time that can be shown.
#[tokio::test]
async fn the_final_batch_tells_an_ordinary_watermark() -> Result<()> {
    let sql = "SELECT window.start AS s, count(*) AS n, current_watermark() AS w FROM readings \
               GROUP BY window(ts, '10 seconds')";
    assert_eq!(
        flushed(sql, "s").await?,
        ["00:00:00 3 00:00:21", "00:00:20 1 00:00:21"]
    );
    Ok(())
}

fn counts(readings: &MemoryStream) -> Result<highwater::DataStreamWriter> {
    let frame = readings.to_frame().with_watermark("ts", "0 seconds")?;
    let frame = frame.group_by([window(col("ts"), "10 seconds"), col("k")]);
    let frame = frame.agg([count_all().alias("n")])?;
    let frame = frame.select_exprs(&["window.start AS start", "k", "n"])?;
    Ok(frame.write_stream().format("memory").query_name("counts"))
}

#[tokio::test]
async fn late_rows_are_in_their_table_and_counted() -> Result<()> {
    let session = StreamSession::new();
    let readings = readings(&session, &[(3, "a", 1), (25, "b", 2)]).await?;
    let query = counts(&readings)?.late_rows_to("late").start().await?;
    query.process_all_available().await?;
    add(
        &readings,
        &[(4, "a", 3), (21, "a", 4), (9, "b", 5), (40, "a", 6)],
    )?;
    query.process_all_available().await?;
    let sql = "SELECT ts, k, _operator, _watermark, _batch_id FROM late ORDER BY ts";
    assert_eq!(
        lines(&session, sql).await?,
        [
            "00:00:04 a aggregate 00:00:25 2",
            "00:00:09 b aggregate 00:00:25 2"
        ]
    );
    let told = query.recent_progress();
    let told = told.iter().flat_map(|p| &p.state_operators);
    assert_eq!(told.map(|o| o.num_late_rows).sum::<u64>(), 2);
    query.stop().await
}

/// The table shows what came too late in this run, and does not stand in the way of a restart.
#[tokio::test]
async fn the_table_begins_empty_with_every_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let session = StreamSession::new();
    let readings = readings(&session, &[(25, "b", 2)]).await?;
    for (second, n) in [(1, 1), (2, 1)] {
        let frame = readings.to_frame().with_watermark("ts", "0 seconds")?;
        let frame = frame.group_by([window(col("ts"), "10 seconds")]).count()?;
        let writer = frame.write_stream().format("noop").late_rows_to("late");
        let location = folder.path().display().to_string();
        let query = writer.checkpoint_location(location).start().await?;
        query.process_all_available().await?;
        add(&readings, &[(second, "a", 1)])?;
        query.process_all_available().await?;
        assert_eq!(lines(&session, "SELECT ts FROM late").await?.len(), n);
        query.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn mistakes_are_told_by_the_name_of_the_option() -> Result<()> {
    let session = StreamSession::new();
    let readings = readings(&session, &[]).await?;
    let writer = || counts(&readings);
    let plain = readings.to_frame().write_stream().format("noop");
    let noop: Arc<dyn Sink> = Arc::new(NoopSink);
    for (writer, option) in [
        (writer()?.late_rows_to("counts"), "lateRowsTo"),
        (writer()?.late_rows_to(" "), "lateRowsTo"),
        (
            writer()?.late_rows_to(("memory", [("a", "b")])),
            "lateRowsTo",
        ),
        (writer()?.late_rows_to(("noop", [("a", "b")])), "a"),
        (writer()?.late_rows_to("x").late_rows_to("y"), "lateRowsTo"),
        (
            writer()?.late_rows_to("x").option("lateRowsTo", "y"),
            "lateRowsTo",
        ),
        (plain.late_rows_to(noop), "lateRowsTo"),
        (writer()?.option("flushOnEnd", "maybe"), "flushOnEnd"),
        (writer()?.option("flushOnEnd", true), "flushOnEnd"),
        (writer()?.option("idleTimeout", "10"), "idleTimeout"),
        (writer()?.option("idleTimeout", "0 seconds"), "idleTimeout"),
        (
            writer()?.option("maxEventTimeSkew", "-1 s"),
            "maxEventTimeSkew",
        ),
        (
            writer()?.option("maxEventTimeSkew", "1 month"),
            "maxEventTimeSkew",
        ),
    ] {
        let text = format!("{writer:?}");
        let error = writer.start().await.expect_err(&text);
        assert_eq!(error.option(), Some(option), "{error}");
    }
    Ok(())
}

/// All targets, and all options at once.
#[tokio::test]
async fn what_is_right_starts() -> Result<()> {
    let session = StreamSession::new();
    let readings = readings(&session, &[(25, "b", 2)]).await?;
    let noop: Arc<dyn Sink> = Arc::new(NoopSink);
    let none: [(&str, &str); 0] = [];
    for target in [
        LateRows::from("late"),
        String::from("late").into(),
        ("noop", none).into(),
        noop.into(),
    ] {
        let writer = counts(&readings)?.late_rows_to(target);
        let writer = writer.option("idle_timeout", "1 minute");
        let writer = writer.option("maxEventTimeSkew", "1 hour");
        let writer = writer.trigger(Trigger::AvailableNow);
        let query = writer.option("flushOnEnd", true).start().await?;
        query.await_termination().await?;
        assert_eq!(lines(&session, "SELECT n FROM counts").await?, ["1"]);
    }
    let writer = counts(&readings)?.option("lateRowsTo", "by_option");
    let query = writer.start().await?;
    query.process_all_available().await?;
    assert!(lines(&session, "SELECT * FROM by_option").await?.is_empty());
    query.stop().await
}

#[tokio::test]
async fn each_batch_tells_the_watermark_it_runs_with() -> Result<()> {
    let session = StreamSession::new();
    let stream = readings(&session, &[(3, "a", 1)]).await?;
    let query = session
        .sql("SELECT k, current_watermark() AS w FROM readings")
        .await?
        .write_stream()
        .format("memory")
        .query_name("seen")
        .start()
        .await?;
    query.process_all_available().await?;
    for row in [(20, "b", 1), (21, "c", 1)] {
        add(&stream, &[row])?;
        query.process_all_available().await?;
    }
    query.stop().await?;
    let seen = lines(&session, "SELECT k, w FROM seen ORDER BY k").await?;
    assert_eq!(seen, ["a ", "b 00:00:03", "c 00:00:20"]);
    Ok(())
}
