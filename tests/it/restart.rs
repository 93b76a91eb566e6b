//! A restart with a changed query: what Spark allows is allowed, and all else says operator, column and types; and
//! `allowStateEvolution`, which takes aggregate functions that are new.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater::connectors::memory::MemorySource;
use highwater::prelude::*;
use highwater::{IntoSchema, RecordBatch, Result};
use tempfile::TempDir;

use crate::state_reader::lines;

/// A stream of times (seconds of 2024-05-01 00:00), keys and values, and a checkpoint.
struct Restarts {
    session: StreamSession,
    rows: MemoryStream,
    folder: TempDir,
}

impl Restarts {
    /// The rows are `plain`; with a watermark of ten seconds they are `timed`, of one second `sooner`.
    fn new(rows: &[(u32, &str, i64)]) -> Result<Self> {
        let session = StreamSession::new();
        let stream = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
        let frame = || stream.to_frame();
        frame().create_or_replace_temp_view("plain")?;
        let timed = frame().with_watermark("ts", "10 seconds")?;
        timed.create_or_replace_temp_view("timed")?;
        let sooner = frame().with_watermark("ts", "1 second")?;
        sooner.create_or_replace_temp_view("sooner")?;
        let restarts = Self {
            session,
            rows: stream,
            folder: tempfile::tempdir()?,
        };
        restarts.add(rows)?;
        Ok(restarts)
    }

    fn add(&self, rows: &[(u32, &str, i64)]) -> Result<()> {
        let rows = rows.iter().map(|(second, k, v)| {
            let ts = format!("2024-05-01 00:{:02}:{:02}", second / 60, second % 60);
            (ts, (*k).to_owned(), *v)
        });
        self.rows.add_data(rows).map(drop)
    }

