//! Spark's worked examples, and random rows against a reference of the rules.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType,
};
use datafusion::catalog::view::ViewTable;
use datafusion::execution::TaskContext;
use highwater_core::{BatchId, ErrorKind, Interval, MicroBatch, OutputMode, Timestamp, Watermark};

use super::{DedupOperator, Recipe};
use crate::cell::BatchCell;
use crate::event_time::EventTime;
use crate::nodes::{deduplicate, watermark};
use crate::operators::unary::UnaryOperator;
use crate::operators::{OperatorMetrics, StatefulOperator};
use crate::plan::IncrementalPlan;
use crate::testing::{Fixture, lines, run};

/// An event time in seconds, a key, and a number that tells the row apart.
type Row = (Option<i64>, Option<&'static str>, i64);

const SECOND: i64 = 1_000_000;
const NOTHING: [i64; 0] = [];

fn schema(event_time: bool) -> SchemaRef {
    let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true);
    let ts = if event_time {
        EventTime::instant().mark(ts)
    } else {
        ts
    };
    Arc::new(Schema::new(vec![
        ts,
        Field::new("k", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let times = rows.iter().map(|row| row.0.map(|t| t * SECOND));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter(times)),
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("columns fit the schema")
}

/// An operator that is run micro-batch by micro-batch, and what it has logged.
struct Query {
    keys: Vec<usize>,
    event_time: bool,
    delay_ms: Option<i64>,
    cell: BatchCell,
    operator: DedupOperator,
    log: Vec<RecordBatch>,
    /// Of the last micro-batch, in seconds.
    watermark: i64,
}

impl Query {
    fn new(keys: &[usize], event_time: bool, delay: Option<i64>) -> Self {
        let delay_ms = delay.map(|seconds| seconds * 1_000);
        let cell = BatchCell::default();
        let recipe = Recipe::try_new("dedup".into(), schema(event_time), keys.to_vec(), delay_ms);
        let operator = DedupOperator::try_new(recipe.expect("a recipe"), cell.clone());
        Self {
            keys: keys.to_vec(),
            event_time,
            delay_ms,
            cell,
            operator: operator.expect("an operator"),
            log: Vec::new(),
            watermark: 0,
        }
    }

    /// Runs a micro-batch with `watermark` in seconds, each slice of rows as a RecordBatch: the numbers of the
    /// rows that come out. Rows are late by the watermark of the micro-batch before.
    fn run(&mut self, watermark: i64, batches: &[&[Row]]) -> Vec<i64> {
        self.cell.open(&MicroBatch {
            id: BatchId(0),
            ranges: Default::default(),
            time: Timestamp::default(),
            watermark: Watermark(watermark * 1_000),
            late_watermark: Watermark(self.watermark * 1_000),
        });
        self.watermark = watermark;
        self.operator.begin(&TaskContext::default());
        let schema = schema(self.event_time);
        let mut numbers = Vec::new();
        for rows in batches {
            let out = self.operator.take(batch(&schema, rows)).expect("taken");
            if let Some(out) = out {
                assert!(out.num_rows() > 0, "an empty batch comes out");
                numbers.extend(out.column(2).as_primitive::<Int64Type>().values());
            }
        }
        self.log.extend(self.operator.changes().expect("changes"));
        self.operator.commit();
        numbers
    }

    fn metrics(&self) -> OperatorMetrics {
        OperatorMetrics {
            memory_bytes: 0,
            ..self.operator.metrics()
        }
    }

    /// A new operator with the state of what was logged.
    fn restart(&mut self) {
        let delay = self.delay_ms.map(|ms| ms / 1_000);
        let fresh = Self::new(&self.keys, self.event_time, delay);
        for records in &self.log {
            fresh.operator.restore(records).expect("restored");
        }
        let total = self.operator.metrics().rows_total;
        assert_eq!(
            fresh.operator.metrics().rows_total,
            total,
            "after a restart"
        );
        *self = Self {
            log: std::mem::take(&mut self.log),
            watermark: self.watermark,
            ..fresh
        };
    }
}

fn counts(total: u64, updated: u64, removed: u64, late: u64) -> OperatorMetrics {
    OperatorMetrics {
        rows_total: total,
        rows_updated: updated,
        rows_removed: removed,
        rows_dropped_by_watermark: late,
        late_rows: late,
        memory_bytes: 0,
    }
}

const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");
const C: Option<&str> = Some("c");
const D: Option<&str> = Some("d");
const E: Option<&str> = Some("e");

#[test]
fn without_event_time_a_key_is_kept_for_ever() {
    let mut query = Query::new(&[1], false, None);
    assert_eq!(
        query.run(0, &[&[(Some(1), A, 1), (Some(2), A, 2), (Some(3), B, 3)]]),
        [1, 3]
    );
    assert_eq!(query.metrics(), counts(2, 2, 0, 0));
    query.restart();
    // A time before 1970 is not late where no column is event time.
    assert_eq!(query.run(9, &[&[(Some(-9), A, 4), (None, C, 5)]]), [5]);
    assert_eq!(query.metrics(), counts(3, 1, 0, 0));
    assert_eq!(query.log.len(), 2, "only new keys are logged");
    assert_eq!(query.log[1].num_rows(), 1);
    assert!(query.operator.late_schema().is_none());
}

/// spark.md 2.13, delay 5: b0 10a,10a,12b; b2 20c,10a; b3 without data; b4 10a,16d,15e.
#[test]
fn event_time_in_the_key_bounds_the_state() {
    let mut query = Query::new(&[0, 1], true, None);
    assert_eq!(
        query.run(
            0,
            &[&[(Some(10), A, 1), (Some(10), A, 2), (Some(12), B, 3)]]
        ),
        [1, 3]
    );
    assert_eq!(query.run(7, &[]), NOTHING);
    assert_eq!(query.run(7, &[&[(Some(20), C, 4), (Some(10), A, 5)]]), [4]);
    assert_eq!(query.run(15, &[]), NOTHING);
    assert_eq!(query.metrics(), counts(1, 0, 2, 0));
    query.restart();
    assert_eq!(
        query.run(
            15,
            &[&[(Some(10), A, 6), (Some(16), D, 7), (Some(15), E, 8)]]
        ),
        [7]
    );
    assert_eq!(query.metrics(), counts(2, 1, 0, 2));
}

#[test]
fn event_time_out_of_the_key_drops_late_rows_and_forgets_nothing() {
    let mut query = Query::new(&[1], true, None);
    assert_eq!(query.run(0, &[&[(Some(10), A, 1)]]), [1]);
    assert_eq!(query.run(40, &[&[(Some(50), B, 2)]]), [2]);
    assert_eq!(
        query.run(40, &[&[(Some(5), C, 3), (Some(60), A, 4)]]),
        NOTHING
    );
    assert_eq!(query.metrics(), counts(2, 0, 0, 1));
    assert_eq!(query.run(500, &[&[(Some(510), A, 5), (None, C, 6)]]), [6]);
}

/// spark.md 2.14, delay 5: b0 10a,11a; b2 14a,20x; b3 without data; b4 16a,17a.
#[test]
fn within_the_watermark_a_key_lives_as_long_as_its_first_row() {
    let mut query = Query::new(&[1], true, Some(5));
    assert_eq!(query.run(0, &[&[(Some(10), A, 1), (Some(11), A, 2)]]), [1]);
    assert_eq!(query.run(6, &[&[(Some(14), A, 3), (Some(20), D, 4)]]), [4]);
    assert_eq!(query.metrics(), counts(2, 1, 0, 0));
    assert_eq!(query.run(15, &[]), NOTHING);
    assert_eq!(query.metrics(), counts(1, 0, 1, 0));
    query.restart();
    assert_eq!(query.run(15, &[&[(Some(16), A, 5), (Some(17), A, 6)]]), [5]);
    assert_eq!(query.metrics(), counts(2, 1, 0, 0));
}

/// Spark reads a missing event time as 1970: the row is not late, and its key is gone at once.
#[test]
fn a_key_without_event_time_is_kept_for_ever_or_not_at_all() {
    let mut query = Query::new(&[0, 1], true, None);
    assert_eq!(query.run(0, &[&[(None, A, 1), (None, A, 2)]]), [1]);
    assert_eq!(query.run(99, &[&[(None, A, 3), (None, B, 4)]]), [4]);
    query.restart();
    assert_eq!(query.run(99, &[&[(None, A, 5), (None, B, 6)]]), NOTHING);

    let mut query = Query::new(&[1], true, Some(2));
    assert_eq!(
        query.run(99, &[&[(None, None, 1), (Some(100), None, 2)]]),
        [1]
    );
    assert_eq!(query.metrics(), counts(0, 1, 1, 0));
    assert_eq!(
        query.log.iter().map(RecordBatch::num_rows).sum::<usize>(),
        0
    );
    assert_eq!(query.run(99, &[&[(None, None, 3)]]), [3]);
}

#[test]
fn an_untouched_state_that_forgets_says_so_in_the_checkpoint() {
    let mut query = Query::new(&[0], true, None);
    query.run(0, &[&[(Some(10), A, 1), (Some(20), A, 2)]]);
    query.log.clear();
    query.run(5, &[]);
    assert!(query.log.is_empty(), "nothing happened");
    query.run(10, &[]);
    let [forgotten] = &query.log[..] else {
        panic!("one batch of records, not {:?}", query.log);
    };
    assert_eq!(forgotten.num_rows(), 0);
    assert_eq!(
        forgotten.schema().metadata().get("highwater.evicted_to"),
        Some(&(10 * SECOND).to_string())
    );
}

#[test]
fn late_rows_are_put_aside_where_they_are_wanted() {
    let mut query = Query::new(&[1], true, None);
    query.run(30, &[]);
    query.run(30, &[&[(Some(30), A, 1), (Some(31), B, 2)]]);
    assert!(query.cell.late().take().is_empty(), "nobody wants them");
    query.cell.late().want();
    query.run(30, &[&[(Some(3), A, 3), (None, C, 4)], &[(Some(4), D, 5)]]);
    let late = query.cell.late().take();
    let numbers = |rows: &RecordBatch| rows.column(2).as_primitive::<Int64Type>().values().to_vec();
    let late: Vec<_> = late
        .iter()
        .map(|l| (l.operator.as_str(), numbers(&l.rows)))
        .collect();
    assert_eq!(late, [("dedup", vec![3]), ("dedup", vec![5])]);
    assert_eq!(query.metrics().late_rows, 2);
}

/// Times of nanoseconds are over with the microsecond that they are in, and not before.
#[test]
fn a_part_of_a_microsecond_is_not_cut_off() {
    let ts = Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), true);
    let schema = Arc::new(Schema::new(vec![EventTime::instant().mark(ts)]));
    let cell = BatchCell::default();
    let recipe = Recipe::try_new("dedup".into(), Arc::clone(&schema), vec![0], None);
    let operator = DedupOperator::try_new(recipe.expect("a recipe"), cell.clone()).expect("made");
    let run = |watermark: i64, times: Vec<i64>| {
        cell.open(&MicroBatch {
            id: BatchId(0),
            ranges: Default::default(),
            time: Timestamp::default(),
            watermark: Watermark(watermark),
            late_watermark: Watermark(watermark),
        });
        operator.begin(&TaskContext::default());
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(times));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![times]).expect("a batch");
        let out = operator.take(rows).expect("taken");
        operator.commit();
        let times = |out: RecordBatch| {
            let times = out.column(0).as_primitive::<TimestampNanosecondType>();
            times.values().to_vec()
        };
        out.map(times).unwrap_or_default()
    };
    assert_eq!(run(1, vec![1_000_000, 1_000_001]), [1_000_001]);
    assert_eq!(run(1, vec![1_000_001]), NOTHING, "still remembered");
}

