//! Tests: which sliding windows share panes, and what their plans look like.

use datafusion::logical_expr::LogicalPlan;

use crate::event_time::{EventTime, Span};
use crate::functions::testing::{MARK, aggregates, fixture, key, marks, sql, sql_with_panes};

const SECOND: i64 = 1_000_000;

/// Ten seconds every five, and every four.
const SPAN: Span = Span {
    size: 10 * SECOND,
    slide: 5 * SECOND,
    start: 0,
    panes: true,
};

fn unnests(plan: &LogicalPlan) -> bool {
    plan.display_indent().to_string().contains("Unnest")
}

#[tokio::test]
async fn the_key_says_what_the_windows_are() {
    let fixture = fixture().await;
    for (spec, span) in [
        ("'10 seconds', '5 seconds'", SPAN),
        (
            "'10 seconds', '4 seconds', '1 second'",
            Span {
                slide: 4 * SECOND,
                start: SECOND,
                ..SPAN
            },
        ),
    ] {
        for (table, timed) in [("timed", true), ("events", false)] {
            let text = format!(
                "SELECT window, window.start, k, count(*) AS n, sum(v) FILTER (WHERE v > 1) AS s, avg(v) AS a, \
                min(v) AS lo, max(v) AS hi, stddev(v) AS d, bool_and(v > 1) AS b FROM {table} GROUP BY k, window(ts, {spec})"
            );
            for plan in sql_with_panes(&fixture, &text).await.expect(spec) {
                assert!(!unnests(&plan), "{plan}");
                let aggregate = aggregates(&plan).remove(0);
                let field = aggregate.schema.field(1);
                assert_eq!(Span::of(field), Some(span), "{plan}");
                let mark = timed.then_some(EventTime { span: Some(span) });
                assert_eq!(EventTime::of(field), mark, "{plan}");
                let window = if timed { MARK } else { None };
                assert_eq!(marks(&plan)[..3], [window, None, None], "{plan}");
            }
        }
    }
}

#[tokio::test]
async fn what_does_not_merge_is_unnested() {
    let fixture = fixture().await;
    let group = "FROM events GROUP BY window(ts, '10 seconds', '5 seconds')";
    for text in [
        // Functions that need the rows, or their order.
        format!("SELECT count(DISTINCT v) AS n {group}"),
        format!("SELECT array_agg(v) AS n {group}"),
        format!("SELECT first_value(v ORDER BY ts) AS n {group}"),
        format!("SELECT median(v) AS n {group}"),
        // The window is spoken of beside the key.
        format!("SELECT max(window.start) AS n {group}"),
        format!("SELECT count(*) AS n {group}, window(ts, '10 seconds', '5 seconds')['end']"),
        "SELECT count(*) AS n FROM events GROUP BY ROLLUP(window(ts, '10 seconds', '5 seconds'), k)".to_owned(),
        // Not of a stream.
        "SELECT count(*) AS n FROM dim GROUP BY window(ts, '10 seconds', '5 seconds')".to_owned(),
        // Sixty panes for a row's two windows.
        "SELECT count(*) AS n FROM events GROUP BY window(ts, '60 seconds', '59 seconds')".to_owned(),
    ] {
        for plan in sql_with_panes(&fixture, &text).await.expect(&text) {
            assert!(unnests(&plan), "{plan}");
            let spans = aggregates(&plan);
            let spans = spans.iter().flat_map(|a| a.schema.fields().iter());
            assert!(spans.filter_map(|f| Span::of(f)).all(|span| !span.panes), "{plan}");
        }
    }
}

#[tokio::test]
async fn panes_are_shared_only_where_it_is_asked_for_and_windows_overlap() {
    let fixture = fixture().await;
    let sliding = "SELECT count(*) AS n FROM events GROUP BY window(ts, '10 seconds', '5 seconds')";
    for plan in sql(&fixture, sliding).await.expect("planned") {
        assert!(unnests(&plan), "{plan}");
    }
    let tumbling = "SELECT count(*) AS n FROM timed GROUP BY window(ts, '10 seconds')";
    for plan in sql_with_panes(&fixture, tumbling).await.expect("planned") {
        let span = Span::of(&key(&aggregates(&plan)[0]));
        assert!(span.is_some_and(|span| !span.panes), "{plan}");
    }
}

#[tokio::test]
async fn filters_on_windows_of_panes_stay_above() {
    let fixture = fixture().await;
    for having in [
        "window.start > TIMESTAMP '2024-05-01 00:00:00'",
        "window.end > TIMESTAMP '2024-05-01 00:00:00' AND count(*) > 1",
    ] {
        let text = format!(
            "SELECT window.start AS s, count(*) AS n FROM timed GROUP BY window(ts, '10 seconds', '5 seconds') HAVING {having}"
        );
        let [_, optimized] = sql_with_panes(&fixture, &text).await.expect("planned");
        assert!(!unnests(&optimized), "{optimized}");
        let below = aggregates(&optimized)[0].input.display_indent().to_string();
        assert!(!below.contains("17145216"), "{below}");
        assert!(
            optimized.display_indent().to_string().contains("17145216"),
            "{optimized}"
        );
    }
}
