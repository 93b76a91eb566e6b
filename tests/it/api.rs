//! The public API, from the outside: what a user types, what it answers, and how it says no.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater::datafusion::arrow::array::RecordBatch;
use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::datafusion::assert_batches_eq;
use highwater::datafusion::assert_batches_sorted_eq;
use highwater::prelude::*;
use highwater::{ErrorKind, Result, SqlSemantics};

const PUMPS: &str = "ts TIMESTAMP, pump STRING, psi DOUBLE";

fn pumps(session: &StreamSession) -> Result<MemoryStream> {
    let pumps = MemoryStream::new(session, PUMPS)?;
    pumps.to_frame().create_or_replace_temp_view("pumps")?;
    Ok(pumps)
}

/// The rows of a table.
async fn rows(session: &StreamSession, sql: &str) -> Result<Vec<RecordBatch>> {
    session.sql(sql).await?.collect().await
}

#[tokio::test]
async fn rows_go_from_the_stream_through_a_filter_to_the_memory_table() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let query = pumps
        .to_frame()
        .filter(col("psi").lt(lit(0.5)))?
        .select([col("pump"), (col("psi") * lit(2.0)).alias("twice")])?
        .write_stream()
        .format("memory")
        .query_name("low")
        .start()
        .await?;
    pumps.add_data([
        ("2024-05-01 00:00:03", "a", 0.9),
        ("2024-05-01 00:00:08", "b", 0.4),
    ])?;
    query.process_all_available().await?;
    pumps.add_data([("2024-05-01 00:00:09", "c", 0.25)])?;
    query.process_all_available().await?;
    let low = rows(&session, "SELECT * FROM low ORDER BY pump").await?;
    assert_batches_eq!(
        [
            "+------+-------+",
            "| pump | twice |",
            "+------+-------+",
            "| b    | 0.8   |",
            "| c    | 0.5   |",
            "+------+-------+"
        ],
        &low
    );
    query.stop().await?;
    assert!(!query.is_active());
    assert_eq!(
        session.table("low").await?.count().await?,
        2,
        "the table outlives its query"
    );
    Ok(())
}

#[tokio::test]
async fn windows_group_in_rust_and_in_sql_alike() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let rust = pumps
        .to_frame()
        .group_by([window(col("ts"), "10 seconds"), col("pump")])
        .agg([count_all().alias("n"), min(col("psi")).alias("low")])?
        .select_exprs(&["window.start", "pump", "n", "low"])?;
    let sql = session
        .sql(
            "SELECT window.start, pump, count(*) AS n, min(psi) AS low FROM pumps
             GROUP BY window(ts, '10 seconds'), pump",
        )
        .await?;
    assert!(sql.is_streaming());
    let start = |frame: StreamFrame, name: &'static str| {
        frame
            .write_stream()
            .output_mode(OutputMode::Complete)
            .format("memory")
            .query_name(name)
            .start()
    };
    let (first, second) = (start(rust, "by_rust").await?, start(sql, "by_sql").await?);
    pumps.add_data([
        ("2024-05-01 00:00:03", "a", 0.9),
        ("2024-05-01 00:00:08", "a", 0.4),
        ("2024-05-01 00:00:12", "a", 0.7),
    ])?;
    for (query, table) in [(&first, "by_rust"), (&second, "by_sql")] {
        query.process_all_available().await?;
        assert_batches_sorted_eq!(
            [
                "+---------------------+------+---+-----+",
                "| start               | pump | n | low |",
                "+---------------------+------+---+-----+",
                "| 2024-05-01T00:00:00 | a    | 2 | 0.4 |",
                "| 2024-05-01T00:00:10 | a    | 1 | 0.7 |",
                "+---------------------+------+---+-----+"
            ],
            &session.table(table).await?.collect().await?
        );
    }
    session.streams().stop_all().await
}