#[test]
fn within_the_watermark_needs_one() {
    let error = Recipe::try_new("dedup".into(), schema(false), vec![1], Some(0));
    let error = error.expect_err("no event time");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn records_of_another_operator_are_refused() {
    let query = Query::new(&[1], true, Some(5));
    let mut plain = Query::new(&[1], true, None);
    plain.run(0, &[&[(Some(10), A, 1)]]);
    let error = query
        .operator
        .restore(&plain.log[0])
        .expect_err("no expiry");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// The rules in the plainest form: a list of keys and when each is forgotten.
struct Reference<'a> {
    query: &'a Query,
    seen: HashMap<Vec<Option<String>>, Option<i64>>,
    late: i64,
}

impl Reference<'_> {
    fn run(&mut self, watermark: i64, rows: &[Row]) -> (Vec<i64>, OperatorMetrics) {
        let (mut out, mut late) = (Vec::new(), 0);
        for &(ts, k, v) in rows {
            if self.query.event_time && ts.is_some_and(|ts| ts <= self.late) {
                late += 1;
                continue;
            }
            let columns = [
                ts.map(|t| t.to_string()),
                k.map(str::to_owned),
                Some(v.to_string()),
            ];
            let key: Vec<_> = self
                .query
                .keys
                .iter()
                .map(|at| columns[*at].clone())
                .collect();
            let expiry = match self.query.delay_ms {
                Some(delay) => Some(ts.unwrap_or(0) + delay / 1_000),
                None if self.query.event_time && self.query.keys.contains(&0) => ts,
                None => None,
            };
            if let std::collections::hash_map::Entry::Vacant(entry) = self.seen.entry(key) {
                entry.insert(expiry);
                out.push(v);
            }
        }
        let before = self.seen.len();
        self.seen
            .retain(|_, expiry| expiry.is_none_or(|expiry| expiry > watermark));
        self.late = watermark;
        let metrics = counts(
            self.seen.len() as u64,
            out.len() as u64,
            (before - self.seen.len()) as u64,
            late,
        );
        (out, metrics)
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % below.unsigned_abs()) as i64
    }

    fn row(&mut self, now: i64, v: i64) -> Row {
        let ts = (self.roll(8) > 0).then(|| now + self.roll(20) - 10);
        let k = [A, B, C, D, None][self.roll(5) as usize];
        (ts, k, v)
    }
}

