//! Every kind of join with static tables against DataFusion's batch answer over the same rows, and how often each table
//! is read.

mod refresh;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::stream;
use highwater_core::{ErrorKind, OutputMode, Timestamp};

use crate::plan::{IncrementalPlan, PlanRequest, plan_query};
use crate::static_side::StaticRefresh;
use crate::table::StreamTable;
use crate::testing::{TestSource, lines, run, schema};

const TRIGGERS: u64 = 6;

/// The tables are `events` (the stream), `dim`, `more` and `nothing`; all have the columns `ts`, `k`, `v`.
const QUERIES: &[&str] = &[
    "SELECT e.k, e.v, d.v AS w FROM events e JOIN dim d ON e.k = d.k",
    "SELECT e.k, e.v, d.v AS w FROM dim d JOIN events e ON e.k = d.k",
    "SELECT e.k, e.v, d.v AS w FROM events e JOIN dim d ON e.k = d.k AND e.v < d.v",
    "SELECT e.k, e.v, d.v AS w FROM dim d JOIN events e ON e.k = d.k AND e.v < d.v",
    "SELECT d.* FROM events e JOIN dim d ON e.k = d.k AND e.v = d.v",
    "SELECT e.*, d.k AS dk FROM events e JOIN dim d ON e.v + 1 = d.v * 2",
    "SELECT e.k, d.v FROM events e JOIN dim d ON e.k IS NOT DISTINCT FROM d.k",
    "SELECT e.k, e.v, d.v AS w FROM events e LEFT JOIN dim d ON e.k = d.k",
    "SELECT e.k, e.v, d.v AS w FROM events e LEFT JOIN dim d ON e.k = d.k AND e.v > 3 AND d.v > e.v",
    "SELECT e.k, e.v, d.v AS w FROM dim d RIGHT JOIN events e ON e.k = d.k",
    "SELECT e.k, e.v, d.v AS w FROM dim d RIGHT JOIN events e ON e.k = d.k AND d.v > 3",
    "SELECT e.k, d.k AS dk FROM events e LEFT JOIN nothing d ON e.k = d.k",
    "SELECT e.k, e.v FROM events e LEFT SEMI JOIN dim d ON e.k = d.k",
    "SELECT e.k, e.v FROM events e LEFT SEMI JOIN dim d ON e.k = d.k AND e.v < d.v",
    "SELECT e.k, e.v FROM dim d RIGHT SEMI JOIN events e ON e.k = d.k",
    "SELECT e.k, e.v FROM events e LEFT ANTI JOIN dim d ON e.k = d.k",
    "SELECT e.k, e.v FROM dim d RIGHT ANTI JOIN events e ON e.k = d.k AND d.v > e.v",
    "SELECT e.k, d.k AS dk FROM events e CROSS JOIN dim d",
    "SELECT e.k, d.k AS dk FROM dim d, events e",
    "SELECT e.k, d.k AS dk FROM events e JOIN dim d ON e.v < d.v",
    "SELECT e.k, d.k AS dk FROM events e LEFT JOIN dim d ON e.v + d.v = 7",
    "SELECT e.k, d.k AS dk FROM dim d RIGHT JOIN events e ON e.v + d.v = 7",
    "SELECT e.k, e.v FROM events e LEFT SEMI JOIN dim d ON e.v > d.v",
    "SELECT e.k, e.v FROM events e LEFT ANTI JOIN dim d ON e.v > d.v",
    "SELECT k, v FROM events WHERE k IN (SELECT k FROM dim)",
    "SELECT k, v FROM events WHERE k NOT IN (SELECT k FROM dim)",
    "SELECT k, v FROM events WHERE k NOT IN (SELECT k FROM dim WHERE k IS NOT NULL)",
    "SELECT k, v FROM events WHERE k NOT IN (SELECT k FROM nothing)",
    "SELECT k, v FROM events WHERE k IN (SELECT k FROM dim) OR v > 5",
    "SELECT k, v FROM events WHERE EXISTS (SELECT 1 FROM dim WHERE v > 100)",
    "SELECT k, v FROM events WHERE EXISTS (SELECT 1 FROM dim WHERE v > 1)",
    "SELECT e.k, e.v FROM events e WHERE EXISTS (SELECT 1 FROM dim d WHERE d.k = e.k AND d.v > e.v)",
    "SELECT e.k, e.v FROM events e WHERE NOT EXISTS (SELECT 1 FROM dim d WHERE d.k = e.k AND d.v > e.v)",
    "SELECT k, v - (SELECT max(v) FROM dim) AS x FROM events",
    "SELECT k, v FROM events WHERE v > (SELECT avg(v) FROM dim)",
    "SELECT e.k, (SELECT max(d.v) FROM dim d WHERE d.k = e.k) AS x FROM events e",
    "SELECT e.k FROM events e JOIN (SELECT max(v) AS m FROM dim) d ON e.v < d.m WHERE e.v > (SELECT max(v) AS m FROM dim) - 5",
    "SELECT e.v, d.v AS w, m.v AS x FROM events e JOIN dim d ON e.k = d.k LEFT JOIN more m ON d.v = m.v",
    "SELECT e.v, s.w, s.x FROM (SELECT d.k, d.v AS w, m.v AS x FROM dim d JOIN more m ON d.k = m.k) s JOIN events e ON e.k = s.k",
    "SELECT e.v, s.n FROM events e LEFT JOIN (SELECT k, count(*) AS n FROM dim GROUP BY k) s ON e.k = s.k",
    "SELECT e.v, s.v AS w FROM events e JOIN (SELECT k, v FROM dim ORDER BY v DESC, k LIMIT 3) s ON e.k = s.k",
    "SELECT e.v, s.k FROM events e JOIN (SELECT k FROM dim UNION ALL SELECT k FROM more) s ON e.k = s.k",
    "SELECT e.v, d.column1 FROM events e JOIN (VALUES ('a', 1), ('b', 2)) d ON e.k = d.column1",
    "SELECT e.v, d.v AS w FROM events e JOIN dim d ON e.k = d.k AND e.v > (SELECT avg(v) FROM dim)",
    "SELECT a.v, b.v AS w FROM events a JOIN dim d ON a.k = d.k JOIN dim b ON d.v = b.v",
    "SELECT e.k, e.v FROM events e WHERE e.k IN (SELECT k FROM dim) AND e.v NOT IN (SELECT v FROM more WHERE v IS NOT NULL)",
    "SELECT u.k, d.v FROM (SELECT k FROM events UNION ALL SELECT k FROM events WHERE v > 3) u JOIN dim d ON u.k = d.k",
];