    fn at(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Runs `sql` over what is new, and stops.
    async fn run(&self, sql: &str, mode: OutputMode) -> Result<()> {
        let frame = self.session.sql(sql).await?;
        run(frame, mode, &self.at(), false).await
    }

    async fn evolve(&self, sql: &str) -> Result<()> {
        let frame = self.session.sql(sql).await?;
        run(frame, OutputMode::Update, &self.at(), true).await
    }

    /// The state, its keys and values.
    async fn state(&self) -> Result<Vec<String>> {
        state_in(&self.session, &self.at()).await
    }
}

async fn state_in(session: &StreamSession, at: &str) -> Result<Vec<String>> {
    let sql = format!("SELECT * EXCLUDE (bucket, pane) FROM state('{at}')");
    lines(session, &sql).await
}

async fn run(frame: StreamFrame, mode: OutputMode, at: &str, evolve: bool) -> Result<()> {
    let writer = frame.write_stream().format("noop").output_mode(mode);
    let writer = writer
        .checkpoint_location(at)
        .trigger(Trigger::AvailableNow);
    let writer = match evolve {
        true => writer.option("allowStateEvolution", true),
        false => writer,
    };
    writer.start().await?.await_termination().await
}

const COUNT: &str = "SELECT k, count(*) AS n FROM plain GROUP BY k";

/// Each of these goes on where the other stopped.
#[tokio::test]
async fn what_spark_allows_is_allowed() -> Result<()> {
    use OutputMode::{Complete, Update};
    for (before, after, mode, state) in [
        // A filter above the source comes, and goes.
        (
            COUNT,
            "SELECT k, count(*) AS n FROM plain WHERE v > 1 GROUP BY k",
            Update,
            ["a 2", "b 1"],
        ),
        (
            "SELECT k, count(*) AS n FROM plain WHERE v < 9 GROUP BY k",
            COUNT,
            Update,
            ["a 3", "b 1"],
        ),
        // A projection with the same schema, before and after the aggregate.
        (
            COUNT,
            "SELECT upper(k) AS k, n FROM (SELECT k, count(*) AS n FROM (SELECT v, k FROM plain) GROUP BY k)",
            Update,
            ["a 3", "b 1"],
        ),
        (
            COUNT,
            "SELECT k AS key, count(*) + 1 AS more FROM plain GROUP BY k",
            Update,
            ["a 3", "b 1"],
        ),
        // From update to complete, and back.
        (COUNT, COUNT, Complete, ["a 3", "b 1"]),
        // Another name in the source, under another alias.
        (
            COUNT,
            "SELECT p.k, count(*) AS n FROM plain AS p GROUP BY p.k",
            Update,
            ["a 3", "b 1"],
        ),
    ] {
        let restarts = Restarts::new(&[(0, "a", 1)])?;
        restarts.run(before, Update).await?;
        restarts.add(&[(0, "a", 0), (0, "a", 5), (0, "b", 7)])?;
        restarts
            .run(after, mode)
            .await
            .map_err(|e| e.context(after))?;
        assert_eq!(restarts.state().await?, state, "{after}");
        restarts
            .run(before, Update)
            .await
            .map_err(|e| e.context(before))?;
    }
    Ok(())
}

/// The delay of a watermark is of no column: the state goes on, and closes by the new one.
#[tokio::test]
async fn the_delay_of_a_watermark_may_change() -> Result<()> {
    let sql = |from: &str| {
        format!(
            "SELECT window.start AS s, count(*) AS n FROM {from} GROUP BY window(ts, '10 seconds')"
        )
    };
    let restarts = Restarts::new(&[(3, "a", 1), (14, "a", 1)])?;
    restarts.run(&sql("timed"), OutputMode::Append).await?;
    assert_eq!(restarts.state().await?.len(), 2);
    // 00:15 less one second is past the first window, less ten it is not.
    restarts.add(&[(15, "a", 1)])?;
    restarts.run(&sql("sooner"), OutputMode::Append).await?;
    let state = restarts.state().await?;
    assert!(state.len() == 1 && state[0].ends_with(" 2"), "{state:?}");
    Ok(())
}

/// What is refused, and what is said.
#[tokio::test]
async fn what_spark_refuses_is_refused() -> Result<()> {
    const KEY: &str = "STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE";
    const VALUE: &str = "STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE";
    const OTHER: &str = "STREAMING_STATEFUL_OPERATOR_NOT_MATCH_IN_STATE_METADATA";
    const MISSING: &str = "STREAMING_STATEFUL_OPERATOR_MISSING_STATE_DIRECTORY";
    let windows = |size: &str| {
        format!("SELECT window.start AS s, count(*) AS n FROM timed GROUP BY window(ts, '{size}')")
    };
    let (ten, twenty) = (windows("10 seconds"), windows("20 seconds"));
    let limit = "SELECT k FROM timed LIMIT 2";
    for (before, after, condition, said) in [
        (
            COUNT,
            "SELECT k, count(*) AS n, sum(v) AS s FROM plain GROUP BY k",
            VALUE,
            &["aggregate", "missing", "Int64"][..],
        ),
        (
            COUNT,
            "SELECT k, max(k) AS n FROM plain GROUP BY k",
            VALUE,
            &["aggregate", "Int64", "Utf8"],
        ),
        (
            COUNT,
            "SELECT v, count(*) AS n FROM plain GROUP BY v",
            KEY,
            &["aggregate", "`v`", "Utf8", "Int64"],
        ),
        (
            COUNT,
            "SELECT k, v, count(*) AS n FROM plain GROUP BY k, v",
            KEY,
            &["aggregate", "`v`", "missing"],
        ),
        (
            COUNT,
            "SELECT k FROM plain LIMIT 3",
            OTHER,
            &["`aggregate`", "not in the query"],
        ),
        (
            COUNT,
            "SELECT k FROM plain",
            OTHER,
            &["`aggregate`", "not in the query"],
        ),
        (
            "SELECT k FROM plain",
            COUNT,
            MISSING,
            &["`aggregate`", "had no state"],
        ),
        (&ten, &twenty, KEY, &["10000000 µs", "20000000 µs"]),
        (&ten, limit, OTHER, &["`aggregate`", "not in the query"]),
    ] {
        let restarts = Restarts::new(&[(0, "a", 1)])?;
        let mode = |sql: &str| match sql.contains("GROUP BY") {
            true => OutputMode::Update,
            false => OutputMode::Append,
        };
        restarts.run(before, mode(before)).await?;
        let error = restarts.run(after, mode(after)).await.expect_err(after);
        assert_eq!(error.condition(), Some(condition), "{after}: {error}");
        for said in said {
            assert!(error.message().contains(said), "{after}: {error}");
        }
        assert!(
            error.operator().is_some() && error.hint().is_some(),
            "{error:?}"
        );
        // It did no harm.
        restarts.add(&[(0, "a", 1)])?;
        restarts.run(before, mode(before)).await?;
    }
    Ok(())
}

/// A stream of one column, known by a name.
async fn named(
    session: &StreamSession,
    name: &str,
    rows: &Arc<MemorySource>,
) -> Result<StreamFrame> {
    let source: Arc<MemorySource> = Arc::clone(rows);
    session.read_stream().name(name).source(source).load().await
}

#[tokio::test]
async fn sources_are_known_by_name() -> Result<()> {
    let session = StreamSession::new();
    let schema = "v BIGINT".into_schema()?;
    let (one, two) = (
        Arc::new(MemorySource::new(&schema)),
        Arc::new(MemorySource::new(&schema)),
    );
    let folder = tempfile::tempdir()?;
    let at = folder.path().display().to_string();
    let orders = || named(&session, "orders", &one);
    let returns = || named(&session, "returns", &two);
    let go = |frame: StreamFrame| {
        let at = at.clone();
        async move { run(frame, OutputMode::Append, &at, false).await }
    };
    go(orders().await?.union(returns().await?)?).await?;
    one.add(RecordBatch::try_from_iter([("v", int(1))])?)?;
    go(orders().await?.union(returns().await?)?).await?;
    // Their order does not matter, nor what stands above them.
    let swapped = returns()
        .await?
        .filter(col("v").gt(lit(0)))?
        .union(orders().await?)?;
    go(swapped).await?;
    one.add(RecordBatch::try_from_iter([("v", int(2))])?)?;
    go(orders()
        .await?
        .filter(col("v").gt(lit(0)))?
        .union(returns().await?)?)
    .await?;

    let third = Arc::new(MemorySource::new(&schema));
    let with_third = orders()
        .await?
        .union(returns().await?)?
        .union(named(&session, "third", &third).await?)?;
    for (frame, said) in [
        (
            with_third,
            "There are [2] sources in the checkpoint offsets and now there are [3]",
        ),
        (orders().await?, "missing: `returns`"),
        (
            named(&session, "sales", &one)
                .await?
                .union(returns().await?)?,
            "new: `sales`, missing: `orders`",
        ),
    ] {
        let error = go(frame).await.expect_err(said);
        assert!(error.message().contains(said), "{error}");
        assert!(error.hint().is_some());
    }
    go(orders().await?.union(returns().await?)?).await
}

/// Two aggregates that change places would go on with each other's counts.
#[tokio::test]
async fn operators_keep_their_sources() -> Result<()> {
    let session = StreamSession::new();
    let schema = "ts TIMESTAMP, v BIGINT".into_schema()?;
    let (one, two) = (
        Arc::new(MemorySource::new(&schema)),
        Arc::new(MemorySource::new(&schema)),
    );
    let folder = tempfile::tempdir()?;
    let at = folder.path().display().to_string();
    let counts = |name: &'static str, rows: &Arc<MemorySource>| {
        let (session, rows) = (session.clone(), Arc::clone(rows));
        async move {
            let frame = named(&session, name, &rows).await?;
            let frame = frame.with_watermark("ts", "10 seconds")?;
            let frame = frame.filter(col("v").gt(lit(0)))?;
            frame.group_by([window(col("ts"), "10 seconds")]).count()
        }
    };
    let (orders, returns) = (
        counts("orders", &one).await?,
        counts("returns", &two).await?,
    );
    let both = orders.clone().union(returns.clone())?;
    let swapped = returns.union(orders)?;
    run(both.clone(), OutputMode::Append, &at, false).await?;
    let ts = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![5]));
    one.add(RecordBatch::try_from_iter([
        ("ts", ts as _),
        ("v", int(1)),
    ])?)?;
    run(both.clone(), OutputMode::Append, &at, false).await?;
    let error = run(swapped, OutputMode::Append, &at, false).await;
    let error = error.expect_err("they have changed places");
    assert!(
        error
            .message()
            .contains("reads `orders` in the checkpoint and `returns` in the query")
            || error
                .message()
                .contains("reads `returns` in the checkpoint and `orders` in the query"),
        "{error}"
    );
    run(both, OutputMode::Append, &at, false).await
}