#[test]
fn any_rows_in_any_pieces_are_as_the_reference_has_them() {
    let shapes: [(&[usize], bool, Option<i64>); 5] = [
        (&[1], false, None),
        (&[1], true, None),
        (&[0, 1], true, None),
        (&[1], true, Some(6)),
        (&[0, 1, 2], true, Some(3)),
    ];
    for seed in 1..200 {
        let (keys, event_time, delay) = shapes[seed as usize % shapes.len()];
        let mut dice = Dice(seed * 7_919);
        let mut query = Query::new(keys, event_time, delay);
        let shape = Query::new(keys, event_time, delay);
        let mut reference = Reference {
            query: &shape,
            seen: HashMap::new(),
            late: 0,
        };
        let (mut now, mut watermark, mut v) = (20, 0, 0);
        for _ in 0..8 {
            let rows: Vec<Row> = (0..dice.roll(30)).map(|i| dice.row(now, v + i)).collect();
            v += 30;
            let (first, second) = rows.split_at(dice.roll(rows.len() as i64 + 1) as usize);
            let (expected, metrics) = reference.run(watermark, &rows);
            assert_eq!(
                query.run(watermark, &[first, second]),
                expected,
                "seed {seed}"
            );
            assert_eq!(query.metrics(), metrics, "seed {seed}");
            if dice.roll(3) == 0 {
                query.restart();
            }
            now += dice.roll(12);
            watermark = watermark.max(now - 8 - dice.roll(6));
        }
    }
}

