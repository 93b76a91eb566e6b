//! Sessions in SQL and in frames: what becomes of them in the plan of a stream, and the session of each row.

use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{Expr, SessionContext, cast, col, lit, when};
use highwater_core::{Error, ErrorKind, Interval};

use super::kernels::session_of_row;
use super::{SessionGap, session_window};
use crate::event_time::{EventTime, SESSION_KEY};
use crate::functions::register_functions;
use crate::functions::testing::{MARK, aggregates, fixture, frame, key, marks, planned, sql};
use crate::testing::lines;

const BY_KEY: &str = "CASE WHEN k = 'a' THEN '5 seconds' ELSE '10 seconds' END";

/// The aggregate's key is the session of a row, and says so; above it is event time and no key of sessions.
fn check(plan: &LogicalPlan, marked: bool) {
    let mark = MARK.filter(|_| marked);
    let aggregates = aggregates(plan);
    let aggregate = aggregates.first().expect("an aggregate");
    for field in [key(aggregate).as_ref(), aggregate.schema.field(0)] {
        assert!(field.metadata().contains_key(SESSION_KEY), "{plan}");
        assert_eq!(EventTime::of(field), mark, "{plan}");
        assert!(matches!(field.data_type(), DataType::Struct(_)), "{plan}");
    }
    assert_eq!(marks(plan)[..3], [mark, None, None], "{plan}");
    for field in plan.schema().fields() {
        assert!(!field.metadata().contains_key(SESSION_KEY), "{plan}");
    }
}

#[tokio::test]
async fn the_key_is_the_session_of_a_row() {
    let fixture = fixture().await;
    for gap in [
        "'5 seconds'",
        "INTERVAL '5 seconds'",
        "INTERVAL 5 MINUTE",
        BY_KEY,
        "arrow_cast(v, 'Duration(Second)')",
    ] {
        for (table, marked) in [("timed", true), ("events", false)] {
            let text = format!(
                "SELECT session_window, session_window.start, session_window.end, k, count(*) AS n \
                FROM {table} GROUP BY session_window(ts, {gap}), k"
            );
            let [analyzed, optimized] = sql(&fixture, &text).await.expect(gap);
            assert_eq!(
                analyzed.schema().field_names(),
                ["session_window", "start", "end", &format!("{table}.k"), "n"]
            );
            check(&analyzed, marked);
            check(&optimized, marked);
        }
    }
}

#[tokio::test]
async fn the_physical_key_says_that_it_is_a_session() {
    let fixture = fixture().await;
    let text = format!("SELECT count(*) AS n FROM timed GROUP BY k, session_window(ts, {BY_KEY})");
    let [_, optimized] = sql(&fixture, &text).await.expect("planned");
    let aggregate = aggregates(&optimized).remove(0);
    let input = aggregate.input.schema();
    let state = fixture.ctx.state();
    let [k, session] = [0, 1].map(|i| {
        let key = state.create_physical_expr(aggregate.group_expr[i].clone(), input);
        key.and_then(|key| key.return_field(input.as_arrow()))
            .expect("typed")
    });
    assert!(!k.metadata().contains_key(SESSION_KEY));
    assert!(session.metadata().contains_key(SESSION_KEY));
    assert_eq!(EventTime::of(&session), MARK);
}

#[tokio::test]
async fn frames_take_gaps_of_every_kind() {
    let fixture = fixture().await;
    let by_key = when(col("k").eq(lit("a")), lit("5 seconds")).otherwise(lit("1 second"));
    let gaps: Vec<SessionGap> = vec![
        "5 minutes".into(),
        "5 minutes".to_owned().into(),
        Duration::from_secs(300).into(),
        Interval::from_micros(300_000_000).into(),
        by_key.expect("typed").into(),
        cast(
            col("v"),
            DataType::Duration(arrow::datatypes::TimeUnit::Second),
        )
        .into(),
    ];
    for gap in gaps {
        let timed = fixture.logical("SELECT * FROM timed").await;
        let frame = frame(&fixture, timed.expect("planned"))
            .aggregate(
                vec![session_window(col("ts"), gap.clone()), col("k")],
                vec![count(lit(1)).alias("n")],
            )
            .and_then(|frame| frame.select_columns(&["session_window", "k", "n"]))
            .expect("typed");
        for plan in planned(&fixture, frame.logical_plan().clone()).expect("planned") {
            check(&plan, true);
        }
    }
}

