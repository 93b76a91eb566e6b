//! Random schemas, rows, splits, restarts, crashes and aggregates: the streamed result is the batch answer.

use arrow::array::RecordBatch;
use highwater::Result;
use highwater::prelude::*;
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::oracle::{batch_answer, fold_updates};
use highwater_testkit::random::{Action, RandomCase};
use highwater_testkit::{Harness, Row};

/// How many seeds each mode is tried with.
const SEEDS: u64 = 60;

#[tokio::test]
async fn the_folded_update_stream_is_the_batch_answer() {
    for seed in 0..SEEDS {
        check(seed, OutputMode::Update).await;
    }
}

#[tokio::test]
async fn the_last_complete_output_is_the_batch_answer() {
    for seed in 1000..1000 + SEEDS {
        check(seed, OutputMode::Complete).await;
    }
}

async fn check(seed: u64, mode: OutputMode) {
    let case = RandomCase::new(seed, mode == OutputMode::Complete).expect("a case");
    if let Err(error) = replay(&case, mode).await {
        panic!("seed {seed}, {mode}, {}\n{error:?}", case.query.sql);
    }
}

async fn replay(case: &RandomCase, mode: OutputMode) -> Result<()> {
    let mut session = StreamSession::builder();
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
    let input = MemoryStream::new(&session, &case.schema)?;
    input.to_frame().create_or_replace_temp_view("input")?;
    let frame = session.sql(&case.query.sql).await?;
    let mut harness = Harness::new(frame, mode)?;
    let mut updates: Vec<Vec<Row>> = Vec::new();
    let mut fed = 0;
    for action in &case.plan {
        match action {
            Action::Restart => {
                harness.stop().await?;
                continue;
            }
            Action::Feed(rows) => {
                input.add_batch(take(case, &mut fed, *rows))?;
            }
            Action::Crash(rows) => {
                harness.sink().fail_at(1);
                input.add_batch(take(case, &mut fed, *rows))?;
                crash(&mut harness).await?;
            }
        }
        harness.process().await?;
        updates.extend(harness.take_new()?);
        let result = match mode {
            OutputMode::Complete => harness.last()?,
            _ => fold_updates(&updates, case.query.keys),
        };
        compare(case, fed, &result).await?;
    }
    harness.stop().await
}

fn take(case: &RandomCase, fed: &mut usize, rows: usize) -> RecordBatch {
    let batch = case.rows.slice(*fed, rows);
    *fed += rows;
    batch
}

/// The sink was told to fail: the query dies of it.
async fn crash(harness: &mut Harness) -> Result<()> {
    match harness.process().await {
        Err(_) => harness.stop().await,
        Ok(()) => Err(Error::internal("the sink was to fail and did not")),
    }
}

/// Compares with the batch answer over the rows fed so far.
async fn compare(case: &RandomCase, fed: usize, result: &[Row]) -> Result<()> {
    let prefix = [case.rows.slice(0, fed)];
    let expected = batch_answer(&case.query.sql, "input", &case.schema, &prefix).await?;
    match difference(&expected, result, false) {
        Some(what) => Err(Error::internal(format!("after {fed} rows: {what}"))),
        None => Ok(()),
    }
}