/// The plan of `sql` over the view `once`: `events` with a watermark, deduplicated.
async fn planned(sql: &str, within: bool) -> (Fixture, IncrementalPlan) {
    let fixture = Fixture::new();
    let events = fixture
        .logical("SELECT * FROM events")
        .await
        .expect("planned");
    let delay = Interval::from_micros(SECOND);
    let once = watermark(events, "ts", delay).and_then(|plan| deduplicate(plan, &["k"], within));
    let view = ViewTable::new(once.expect("deduplicated"), None);
    fixture
        .ctx
        .register_table("once", Arc::new(view))
        .expect("registered");
    let plan = fixture.plan(sql, OutputMode::Append).await.expect(sql);
    (fixture, plan)
}

#[tokio::test]
async fn a_plan_keeps_what_the_operator_needs() {
    for within in [false, true] {
        let (fixture, plan) = planned("SELECT v FROM once", within).await;
        fixture
            .events
            .add(&[(Some(3), "a", 1), (Some(3), "a", 2), (None, "b", 3)]);
        fixture.events.add(&[(Some(4), "b", 4), (Some(4), "c", 5)]);
        // The watermark is 1970 in both: no time is late, and nothing is over.
        assert_eq!(lines(&run(&plan, 0).await.expect("ran")), ["1", "3"]);
        let second = lines(&run(&plan, 1).await.expect("ran"));
        assert_eq!(second, ["5"]);
        let [operator] = plan.operators() else {
            panic!("one operator: {}", plan.explain());
        };
        assert_eq!(operator.name(), "dedup");
        let kind = ["dedupe", "dedupeWithinWatermark"][usize::from(within)];
        assert_eq!(operator.kind(), kind);
        assert!(operator.wants_batch_without_data());
        assert_eq!(operator.metrics().rows_total, 3);
    }
}

