//! Windows in batch queries, in SQL and in frames: the rules are the same in a stream.

mod marks;
mod sharing;

use std::time::Duration;

use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use highwater_core::{Error, ErrorKind, Result};

use super::{resolve_window_names, sliding, window};
use crate::functions::register_functions;
use crate::testing::lines;

/// Five rows at seconds 1, 4, 9, 12 and never, of the minute 1970-01-01 00:00.
const ROWS: &str = "(SELECT arrow_cast(t * 1000000, 'Timestamp(Microsecond, None)') AS ts, k, t FROM \
    (VALUES (1, 'a'), (4, 'b'), (9, 'a'), (12, 'a'), (NULL, 'a')) AS rows(t, k))";

async fn sql(text: &str) -> Result<Vec<String>> {
    let ctx = SessionContext::new();
    register_functions(&ctx)?;
    let state = ctx.state();
    let text = text.replace("events", &format!("{ROWS} events"));
    let mut statement = state.sql_to_statement(&text, &datafusion::config::Dialect::Generic)?;
    resolve_window_names(&mut statement);
    let plan = state.statement_to_plan(statement).await?;
    let frame = ctx.execute_logical_plan(plan).await?;
    // Seconds are enough to tell the windows apart.
    Ok(lines(&frame.collect().await?)
        .into_iter()
        .map(|line| {
            line.replace("1970-01-01T00:00:", ":")
                .replace("1969-12-31T23:59:", "-:")
        })
        .collect())
}

#[tokio::test]
async fn windows_in_sql() {
    for (text, expected) in [
        (
            "SELECT window.start AS s, window.end AS e, count(*) AS n FROM events GROUP BY window(ts, '10 seconds')",
            &[":00|:10|3", ":10|:20|1"][..],
        ),
        (
            "SELECT k, window.start, count(*) AS n FROM events GROUP BY k, window(ts, INTERVAL '10' SECOND)",
            &["a|:00|2", "a|:10|1", "b|:00|1"],
        ),
        (
            "SELECT window.start AS s, count(*) AS n FROM events GROUP BY window(ts, '10 seconds', '5 seconds')",
            &["-:55|2", ":00|3", ":05|2", ":10|1"],
        ),
        (
            "SELECT window.start AS s, window.end AS e, count(*) AS n FROM events GROUP BY window(ts, '10 seconds', '10 seconds', '4 seconds')",
            &["-:54|:04|1", ":04|:14|3"],
        ),
        (
            "SELECT window, count(*) AS n FROM events GROUP BY window(ts, '20 seconds')",
            &["{start: :00, end: :20}|4"],
        ),
        (
            "SELECT window.start AS s, max(window.end) AS e FROM events GROUP BY window(ts, '10 seconds') HAVING count(*) > 1",
            &[":00|:10"],
        ),
        (
            "SELECT window.start AS s, count(*) AS n FROM events GROUP BY window(ts, '10 seconds') ORDER BY window.start DESC LIMIT 1",
            &[":10|1"],
        ),
        (
            "SELECT window(ts, '10 seconds')['start'] AS s, t FROM events",
            &[":00|1", ":00|4", ":00|9", ":10|12"],
        ),
        (
            "SELECT w.end AS e, t FROM (SELECT window(ts, '10 seconds', '5 seconds') AS w, t FROM events WHERE t = 12)",
            &[":15|12", ":20|12"],
        ),
        (
            "SELECT t FROM events WHERE window(ts, '10 seconds')['start'] > TIMESTAMP '1970-01-01 00:00:05'",
            &["12"],
        ),
        (
            "SELECT t FROM events WHERE window(ts, '10 seconds', '5 seconds')['end'] = TIMESTAMP '1970-01-01 00:00:20'",
            &["12"],
        ),
        (
            "SELECT w2.start AS s, n, c FROM (SELECT window(window, '20 seconds') AS w2, sum(n) AS n, count(*) AS c FROM \
            (SELECT window, count(*) AS n FROM events GROUP BY window(ts, '5 seconds')) GROUP BY window(window, '20 seconds'))",
            &[":00|4|3"],
        ),
        (
            "SELECT window.start AS s, k, count(*) AS n FROM events GROUP BY ROLLUP(window(ts, '20 seconds'), k)",
            &[":00|a|3", ":00|b|1", ":00||4", "||4"],
        ),
        (
            "SELECT window(arrow_cast(ts, 'Timestamp(Nanosecond, Some(\"UTC\"))'), '10 seconds')['start'] AS s FROM events WHERE t = 12",
            &[":10Z"],
        ),
        (
            "SELECT window(arrow_cast(-1, 'Timestamp(Nanosecond, None)'), '1 second')['start'] AS s",
            &["-:59"],
        ),
        (
            "SELECT window_time(window) AS t, count(*) AS n FROM events GROUP BY window(ts, '10 seconds')",
            &[":09.999999|3", ":19.999999|1"],
        ),
        ("SELECT window_time(window(NULL, '1 second')) AS t", &[]),
        (
            "SELECT window(DATE '1970-01-01', '1 day')['start'] AS s",
            &[":00"],
        ),
    ] {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(sql(text).await.expect(text), expected, "{text}");
    }
}