#[tokio::test]
async fn having_and_order_by_may_name_the_window() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let query = session
        .sql(
            "SELECT window.start AS s, count(*) AS n FROM pumps GROUP BY window(ts, '10 seconds')
             HAVING window.start < TIMESTAMP '2024-05-01 00:00:20' ORDER BY window.end DESC",
        )
        .await?
        .write_stream()
        .output_mode(OutputMode::Complete)
        .format("memory")
        .query_name("w")
        .start()
        .await?;
    pumps.add_data([
        ("2024-05-01 00:00:03", "a", 0.9),
        ("2024-05-01 00:00:13", "a", 0.4),
        ("2024-05-01 00:00:23", "a", 0.7),
    ])?;
    query.process_all_available().await?;
    assert_batches_eq!(
        [
            "+---------------------+---+",
            "| s                   | n |",
            "+---------------------+---+",
            "| 2024-05-01T00:00:10 | 1 |",
            "| 2024-05-01T00:00:00 | 1 |",
            "+---------------------+---+"
        ],
        &session.table("w").await?.collect().await?
    );
    query.stop().await
}

#[tokio::test]
async fn batch_actions_on_a_stream_are_refused_and_so_is_a_started_batch() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let frame = || pumps.to_frame();
    let refusals = [
        frame().collect().await.map(drop),
        frame().count().await.map(drop),
        frame().show().await,
        frame().to_string().await.map(drop),
        frame().cache().await.map(drop),
        session
            .sql("INSERT INTO t SELECT * FROM pumps")
            .await
            .map(drop),
        session
            .sql("CREATE TABLE t AS SELECT * FROM pumps")
            .await
            .map(drop),
        session
            .context()
            .table("pumps")
            .await?
            .collect()
            .await
            .map(drop)
            .map_err(Error::from),
    ];
    for (i, refusal) in refusals.into_iter().enumerate() {
        let error = refusal.expect_err("refused");
        if i != 5 {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{i}: {error:?}");
        }
    }
    let batch = session.sql("SELECT 1 AS one").await?;
    let error = batch
        .write_stream()
        .format("noop")
        .start()
        .await
        .expect_err("a batch frame");
    assert_eq!(error.condition(), Some("WRITE_STREAM_NOT_ALLOWED"));
    Ok(())
}

