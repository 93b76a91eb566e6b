//! Every aggregate of the session's registry: equal to the batch answer, or listed with its reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use highwater::Result;
use highwater::prelude::*;
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::oracle::{batch_answer, fold_updates};
use highwater_testkit::random::{self, Action};
use highwater_testkit::rng::Rng;
use highwater_testkit::{Harness, Row};

/// Aggregates whose streamed answer need not be the batch answer, and why.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// The arguments an aggregate is tried with; it must take at least one of them.
const ARGUMENTS: [&str; 14] = [
    "x",
    "v",
    "b",
    "s",
    "t",
    "p",
    "x, y",
    "x, 0.5",
    "s, '-'",
    "v, 2",
    "v ORDER BY v",
    "s ORDER BY s DESC, v",
    "DISTINCT v",
    "x, y, 0.5",
];

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
    let session = StreamSession::new();
    let names: BTreeSet<String> = session
        .context()
        .state()
        .aggregate_functions()
        .values()
        .map(|function| function.name().to_owned())
        .collect();
    let mut wrong = Vec::new();
    for name in &names {
        let listed = EXCEPTIONS.iter().find(|(exception, _)| exception == name);
        match (try_all(name).await, listed) {
            (Ok(0), None) => wrong.push(format!("{name}: took none of the arguments")),
            (Err(what), None) => wrong.push(format!("{name}: {what}")),
            (Ok(tried), Some(_)) if tried > 0 => {
                wrong.push(format!("{name}: is listed, but equals the batch answer"));
            }
            _ => {}
        }
    }
    for (name, _) in EXCEPTIONS {
        assert!(names.contains(name), "there is no aggregate `{name}`");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tries an aggregate with all arguments it takes in batch; how many it took, or what differs.
async fn try_all(name: &str) -> std::result::Result<usize, String> {
    let schema = schema();
    let mut tried = 0;
    for arguments in ARGUMENTS {
        let sql = format!("SELECT k, {name}({arguments}) AS a FROM input GROUP BY k");
        for seed in [3, 4] {
            let rows = random::rows(&mut Rng::new(seed), &schema, 150).unwrap();
            let batch = batch_answer(&sql, "input", &schema, &[rows.clone()]).await;
            let Ok(expected) = batch else { continue };
            let plan = random::plan(&mut Rng::new(seed + 100), 150);
            let told = |error: Error| format!("{name}({arguments}): {error:?}");
            let streamed = stream(&sql, &rows, &plan).await.map_err(told)?;
            if let Some(what) = difference(&expected, &streamed, false) {
                return Err(format!("{name}({arguments}), seed {seed}: {what}"));
            }
            tried += 1;
        }
    }
    Ok(tried)
}

async fn stream(sql: &str, rows: &RecordBatch, plan: &[Action]) -> Result<Vec<Row>> {
    let session = StreamSession::new();
    let input = MemoryStream::new(&session, rows.schema())?;
    input.to_frame().create_or_replace_temp_view("input")?;
    let mut harness = Harness::new(session.sql(sql).await?, OutputMode::Update)?;
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
    Ok(fold_updates(&updates, 1))
}
