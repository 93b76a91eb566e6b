//! Every aggregate of the session's registry: equal to the batch answer, or listed with its reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use highwater::datafusion;
use highwater::datafusion::logical_expr::{Accumulator, Volatility, create_udaf};
use highwater::datafusion::scalar::ScalarValue;
use highwater::prelude::*;
use highwater::{ErrorKind, Result, SqlSemantics};
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::oracle::{batch_answer_in, fold_updates};
use highwater_testkit::random::{self, Action};
use highwater_testkit::rng::Rng;
use highwater_testkit::{Harness, Row};
use tokio::runtime::Handle;

/// Calls whose streamed answer need not be the batch answer, how they end instead, and why.
const EXCEPTIONS: [(&str, End, &str); 5] = [
    ("approx_median(DISTINCT v)", End::Refused, MISDECLARED),
    ("stddev(DISTINCT v)", End::Refused, MISDECLARED),
    ("stddev_pop(DISTINCT v)", End::Refused, MISDECLARED),
    (
        "approx_percentile_cont_with_weight(x, abs(v) + 1, 0.5)",
        End::Differs,
        "an approximation: a t-digest with weights depends on how the rows were cut",
    ),
    (
        "try_sum(DISTINCT v)",
        End::Refused,
        "datafusion-spark's accumulator leaves DISTINCT out",
    ),
];

const MISDECLARED: &str = "DataFusion declares another state for it than it gives";

/// How a call ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// With the batch answer.
    Same,
    /// With another answer.
    Differs,
    /// At start.
    Refused,
    /// It is none: DataFusion's batch engine does not take the arguments.
    NoCall,
}

/// The arguments an aggregate is tried with: it must take at least one of them.
fn arguments(name: &str) -> &'static [&'static str] {
    match name {
        "corr" | "covar_pop" | "covar_samp" => &["x, y"],
        name if name.starts_with("regr_") => &["x, y"],
        "string_agg" => &["s, '-'", "s, '-' ORDER BY s, v"],
        "nth_value" => &["v, 2", "s, 3 ORDER BY s, v"],
        "percentile_cont" => &["x, 0.5", "x, 0.25"],
        "approx_percentile_cont" => &["x, 0.5", "x, 0.9, 200"],
        "approx_percentile_cont_with_weight" => &["x, 1, 0.5", "x, abs(v) + 1, 0.5"],
        "first_value" | "last_value" => &["v", "s", "v ORDER BY s, v", "s ORDER BY t DESC, s"],
        "array_agg" => &["v", "s", "v ORDER BY v", "DISTINCT v ORDER BY v"],
        _ => &["x", "v", "b", "s", "t", "p", "DISTINCT v", "DISTINCT s"],
    }
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let columns = [
        ("k", DataType::Utf8View),
        ("x", DataType::Float64),
        ("y", DataType::Float64),
        ("v", DataType::Int64),
        ("b", DataType::Boolean),
        ("s", DataType::Utf8View),
        ("t", time),
        ("p", DataType::Decimal128(10, 2)),
    ];
    let fields: Vec<Field> = columns
        .into_iter()
        .map(|(name, data_type)| Field::new(name, data_type, true))
        .collect();
    Arc::new(Schema::new(fields))
}

