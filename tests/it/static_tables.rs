//! Streams joined with static tables, from the outside.

mod random;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch};
use arrow::compute::cast;
use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::datafusion::common::{JoinType, ScalarValue};
use highwater::datafusion::datasource::MemTable;
use highwater::prelude::*;
use highwater::{ErrorKind, Result};
use highwater_testkit::{Harness, ManualClock, TestStream, Value, row};

const SITES: &str =
    "SELECT column1 AS pump, column2 AS site FROM (VALUES ('a', 'north'), ('b', 'south'))";

/// Readings of pumps as the view `readings`, and the sites of pumps as the table `sites`.
async fn world(clock: Option<ManualClock>) -> Result<(StreamSession, MemoryStream)> {
    let builder = StreamSession::builder().runtime(tokio::runtime::Handle::current());
    let session = match clock {
        Some(clock) => builder.clock(clock).build()?,
        None => builder.build()?,
    };
    let readings = MemoryStream::new(&session, "pump STRING, psi BIGINT")?;
    readings
        .to_frame()
        .create_or_replace_temp_view("readings")?;
    let sites = session.context().sql(SITES).await?;
    session.register_table("sites", sites.into_view())?;
    Ok((session, readings))
}

/// Every call that joins takes a batch frame of DataFusion, and one of the session; on either side.
#[tokio::test]
async fn the_calls_of_frames_join_static_frames() -> Result<()> {
    let (session, readings) = world(None).await?;
    let stream = || readings.to_frame();
    let keyed = session.context();
    let keyed = keyed.sql("SELECT pump AS id, site FROM sites").await?;
    let batch = session.context().table("sites").await?;
    let table = session.table("sites").await?;
    let on = vec![col("pump").eq(col("id"))];
    let joined = [
        stream().join(keyed.clone(), JoinType::Left, &["pump"], &["id"], None)?,
        stream().join_on(keyed, JoinType::Left, on)?,
        stream().join_using(batch, JoinType::Left, &["pump"])?,
        stream().join_using(table.clone(), JoinType::Left, &["pump"])?,
        table.join_using(stream(), JoinType::Right, &["pump"])?,
    ];
    for frame in joined {
        let frame = frame.select_columns(&["pump", "psi", "site"])?;
        readings.add_data([("a", 1), ("c", 2)])?;
        let mut harness = Harness::new(frame, OutputMode::Append)?;
        harness.process().await?;
        let rows = harness.take_new()?.concat();
        for expected in [row!["a", 1, "north"], row!["c", 2, Value::Null]] {
            let agrees = |row: &Vec<Value>| row.iter().zip(&expected).all(|(a, b)| a.agrees(b));
            assert!(rows.iter().any(agrees), "{rows:?}");
        }
        harness.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_rows_that_another_query_has_written_are_seen() -> Result<()> {
    let (session, readings) = world(None).await?;
    let named = MemoryStream::new(&session, "pump STRING, name STRING")?;
    let writer = named.to_frame().write_stream();
    let names = writer.format("memory").query_name("names").start().await?;
    let joined =
        session.sql("SELECT r.psi, n.name FROM readings r LEFT JOIN names n ON r.pump = n.pump");
    let mut harness = Harness::new(joined.await?, OutputMode::Append)?;
    let mut seen = Vec::new();
    for (psi, name) in [
        (1, None),
        (2, Some("first")),
        (3, None),
        (4, Some("second")),
    ] {
        if let Some(name) = name {
            named.add_data([("a", name)])?;
            names.process_all_available().await?;
        }
        readings.add_data([("a", psi)])?;
        harness.process().await?;
        seen.push(harness.take_new()?.concat().len());
    }
    // Without a name the row comes alone; with two names it comes twice.
    assert_eq!(seen, [1, 1, 1, 2]);
    harness.stop().await?;
    names.stop().await
}

fn file(folder: &Path, name: &str, rows: &str) -> Result<()> {
    Ok(fs::write(folder.join(name), format!("pump,name\n{rows}"))?)
}

/// Four readings ten seconds apart; after the first a second file comes, and after the third the first one changes.
async fn names_seen(refresh: Option<&str>) -> Result<Vec<String>> {
    let clock = ManualClock::at("2024-05-01 12:00:00")?;
    let (session, readings) = world(Some(clock.clone())).await?;
    let folder = tempfile::tempdir()?;
    file(folder.path(), "1.csv", "a,one\n")?;
    let names = folder.path().to_string_lossy().into_owned();
    let options = CsvReadOptions::new();
    session
        .context()
        .register_csv("names", names, options)
        .await?;
    let joined = session.sql("SELECT n.name FROM readings r JOIN names n ON r.pump = n.pump");
    let mut harness = Harness::new(joined.await?, OutputMode::Append)?;
    if let Some(refresh) = refresh.map(str::to_owned) {
        harness = harness.with_writer(move |w| w.option("staticRefresh", refresh.as_str()));
    }
    let mut seen = Vec::new();
    for step in 0..4 {
        readings.add_data([("a", 1)])?;
        harness.process().await?;
        let rows = harness.take_new()?.concat();
        let mut names: Vec<String> = rows.iter().map(|row| format!("{:?}", row[0])).collect();
        names.sort();
        seen.push(names.join(" "));
        match step {
            0 => file(folder.path(), "2.csv", "a,two\n")?,
            2 => file(folder.path(), "1.csv", "a,another\n")?,
            _ => {}
        }
        clock.advance("10 seconds")?;
    }
    harness.stop().await?;
    let bare = |names: &String| names.replace("Text(\"", "").replace("\")", "");
    Ok(seen.iter().map(bare).collect())
}

#[tokio::test]
async fn files_are_looked_at_as_the_option_says() -> Result<()> {
    let changed = ["one", "one two", "one two", "another two"];
    assert_eq!(names_seen(None).await?, changed);
    assert_eq!(names_seen(Some("onChange")).await?, changed);
    assert_eq!(names_seen(Some("never")).await?, ["one"; 4]);
    let every = ["one", "one", "one two", "one two"];
    assert_eq!(names_seen(Some("20 seconds")).await?, every);
    Ok(())
}

#[tokio::test]
async fn what_the_option_cannot_mean_is_refused() -> Result<()> {
    let (session, readings) = world(None).await?;
    let joined = session.sql("SELECT r.psi FROM readings r JOIN sites s ON r.pump = s.pump");
    let joined = joined.await?;
    for (frame, value) in [
        (&joined, "sometimes"),
        (&joined, "0 seconds"),
        (&joined, "-1 minute"),
        (&readings.to_frame(), "onChange"),
    ] {
        let writer = frame.clone().write_stream().format("noop");
        let started = writer.option("staticRefresh", value).start().await;
        let error = started.expect_err(value);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{value}: {error:?}");
        assert_eq!(error.option(), Some("staticRefresh"), "{value}");
        assert!(error.hint().is_some(), "{value}: {error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_table_is_joined_after_an_aggregate_and_again_after_a_restart() -> Result<()> {
    let (session, readings) = world(None).await?;
    let counts = session.sql(
        "SELECT c.pump, c.n, s.site FROM (SELECT pump, count(*) AS n FROM readings GROUP BY pump) c \
         LEFT JOIN sites s ON c.pump = s.pump",
    );
    TestStream::new(counts.await?, OutputMode::Update)?
        .add_data(&readings, [("a", 1), ("c", 2)])
        .process()
        .check_new([row!["a", 1, "north"], row!["c", 1, Value::Null]])
        .restart()
        .add_data(&readings, [("a", 1), ("b", 1)])
        .process()
        .check_new([row!["a", 2, "north"], row!["b", 1, "south"]])
        .run()
        .await
}

#[tokio::test]
async fn explain_has_a_line_for_each_static_side() -> Result<()> {
    let (session, _readings) = world(None).await?;
    let joined = session
        .sql("SELECT r.psi FROM readings r JOIN sites s ON r.pump = s.pump")
        .await?;
    let rows = joined.explain(false, false)?.collect().await?;
    let text = pretty_format_batches(&rows)?;
    let text = text.to_string();
    // The rows of the table are written in the query, as another type of text.
    for line in [
        "StaticJoinExec: inner join on (pump = CAST(s.pump AS Utf8View))",
        "StaticScanExec: tables=[(no table)]",
        "(no table): inner join on (pump = CAST(s.pump AS Utf8View)), not read yet, never read again",
    ] {
        assert!(text.contains(line), "{text}");
    }
    Ok(())
}

/// The rows of a table in memory are kept while the query runs, if it is told so, and read anew when it starts again.
#[tokio::test]
async fn a_restart_reads_the_tables_anew() -> Result<()> {
    let (session, readings) = world(None).await?;
    let schema = Arc::new(highwater::parse_schema("pump STRING, name STRING")?);
    let table = MemTable::try_new(schema, vec![vec![]])?;
    session.register_table("names", Arc::new(table))?;
    let insert = async |name: &str| {
        let sql = format!("INSERT INTO names VALUES ('a', '{name}')");
        session.context().sql(&sql).await?.collect().await
    };
    insert("one").await?;
    let sql = "SELECT r.psi, n.name FROM names n RIGHT JOIN readings r ON r.pump = n.pump";
    let mut never = Harness::new(session.sql(sql).await?, OutputMode::Append)?
        .with_writer(|w| w.option("staticRefresh", "never"));
    let mut on_change = Harness::new(session.sql(sql).await?, OutputMode::Append)?;
    // Rows of the first and of the second query: so many names the pump has for each of them.
    let mut seen = Vec::new();
    for (psi, restart) in [(1, false), (2, false), (3, true), (4, false)] {
        if restart {
            never.stop().await?;
        }
        readings.add_data([("a", psi)])?;
        never.process().await?;
        on_change.process().await?;
        seen.push((
            never.take_new()?.concat().len(),
            on_change.take_new()?.concat().len(),
        ));
        insert("another").await?;
    }
    assert_eq!(seen, [(1, 1), (1, 2), (3, 3), (3, 4)]);
    never.stop().await?;
    on_change.stop().await
}

/// Files that the session's reader reads, and a directory that a file sink writes.
#[tokio::test]
async fn the_tables_of_readers_and_of_file_sinks_tell_that_they_have_changed() -> Result<()> {
    let (session, readings) = world(None).await?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::create_dir(path("names"))?;
    file(&folder.path().join("names"), "1.csv", "a,one\n")?;
    let names = session.read().option("header", true);
    let names = names.csv(path("names")).await?;
    names.create_or_replace_temp_view("names")?;
    let sites = MemoryStream::new(&session, "pump STRING, place STRING")?;
    let writer = sites.to_frame().write_stream().format("parquet");
    let writer = writer
        .path(path("places"))
        .checkpoint_location(path("checkpoint"));
    let places = writer.start().await?;
    sites.add_data([("a", "north")])?;
    places.process_all_available().await?;
    let written = session.read().parquet(path("places")).await?;
    written.create_or_replace_temp_view("places")?;
    let joined = session.sql(
        "SELECT r.psi, n.name, p.place FROM readings r JOIN names n ON r.pump = n.pump \
         JOIN places p ON r.pump = p.pump",
    );
    let joined = joined.await?;
    let explained = joined.clone().explain(false, false)?.collect().await?;
    let explained = pretty_format_batches(&explained)?;
    let explained = explained.to_string();
    assert_eq!(
        explained
            .matches("not read yet, read again when it has changed ")
            .count(),
        2,
        "{explained}"
    );
    let mut harness = Harness::new(joined, OutputMode::Append)?;
    let mut seen = Vec::new();
    for psi in 0..3 {
        readings.add_data([("a", psi)])?;
        harness.process().await?;
        seen.push(harness.take_new()?.concat().len());
        match psi {
            0 => file(&folder.path().join("names"), "2.csv", "a,two\n")?,
            1 => {
                sites.add_data([("a", "south"), ("a", "west")])?;
                places.process_all_available().await?;
            }
            _ => fs::remove_file(path("names/1.csv"))?,
        }
    }
    // One name and one place, two names, two names with three places.
    assert_eq!(seen, [1, 2, 6]);
    readings.add_data([("a", 9)])?;
    harness.process().await?;
    assert_eq!(harness.take_new()?.concat().len(), 3);
    harness.stop().await?;
    places.stop().await
}

/// A watermark goes through a join with a table, whatever the order of the sides; rows that find no match move it too
/// (only what the optimizer filters below it does not, as a null key).
#[tokio::test]
async fn windows_of_joined_rows_close_by_the_watermark() -> Result<()> {
    for from in [
        "readings r JOIN sites s ON r.pump = s.pump",
        "sites s JOIN readings r ON r.pump = s.pump",
        "sites s RIGHT JOIN readings r ON r.pump = s.pump",
    ] {
        let (session, _) = world(None).await?;
        let readings = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING")?;
        let timed = readings.to_frame().with_watermark("ts", "10 seconds")?;
        let timed = timed.drop_duplicates(&["ts", "pump"])?;
        timed.create_or_replace_temp_view("readings")?;
        let sql = format!(
            "SELECT site, count(*) AS n FROM {from} GROUP BY window(ts, '10 seconds'), site"
        );
        let counts = session.sql(&sql).await?;
        let unknown = from.contains("RIGHT").then(|| row![Value::Null, 1]);
        let at = |second: &str, pump: &'static str| (format!("2024-05-01 00:00:{second}"), pump);
        TestStream::new(counts, OutputMode::Append)?
            .add_data(
                &readings,
                [at("01", "a"), at("01", "a"), at("02", "b"), at("03", "a")],
            )
            .add_data(&readings, [at("04", "z")])
            .process()
            .check_watermark("2024-04-30 23:59:54")
            .restart()
            .add_data(&readings, [at("40", "z")])
            .process()
            .check_watermark("2024-05-01 00:00:30")
            .check_new(
                [row!["north", 2], row!["south", 1]]
                    .into_iter()
                    .chain(unknown),
            )
            .run()
            .await?;
    }
    Ok(())
}

/// Two streams are joined, and what comes out with a table; and the other way round.
#[tokio::test]
async fn a_table_is_joined_above_and_below_a_join_of_streams() -> Result<()> {
    let (session, readings) = world(None).await?;
    let orders = MemoryStream::new(&session, "pump STRING, part STRING")?;
    orders.to_frame().create_or_replace_temp_view("orders")?;
    for sql in [
        "SELECT r.psi, o.part, s.site FROM readings r JOIN orders o ON r.pump = o.pump LEFT JOIN sites s ON r.pump = s.pump",
        "SELECT t.psi, o.part, t.site FROM (SELECT r.*, s.site FROM sites s RIGHT JOIN readings r ON r.pump = s.pump) t \
         JOIN orders o ON t.pump = o.pump",
    ] {
        let mut harness = Harness::new(session.sql(sql).await?, OutputMode::Append)?;
        harness.start().await?;
        let mut rows = Vec::new();
        readings.add_data([("a", 1), ("c", 2)])?;
        harness.process().await?;
        harness.stop().await?;
        orders.add_data([("a", "valve"), ("c", "seal"), ("b", "seal")])?;
        harness.process().await?;
        rows.extend(harness.take_new()?.concat());
        harness.stop().await?;
        for expected in [row![1, "valve", "north"], row![2, "seal", Value::Null]] {
            let agrees = |row: &&Vec<Value>| row.iter().zip(&expected).all(|(a, b)| a.agrees(b));
            assert!(rows.iter().any(|row| agrees(&row)), "{sql}: {rows:?}");
        }
    }
    Ok(())
}

/// Zeros of both signs are one key, and so are all NaN (Spark); a null key equals nothing.
#[tokio::test]
async fn keys_are_equal_as_in_spark() -> Result<()> {
    let session = StreamSession::new();
    let input = MemoryStream::new(&session, "x DOUBLE")?;
    input.to_frame().create_or_replace_temp_view("input")?;
    let schema = Arc::new(highwater::parse_schema("x DOUBLE, name STRING")?);
    let names = ["zero", "nan", "null"].map(|name| ScalarValue::Utf8View(Some(name.to_owned())));
    let columns = vec![
        Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), None])) as _,
        cast(
            &ScalarValue::iter_to_array(names)?,
            schema.field(1).data_type(),
        )?,
    ];
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let table = MemTable::try_new(schema, vec![vec![rows]])?;
    session.register_table("t", Arc::new(table))?;
    let joined = session.sql("SELECT name FROM input JOIN t ON input.x = t.x");
    TestStream::new(joined.await?, OutputMode::Append)?
        .add_data(
            &input,
            [(Some(0.0),), (Some(-f64::NAN),), (None,), (Some(1.0),)],
        )
        .process()
        .check_new([row!["zero"], row!["nan"]])
        .run()
        .await
}