fn int(value: i64) -> arrow::array::ArrayRef {
    Arc::new(arrow::array::Int64Array::from(vec![value]))
}

const MORE: &str = "SELECT k, max(v) AS high, count(*) AS n, avg(v) AS mean FROM plain GROUP BY k";

/// The state of `MORE` by the names of the functions: the group, its count and its maximum.
async fn counts(restarts: &Restarts) -> Result<Vec<String>> {
    let frame = restarts.session.read_state(restarts.at()).load().await?;
    let names = frame.schema().fields().iter().map(|f| f.name().clone());
    let names: Vec<_> = names.collect();
    let place = |what: &str| {
        names
            .iter()
            .position(|name| name.starts_with(what))
            .expect("a column")
    };
    let columns = [0, place("count("), place("max(")].map(|at| format!("\"{}\"", names[at]));
    frame.create_or_replace_temp_view("seen")?;
    let sql = format!("SELECT {} FROM seen", columns.join(", "));
    lines(&restarts.session, &sql).await
}

/// Old groups have no maximum until a row of theirs comes, and count on.
#[tokio::test]
async fn functions_may_be_added() -> Result<()> {
    let restarts = Restarts::new(&[(0, "a", 9), (0, "b", 9)])?;
    restarts.run(COUNT, OutputMode::Update).await?;
    let error = restarts
        .run(MORE, OutputMode::Update)
        .await
        .expect_err("not asked for");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("allowStateEvolution")),
        "{error}"
    );

    restarts.add(&[(0, "b", 3), (0, "c", 4)])?;
    restarts.evolve(MORE).await?;
    assert_eq!(counts(&restarts).await?, ["a 1", "b 2 3", "c 1 4"]);
    // What was is shown as it was then.
    let at = restarts.at();
    let old = format!("SELECT * EXCLUDE (bucket, pane) FROM state('{at}', batch => 0)");
    assert_eq!(lines(&restarts.session, &old).await?, ["a 1", "b 1"]);

    // The option is not needed again, the old changelogs are still read, and complete mode shows every group.
    restarts.add(&[(0, "c", 6)])?;
    let query = restarts.session.sql(MORE).await?.write_stream();
    let query = query
        .format("memory")
        .query_name("groups")
        .output_mode(OutputMode::Complete);
    let query = query.checkpoint_location(&at).start().await?;
    query.process_all_available().await?;
    let rows = lines(&restarts.session, "SELECT k, n, high, mean FROM groups").await?;
    assert_eq!(rows, ["a 1", "b 2 3 3.0", "c 2 6 5.0"]);
    query.stop().await?;

    // Less than there is, or another in its place, is refused even so.
    for (less, column) in [
        (COUNT, "max"),
        (
            "SELECT k, max(v) AS high, count(*) AS n, sum(v) AS s FROM plain GROUP BY k",
            "avg",
        ),
    ] {
        let error = restarts.evolve(less).await.expect_err(less);
        let condition = "STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE";
        assert_eq!(error.condition(), Some(condition));
        assert!(
            error.column().is_some_and(|c| c.starts_with(column)),
            "{error}"
        );
    }
    // Keys and operators do not evolve.
    for other in [
        "SELECT v, count(*) AS n FROM plain GROUP BY v",
        "SELECT k FROM plain LIMIT 1",
    ] {
        let frame = restarts.session.sql(other).await?;
        let mode = if other.contains("LIMIT") {
            OutputMode::Append
        } else {
            OutputMode::Update
        };
        run(frame, mode, &at, true).await.expect_err(other);
    }
    Ok(())
}