#[tokio::test]
async fn the_last_call_of_a_builder_tells_the_first_mistake() -> Result<()> {
    let session = StreamSession::new();
    let error = session
        .read_stream()
        .schema("a flot")
        .format("no such thing")
        .load()
        .await
        .expect_err("two mistakes");
    assert!(error.message().contains("unknown type `flot`"), "{error}");

    let load = |format: &'static str| session.read_stream().format(format).load();
    for (format, kind, words) in [
        ("orc", ErrorKind::Unsupported, "`orc`"),
        ("xml", ErrorKind::Unsupported, "`xml`"),
        ("rte", ErrorKind::Invalid, "did you mean `rate`?"),
    ] {
        let error = load(format).await.expect_err(format);
        assert_eq!(error.kind(), kind, "{format}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = session.read_stream().load().await.expect_err("no format");
    assert_eq!(error.option(), Some("format"));
    let error = session
        .read_stream()
        .format("rate")
        .option("rowPerSecond", 3)
        .load()
        .await
        .expect_err("a typo");
    assert_eq!(error.hint(), Some("did you mean `rowsPerSecond`?"));
    Ok(())
}

#[tokio::test]
async fn what_a_writer_lacks_or_has_twice_is_told_at_start() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let writer = || pumps.to_frame().write_stream();
    let table = session.sql("CREATE TABLE taken AS SELECT 1 AS one").await?;
    table.collect().await?;
    for (what, writer, option) in [
        ("no sink", writer(), Some("format")),
        (
            "two sinks",
            writer().format("noop").format("console"),
            Some("format"),
        ),
        ("no name", writer().format("memory"), Some("queryName")),
        (
            "an unknown option",
            writer().format("noop").option("wdith", 3),
            Some("wdith"),
        ),
        (
            "an option that bounds nothing",
            writer().format("noop").option("stateTtl", "1 h"),
            Some("stateTtl"),
        ),
        (
            "a foreign table",
            writer().format("memory").query_name("taken"),
            None,
        ),
        (
            "an empty name",
            writer().format("noop").query_name(" "),
            Some("queryName"),
        ),
    ] {
        let error = writer.start().await.expect_err(what);
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported),
            "{what}: {error:?}"
        );
        if option.is_some() {
            assert_eq!(error.option(), option, "{what}");
        }
    }
    assert!(session.streams().active().is_empty());
    for trigger in ["continuous", "real time"] {
        assert_eq!(
            trigger.parse::<Trigger>().expect_err(trigger).kind(),
            ErrorKind::Unsupported
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_name_is_one_query_at_a_time() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let start = || {
        let writer = pumps.to_frame().write_stream();
        writer.format("memory").query_name("same").start()
    };
    let first = start().await?;
    let error = start().await.expect_err("the name is taken");
    assert_eq!(error.option(), Some("queryName"));
    first.stop().await?;
    let second = start().await?;
    pumps.add_data([("2024-05-01 00:00:03", "a", 0.9)])?;
    second.process_all_available().await?;
    assert_eq!(session.table("same").await?.count().await?, 1);
    assert_eq!(
        session.streams().by_name("same").map(|q| q.id()),
        Some(second.id())
    );
    second.stop().await
}

#[tokio::test]
async fn settings_are_set_in_sql_by_either_name() -> Result<()> {
    let session = StreamSession::builder()
        .config("spark.sql.streaming.numRecentProgressUpdates", 7)
        .build()?;
    for statement in [
        "SET highwater.multiple_watermark_policy = 'max'",
        "SET spark.sql.streaming.noDataMicroBatches.enabled = false",
    ] {
        session.sql(statement).await?;
    }
    let shown = rows(
        &session,
        "SELECT name, value FROM information_schema.df_settings WHERE name LIKE 'highwater.%' AND name NOT LIKE '%location'",
    )
    .await?;
    let text = pretty_format_batches(&shown)?.to_string();
    for (name, value) in [
        ("multiple_watermark_policy", "max"),
        ("no_data_batches", "false"),
        ("recent_progress", "7"),
    ] {
        let line = text.lines().find(|l| l.contains(name)).unwrap_or_default();
        assert!(line.contains(value), "{name}: {text}");
    }
    for wrong in [
        "SET highwater.multiple_watermark_policy = 'average'",
        "SET spark.sql.streaming.multipleWatermarkPolicy = average",
        "SET highwater.no_such_thing = 1",
        "SET spark.sql.streaming.stopTimeout = 1",
    ] {
        let error = session.sql(wrong).await.expect_err(wrong);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}: {error:?}");
    }
    let bad = StreamSession::builder()
        .config("highwater.polling_interval", "soon")
        .build();
    assert!(bad.is_err());
    Ok(())
}

#[tokio::test]
async fn foreach_batch_gets_frames_of_the_users_context() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let query = pumps
        .to_frame()
        .write_stream()
        .foreach_batch(move |frame, batch| {
            let count = Arc::clone(&count);
            async move {
                let rows = frame.clone().count().await? + frame.collect().await?.len();
                count.fetch_add(rows as u64 + batch.0 * 1_000, Ordering::SeqCst);
                Ok(())
            }
        })
        .start()
        .await?;
    pumps.add_data([
        ("2024-05-01 00:00:03", "a", 0.9),
        ("2024-05-01 00:00:04", "b", 0.8),
    ])?;
    query.process_all_available().await?;
    pumps.add_data([("2024-05-01 00:00:05", "c", 0.7)])?;
    query.process_all_available().await?;
    assert_eq!(seen.load(Ordering::SeqCst), (2 + 1) + (1 + 1 + 1_000));
    query.stop().await
}