#[tokio::test]
async fn sessions_are_windows_to_what_is_above() {
    let fixture = fixture().await;
    let text = "SELECT w2, count(*) AS c FROM (SELECT window(wt, '20 seconds') AS w2 FROM \
        (SELECT window_time(session_window) AS wt, n FROM \
        (SELECT session_window, k, count(*) AS n FROM timed GROUP BY session_window(ts, '5 seconds'), k))) GROUP BY w2";
    for plan in sql(&fixture, text).await.expect("planned") {
        let aggregates = aggregates(&plan);
        assert_eq!(aggregates.len(), 2, "{plan}");
        assert_eq!(marks(&plan), [MARK, None], "{plan}");
        assert!(!key(&aggregates[0]).metadata().contains_key(SESSION_KEY));
        assert!(key(&aggregates[1]).metadata().contains_key(SESSION_KEY));
    }
    // Grouping by the column of sessions merges nothing any more.
    let text = "SELECT session_window, sum(n) AS n FROM (SELECT session_window, k, count(*) AS n FROM timed \
        GROUP BY session_window(ts, '5 seconds'), k) GROUP BY session_window";
    for plan in sql(&fixture, text).await.expect("planned") {
        let key = key(&aggregates(&plan)[0]);
        assert!(!key.metadata().contains_key(SESSION_KEY), "{plan}");
        assert_eq!(EventTime::of(&key), MARK, "{plan}");
    }
}

#[tokio::test]
async fn filters_on_sessions_stay_above_those_on_keys_do_not() {
    let fixture = fixture().await;
    let sessions = "SELECT session_window, k, count(*) AS n FROM timed GROUP BY session_window(ts, '5 seconds'), k";
    // The microseconds of 2024-05-01 begin with 17145216.
    for text in [
        format!(
            "{sessions} HAVING session_window.start > TIMESTAMP '2024-05-01 00:00:00' AND k = 'kay'"
        ),
        format!(
            "SELECT * FROM ({sessions}) WHERE session_window.end > TIMESTAMP '2024-05-01 00:00:00' AND k = 'kay'"
        ),
        format!(
            "SELECT n FROM (SELECT session_window.start AS s, k, n FROM ({sessions})) WHERE s > TIMESTAMP '2024-05-01 00:00:00' AND k = 'kay'"
        ),
    ] {
        let [_, optimized] = sql(&fixture, &text).await.expect(&text);
        let below = aggregates(&optimized)[0].input.display_indent().to_string();
        assert!(!below.contains("17145216"), "{optimized}");
        assert!(below.contains("kay"), "{optimized}");
        assert!(
            optimized.display_indent().to_string().contains("17145216"),
            "{optimized}"
        );
    }
}

#[tokio::test]
async fn mistakes_are_told_when_the_query_is_planned() {
    let fixture = fixture().await;
    let group = |keys: &str| format!("SELECT count(*) AS n FROM timed GROUP BY {keys}");
    for (text, why) in [
        (
            "SELECT count(*) AS n FROM dim GROUP BY session_window(ts, '5 seconds'), k".to_owned(),
            "over a table that does not stream",
        ),
        (
            "SELECT session_window(ts, '5 seconds') FROM timed".to_owned(),
            "can only be a grouping key",
        ),
        (
            "SELECT v FROM timed WHERE session_window(ts, '5 seconds')['start'] IS NOT NULL"
                .to_owned(),
            "can only be a grouping key",
        ),
        (
            "SELECT max(session_window.end) FROM timed GROUP BY session_window(ts, '5 seconds'), k"
                .to_owned(),
            "can only be a grouping key",
        ),
        (
            group("session_window(ts, '5 seconds')['start'], k"),
            "can only be a grouping key",
        ),
        (
            group("ROLLUP(session_window(ts, '5 seconds'), k)"),
            "can only be a grouping key",
        ),
        (
            group("session_window(ts, '5 seconds'), session_window(ts, '9 seconds')"),
            "Multiple time/session window expressions would result in a cartesian product",
        ),
        (
            group("session_window(ts, '5 seconds'), window(ts, '5 seconds')"),
            "Multiple time/session window expressions would result in a cartesian product",
        ),
        (
            group("session_window(ts), k"),
            "session_window takes 2 arguments, not 1",
        ),
        (
            group("session_window(ts, '5 seconds', '5 seconds'), k"),
            "takes 2 arguments, not 3",
        ),
        (
            group("session_window(v, '5 seconds'), k"),
            "must be a timestamp or a window, not Int64",
        ),
        (
            group("session_window(ts, v), k"),
            "must be CalendarIntervalType, but got Int64",
        ),
        (
            group("session_window(ts, 'soon'), k"),
            "unable to parse `soon`",
        ),
        (
            group("session_window(ts, '1 month'), k"),
            "Intervals greater than a month",
        ),
        (
            group("session_window(ts, INTERVAL '1' YEAR), k"),
            "Intervals greater than a month",
        ),
    ] {
        let error = sql(&fixture, &text).await.expect_err(&text);
        assert!(error.message().contains(why), "{text}: {error}");
    }
}