/// Random numbers that are the same everywhere (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// Keys `a` to `e` and null; numbers to nine, and null.
    fn rows(&mut self, count: u64) -> RecordBatch {
        let rows = 0..count;
        let times: Vec<_> = rows.clone().map(|i| Some(i as i64)).collect();
        let keys: Vec<_> = rows
            .clone()
            .map(|_| {
                ["a", "b", "c", "d", "e"]
                    .get(self.below(6) as usize)
                    .copied()
            })
            .collect();
        let numbers: Vec<_> = rows
            .map(|_| Some(self.below(11) as i64).filter(|n| *n < 10))
            .collect();
        let columns = vec![
            Arc::new(TimestampMicrosecondArray::from(times)) as _,
            Arc::new(StringArray::from(keys)) as _,
            Arc::new(Int64Array::from(numbers)) as _,
        ];
        RecordBatch::try_new(schema(), columns).expect("three columns")
    }
}

/// A table that counts how often it is read.
#[derive(Debug)]
struct Counted {
    rows: Vec<RecordBatch>,
    schema: SchemaRef,
    reads: Arc<AtomicU64>,
}

impl PartitionStream for Counted {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let rows = stream::iter(self.rows.clone().into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            rows,
        ))
    }
}

/// A session with the stream and the tables, and one where the stream is a table too.
struct World {
    ctx: SessionContext,
    batch: SessionContext,
    reads: Arc<AtomicU64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let config = SessionConfig::new().with_batch_size(7);
        let (ctx, batch) = (
            SessionContext::new_with_config(config.clone()),
            SessionContext::new_with_config(config.with_target_partitions(1)),
        );
        let reads = Arc::new(AtomicU64::new(0));
        for (name, sizes) in [
            ("dim", [9, 0, 12]),
            ("more", [3, 5, 0]),
            ("nothing", [0; 3]),
        ] {
            let rows: Vec<_> = sizes.map(|size| dice.rows(size)).into();
            let table = Counted {
                rows: rows.clone(),
                schema: schema(),
                reads: Arc::clone(&reads),
            };
            let table = StreamingTable::try_new(schema(), vec![Arc::new(table)]);
            ctx.register_table(name, Arc::new(table.expect("a table")))
                .expect(name);
            let table = MemTable::try_new(schema(), vec![rows]).expect("a table");
            batch.register_table(name, Arc::new(table)).expect(name);
        }
        let source = Arc::new(TestSource::default());
        let events: Vec<_> = (0..TRIGGERS)
            .map(|_| {
                let count = dice.below(20);
                dice.rows(count)
            })
            .collect();
        events
            .iter()
            .for_each(|rows| source.add_batch(rows.clone()));
        let table = StreamTable::new("events", source, false);
        ctx.register_table("events", Arc::new(table))
            .expect("events");
        let table = MemTable::try_new(schema(), vec![events]).expect("a table");
        batch
            .register_table("events", Arc::new(table))
            .expect("events");
        Self { ctx, batch, reads }
    }

    async fn plan(
        &self,
        sql: &str,
        mode: OutputMode,
        refresh: StaticRefresh,
    ) -> highwater_core::Result<IncrementalPlan> {
        plan(&self.ctx, sql, mode, refresh).await
    }

    async fn answer(&self, sql: &str) -> Result<Vec<String>> {
        Ok(lines(&self.batch.sql(sql).await?.collect().await?))
    }
}

