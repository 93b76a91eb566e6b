//! Worked examples of Spark's rules for sessions, and the same over random input.
//!
//! Times are seconds; an output row reads `key start..end count`, in update mode with `<` and what it replaces.

mod harness;
mod random;

mod sweep;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use highwater_core::{Error, ErrorKind, OutputMode};

use self::harness::{Query, Row, event};
use crate::nodes::observe;
use crate::testing::Fixture;

const COUNT: &str = "SELECT k, session_of_row(ts, gap) AS w, count(*) AS n FROM t GROUP BY k, session_of_row(ts, gap)";

/// A query that counts the rows of sessions, and the watermark of its next trigger.
struct Counting {
    query: Query,
    late: i64,
}

impl Counting {
    async fn new(mode: OutputMode) -> Self {
        let query = Query::try_new(COUNT, mode).await.expect("planned");
        Self { query, late: 0 }
    }

    /// Runs one trigger over `(time, key)` with a gap of 5, at this watermark.
    async fn run(&mut self, rows: &[(i64, &str)], watermark: i64) -> Vec<String> {
        let rows: Vec<Row> = rows.iter().map(|(ts, key)| event(*ts, key)).collect();
        self.run_rows(&rows, watermark).await
    }

    async fn run_rows(&mut self, rows: &[Row], watermark: i64) -> Vec<String> {
        let late = std::mem::replace(&mut self.late, watermark);
        let output = self.query.run(rows, late, watermark).await.expect("run");
        harness::lines(&output)
    }

    /// The changes of the last trigger, and its end.
    fn commit(&self) -> Vec<RecordBatch> {
        let changes = self.query.operator.changes().expect("changes");
        self.query.operator.commit();
        changes
    }

    /// A trigger and its end.
    async fn turn(&mut self, rows: &[(i64, &str)], watermark: i64) -> Vec<String> {
        let lines = self.run(rows, watermark).await;
        self.commit();
        lines
    }
}

#[tokio::test]
async fn a_row_bridges_two_sessions() {
    // spark.md 2.12: gap 5, delay 10: 1 and 8 open two sessions, 4 makes one of them; 30 closes it.
    let mut query = Counting::new(OutputMode::Append).await;
    assert!(query.turn(&[(1, "a"), (8, "a")], 0).await.is_empty());
    assert_eq!(query.query.operator.metrics().rows_total, 2);
    assert!(query.turn(&[(4, "a")], 0).await.is_empty());
    let metrics = query.query.operator.metrics();
    assert_eq!(
        (
            metrics.rows_total,
            metrics.rows_updated,
            metrics.rows_removed
        ),
        (1, 1, 1)
    );
    assert!(query.turn(&[(30, "z")], 0).await.is_empty());
    assert_eq!(query.turn(&[], 20).await, ["a 1..13 3"]);
    let metrics = query.query.operator.metrics();
    assert_eq!(
        (
            metrics.rows_total,
            metrics.rows_updated,
            metrics.rows_removed
        ),
        (1, 0, 1)
    );
}

#[tokio::test]
async fn sessions_that_touch_are_one() {
    // spark.md 2.12: 1 and 6 with gap 5 make (1..11, 2); in one micro-batch and over two.
    let mut query = Counting::new(OutputMode::Append).await;
    query
        .turn(&[(1, "a"), (6, "a"), (1, "b"), (6, "c")], 0)
        .await;
    query.turn(&[(6, "b"), (1, "c")], 0).await;
    let closed = query.turn(&[], 11).await;
    assert_eq!(closed, ["a 1..11 2", "b 1..11 2", "c 1..11 2"]);
}

