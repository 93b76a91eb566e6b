//! Random rows, keys, splits, restarts and crashes: what comes out of a join with a table is DataFusion's batch join.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use highwater::Result;
use highwater::datafusion::datasource::MemTable;
use highwater::prelude::*;
use highwater_testkit::conformance::compare::difference;
use highwater_testkit::oracle::batch_answer_in;
use highwater_testkit::random::{Action, TYPES, plan, rows};
use highwater_testkit::rng::Rng;
use highwater_testkit::{Harness, Row};

/// Each kind of join that can run, from both sides: `i` is the stream.
const KINDS: [(&str, &str); 8] = [
    ("i JOIN d", BOTH),
    ("d JOIN i", BOTH),
    ("i LEFT JOIN d", BOTH),
    ("d RIGHT JOIN i", BOTH),
    ("i LEFT SEMI JOIN d", STREAM),
    ("i LEFT ANTI JOIN d", STREAM),
    ("d RIGHT SEMI JOIN i", STREAM),
    ("d RIGHT ANTI JOIN i", STREAM),
];
const BOTH: &str = "i.a AS ia, i.b AS ib, i.n AS n, d.a AS da, d.b AS db, d.n AS m";
const STREAM: &str = "i.a AS ia, i.b AS ib, i.n AS n";
const CONDITIONS: [&str; 5] = [
    "i.a = d.a",
    "i.a = d.a AND i.b = d.b",
    "i.a = d.a AND i.n < d.n",
    "i.a = d.a AND (i.b <> d.b OR i.n > 3)",
    "i.n > d.n",
];
const OTHERS: [&str; 4] = [
    "SELECT i.n AS n, d.n AS m FROM i CROSS JOIN d",
    "SELECT a, n FROM i WHERE a IN (SELECT a FROM d WHERE n > 2)",
    "SELECT a, n FROM i WHERE a NOT IN (SELECT a FROM d WHERE n > 7)",
    "SELECT a, n FROM i WHERE n > (SELECT avg(n) FROM d) OR EXISTS (SELECT 1 FROM d WHERE d.a = i.a)",
];

/// Of doubles the zeros of both signs are one key here and two in DataFusion's join.
fn schema(dice: &mut Rng) -> SchemaRef {
    let mut key = || loop {
        let key = dice.pick(&TYPES);
        if *key != DataType::Float64 {
            return key.clone();
        }
    };
    let fields = [("a", key()), ("b", key()), ("n", DataType::Int64)];
    let fields = fields.map(|(name, of)| Field::new(name, of, true));
    Arc::new(Schema::new(fields.to_vec()))
}

#[tokio::test]
async fn the_rows_of_all_micro_batches_are_the_batch_join() {
    let joins = KINDS.iter().flat_map(|(from, columns)| {
        CONDITIONS.map(|condition| format!("SELECT {columns} FROM {from} ON {condition}"))
    });
    let others = OTHERS.map(str::to_owned);
    for (seed, sql) in (0..).zip(joins.chain(others)) {
        if let Err(error) = check(seed, &sql).await {
            panic!("seed {seed}: {sql}\n{error:?}");
        }
    }
}

async fn check(seed: u64, sql: &str) -> Result<()> {
    let mut dice = Rng::new(seed);
    let schema = schema(&mut dice);
    let (count, kept) = (dice.below(60), dice.below(40));
    let input = rows(&mut dice, &schema, count)?;
    let table = rows(&mut dice, &schema, kept)?;
    let halves = [
        table.slice(0, kept / 2),
        table.slice(kept / 2, kept - kept / 2),
    ];
    let table = MemTable::try_new(Arc::clone(&schema), vec![halves.to_vec()])?;
    let table = Arc::new(table);

    let config = SessionConfig::new().with_target_partitions(1);
    let batch = SessionContext::new_with_config(config);
    batch.register_table("d", Arc::clone(&table) as _)?;
    let expected = batch_answer_in(&batch, sql, "i", &schema, std::slice::from_ref(&input)).await?;

    // Small batches, so that a row's matches are cut in many places.
    let config = SessionConfig::new().with_batch_size(1 + dice.below(12));
    let session = StreamSession::from_context(SessionContext::new_with_config(config))?;
    let stream = MemoryStream::new(&session, &schema)?;
    stream.to_frame().create_or_replace_temp_view("i")?;
    session.register_table("d", table)?;
    let frame = session.sql(sql).await?;
    let steps = plan(&mut dice, count);
    let came = streamed(frame, &stream, &input, &steps).await?;
    match difference(&expected, &came, false) {
        Some(what) => Err(Error::internal(what)),
        None => Ok(()),
    }
}

/// What came out after all `steps`.
async fn streamed(
    frame: StreamFrame,
    stream: &MemoryStream,
    input: &RecordBatch,
    steps: &[Action],
) -> Result<Vec<Row>> {
    let mut harness = Harness::new(frame, OutputMode::Append)?;
    let (mut came, mut fed) = (Vec::new(), 0);
    for step in steps {
        let mut feed = |rows: usize| {
            fed += rows;
            stream.add_batch(input.slice(fed - rows, rows))
        };
        match step {
            Action::Restart => {
                harness.stop().await?;
                continue;
            }
            Action::Feed(rows) => feed(*rows)?,
            Action::Crash(rows) => {
                harness.sink().fail_at(1);
                let offset = feed(*rows)?;
                if harness.process().await.is_ok() {
                    return Err(Error::internal("the sink was to fail and did not"));
                }
                harness.stop().await?;
                offset
            }
        };
        harness.process().await?;
        came.extend(harness.take_new()?.concat());
    }
    harness.stop().await?;
    Ok(came)
}