#[tokio::test]
async fn every_aggregate_is_the_batch_answer_or_listed() {
    let wrong = try_registry(SqlSemantics::DataFusion).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_aggregate_of_sparks_meaning_is_the_batch_answer_or_listed() {
    let wrong = try_registry(SqlSemantics::Spark).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tries every aggregate that a session knows; what is wrong.
async fn try_registry(semantics: SqlSemantics) -> Vec<String> {
    let state = session(semantics).context().state();
    let functions = state.aggregate_functions().values();
    let names: BTreeSet<&str> = functions.map(|function| function.name()).collect();
    let mut wrong = Vec::new();
    for name in names {
        let mut same = 0;
        for call in calls(name) {
            let (end, what) = try_call(semantics, &call).await;
            match end {
                End::NoCall => {}
                End::Same => same += 1,
                _ if is_listed(&call.text, &end) => {}
                _ => wrong.push(format!("{}: {end:?}, {what}", call.text)),
            }
        }
        if same == 0 {
            wrong.push(format!(
                "{name} gave the batch answer for none of its arguments"
            ));
        }
    }
    wrong
}

fn is_listed(call: &str, end: &End) -> bool {
    EXCEPTIONS
        .iter()
        .any(|(listed, how, _)| *listed == call && how == end)
}

/// A session whose batch queries run on one partition, so that the order of rows is given.
fn session(semantics: SqlSemantics) -> StreamSession {
    let config = SessionConfig::new().with_target_partitions(1);
    StreamSession::builder()
        .context(SessionContext::new_with_config(config))
        .semantics(semantics)
        .runtime(Handle::current())
        .build()
        .expect("a session")
}

/// A call of an aggregate in a query, the first columns of which are the key.
struct Call {
    text: String,
    sql: String,
    keys: usize,
}

fn calls(name: &str) -> Vec<Call> {
    if name == "grouping" {
        return vec![Call {
            text: "grouping(k)".into(),
            sql: "SELECT k, grouping(k) AS a, count(*) AS n FROM input GROUP BY ROLLUP(k)".into(),
            keys: 2,
        }];
    }
    let call = |arguments: &&str| {
        let text = match name {
            // The order of their elements is not defined.
            "collect_set" | "collect_list" => format!("array_sort({name}({arguments}))"),
            _ => format!("{name}({arguments})"),
        };
        let sql = format!("SELECT k, {text} AS a FROM input GROUP BY k");
        Call { text, sql, keys: 1 }
    };
    arguments(name).iter().map(call).collect()
}

/// Compares a call with the batch answer.
async fn try_call(semantics: SqlSemantics, call: &Call) -> (End, String) {
    let schema = schema();
    for seed in [3, 4] {
        let rows = random::rows(&mut Rng::new(seed), &schema, 150).expect("rows of the schema");
        let batch = session(semantics);
        let whole = [rows.clone()];
        let answer = batch_answer_in(batch.context(), &call.sql, "input", &schema, &whole).await;
        let Ok(expected) = answer else {
            return (End::NoCall, String::new());
        };
        let plan = random::plan(&mut Rng::new(seed + 100), 150);
        let streamed = match stream(&session(semantics), call, &rows, &plan).await {
            Ok(streamed) => streamed,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return (End::Refused, format!("{error:?}"));
            }
            Err(error) => return (End::Differs, format!("{error:?}")),
        };
        if let Some(what) = difference(&expected, &streamed, false) {
            return (End::Differs, format!("seed {seed}: {what}"));
        }
    }
    (End::Same, String::new())
}

async fn stream(
    session: &StreamSession,
    call: &Call,
    rows: &RecordBatch,
    plan: &[Action],
) -> Result<Vec<Row>> {
    let input = MemoryStream::new(session, rows.schema())?;
    input.to_frame().create_or_replace_temp_view("input")?;
    let mut harness = Harness::new(session.sql(&call.sql).await?, OutputMode::Update)?;
    let (mut updates, mut fed) = (Vec::new(), 0);
    for action in plan {
        match action {
            Action::Restart => harness.stop().await?,
            Action::Feed(count) | Action::Crash(count) => {
                input.add_batch(rows.slice(fed, *count))?;
                fed += count;
                harness.process().await?;
                updates.extend(harness.take_new()?);
            }
        }
    }
    harness.stop().await?;
    Ok(fold_updates(&updates, call.keys))
}

/// A sum of the user's own that does not look at DISTINCT.
#[derive(Debug, Default)]
struct PlainSum(i64);

impl Accumulator for PlainSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.0 += values[0]
            .as_primitive::<Int64Type>()
            .iter()
            .flatten()
            .sum::<i64>();
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> datafusion::error::Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> datafusion::error::Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> datafusion::error::Result<ScalarValue> {
        Ok(ScalarValue::from(self.0))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

#[tokio::test]
async fn a_function_that_does_not_heed_distinct_is_refused_with_it() -> Result<()> {
    let session = StreamSession::new();
    session.context().register_udaf(create_udaf(
        "plain_sum",
        vec![DataType::Int64],
        Arc::new(DataType::Int64),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(PlainSum::default()))),
        Arc::new(vec![DataType::Int64]),
    ));
    let numbers = MemoryStream::new(&session, "v BIGINT")?;
    numbers.to_frame().create_or_replace_temp_view("numbers")?;
    for (call, starts) in [("plain_sum(v)", true), ("plain_sum(DISTINCT v)", false)] {
        let frame = session.sql(&format!("SELECT {call} FROM numbers")).await?;
        let writer = frame.write_stream().output_mode(OutputMode::Update);
        match writer.format("noop").start().await {
            Ok(query) => {
                assert!(starts, "{call}");
                query.stop().await?;
            }
            Err(error) => {
                assert!(!starts, "{call}: {error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(
                    error.message().contains("does not heed DISTINCT"),
                    "{error}"
                );
            }
        }
    }
    Ok(())
}
