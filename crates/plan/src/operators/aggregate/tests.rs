//! Streaming results against DataFusion's batch answers over the same rows, in random pieces.

mod event;
mod harness;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater_core::{ErrorKind, OutputMode};

use self::harness::{Query, session};

/// A small generator with a seed that failures print.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    /// A number below `below`, or now and then nothing.
    fn some(&mut self, below: u64) -> Option<i64> {
        (self.roll(9) > 0).then(|| self.roll(below) as i64)
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, t: DataType| Field::new(name, t, true);
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        field("k", DataType::Int64),
        field("w", DataType::Utf8View),
        field("b", DataType::Boolean),
        field("f", DataType::Float64),
        field("ts", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("v", DataType::Int64),
        field("d", DataType::Float64),
        field("m", DataType::Decimal128(12, 2)),
        field("s", DataType::Utf8),
    ]))
}

fn rows(dice: &mut Dice, from: i64, count: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..from + count as i64);
    let mut numbers =
        |below: u64| -> Vec<Option<i64>> { (0..count).map(|_| dice.some(below)).collect() };
    let (k, w, b, f, ts) = (numbers(20), numbers(6), numbers(2), numbers(4), numbers(5));
    let (v, d, m, s) = (numbers(50), numbers(1_000), numbers(500), numbers(12));
    let decimals = Decimal128Array::from_iter(m.iter().map(|m| m.map(i128::from)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(Int64Array::from(k)),
        Arc::new(StringViewArray::from_iter(
            w.iter().map(|w| w.map(|w| "w".repeat(w as usize * 7 + 1))),
        )),
        Arc::new(BooleanArray::from_iter(b.iter().map(|b| b.map(|b| b == 1)))),
        Arc::new(Float64Array::from_iter(
            f.iter().map(|f| f.map(|f| f as f64 / 4.0)),
        )),
        Arc::new(TimestampMicrosecondArray::from_iter(
            ts.iter().map(|t| t.map(|t| t * 60_000_000)),
        )),
        Arc::new(Int64Array::from(v)),
        Arc::new(Float64Array::from_iter(
            d.iter().map(|d| d.map(|d| d as f64 / 8.0)),
        )),
        Arc::new(decimals.with_precision_and_scale(12, 2).expect("decimals")),
        Arc::new(StringArray::from_iter(
            s.iter().map(|s| s.map(|s| format!("s{s}"))),
        )),
    ];
    RecordBatch::try_new(schema(), columns).expect("a batch")
}

/// The triggers of one run: random numbers of random batches, some without rows.
fn triggers(dice: &mut Dice, count: usize) -> Vec<Vec<RecordBatch>> {
    let mut from = 0;
    let mut trigger = |dice: &mut Dice| {
        let mut batches = Vec::new();
        for _ in 0..dice.roll(4) {
            let size = dice.roll(40) as usize;
            batches.push(rows(dice, from, size));
            from += size as i64;
        }
        batches
    };
    (0..count).map(|_| trigger(dice)).collect()
}

type Row = Vec<ScalarValue>;

fn rows_of(batches: &[RecordBatch]) -> Vec<Row> {
    let row = |batch: &RecordBatch, at: usize| -> Row {
        let value = |column: &ArrayRef| ScalarValue::try_from_array(column, at).expect("a value");
        batch.columns().iter().map(value).collect()
    };
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |at| row(batch, at)))
        .collect()
}

/// Rows by the text of their first columns; a key that comes twice is a mistake within one batch answer.
fn by_key(rows: Vec<Row>, keys: usize, into: &mut BTreeMap<String, Row>) -> usize {
    let count = rows.len();
    for row in rows {
        into.insert(format!("{:?}", &row[..keys]), row);
    }
    count
}

fn same(one: &ScalarValue, other: &ScalarValue) -> bool {
    match (one, other) {
        (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => {
            a == b
                || (a.is_nan() && b.is_nan())
                || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6)
        }
        _ => one == other,
    }
}