#[tokio::test]
async fn no_filter_goes_below() {
    let queries = [
        ("SELECT ts, k FROM once WHERE k <> 'z'", "k@"),
        ("SELECT ts, k FROM once WHERE v > 3", "v@"),
        ("SELECT ts, k FROM once WHERE random() < 0.5", "random()"),
        (
            "SELECT ts, k FROM once WHERE k <> 'z' AND random() < 0.5",
            "random()",
        ),
        (
            "SELECT ts, k FROM (SELECT * FROM once WHERE random() < 0.5) WHERE k <> 'z'",
            "random()",
        ),
    ];
    for (sql, filter) in queries {
        let (_fixture, plan) = planned(sql, false).await;
        let text = plan.explain();
        let at = |words: &str| {
            text.find(words)
                .unwrap_or_else(|| panic!("no {words}: {text}"))
        };
        assert!(at(filter) < at("DeduplicateExec"), "{sql}: {text}");
        let below = &text[at("DeduplicateExec")..];
        assert!(!below.contains("FilterExec"), "{sql}: {text}");
    }
}

#[tokio::test]
async fn only_what_is_deterministic_goes_below_a_watermark() {
    let fixture = Fixture::new();
    let events = fixture
        .logical("SELECT * FROM events")
        .await
        .expect("planned");
    let marked = watermark(events, "ts", Interval::from_micros(SECOND)).expect("marked");
    let view = Arc::new(ViewTable::new(marked, None));
    fixture
        .ctx
        .register_table("marked", view)
        .expect("registered");
    let sql = "SELECT ts, k FROM marked WHERE k <> 'z' AND random() < 0.5 AND ts IS NOT NULL";
    let text = fixture
        .plan(sql, OutputMode::Append)
        .await
        .expect(sql)
        .explain();
    let (above, below) = text.split_once("EventTimeWatermarkExec").expect(&text);
    assert!(
        above.contains("random()") && above.contains("IS NOT NULL"),
        "{text}"
    );
    assert!(
        below.contains("k@1 != z") && !below.contains("random()"),
        "{text}"
    );
}

#[tokio::test]
async fn a_union_of_different_delays_has_event_time() {
    let fixture = Fixture::new();
    for (name, table, seconds) in [("l", "events", 1), ("r", "other", 5)] {
        let rows = fixture.logical(&format!("SELECT * FROM {table}")).await;
        let delay = Interval::from_micros(seconds * SECOND);
        let marked = watermark(rows.expect("planned"), "ts", delay).expect("marked");
        let view = Arc::new(ViewTable::new(marked, None));
        fixture.ctx.register_table(name, view).expect("registered");
    }
    let union = "SELECT ts, k FROM l UNION ALL SELECT ts, k FROM r";
    let union = fixture.logical(union).await.expect("planned");
    let once = deduplicate(union, &["k"], true).expect("deduplicated");
    let plan = fixture
        .incremental(once, OutputMode::Append)
        .await
        .expect("planned");
    let [operator] = plan.operators() else {
        panic!("one operator: {}", plan.explain());
    };
    let line = operator.describe();
    assert!(
        line.contains("`ts` of their first row plus 1000 ms"),
        "{line}"
    );
    assert!(operator.late_schema().is_some());

    let grouped =
        "SELECT ts, count(*) AS n FROM (SELECT ts FROM l UNION ALL SELECT ts FROM r) GROUP BY ts";
    let planned = fixture.plan(grouped, OutputMode::Update).await;
    planned.expect("the schemas of both plans agree");
}