/// A limit above a join counts the rows of one result in complete mode; DataFusion puts it into its join.
#[tokio::test]
async fn a_limit_above_a_join_keeps_the_table_too() -> Result<()> {
    let (session, readings) = world(None).await?;
    let sql = "SELECT c.pump, s.site FROM (SELECT pump, count(*) AS n FROM readings GROUP BY pump) c \
               JOIN sites s ON c.pump = s.pump LIMIT 1";
    let mut harness = Harness::new(session.sql(sql).await?, OutputMode::Complete)?;
    for psi in 0..3 {
        readings.add_data([("a", psi), ("b", psi)])?;
        harness.process().await?;
        assert_eq!(harness.last()?.len(), 1);
    }
    let explained = harness.start().await?.explain();
    assert!(
        explained.contains("StaticJoinExec: inner join"),
        "{explained}"
    );
    assert!(!explained.contains("HashJoinExec"), "{explained}");
    harness.stop().await
}

/// What must wait for the end of the stream is refused when the query starts; the hint names a join that runs.
#[tokio::test]
async fn joins_that_would_wait_for_the_end_are_refused_with_a_way_out() -> Result<()> {
    let (session, _readings) = world(None).await?;
    let start = async |from: &str| {
        let sql = format!("SELECT 1 AS one FROM {from} ON r.pump = s.pump");
        let writer = session.sql(&sql).await?.write_stream().format("noop");
        writer.start().await
    };
    for (refused, hint, runs) in [
        (
            "readings r RIGHT JOIN sites s",
            "`stream LEFT JOIN table`",
            "readings r LEFT JOIN sites s",
        ),
        (
            "readings r FULL JOIN sites s",
            "`stream LEFT JOIN table`",
            "readings r LEFT JOIN sites s",
        ),
        (
            "sites s LEFT JOIN readings r",
            "`table RIGHT JOIN stream`",
            "sites s RIGHT JOIN readings r",
        ),
        (
            "sites s FULL JOIN readings r",
            "`table RIGHT JOIN stream`",
            "sites s RIGHT JOIN readings r",
        ),
        (
            "sites s LEFT SEMI JOIN readings r",
            "`stream LEFT SEMI JOIN table`",
            "readings r LEFT SEMI JOIN sites s",
        ),
        (
            "sites s LEFT ANTI JOIN readings r",
            "`stream LEFT ANTI JOIN table`",
            "readings r LEFT ANTI JOIN sites s",
        ),
    ] {
        let error = start(refused).await.expect_err(refused);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{refused}: {error:?}");
        assert_eq!(error.operator(), Some("join"), "{refused}");
        assert!(
            error.hint().is_some_and(|said| said.contains(hint)),
            "{refused}: {error:?}"
        );
        start(runs).await?.stop().await?;
    }
    Ok(())
}