fn assert_same(streamed: &BTreeMap<String, Row>, batch: &BTreeMap<String, Row>, what: &str) {
    assert!(
        streamed.keys().eq(batch.keys()),
        "{what}: keys {:?} and {:?}",
        streamed.keys(),
        batch.keys()
    );
    for (row, expected) in streamed.values().zip(batch.values()) {
        let equal =
            row.len() == expected.len() && row.iter().zip(expected).all(|(a, b)| same(a, b));
        assert!(equal, "{what}:\n streamed {row:?}\n batch    {expected:?}");
    }
}

async fn batch_answer(sql: &str, rows: &[RecordBatch]) -> Vec<Row> {
    let context = session();
    let all = concat_batches(&schema(), rows).expect("one batch");
    let table = MemTable::try_new(schema(), vec![vec![all]]).expect("a table");
    context
        .register_table("t", Arc::new(table))
        .expect("registered");
    let frame = context
        .sql(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows_of(
        &frame
            .collect()
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}")),
    )
}

/// Runs the query over random triggers with a restart somewhere, and compares with the batch answer.
async fn check(sql: &str, keys: usize, mode: OutputMode, seed: u64) {
    let what = format!("{mode} mode, seed {seed}: {sql}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let triggers = triggers(&mut dice, 8);
    let restart = dice.roll(8) as usize;
    let fresh = || Query::try_new(sql, schema(), mode);
    let mut query = fresh().await.unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut log: Vec<RecordBatch> = Vec::new();
    let mut folded = BTreeMap::new();
    let mut seen: Vec<RecordBatch> = Vec::new();
    for (number, trigger) in triggers.into_iter().enumerate() {
        if number == restart {
            query = fresh().await.expect("planned");
            for records in &log {
                query.operators[0]
                    .restore(records)
                    .unwrap_or_else(|e| panic!("{what}: {e:?}"));
            }
        }
        seen.extend(trigger.iter().cloned());
        let output = query
            .run(trigger)
            .await
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        log.extend(
            query.operators[0]
                .changes()
                .unwrap_or_else(|e| panic!("{what}: {e:?}")),
        );
        query.commit();
        if mode == OutputMode::Complete {
            folded.clear();
        }
        by_key(rows_of(&output), keys, &mut folded);
        assert!(
            output.iter().all(|b| b.schema() == query.schema()),
            "{what}"
        );
    }
    let mut expected = BTreeMap::new();
    if !seen.is_empty() {
        let answer = batch_answer(sql, &seen).await;
        let count = by_key(answer, keys, &mut expected);
        assert_eq!(count, expected.len(), "{what}: the key is too short");
    }
    assert_same(&folded, &expected, &what);
}

const COMMON: &str =
    "count(*), count(v), sum(v), min(v), max(v), avg(v), avg(d), sum(m), avg(m), min(ts)";

#[tokio::test]
async fn keys_of_every_kind() {
    for (number, keys) in [
        "k",
        "w",
        "b",
        "f",
        "ts",
        "m",
        "k, w",
        "k, b",
        "b, f",
        "k, ts, b",
        "w, s, m",
        "arrow_cast(s, 'Dictionary(Int32, Utf8)')",
        "struct(k, w)",
        "make_array(b, v > 20)",
        "date_bin(interval '2 minutes', ts), k % 3",
        "CASE WHEN k > 100 THEN 1 END",
    ]
    .into_iter()
    .enumerate()
    {
        let parts = keys.matches(", ").count() + 1 - usize::from(keys.contains('('));
        let keys_in_row = match keys {
            _ if keys.starts_with("date_bin") => 2,
            _ if keys.contains('(') => 1,
            _ => parts,
        };
        let sql = format!("SELECT {keys}, {COMMON} FROM t GROUP BY {keys}");
        for mode in [OutputMode::Update, OutputMode::Complete] {
            check(&sql, keys_in_row, mode, number as u64 + 1).await;
        }
    }
}

#[tokio::test]
async fn aggregates_of_every_kind() {
    for (number, list) in [
        COMMON,
        "min(s), max(s), min(w), max(w), min(b), max(b), min(f), max(m), max(ts)",
        "count(DISTINCT v), count(DISTINCT s), sum(DISTINCT v), avg(DISTINCT v), min(DISTINCT v)",
        "median(v), percentile_cont(0.3) WITHIN GROUP (ORDER BY d), approx_distinct(s), median(DISTINCT v)",
        "stddev(d), stddev_pop(v), var_samp(d), var_pop(d), corr(v, d), covar_samp(v, d), covar_pop(v, d)",
        "regr_slope(v, d), regr_count(v, d), regr_avgx(v, d), regr_r2(v, d)",
        "bit_and(v), bit_or(v), bit_xor(v), bool_and(b), bool_or(b)",
        "array_agg(s ORDER BY id DESC), array_agg(DISTINCT v ORDER BY v)",
        "array_agg(id), string_agg(s, ',')",
        "string_agg(s, ',' ORDER BY id), first_value(id), last_value(id), nth_value(id, 2)",
        "first_value(v ORDER BY d, id), last_value(v ORDER BY d, id), nth_value(id, 3 ORDER BY d, id)",
        "array_agg(id ORDER BY d, id), first_value(s ORDER BY d, id), last_value(s ORDER BY d DESC, id)",
        "sum(v) FILTER (WHERE d > 50), count(*) FILTER (WHERE b), array_agg(id) FILTER (WHERE v > 10)",
        "avg(d) FILTER (WHERE s <> 's1'), count(DISTINCT v) FILTER (WHERE b), min(s) FILTER (WHERE v > 45)",
        "array_agg(struct(id, s)), max(struct(d, id)), sum(v + id), max(-d), grouping(k)",
        "approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY v) IS NOT NULL, any_value(1)",
    ]
    .into_iter()
    .enumerate()
    {
        for seed in 0..3 {
            let sql = format!("SELECT k, {list} FROM t GROUP BY k");
            let mode = [OutputMode::Update, OutputMode::Complete][seed % 2];
            check(&sql, 1, mode, (number * 3 + seed) as u64 + 100).await;
        }
    }
}

#[tokio::test]
async fn without_keys_and_without_functions() {
    for seed in 0..4 {
        for mode in [OutputMode::Update, OutputMode::Complete] {
            check(&format!("SELECT {COMMON} FROM t"), 0, mode, seed + 300).await;
            check(
                "SELECT count(DISTINCT v), array_agg(id), first_value(d ORDER BY v, id) FROM t",
                0,
                mode,
                seed,
            )
            .await;
            check("SELECT DISTINCT k, w FROM t", 2, mode, seed + 310).await;
        }
    }
}

#[tokio::test]
async fn grouping_sets() {
    for (number, sets) in [
        "ROLLUP (k, b)",
        "CUBE (k, w)",
        "GROUPING SETS ((k), (b), (k, b))",
        "GROUPING SETS ((k, b), (k, b))",
    ]
    .into_iter()
    .enumerate()
    {
        let columns = if sets.contains('w') { "k, w" } else { "k, b" };
        let second = &columns[3..];
        let sql = format!(
            "SELECT {columns}, grouping(k), grouping({second}), count(*), sum(v), avg(d) FROM t GROUP BY {sets}"
        );
        if number == 3 {
            // Twice the same set: rows come twice, so they are counted rather than keyed.
            let mut query = Query::try_new(&sql, schema(), OutputMode::Complete)
                .await
                .expect("planned");
            let batch = rows(&mut Dice(5), 0, 100);
            query.run(vec![batch.clone()]).await.expect("run");
            let output = query.run(vec![]).await.expect("run");
            assert_eq!(
                rows_of(&output).len(),
                batch_answer(&sql, &[batch]).await.len()
            );
            continue;
        }
        for mode in [OutputMode::Update, OutputMode::Complete] {
            check(&sql, 4, mode, number as u64 + 400).await;
        }
    }
}

#[tokio::test]
async fn update_mode_gives_touched_keys_only() {
    let sql = "SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) > 0";
    let mut query = Query::try_new(sql, schema(), OutputMode::Update)
        .await
        .expect("planned");
    let batch = |k: i64| {
        let mut columns = rows(&mut Dice(3), 0, 2).columns().to_vec();
        columns[1] = Arc::new(Int64Array::from(vec![k, k]));
        RecordBatch::try_new(schema(), columns).expect("a batch")
    };
    for (rows, expected) in [
        (vec![batch(1)], 1),
        (vec![batch(1), batch(2)], 2),
        (vec![], 0),
    ] {
        let output = query.run(rows).await.expect("run");
        assert_eq!(
            output.iter().map(RecordBatch::num_rows).sum::<usize>(),
            expected
        );
        let metrics = query.operators[0].metrics();
        assert_eq!(metrics.rows_updated, expected as u64);
        query.commit();
        assert!(query.operators[0].changes().expect("changes").is_empty());
    }
    assert_eq!(query.operators[0].metrics().rows_total, 2);
}

#[tokio::test]
async fn a_global_aggregate_has_its_row_without_any_input() {
    let sql = "SELECT count(*), sum(v), array_agg(s), avg(d) FROM t";
    for mode in [OutputMode::Update, OutputMode::Complete] {
        let mut query = Query::try_new(sql, schema(), mode).await.expect("planned");
        for _ in 0..2 {
            let rows = rows_of(&query.run(vec![]).await.expect("run"));
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0][0], ScalarValue::Int64(Some(0)));
            assert!(rows[0][1..].iter().all(ScalarValue::is_null));
            query.commit();
        }
    }
}

