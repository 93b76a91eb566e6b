//! Random order, splits, delays, restarts and crashes: with event time, what comes out and what is late is what the
//! plain rules of [`rules`] say; and in append mode it is the batch answer over the rows that were not late.

mod rules;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use highwater::Result;
use highwater::prelude::*;
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::oracle::batch_answer;
use highwater_testkit::rng::Rng;
use highwater_testkit::{Harness, Row, Value};

use rules::{Dedup, DedupKind, Input, Instants, Rules, Sessions, Watermark, Windows};

const SEEDS: u64 = 40;
const SECOND: i64 = 1_000_000;
/// 2024-03-01 12:00:00 in microseconds.
const NOON: i64 = 1_709_294_400 * SECOND;

/// What happens to the query.
#[derive(Debug)]
enum Action {
    Feed(usize),
    /// The same, and the sink fails at the first micro-batch.
    Crash(usize),
    Restart,
}

/// Random rows, and how they come.
#[derive(Debug)]
struct Case {
    seed: u64,
    rows: Vec<Input>,
    plan: Vec<Action>,
    delay_ms: i64,
}

impl Case {
    fn new(seed: u64, null_times: bool) -> Self {
        let mut rng = Rng::new(seed);
        let count = 20 + rng.below(100);
        // From a stream in order to one without any: how far a row may lie behind the front.
        let back = *rng.pick(&[1, 6, 20, 90]) * SECOND;
        let rows = (0..count)
            .map(|i| row(&mut rng, i, back, null_times))
            .collect();
        // Where rows that were late are kept in memory, the query does not start again.
        let calm = seed.is_multiple_of(2);
        Self {
            seed,
            rows,
            plan: plan(&mut rng, count, calm),
            delay_ms: *rng.pick(&[0, 1, 1_500, 4_000, 12_000, 60_000]),
        }
    }

    fn is_calm(&self) -> bool {
        self.seed.is_multiple_of(2)
    }
}

fn row(rng: &mut Rng, i: usize, back: i64, null_times: bool) -> Input {
    let front = i64::try_from(i).unwrap_or(0) * SECOND;
    let behind = rng.between(0, back);
    // Some times on whole seconds meet the ends of windows, others try the cut to milliseconds.
    let behind = if rng.chance(40) {
        behind
    } else {
        behind / SECOND * SECOND
    };
    Input {
        ts: (!null_times || !rng.chance(6)).then_some(NOON + front - behind),
        k: (!rng.chance(8)).then(|| *rng.pick(&["a", "b", "c"])),
        v: (!rng.chance(10)).then(|| rng.between(-5, 20)),
    }
}

fn plan(rng: &mut Rng, count: usize, calm: bool) -> Vec<Action> {
    let mut plan = Vec::new();
    let mut left = count;
    while left > 0 {
        let rows = rng.below(12).min(left);
        left -= rows;
        match rng.below(10) {
            0 if !calm => plan.push(Action::Crash(rows)),
            1 if !calm => plan.extend([Action::Restart, Action::Feed(rows)]),
            _ => plan.push(Action::Feed(rows)),
        }
    }
    plan
}