#[tokio::test]
async fn a_session_closes_at_its_end_and_others_stay_open() {
    // spark.md 2.12: delay 0: 1a and 9a, at watermark 9 the first is out; 13a and 14a extend the second to 19.
    let mut query = Counting::new(OutputMode::Append).await;
    query.turn(&[(1, "a"), (9, "a")], 0).await;
    assert_eq!(query.turn(&[], 9).await, ["a 1..6 1"]);
    assert!(query.turn(&[(13, "a"), (14, "a")], 9).await.is_empty());
    assert!(query.turn(&[], 18).await.is_empty());
    assert_eq!(query.turn(&[], 19).await, ["a 9..19 3"]);
    // The key is forgotten, and may come again.
    assert_eq!(query.query.operator.metrics().rows_total, 0);
    query.turn(&[(20, "a")], 19).await;
    assert_eq!(query.turn(&[], 25).await, ["a 20..25 1"]);
}

#[tokio::test]
async fn a_row_is_late_by_its_own_session() {
    // SURPRISES 17: at watermark 20 the rows at 14 and 15 end by then, even if 15 would join 17..22.
    let mut query = Counting::new(OutputMode::Append).await;
    query.turn(&[(17, "a"), (30, "z")], 0).await;
    query.turn(&[], 20).await;
    query.query.want_late();
    let rows = [
        (15, "a"),
        (15, "a"),
        (14, "b"),
        (16, "b"),
        (20, "c"),
        (15, "b"),
    ];
    assert!(query.turn(&rows, 20).await.is_empty());
    let metrics = query.query.operator.metrics();
    assert_eq!(metrics.late_rows, 4);
    // a 15..20, b 14..19, b 15..20: Spark counts after it has grouped.
    assert_eq!(metrics.rows_dropped_by_watermark, 3);
    let late = query.query.late();
    assert_eq!(late.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    let schema = query.query.operator.late_schema().expect("a schema");
    assert!(late.iter().all(|rows| rows.schema() == schema));
    let closed = query.turn(&[], 25).await;
    assert_eq!(closed, ["b 16..21 1", "a 17..22 1", "c 20..25 1"]);
}

#[tokio::test]
async fn late_rows_are_judged_by_the_watermark_before_and_closed_by_this_one() {
    // A row that ends between the two is taken, given out at once, and forgotten.
    let mut query = Counting::new(OutputMode::Append).await;
    query.turn(&[(20, "z")], 0).await;
    assert_eq!(query.turn(&[(10, "a")], 20).await, ["a 10..15 1"]);
    assert!(query.turn(&[(10, "a")], 20).await.is_empty());
    assert_eq!(query.query.operator.metrics().late_rows, 1);
}

#[tokio::test]
async fn three_sessions_become_one() {
    for mode in [OutputMode::Append, OutputMode::Update] {
        let mut query = Counting::new(mode).await;
        query
            .turn(&[(0, "a"), (8, "a"), (16, "a"), (40, "a")], 0)
            .await;
        let bridged = query.turn(&[(12, "a"), (4, "a")], 0).await;
        let closed = query.turn(&[], 45).await;
        match mode {
            OutputMode::Append => assert_eq!(closed, ["a 0..21 5", "a 40..45 1"]),
            _ => {
                assert_eq!(bridged, ["a 0..21 5 < 0..5 8..13 16..21"]);
                assert!(closed.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn update_mode_says_what_a_row_replaces() {
    let mut query = Counting::new(OutputMode::Update).await;
    let first = query.turn(&[(1, "a"), (10, "a"), (1, "b")], 0).await;
    assert_eq!(first, ["a 1..6 1 <", "a 10..15 1 <", "b 1..6 1 <"]);
    // Bounds that stay the same are listed all the same; earlier starts and later ends too.
    let second = query.turn(&[(1, "a"), (8, "a"), (3, "b")], 0).await;
    assert_eq!(
        second,
        ["a 1..6 2 < 1..6", "a 8..15 2 < 10..15", "b 1..8 2 < 1..6"]
    );
    // At watermark 8 b's session goes without a word; a row after it starts anew.
    assert!(query.turn(&[], 8).await.is_empty());
    assert_eq!(query.turn(&[(6, "b")], 8).await, ["b 6..11 1 <"]);
}

#[tokio::test]
async fn complete_mode_gives_all_and_ignores_the_watermark() {
    let mut query = Counting::new(OutputMode::Complete).await;
    query.turn(&[(1, "a"), (10, "a")], 0).await;
    let all = query.turn(&[(6, "a"), (100, "b")], 90).await;
    assert_eq!(all, ["a 1..15 3", "b 100..105 1"]);
    // Far behind the watermark, and still taken.
    let all = query.turn(&[(3, "b")], 100).await;
    assert_eq!(all, ["a 1..15 3", "b 3..8 1", "b 100..105 1"]);
    let operator = &query.query.operator;
    assert_eq!(operator.metrics().late_rows, 0);
    assert!(!operator.wants_batch_without_data() && operator.late_schema().is_none());
}

#[tokio::test]
async fn a_gap_per_row_and_rows_without_a_session() {
    let row = |ts, gap| Row {
        gap,
        ..event(ts, "a")
    };
    let mut query = Counting::new(OutputMode::Complete).await;
    let mut none = row(50, Some(5));
    none.ts = None;
    // The long session takes in what lies within; no gap, a negative one, and no time open none.
    let rows = [
        row(1, Some(20)),
        row(3, Some(2)),
        row(20, Some(1)),
        row(30, Some(0)),
        row(40, None),
        none,
    ];
    assert_eq!(query.run_rows(&rows, 0).await, ["a 1..21 3"]);
}

#[tokio::test]
async fn nothing_but_what_changed_goes_to_the_checkpoint() {
    let rows = |changes: &[RecordBatch]| -> Vec<usize> {
        changes.iter().map(RecordBatch::num_rows).collect()
    };
    let mut query = Counting::new(OutputMode::Append).await;
    query
        .run(&[(1, "a"), (8, "a"), (1, "b"), (50, "b")], 0)
        .await;
    assert_eq!(rows(&query.commit()), [4]);
    // 8..13 is merged away, 1..13 put in; a session that is closed already is not written.
    query.run(&[(4, "a"), (2, "c")], 7).await;
    let changes = query.commit();
    assert_eq!(rows(&changes), [1, 1]);
    let metadata = |at: usize, key: &str| changes[at].schema().metadata().get(key).cloned();
    assert_eq!(metadata(0, "highwater.removed").as_deref(), Some("1"));
    assert_eq!(metadata(1, "highwater.removed"), None);
    assert_eq!(
        metadata(1, "highwater.evicted_to").as_deref(),
        Some("7000000")
    );
    // Nothing happens; then 1..13 goes, and an empty batch says so.
    query.run(&[], 12).await;
    assert!(query.commit().is_empty());
    query.run(&[], 13).await;
    assert_eq!(rows(&query.commit()), [0]);
    assert_eq!(query.query.operator.metrics().rows_total, 1);
}

#[tokio::test]
async fn records_of_something_else_are_refused() {
    let query = Counting::new(OutputMode::Append).await;
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let other = RecordBatch::try_from_iter([("k", column)]);
    let refused = query.query.operator.restore(&other.expect("a batch"));
    let refused = refused.expect_err("one column is too few");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert_eq!(refused.operator(), Some("session"));
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let refused = async |sql: &str, mode| -> Error {
        let planned = Query::try_new(sql, mode).await;
        planned.map(|_| ()).map_err(Error::from).expect_err(sql)
    };
    let group = "SELECT count(*) FROM t GROUP BY";
    let alone = format!("{group} session_of_row(ts, gap)");
    let alone = refused(&alone, OutputMode::Append).await;
    assert_eq!(alone.kind(), ErrorKind::Unsupported);
    assert!(
        alone
            .message()
            .contains("Global aggregation with session window in streaming query is not supported")
    );
    let two = format!("{group} session_of_row(ts, gap), session_of_row(ts, gap + 1), k");
    let two = refused(&two, OutputMode::Append).await;
    assert!(two.message().contains("cartesian product"), "{two}");
    let timeless = format!("{group} session_of_row(plain, gap), k");
    let timeless = refused(&timeless, OutputMode::Append).await;
    assert!(timeless.message().contains("watermark"), "{timeless}");
    let named = "SELECT k AS superseded, count(*) FROM t GROUP BY session_of_row(ts, gap), k";
    let named = refused(named, OutputMode::Update).await;
    assert_eq!(named.kind(), ErrorKind::Invalid);
    let joined = "SELECT k FROM (SELECT k FROM t GROUP BY session_of_row(ts, gap), k) a UNION ALL SELECT 'x'";
    let joined = refused(joined, OutputMode::Update).await;
    assert_eq!(joined.kind(), ErrorKind::Unsupported);
    assert!(joined.hint().is_some_and(|hint| hint.contains("append")));
}

#[tokio::test]
async fn grouping_sets_of_sessions_are_refused() {
    let fixture = Fixture::new();
    fixture.ctx.register_udf(harness::session_of_row());
    let sql = "SELECT count(*) FROM events GROUP BY ROLLUP (session_of_row(ts, 5), k)";
    let refused = fixture.plan(sql, OutputMode::Complete).await;
    let refused = refused.expect_err("no rollup");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("ROLLUP"), "{refused}");
}

#[tokio::test]
async fn superseded_passes_what_stands_above_the_sessions() {
    let sql = "SELECT upper(b.k) AS u, b.w, n FROM (SELECT k, w, n FROM \
        (SELECT k, session_of_row(ts, gap) AS w, count(*) AS n, sum(v) AS superseded FROM t \
        GROUP BY k, session_of_row(ts, gap) HAVING count(*) > 1) a) b WHERE b.n < 9";
    let mut query = Query::try_new(sql, OutputMode::Update)
        .await
        .expect("planned");
    let schema = query.schema();
    let last = schema.fields().last().expect("columns");
    assert_eq!(
        (schema.fields().len(), last.name().as_str()),
        (4, "superseded")
    );
    let first = [event(1, "a"), event(2, "a"), event(1, "b")];
    let output = query.run(&first, 0, 0).await.expect("run");
    assert_eq!(harness::lines(&output), ["A 1..7 2 <"]);
    query.operator.commit();
    let output = query.run(&[event(5, "a")], 0, 0).await.expect("run");
    assert_eq!(harness::lines(&output), ["A 1..10 3 < 1..7"]);
}

#[tokio::test]
async fn a_query_is_planned_with_sessions_in_it() {
    let fixture = Fixture::new();
    fixture.ctx.register_udf(harness::session_of_row());
    let sql = "SELECT k, session_of_row(ts, 5) AS w, count(*) AS n FROM events GROUP BY k, session_of_row(ts, 5)";
    for mode in [OutputMode::Update, OutputMode::Complete] {
        let plan = fixture.logical(sql).await.expect("a plan");
        let total = datafusion::functions_aggregate::expr_fn::sum(datafusion::prelude::col("n"));
        let plan = observe(plan, "o".to_owned(), vec![total.alias("rows")]).expect("observed");
        let plan = fixture.incremental(plan, mode).await.expect("planned");
        let operator = &plan.operators()[0];
        assert_eq!(plan.operators().len(), 1);
        assert_eq!(operator.name(), "session");
        assert_eq!(operator.kind(), "sessionWindowStateStoreSaveExec");
        let keys: Vec<_> = operator
            .state_schema()
            .keys
            .fields()
            .iter()
            .cloned()
            .collect();
        let names: Vec<_> = keys.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["k", "session_start"]);
        let columns = plan.schema().fields().len();
        assert_eq!(columns, 3 + usize::from(mode == OutputMode::Update));
        assert!(plan.explain().contains("sessions keyed by (k)"));
        assert!(
            plan.schema()
                .fields()
                .iter()
                .all(|field| field.metadata().is_empty())
        );
    }
}