#[tokio::test]
async fn large_triggers_come_in_batches_of_the_session() {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .with_batch_size(100);
    for mode in [OutputMode::Update, OutputMode::Complete] {
        let context = SessionContext::new_with_config(config.clone());
        let sql = "SELECT id, sum(v) FROM t GROUP BY id";
        let mut query = Query::with_context(context, sql, schema(), mode)
            .await
            .expect("planned");
        let output = query
            .run(vec![rows(&mut Dice(9), 0, 2_345)])
            .await
            .expect("run");
        assert_eq!(
            output.iter().map(RecordBatch::num_rows).sum::<usize>(),
            2_345
        );
        assert!(output.iter().all(|batch| batch.num_rows() <= 100));
    }
}

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let planned = Query::try_new(
        "SELECT k, count(*) FROM t GROUP BY k",
        schema(),
        OutputMode::Append,
    )
    .await;
    let refused = planned.map(|_| ()).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);

    let runtime =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(200_000)));
    let context = SessionContext::new_with_config_rt(
        SessionConfig::new().with_target_partitions(1),
        Arc::new(runtime.build().expect("a runtime")),
    );
    let sql = "SELECT id, array_agg(s) FROM t GROUP BY id";
    let mut query = Query::with_context(context, sql, schema(), OutputMode::Update)
        .await
        .expect("planned");
    let refused = query.run(vec![rows(&mut Dice(1), 0, 20_000)]).await;
    let refused = refused.expect_err("the pool is too small");
    assert_eq!(
        (refused.kind(), refused.operator()),
        (ErrorKind::Unavailable, Some("aggregate"))
    );
    // What was half-done is gone, not committed.
    assert!(query.operators[0].changes().is_err());
}

#[tokio::test]
async fn a_function_whose_state_is_not_as_declared_still_works_or_is_named() {
    // DataFusion's own batch answer forgets the DISTINCT: the question is asked in other words.
    let plain = "SELECT k, bit_xor(v) FROM (SELECT DISTINCT k, v FROM t) GROUP BY k";
    let sql = "SELECT k, bit_xor(DISTINCT v) FROM t GROUP BY k";
    let mut query = match Query::try_new(sql, schema(), OutputMode::Complete).await {
        Ok(query) => query,
        Err(e) => return assert!(e.message().contains("bit_xor")),
    };
    let batches = [rows(&mut Dice(5), 0, 100), rows(&mut Dice(6), 0, 100)];
    let (mut streamed, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for batch in &batches {
        let output = query.run(vec![batch.clone()]).await.expect("run");
        by_key(rows_of(&output), 1, &mut streamed);
    }
    by_key(batch_answer(plain, &batches).await, 1, &mut expected);
    assert_same(&streamed, &expected, sql);
}
