//! Aggregates over event time, micro-batch by micro-batch with the watermarks that Spark has in each
//! (`b0`, `b1`, … and the watermarks of no-data batches are worked out by hand from its rules).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use highwater_core::{ErrorKind, OutputMode};

use super::harness::{Query, session};
use crate::testing::{batch, lines, schema};

/// A micro-batch: the watermark that judges late rows and the one that closes, in seconds; the rows as
/// (seconds, k, v); the rows that come out.
type Step<'a> = (i64, i64, &'a [(Option<i64>, &'a str, i64)], &'a [&'a str]);

const APPEND: OutputMode = OutputMode::Append;
const UPDATE: OutputMode = OutputMode::Update;
const COMPLETE: OutputMode = OutputMode::Complete;

const COUNT: &str = "SELECT CAST(date_part('epoch', window.start) AS BIGINT) AS s, count(*) AS n \
                     FROM t GROUP BY window(ts, '10 seconds')";

fn rows(rows: &[(Option<i64>, &str, i64)]) -> Vec<RecordBatch> {
    let micros: Vec<_> = rows
        .iter()
        .map(|(ts, k, v)| (ts.map(|ts| ts * 1_000_000), *k, *v))
        .collect();
    if micros.is_empty() {
        Vec::new()
    } else {
        vec![batch(&micros)]
    }
}

async fn query(sql: &str, mode: OutputMode) -> Query {
    Query::with_watermark(session(), sql, schema(), "ts", mode)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Runs the micro-batches, once in one run and once with a restart before each.
async fn check(sql: &str, mode: OutputMode, steps: &[Step<'_>]) -> Query {
    let mut last = None;
    for restarts in [true, false] {
        let mut running = query(sql, mode).await;
        let mut log: Vec<RecordBatch> = Vec::new();
        for (number, (late, closes, input, expected)) in steps.iter().enumerate() {
            let what = format!("{mode} b{number} (restarts: {restarts}): {sql}");
            if restarts {
                running = query(sql, mode).await;
                for records in &log {
                    running.operators[0].restore(records).expect(&what);
                }
            }
            let output = running
                .run_at(rows(input), *late, *closes)
                .await
                .expect(&what);
            assert_eq!(lines(&output), *expected, "{what}");
            log.extend(running.operators[0].changes().expect(&what));
            running.commit();
        }
        last = Some(running);
    }
    last.expect("two runs")
}

const fn at(seconds: i64) -> (Option<i64>, &'static str, i64) {
    (Some(seconds), "k", 1)
}

#[tokio::test]
async fn append_emits_a_window_once_when_the_watermark_reaches_its_end() {
    // Delay 5: the watermark is 9 after 14, 16 after 21.
    check(
        COUNT,
        APPEND,
        &[
            (0, 0, &[at(3), at(8), at(14)], &[]),
            (0, 9, &[], &[]),
            (9, 9, &[at(12), at(21)], &[]),
            (9, 16, &[], &["0|2"]),
            (16, 16, &[], &[]),
        ],
    )
    .await;
    // Delay 0: an end equal to the watermark is reached.
    check(
        COUNT,
        APPEND,
        &[(0, 0, &[at(3), at(10)], &[]), (0, 10, &[], &["0|1"])],
    )
    .await;
}

#[tokio::test]
async fn late_rows_are_judged_by_the_watermark_before() {
    let running = check(
        COUNT,
        APPEND,
        &[
            (0, 0, &[at(3), at(30)], &[]),
            // The window 0–10 closes in this micro-batch, and a row for it still counts.
            (0, 30, &[at(5)], &["0|2"]),
            (30, 30, &[at(6), at(45)], &[]),
            (30, 45, &[], &["30|1"]),
        ],
    )
    .await;
    let metrics = running.operators[0].metrics();
    // Left is the window 40–50; what went in the last micro-batch is the window 30–40.
    assert_eq!((metrics.rows_total, metrics.rows_removed), (1, 1));
    assert_eq!(
        (metrics.late_rows, metrics.rows_dropped_by_watermark),
        (0, 0)
    );
}

#[tokio::test]
async fn a_row_behind_the_watermark_counts_while_its_window_is_open() {
    check(
        COUNT,
        APPEND,
        &[
            (0, 0, &[at(12)], &[]),
            // 9 is of the window 0–10, which is over at 12; 10 is of one that is not.
            (12, 12, &[at(9), at(10), at(25)], &[]),
            (12, 25, &[], &["10|2"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn update_gives_what_was_touched_and_evicts_in_silence() {
    let running = check(
        COUNT,
        UPDATE,
        &[
            (0, 0, &[at(3), at(8), at(14)], &["0|2", "10|1"]),
            (0, 9, &[], &[]),
            (9, 9, &[at(12), at(21)], &["10|2", "20|1"]),
            (9, 16, &[], &[]),
            (16, 16, &[at(5), at(13)], &["10|3"]),
        ],
    )
    .await;
    let metrics = running.operators[0].metrics();
    assert_eq!((metrics.rows_total, metrics.rows_updated), (2, 1));
    assert_eq!(
        (metrics.late_rows, metrics.rows_dropped_by_watermark),
        (1, 1)
    );
    assert!(running.operators[0].wants_batch_without_data());
    // A key without a time is never late and never goes, whatever the watermark.
    check(
        "SELECT k, max(v) AS m FROM t GROUP BY k",
        UPDATE,
        &[
            (
                0,
                0,
                &[(Some(1), "a", 5), (Some(9), "b", 7)],
                &["a|5", "b|7"],
            ),
            (50, 90, &[(Some(1), "a", 3)], &["a|5"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn complete_ignores_the_watermark() {
    let running = check(
        COUNT,
        COMPLETE,
        &[
            (0, 0, &[at(3), at(8), at(14)], &["0|2", "10|1"]),
            (0, 9, &[at(12), at(21)], &["0|2", "10|2", "20|1"]),
            (9, 16, &[at(5), at(13)], &["0|3", "10|3", "20|1"]),
            (16, 90, &[at(5)], &["0|4", "10|3", "20|1"]),
        ],
    )
    .await;
    let operator = &running.operators[0];
    assert_eq!(operator.metrics().rows_total, 3);
    assert!(!operator.wants_batch_without_data());
    assert!(operator.late_schema().is_none());
}

#[tokio::test]
async fn rows_without_a_time_are_in_no_window() {
    check(
        COUNT,
        APPEND,
        &[
            (0, 0, &[(None, "k", 1), at(3), at(10)], &[]),
            (0, 10, &[], &["0|1"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn instants_are_over_at_themselves() {
    // Delay 0: a row as old as the newest before is late. A group without a time stays for ever.
    let sql = "SELECT CAST(date_part('epoch', ts) AS BIGINT) AS s, k, count(*) AS n FROM t GROUP BY ts, k";
    let steps: &[Step<'_>] = &[
        (0, 0, &[at(3), at(10), at(10), (None, "k", 1)], &[]),
        (0, 10, &[], &["10|k|2", "3|k|1"]),
        (10, 10, &[at(10), at(11), (None, "k", 1)], &[]),
        (10, 11, &[], &["11|k|1"]),
    ];
    let running = check(sql, APPEND, steps).await;
    assert_eq!(running.operators[0].metrics().rows_total, 1);
}

#[tokio::test]
async fn nanoseconds_are_over_when_all_of_their_microsecond_is() {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "ts",
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        true,
    )]));
    let sql = "SELECT count(*) AS n FROM t GROUP BY ts";
    let mut query = Query::with_watermark(session(), sql, Arc::clone(&schema), "ts", APPEND)
        .await
        .expect("planned");
    let times = TimestampNanosecondArray::from(vec![10_000_000_000, 10_000_000_001]);
    let rows = RecordBatch::try_new(schema, vec![Arc::new(times) as ArrayRef]).expect("a batch");
    let output = query.run_at(vec![rows.clone()], 0, 10).await.expect("run");
    assert_eq!(lines(&output), ["1"]);
    query.commit();
    let output = query.run_at(vec![rows], 10, 10).await.expect("run");
    assert!(lines(&output).is_empty());
    assert_eq!(query.operators[0].metrics().late_rows, 1);
}

#[tokio::test]
async fn totals_of_rollup_are_never_late_and_never_close() {
    let sql = "SELECT CAST(date_part('epoch', window.start) AS BIGINT) AS s, k, count(*) AS n \
               FROM t GROUP BY ROLLUP (window(ts, '10 seconds'), k)";
    let (a, b) = ((Some(3), "a", 1), (Some(14), "b", 1));
    check(
        sql,
        APPEND,
        &[(0, 0, &[a, b], &[]), (0, 10, &[], &["0|a|1", "0||1"])],
    )
    .await;
    // The late row is dropped from its windows, and counts in the total (each grouping is judged by itself).
    let running = check(
        sql,
        UPDATE,
        &[
            (0, 0, &[a, b], &["0|a|1", "0||1", "10|b|1", "10||1", "||2"]),
            (10, 10, &[a], &["||3"]),
        ],
    )
    .await;
    let metrics = running.operators[0].metrics();
    assert_eq!(
        (metrics.late_rows, metrics.rows_dropped_by_watermark),
        (1, 2)
    );
}

#[tokio::test]
async fn late_rows_are_put_aside_and_counted_by_group() {
    let sql =
        "SELECT k, sum(v) FILTER (WHERE v > 1) AS s FROM t GROUP BY window(ts, '10 seconds'), k";
    let mut query = query(sql, UPDATE).await;
    query.plan.late().want();
    let input: [(Option<i64>, &str, i64); 5] = [
        (Some(1), "a", 5),
        (Some(2), "a", 6),
        (Some(25), "a", 1),
        (Some(3), "b", 7),
        (Some(26), "a", 4),
    ];
    let output = query.run_at(rows(&input), 20, 20).await.expect("run");
    assert_eq!(lines(&output), ["a|4"]);
    let late = query.plan.late().take();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].operator, "aggregate");
    let operator = &query.operators[0];
    assert_eq!(Some(late[0].rows.schema()), operator.late_schema());
    assert_eq!(late[0].rows.num_rows(), 3);
    assert_eq!(operator.changes().expect("changes").len(), 1);
    query.commit();
    let metrics = query.operators[0].metrics();
    assert_eq!(
        (metrics.late_rows, metrics.rows_dropped_by_watermark),
        (3, 2)
    );
    // The next micro-batch begins at nothing.
    query.run_at(vec![], 20, 20).await.expect("run");
    query.commit();
    let metrics = query.operators[0].metrics();
    assert_eq!(
        (metrics.late_rows, metrics.rows_dropped_by_watermark),
        (0, 0)
    );
}

#[tokio::test]
async fn evictions_are_in_the_records_for_the_checkpoint() {
    let mut query = query(COUNT, UPDATE).await;
    query
        .run_at(rows(&[at(3), at(14)]), 0, 10)
        .await
        .expect("run");
    let changes = query.operators[0].changes().expect("changes");
    // The window 0–10 is over already: only the other one is kept.
    assert_eq!(changes.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let evicted_to = |records: &RecordBatch| {
        let schema = records.schema();
        schema.metadata().get("highwater.evicted_to").cloned()
    };
    assert_eq!(evicted_to(&changes[0]).as_deref(), Some("10000000"));
    let schema = query.operators[0].state_schema();
    let pane = schema.pane.expect("the window tells when it is over");
    let ends = pane.ends(changes[0].columns()).expect("ends");
    assert_eq!(ends.values(), &[20_000_000]);
    query.commit();
    query.run_at(vec![], 10, 20).await.expect("run");
    let changes = query.operators[0].changes().expect("changes");
    assert_eq!((changes.len(), changes[0].num_rows()), (1, 0));
    assert_eq!(evicted_to(&changes[0]).as_deref(), Some("20000000"));
    query.commit();
    assert_eq!(query.operators[0].metrics().rows_removed, 1);
    query.run_at(vec![], 20, 30).await.expect("run");
    assert!(query.operators[0].changes().expect("changes").is_empty());
}

#[tokio::test]
async fn append_needs_a_key_with_a_watermark() {
    let sql = "SELECT k, count(*) FROM t GROUP BY k";
    let refused = Query::with_watermark(session(), sql, schema(), "ts", APPEND).await;
    let refused = refused.map(|_| ()).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert_eq!(
        refused.condition(),
        Some("STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION")
    );
}

#[tokio::test]
async fn explain_says_what_bounds_the_state() {
    for (sql, mode, bound) in [
        (
            COUNT,
            APPEND,
            "append mode, closed by the watermark of `ts`",
        ),
        (
            COUNT,
            UPDATE,
            "update mode, closed by the watermark of `ts`",
        ),
        (COUNT, COMPLETE, "complete mode, unbounded state"),
        (
            "SELECT k, count(*) FROM t GROUP BY k",
            UPDATE,
            "aggregate keyed by (k), update mode, unbounded state",
        ),
    ] {
        let described = query(sql, mode).await.operators[0].describe();
        assert!(described.ends_with(bound), "{described}");
    }
}