async fn plan(
    ctx: &SessionContext,
    sql: &str,
    mode: OutputMode,
    refresh: StaticRefresh,
) -> highwater_core::Result<IncrementalPlan> {
    let session = ctx.state();
    plan_query(PlanRequest {
        plan: session.create_logical_plan(sql).await?,
        session,
        mode,
        refresh,
        state_ttl: None,
    })
    .await
}

#[tokio::test]
async fn the_rows_are_those_of_one_batch_and_each_table_is_read_once() {
    for seed in 1..=2 {
        for sql in QUERIES {
            let world = World::new(seed);
            let plan = world
                .plan(sql, OutputMode::Append, StaticRefresh::default())
                .await;
            let plan = plan.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            let mut rows = Vec::new();
            for id in 0..TRIGGERS {
                plan.refresh(Timestamp::default()).await.expect(sql);
                rows.extend(run(&plan, id).await.expect(sql));
            }
            let expected = world.answer(sql).await.expect(sql);
            assert_eq!(
                lines(&rows),
                expected,
                "seed {seed}: {sql}\n{}",
                plan.explain()
            );
            let tables = ["FROM dim", "JOIN dim", "FROM more", "JOIN more", "nothing"];
            let tables = tables
                .iter()
                .map(|name| sql.matches(name).count() as u64)
                .sum::<u64>();
            let reads = world.reads.load(Ordering::Relaxed);
            assert_eq!(reads, tables, "reads: {sql}\n{}", plan.explain());
            let nodes = ["HashJoinExec: ", "NestedLoopJoinExec", "CrossJoinExec"];
            let shown = plan.explain();
            assert!(!nodes.iter().any(|node| shown.contains(node)), "{shown}");
        }
    }
}

/// `k NOT IN (SELECT k … WHERE d.v > e.v)`: a row stays when none of the rows that pass the condition is equal to it, or
/// may be, as one with a null is.
#[tokio::test]
async fn not_in_with_a_condition_goes_by_the_rows_that_pass_it() {
    let sql =
        "SELECT e.k, e.v FROM events e WHERE e.k NOT IN (SELECT d.k FROM dim d WHERE d.v > e.v)";
    let expected = "SELECT e.k, e.v FROM events e WHERE NOT EXISTS (SELECT 1 FROM dim d WHERE d.v > e.v AND \
                    (d.k = e.k OR d.k IS NULL OR e.k IS NULL))";
    for seed in 1..=5 {
        let world = World::new(seed);
        let plan = world
            .plan(sql, OutputMode::Append, StaticRefresh::default())
            .await;
        let plan = plan.expect(sql);
        let mut rows = Vec::new();
        for id in 0..TRIGGERS {
            rows.extend(run(&plan, id).await.expect(sql));
        }
        let expected = world.answer(expected).await.expect(sql);
        assert_eq!(lines(&rows), expected, "seed {seed}\n{}", plan.explain());
    }
}

#[tokio::test]
async fn except_takes_the_rows_of_the_table_away() {
    let sql = "SELECT k FROM events EXCEPT SELECT k FROM dim WHERE v > 4";
    let world = World::new(7);
    let plan = world
        .plan(sql, OutputMode::Update, StaticRefresh::default())
        .await;
    let plan = plan.expect(sql);
    let mut rows = Vec::new();
    for id in 0..TRIGGERS {
        rows.extend(lines(&run(&plan, id).await.expect(sql)));
    }
    // A key comes again in each micro-batch that has it.
    rows.sort();
    rows.dedup();
    assert_eq!(rows, world.answer(sql).await.expect(sql));
}

#[tokio::test]
async fn the_kept_rows_are_taken_from_the_pool_of_the_session() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool));
    let runtime = runtime.build_arc().expect("a runtime");
    let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    let source = Arc::new(TestSource::default());
    let mut dice = Dice(1);
    source.add_batch(dice.rows(5));
    ctx.register_table(
        "events",
        Arc::new(StreamTable::new("events", source, false)),
    )
    .expect("events");
    for (name, rows) in [("small", 100), ("large", 100_000)] {
        let table = MemTable::try_new(schema(), vec![vec![dice.rows(rows)]]).expect("a table");
        ctx.register_table(name, Arc::new(table)).expect(name);
    }
    let sql = |table: &str| format!("SELECT e.k, d.v FROM events e JOIN {table} d ON e.k = d.k");
    let small = plan(
        &ctx,
        &sql("small"),
        OutputMode::Append,
        StaticRefresh::default(),
    )
    .await
    .expect("planned");
    run(&small, 0).await.expect("run");
    assert!(pool.reserved() >= 100 * 8, "{} bytes", pool.reserved());
    drop(small);
    assert_eq!(pool.reserved(), 0);
    let large = plan(
        &ctx,
        &sql("large"),
        OutputMode::Append,
        StaticRefresh::default(),
    )
    .await
    .expect("planned");
    let error = run(&large, 0).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.operator(), Some("static_join"));
}