#[tokio::test]
async fn a_panic_in_the_users_code_ends_only_its_own_query() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    let good = pumps
        .to_frame()
        .write_stream()
        .format("memory")
        .query_name("good")
        .start()
        .await?;
    let bad = pumps
        .to_frame()
        .write_stream()
        .foreach_batch(|_, _| async { panic!("the user's mistake") })
        .start()
        .await?;
    pumps.add_data([("2024-05-01 00:00:03", "a", 0.9)])?;
    let error = bad.process_all_available().await.expect_err("it failed");
    assert_eq!(error.kind(), ErrorKind::User, "{error:?}");
    good.process_all_available().await?;
    assert!(good.is_active() && !bad.is_active());
    assert_eq!(session.table("good").await?.count().await?, 1);
    good.stop().await
}

#[tokio::test]
async fn observed_figures_and_mapped_batches() -> Result<()> {
    for semantics in [SqlSemantics::DataFusion, SqlSemantics::Spark] {
        observe_and_map(semantics).await?;
    }
    Ok(())
}

async fn observe_and_map(semantics: SqlSemantics) -> Result<()> {
    let session = StreamSession::builder().semantics(semantics).build()?;
    let pumps = pumps(&session)?;
    let query = pumps
        .to_frame()
        .observe(
            "seen",
            [
                count_all().alias("n"),
                max(col("psi")).alias("high"),
                sum(col("psi")),
            ],
        )?
        .map_batches("pump STRING", |rows| async move { Ok(rows.project(&[1])?) })?
        .write_stream()
        .format("memory")
        .query_name("mapped")
        .start()
        .await?;
    pumps.add_data([
        ("2024-05-01 00:00:03", "a", 0.9),
        ("2024-05-01 00:00:04", "b", 0.8),
    ])?;
    query.process_all_available().await?;
    assert_batches_sorted_eq!(
        [
            "+------+", "| pump |", "+------+", "| a    |", "| b    |", "+------+"
        ],
        &session.table("mapped").await?.collect().await?
    );
    let progress = query.last_progress().expect("a batch ran").json();
    let observed = progress.to_string();
    assert!(
        observed.contains("\"seen\"") && observed.contains("\"high\""),
        "{observed}"
    );
    query.stop().await
}