#[tokio::test]
async fn mistakes_are_told_when_the_query_is_planned() {
    for (text, why) in [
        (
            "SELECT count(*) FROM events GROUP BY window(t, '10 seconds')",
            "must be a timestamp or a window, not Int64",
        ),
        (
            "SELECT count(*) FROM events GROUP BY window(ts, '10 seconds', '15 seconds')",
            "must be <= the window duration",
        ),
        (
            "SELECT count(*) FROM events GROUP BY window(ts, '1 month')",
            "Intervals greater than a month is not supported (1 month)",
        ),
        (
            "SELECT count(*) FROM events GROUP BY window(ts, k)",
            "the lengths must be literals",
        ),
        (
            "SELECT count(*) FROM events GROUP BY window(ts)",
            "2 to 4 arguments",
        ),
        (
            "SELECT window_time(ts) FROM events",
            "not a correct window column",
        ),
        (
            "SELECT window(ts, '10 seconds'), window(ts, '5 seconds') FROM events",
            "cartesian product",
        ),
        (
            "SELECT t FROM events ORDER BY window(ts, '10 seconds')",
            "window(…) cannot be used in Sort",
        ),
    ] {
        let error = sql(text).await.expect_err(text);
        assert!(error.message().contains(why), "{text}: {error}");
    }
}

#[tokio::test]
async fn windows_in_frames() {
    let ctx = SessionContext::new();
    register_functions(&ctx).expect("registered");
    let frame = ctx
        .sql(&format!("SELECT * FROM {ROWS} events"))
        .await
        .expect("rows");
    for (spec, n) in [
        (window(col("ts"), "10 seconds"), 2),
        (window(col("ts"), Duration::from_secs(20)), 1),
        (window(col("ts"), sliding("10 seconds", "5 seconds")), 4),
        (
            window(
                col("ts"),
                sliding("10 seconds", "10 seconds").starting_at("4 seconds"),
            ),
            2,
        ),
    ] {
        let windows = frame
            .clone()
            .aggregate(vec![spec.clone()], vec![count(lit(1)).alias("n")])
            .and_then(|frame| frame.select(vec![field("start"), field("end"), col("n")]))
            .expect("planned");
        assert_eq!(windows.count().await.expect("counted"), n, "{spec}");
    }
}

#[tokio::test]
async fn a_bad_length_is_told_by_the_frame_call() {
    let ctx = SessionContext::new();
    let frame = ctx
        .sql(&format!("SELECT * FROM {ROWS} events"))
        .await
        .expect("rows");
    let error = frame
        .aggregate(vec![window(col("ts"), "soon")], vec![count(lit(1))])
        .expect_err("no length");
    let error = Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.condition(), Some("CANNOT_PARSE_INTERVAL"));
}

fn field(name: &str) -> Expr {
    datafusion::functions::core::expr_ext::FieldAccessor::field(col("window"), name)
}