fn batch(schema: &SchemaRef, rows: &[Input]) -> Result<RecordBatch> {
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.ts).collect();
    let keys: StringViewArray = rows.iter().map(|row| row.k).collect();
    let values: Int64Array = rows.iter().map(|row| row.v).collect();
    let columns = vec![
        Arc::new(times) as _,
        Arc::new(keys) as _,
        Arc::new(values) as _,
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Runs the case with `query` over the watermarked stream against the rules; what came out, and where the watermark
/// stands at the end, in microseconds.
async fn drive(
    case: &Case,
    query: impl FnOnce(StreamFrame) -> Result<StreamFrame>,
    rules: &mut dyn Rules,
) -> Result<(Vec<Row>, i64)> {
    let mut session = StreamSession::builder().runtime(tokio::runtime::Handle::current());
    if !case.seed.is_multiple_of(3) {
        // Every trigger snapshots parts of few records, and hardly a micro-batch is kept.
        session = session
            .config(
                "highwater.snapshot_min_records",
                (case.seed % 3).to_string(),
            )
            .config("highwater.min_batches_to_retain", "1");
    }
    let session = session.build()?;
    let stream = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
    let delay = format!("{} ms", case.delay_ms);
    let frame = query(stream.to_frame().with_watermark("ts", delay)?)?;
    let mut harness = Harness::new(frame, OutputMode::Append)?;
    if case.is_calm() {
        harness = harness.with_writer(|writer| writer.late_rows_to("late"));
    }
    let mut watermark = Watermark::new(case.delay_ms);
    let (mut fed, mut all, mut late, mut closes) = (0, Vec::new(), Vec::new(), 0);
    for action in &case.plan {
        let (Action::Feed(count) | Action::Crash(count)) = action else {
            harness.stop().await?;
            continue;
        };
        let rows = &case.rows[fed..fed + count];
        fed += count;
        stream.add_batch(batch(stream.schema(), rows)?)?;
        if matches!(action, Action::Crash(_)) {
            crash(&mut harness).await?;
        }
        harness.process().await?;

        let (mut expected, mut put_aside, mut rows) = (Vec::new(), Vec::new(), rows);
        for marks in watermark.batches(rows) {
            put_aside.extend(rules.take(rows, marks.late));
            expected.extend(rules.emit(marks.closes));
            (rows, closes) = (&[], marks.closes);
        }
        let new = harness.take_new()?.concat();
        agree(&format!("after {fed} rows"), &expected, &new)?;
        agree_on_late(fed, put_aside.len(), harness.take_late())?;
        late.extend(put_aside);
        all.extend(new);
    }
    let query = harness.query().and_then(StreamingQuery::watermark);
    if query.map(|t| t.as_micros()) != Some(closes) {
        return Err(Error::internal(format!(
            "the watermark is {query:?}, expected {closes}"
        )));
    }
    if case.is_calm() {
        check_late_table(&session, &late).await?;
    }
    harness.stop().await?;
    Ok((all, closes))
}

/// The sink was told to fail: the query dies of it.
async fn crash(harness: &mut Harness) -> Result<()> {
    harness.sink().fail_at(1);
    match harness.process().await {
        Err(_) => harness.stop().await,
        Ok(()) => Err(Error::internal("the sink was to fail and did not")),
    }
}

fn agree(what: &str, expected: &[Row], actual: &[Row]) -> Result<()> {
    match difference(expected, actual, false) {
        Some(difference) => Err(Error::internal(format!("{what}: {difference}"))),
        None => Ok(()),
    }
}

fn agree_on_late(fed: usize, expected: usize, told: u64) -> Result<()> {
    if u64::try_from(expected) == Ok(told) {
        return Ok(());
    }
    Err(Error::internal(format!(
        "after {fed} rows: {told} rows are told late, expected {expected}"
    )))
}

/// Every row that was put aside is in the table for late rows, and no other; a query that does not read `k` has no `k`
/// there.
async fn check_late_table(session: &StreamSession, late: &[Input]) -> Result<()> {
    let table = session.table("late").await?;
    let has_key = table.schema().has_column_with_unqualified_name("k");
    let columns: &[&str] = if has_key { &["v", "k"] } else { &["v"] };
    let rows = table.select_columns(columns)?.collect().await?;
    let expected: Vec<Row> = late
        .iter()
        .map(|row| [Value::from(row.v), Value::from(row.k)][..columns.len()].to_vec())
        .collect();
    agree(
        "late rows",
        &expected,
        &highwater_testkit::value::rows(&rows)?,
    )
}

async fn check(
    case: &Case,
    query: impl FnOnce(StreamFrame) -> Result<StreamFrame>,
    rules: &mut dyn Rules,
) -> (Vec<Row>, i64) {
    match drive(case, query, rules).await {
        Ok(all) => all,
        Err(error) => panic!("seed {}, delay {} ms\n{error:?}", case.seed, case.delay_ms),
    }
}

/// `count(*), sum(v), min(v)`.
fn figures() -> [Expr; 3] {
    [
        count_all().alias("n"),
        sum(col("v")).alias("s"),
        min(col("v")).alias("m"),
    ]
}

async fn check_windows(seed: u64, size: i64, slide: i64) {
    let case = Case::new(seed, true);
    let mut rules = Windows::new(size * SECOND, slide * SECOND);
    let query = |frame: StreamFrame| {
        let spec = sliding(format!("{size} seconds"), format!("{slide} seconds"));
        let grouped = frame.group_by([window(col("ts"), spec), col("k")]);
        let columns = ["window.start AS start", "k", "n", "s", "m"];
        grouped.agg(figures())?.select_exprs(&columns)
    };
    let (all, closes) = check(&case, query, &mut rules).await;
    let expected = batch_windows(&rules, closes).await.expect("a batch answer");
    agree("batch answer", &expected, &all).unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
}

/// DataFusion's answer over what was not late, of the windows that are over.
async fn batch_windows(rules: &Windows, closes: i64) -> Result<Vec<Row>> {
    let session = StreamSession::new();
    let shape = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
    let started = |(start, row): &(i64, Input)| Input {
        ts: Some(*start),
        ..row.clone()
    };
    let kept: Vec<Input> = rules.kept.iter().map(started).collect();
    let rows = [batch(shape.schema(), &kept)?];
    let sql = "SELECT ts, k, count(*), sum(v), min(v) FROM kept GROUP BY ts, k";
    let mut answer = batch_answer(sql, "kept", shape.schema(), &rows).await?;
    answer.retain(|row| matches!(row[0], Value::Time(start) if start + rules.size <= closes));
    Ok(answer)
}

#[tokio::test]
async fn tumbling_windows_are_the_batch_answer_over_the_rows_in_time() {
    for seed in 0..SEEDS {
        check_windows(seed, 10, 10).await;
    }
}

#[tokio::test]
async fn sliding_windows_are_the_batch_answer_over_the_rows_in_time() {
    for seed in 0..SEEDS {
        let (size, slide) = [(10, 5), (12, 3), (10, 4), (7, 3)][usize::try_from(seed % 4).unwrap()];
        check_windows(1_000 + seed, size, slide).await;
    }
}

#[tokio::test]
async fn groups_of_one_instant_close_when_the_watermark_reaches_it() {
    for seed in 2_000..2_000 + SEEDS {
        let query = |frame: StreamFrame| frame.group_by([col("ts")]).agg(figures());
        check(&Case::new(seed, true), query, &mut Instants::default()).await;
    }
}

#[tokio::test]
async fn sessions_merge_and_close_by_the_rules() {
    for seed in 3_000..3_000 + SEEDS {
        let gap = [1, 3, 5, 11][usize::try_from(seed % 4).unwrap()];
        let query = |frame: StreamFrame| {
            let gap = format!("{gap} seconds");
            let grouped = frame.group_by([session_window(col("ts"), gap), col("k")]);
            grouped.agg(figures())?.select_exprs(&[
                "session_window.start AS start",
                "session_window.end AS stop",
                "k",
                "n",
                "s",
                "m",
            ])
        };
        check(
            &Case::new(seed, true),
            query,
            &mut Sessions::new(gap * SECOND),
        )
        .await;
    }
}

#[tokio::test]
async fn the_first_row_of_a_key_comes_out_and_late_ones_do_not() {
    for seed in 4_000..4_000 + SEEDS {
        let (kind, columns): (_, &[&str]) = match seed % 3 {
            0 => (DedupKind::Key, &["k"]),
            1 => (DedupKind::KeyAndTime, &["k", "ts"]),
            _ => (DedupKind::All, &[]),
        };
        let query = |frame: StreamFrame| frame.drop_duplicates(columns);
        check(&Case::new(seed, true), query, &mut Dedup::new(kind)).await;
    }
}

#[tokio::test]
async fn within_the_watermark_a_key_is_remembered_for_the_delay() {
    for seed in 5_000..5_000 + SEEDS {
        let case = Case::new(seed, false);
        let query = |frame: StreamFrame| frame.drop_duplicates_within_watermark(&["k"]);
        let kind = DedupKind::Within(case.delay_ms * 1_000);
        check(&case, query, &mut Dedup::new(kind)).await;
    }
}