#[tokio::test]
async fn functions_may_be_added_to_sessions() -> Result<()> {
    let sql = |functions: &str| {
        format!("SELECT k, {functions} FROM timed GROUP BY session_window(ts, '5 seconds'), k")
    };
    let restarts = Restarts::new(&[(1, "a", 9), (1, "b", 9)])?;
    restarts
        .run(&sql("count(*) AS n"), OutputMode::Update)
        .await?;
    restarts.add(&[(4, "b", 3)])?;
    restarts
        .evolve(&sql("max(v) AS high, count(*) AS n"))
        .await?;
    assert_eq!(counts(&restarts).await?, ["a 1", "b 2 3"]);
    restarts
        .run(&sql("max(v) AS high, count(*) AS n"), OutputMode::Update)
        .await
}

/// A run that evolves and dies before its first commit leaves the checkpoint to the old query as to the new one.
#[tokio::test]
async fn a_crash_on_the_way_leaves_both_queries_a_way_on() -> Result<()> {
    for has_intent in [true, false] {
        for old_goes_on in [true, false] {
            let restarts = Restarts::new(&[(0, "a", 9)])?;
            restarts.run(COUNT, OutputMode::Update).await?;
            if has_intent {
                restarts.add(&[(0, "a", 3), (0, "b", 4)])?;
                die(&restarts).await?;
            } else {
                // It has nothing to run: only the description of the operators is written.
                restarts.evolve(MORE).await?;
                restarts.add(&[(0, "a", 3), (0, "b", 4)])?;
            }
            assert!(
                described(restarts.folder.path()),
                "the new columns are described"
            );
            if old_goes_on {
                restarts.run(COUNT, OutputMode::Update).await?;
                assert_eq!(restarts.state().await?, ["a 2", "b 1"]);
            } else {
                restarts.evolve(MORE).await?;
                assert_eq!(counts(&restarts).await?, ["a 2 3", "b 1 4"]);
                restarts.run(MORE, OutputMode::Update).await?;
            }
        }
    }
    Ok(())
}

/// Starts the new query, and lets its sink fail: its micro-batch is intended, and never done.
async fn die(restarts: &Restarts) -> Result<()> {
    let writer = restarts.session.sql(MORE).await?.write_stream();
    let writer = writer
        .output_mode(OutputMode::Update)
        .checkpoint_location(restarts.at());
    let writer = writer.option("allowStateEvolution", true);
    let writer = writer.foreach_batch(|_, _| async { Err(Error::unavailable("the sink is down")) });
    let query = writer.start().await?;
    query
        .process_all_available()
        .await
        .expect_err("the sink fails");
    Ok(())
}

fn described(folder: &Path) -> bool {
    let names = fs::read_dir(folder).expect("a folder").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("operators-")).count() > 0
}

#[tokio::test]
async fn evolution_needs_a_checkpoint() -> Result<()> {
    let restarts = Restarts::new(&[])?;
    let writer = restarts
        .session
        .sql(COUNT)
        .await?
        .write_stream()
        .format("noop");
    let writer = writer
        .output_mode(OutputMode::Update)
        .option("allowStateEvolution", true);
    let error = writer.start().await.expect_err("no checkpoint");
    assert_eq!(error.option(), Some("allowStateEvolution"));
    Ok(())
}