/// The sessions of single rows at seconds 1 (key a), 4 (key b) and never (key a), with `gap`.
async fn of_rows(gap: Expr) -> highwater_core::Result<Vec<String>> {
    let ctx = SessionContext::new();
    register_functions(&ctx)?;
    let rows = ctx
        .sql(
            "SELECT arrow_cast(t * 1000000, 'Timestamp(Microsecond, None)') AS ts, k, t \
            FROM (VALUES (1, 'a'), (4, 'b'), (NULL, 'a')) AS rows(t, k)",
        )
        .await?;
    let session = session_of_row(col("ts"), &gap)?;
    let rows = rows.select(vec![session.alias("s")])?.collect().await?;
    let lines = lines(&rows).into_iter();
    Ok(lines
        .map(|line| line.replace("1970-01-01T00:00:", ":"))
        .collect())
}

#[tokio::test]
async fn a_row_opens_a_session_as_long_as_its_gap() {
    let parse = |text: &str| SessionContext::new().parse_sql_expr(text, &schema());
    for (gap, expected) in [
        (
            "'5 seconds'",
            ["", "{start: :01, end: :06}", "{start: :04, end: :09}"],
        ),
        (
            "INTERVAL '1 minute'",
            [
                "",
                "{start: :01, end: 1970-01-01T00:01:01}",
                "{start: :04, end: 1970-01-01T00:01:04}",
            ],
        ),
        // A gap of its own for each row.
        (
            BY_KEY,
            ["", "{start: :01, end: :06}", "{start: :04, end: :14}"],
        ),
        (
            "CASE WHEN k = 'a' THEN INTERVAL '2 seconds' ELSE INTERVAL '3 seconds' END",
            ["", "{start: :01, end: :03}", "{start: :04, end: :07}"],
        ),
        (
            "arrow_cast(t, 'Duration(Second)')",
            ["", "{start: :01, end: :02}", "{start: :04, end: :08}"],
        ),
        // Null, not above zero, no length: there is no session (Spark).
        (
            "CASE WHEN k = 'a' THEN '5 seconds' END",
            ["", "", "{start: :01, end: :06}"],
        ),
        (
            "CASE WHEN k = 'a' THEN '0 seconds' ELSE '1 second' END",
            ["", "", "{start: :04, end: :05}"],
        ),
        (
            "CASE WHEN k = 'a' THEN '-1 second' ELSE '1 second' END",
            ["", "", "{start: :04, end: :05}"],
        ),
        (
            "CASE WHEN k = 'a' THEN 'soon' ELSE '1 second' END",
            ["", "", "{start: :04, end: :05}"],
        ),
        ("'0 seconds'", ["", "", ""]),
        ("'-5 seconds'", ["", "", ""]),
        ("NULL", ["", "", ""]),
    ] {
        let gap = parse(gap).expect(gap);
        assert_eq!(
            of_rows(gap.clone()).await.expect("computed"),
            expected,
            "{gap}"
        );
    }
    for gap in [
        "CASE WHEN k = 'a' THEN '1 month' ELSE '1 day' END",
        "CASE WHEN k = 'a' THEN INTERVAL '1 month' END",
    ] {
        let error = of_rows(parse(gap).expect(gap)).await.expect_err(gap);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.message().contains("Intervals greater than a month"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_bad_gap_is_told_by_the_frame_call() {
    let fixture = fixture().await;
    let timed = fixture
        .logical("SELECT * FROM timed")
        .await
        .expect("planned");
    let error = frame(&fixture, timed)
        .aggregate(vec![session_window(col("ts"), "soon"), col("k")], vec![])
        .expect_err("no length");
    assert_eq!(
        Error::from(error).condition(),
        Some("CANNOT_PARSE_INTERVAL")
    );
}

fn schema() -> datafusion::common::DFSchema {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    let fields = vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("k", DataType::Utf8, true),
        Field::new("t", DataType::Int64, true),
    ];
    Schema::new(fields).try_into().expect("distinct names")
}