#[tokio::test]
async fn explain_tells_the_incremental_plan() -> Result<()> {
    let session = StreamSession::new();
    pumps(&session)?;
    let frame = session
        .sql("EXPLAIN SELECT pump, count(*) AS n FROM pumps GROUP BY pump")
        .await?;
    let text = frame.to_string().await?;
    assert!(
        text.contains("incremental_plan") && text.contains("logical_plan"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_query_outlives_the_handles_of_its_session() -> Result<()> {
    let session = StreamSession::new();
    let pumps = MemoryStream::new(&session, PUMPS)?;
    let context = session.context().clone();
    let query = pumps
        .to_frame()
        .write_stream()
        .format("memory")
        .query_name("kept")
        .start()
        .await?;
    pumps.add_data([("2024-05-01 00:00:03", "a", 0.9)])?;
    drop((session, pumps));
    query.process_all_available().await?;
    assert_eq!(context.table("kept").await?.count().await?, 1);
    query.stop().await
}

#[tokio::test]
async fn forms_that_are_not_ours_are_refused_by_name() -> Result<()> {
    let session = StreamSession::new();
    pumps(&session)?;
    for sql in [
        "SELECT STREAM * FROM pumps",
        "CREATE MATERIALIZED VIEW t AS SELECT * FROM pumps",
        "CREATE TABLE t AS SELECT * FROM pumps",
        "CREATE UNBOUNDED EXTERNAL TABLE t (a INT, PRIMARY KEY (a)) STORED AS csv LOCATION 'x'",
        "SELECT pump FROM pumps TABLESAMPLE (50 PERCENT)",
    ] {
        let error = session.sql(sql).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}: {error:?}");
    }
    let error = session
        .sql("SELECT k FROM t GROUP k")
        .await
        .expect_err("no SQL");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.position().is_some(), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn views_stream_and_do_not_replace_tables() -> Result<()> {
    let session = StreamSession::new();
    let pumps = pumps(&session)?;
    session
        .sql("CREATE VIEW low AS SELECT pump FROM pumps WHERE psi < 0.5")
        .await?;
    assert!(session.table("low").await?.is_streaming());
    assert!(session.read_stream().table("low").await?.is_streaming());
    pumps.to_frame().create_or_replace_temp_view("low")?;
    session
        .sql("CREATE TABLE fixed AS SELECT 1 AS one")
        .await?
        .collect()
        .await?;
    assert!(
        pumps
            .to_frame()
            .create_or_replace_temp_view("fixed")
            .is_err()
    );
    assert_eq!(
        session.table("fixed").await?.count().await?,
        1,
        "it is still there"
    );
    assert!(session.read_stream().table("fixed").await.is_err());
    let missing = session.table("nowhere").await.expect_err("no such table");
    assert_eq!(missing.condition(), Some("TABLE_OR_VIEW_NOT_FOUND"));
    Ok(())
}

#[tokio::test]
async fn join_using_brings_the_key_once() -> Result<()> {
    let session = StreamSession::new();
    let left = session
        .sql("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS l(k, x)")
        .await?;
    let right = session
        .sql("SELECT * FROM (VALUES (2, 'B'), (3, 'C')) AS r(k, y)")
        .await?;
    for (join_type, expected) in [
        (JoinType::Inner, vec!["| 2 | b | B |"]),
        (JoinType::Left, vec!["| 1 | a |   |", "| 2 | b | B |"]),
        (JoinType::Right, vec!["| 2 | b | B |", "| 3 |   | C |"]),
        (
            JoinType::Full,
            vec!["| 1 | a |   |", "| 2 | b | B |", "| 3 |   | C |"],
        ),
    ] {
        let joined = left.clone().join_using(right.clone(), join_type, &["k"])?;
        let joined = joined.sort_by(vec![col("k")])?.collect().await?;
        let frame = ["+---+---+---+", "| k | x | y |", "+---+---+---+"];
        let expected = [&frame[..], &expected[..], &frame[..1]].concat();
        assert_batches_eq!(expected, &joined);
    }
    Ok(())
}

#[tokio::test]
async fn sparks_semantics_hold_in_streams_and_ignore_the_case_of_columns() -> Result<()> {
    let session = StreamSession::builder()
        .semantics(SqlSemantics::Spark)
        .build()?;
    let rows = MemoryStream::new(&session, "\"InvoiceNo\" STRING, v BIGINT")?;
    rows.to_frame().create_or_replace_temp_view("retail")?;
    let query = session
        .sql(
            "SELECT t.invoiceNO, half FROM (SELECT INVOICENO, v / 2 AS half FROM retail WHERE invoiceno <> 'x') t",
        )
        .await?
        .write_stream()
        .format("memory")
        .query_name("halves")
        .start()
        .await?;
    rows.add_data([("a", 7), ("x", 1)])?;
    query.process_all_available().await?;
    assert_batches_eq!(
        [
            "+-----------+------+",
            "| InvoiceNo | half |",
            "+-----------+------+",
            "| a         | 3.5  |",
            "+-----------+------+"
        ],
        &session.table("halves").await?.collect().await?
    );
    query.stop().await?;
    let sum = session
        .sql("SELECT sum(v) AS s FROM retail")
        .await?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("memory")
        .query_name("sums")
        .start()
        .await?;
    rows.add_data([("b", i64::MAX)])?;
    let error = sum
        .process_all_available()
        .await
        .expect_err("the sum overflows");
    assert_eq!(error.condition(), Some("ARITHMETIC_OVERFLOW"), "{error:?}");
    Ok(())
}
