//! Tests: where the mark of event time goes through windows, in what the analyzer and the optimizer make of them.

use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{col, lit};

use crate::event_time::{EventTime, Span};
use crate::functions::testing::{MARK, aggregates, fixture, frame, key, marks, planned, sql};
use crate::functions::window::{sliding, window, window_time};

const SECOND: i64 = 1_000_000;

/// The mark of a key that holds the starts of windows.
fn starts(size: i64, slide: i64, start: i64) -> Option<EventTime> {
    Some(EventTime {
        span: Some(Span {
            size: size * SECOND,
            slide: slide * SECOND,
            start: start * SECOND,
            panes: false,
        }),
    })
}

/// The mark of the first key of the aggregate at the top, by its expression and in its output.
fn key_mark(plan: &LogicalPlan) -> Option<EventTime> {
    let aggregates = aggregates(plan);
    let top = aggregates.first().expect("an aggregate");
    let mark = EventTime::of(&key(top));
    assert_eq!(mark, EventTime::of(top.schema.field(0)), "{plan}");
    mark
}

#[tokio::test]
async fn keys_and_windows_above_are_marked() {
    let fixture = fixture().await;
    for (key, mark) in [
        ("window(ts, '10 seconds')", starts(10, 10, 0)),
        ("window(ts, '10 seconds', '5 seconds')", starts(10, 5, 0)),
        (
            "window(ts, '10 seconds', '4 seconds', '-1 second')",
            starts(10, 4, -1),
        ),
        // A window of windows: `w` is the column of an aggregate below.
        ("window(w, '30 seconds')", starts(30, 30, 0)),
        ("window(w, '30 seconds', '15 seconds')", starts(30, 15, 0)),
        ("window(window_time(w), '30 seconds')", starts(30, 30, 0)),
    ] {
        let below = match key.contains("(ts") {
            false => {
                "(SELECT window AS w, count(*) AS n FROM timed GROUP BY window(ts, '5 seconds'))"
            }
            true => "timed",
        };
        let text = format!(
            "SELECT window, window.start, window.end, count(*) AS n FROM {below} GROUP BY {key}"
        );
        for plan in sql(&fixture, &text).await.expect(key) {
            assert_eq!(key_mark(&plan), mark, "{plan}");
            assert_eq!(marks(&plan), [MARK, None, None, None], "{plan}");
        }
    }
}

#[tokio::test]
async fn without_event_time_nothing_is_marked() {
    let fixture = fixture().await;
    for key in ["window(ts, '10 seconds')", "window(ts, '10 s', '5 s')"] {
        let text = format!("SELECT window, count(*) AS n FROM events GROUP BY {key}");
        for plan in sql(&fixture, &text).await.expect(key) {
            assert_eq!(key_mark(&plan), None, "{plan}");
            assert_eq!(marks(&plan), [None, None], "{plan}");
        }
    }
}

#[tokio::test]
async fn the_start_of_a_window_is_no_event_time() {
    let fixture = fixture().await;
    for key in [
        "window(ts, '10 seconds')['start']",
        "window(ts, '10 seconds')['end']",
        "window(ts, '10 seconds', '5 seconds')['start']",
    ] {
        let text = format!("SELECT {key} AS s, count(*) AS n FROM timed GROUP BY {key}");
        for plan in sql(&fixture, &text).await.expect(key) {
            assert_eq!(key_mark(&plan), None, "{plan}");
        }
    }
    for spec in ["'10 seconds'", "'10 seconds', '5 seconds'"] {
        let text = format!(
            "SELECT window(ts, {spec}) AS w, window(ts, {spec})['start'] AS s, ts, v FROM timed"
        );
        for plan in sql(&fixture, &text).await.expect(spec) {
            assert_eq!(marks(&plan), [MARK, None, MARK, None], "{plan}");
        }
    }
}

#[tokio::test]
async fn frames_are_marked_alike() {
    let fixture = fixture().await;
    for (spec, mark) in [
        (sliding("10 seconds", "10 seconds"), starts(10, 10, 0)),
        (sliding("10 seconds", "5 seconds"), starts(10, 5, 0)),
    ] {
        let timed = fixture.logical("SELECT * FROM timed").await;
        let frame = frame(&fixture, timed.expect("planned"))
            .aggregate(
                vec![window(col("ts"), spec)],
                vec![count(lit(1)).alias("n")],
            )
            .and_then(|frame| {
                frame.select(vec![
                    col("window"),
                    col("window").field("end"),
                    window_time(col("window")),
                ])
            })
            .expect("typed");
        let plan = frame.logical_plan().clone();
        for plan in planned(&fixture, plan).expect("planned") {
            assert_eq!(key_mark(&plan), mark, "{plan}");
            assert_eq!(marks(&plan), [MARK, None, MARK], "{plan}");
        }
    }
}
