//! What the tests of this crate share: a source of batches held in memory, and a session with tables.

pub(crate) mod replay;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::{TryStreamExt, stream};
use highwater_core::{
    BatchId, MicroBatch, Offset, OffsetRange, OutputMode, ReadLimit, ReadRequest, Result, Source,
    SourceTraits, Timestamp, Watermark,
};
use parking_lot::Mutex;

use crate::functions::{register_functions, resolve_window_names};
use crate::plan::{IncrementalPlan, PlanRequest, plan_query};
use crate::static_side::StaticRefresh;
use crate::table::StreamTable;

/// Rows of `events` and `dim`: a time in microseconds, a key, a value.
pub(crate) type Row<'a> = (Option<i64>, &'a str, i64);

/// A source whose offset is the number of batches.
#[derive(Debug, Default)]
pub(crate) struct TestSource(Mutex<Vec<RecordBatch>>);

impl TestSource {
    pub(crate) fn add(&self, rows: &[Row<'_>]) {
        self.add_batch(batch(rows));
    }

    pub(crate) fn add_batch(&self, rows: RecordBatch) {
        self.0.lock().push(rows);
    }

    fn end(&self) -> u64 {
        self.0.lock().len() as u64
    }
}

#[async_trait]
impl Source for TestSource {
    fn description(&self) -> String {
        "TestSource".to_string()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: true,
            bounded: false,
        }
    }

    async fn initial_offset(&self) -> Result<Offset> {
        Ok(Offset::from(0))
    }

    async fn latest_offset(
        &self,
        _start: &Offset,
        _limit: &ReadLimit,
        _upto: Option<&Offset>,
    ) -> Result<Offset> {
        Ok(Offset::from(self.end()))
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let start: usize = request.range.start.parse()?;
        let end: usize = request.range.end.parse()?;
        let batches = self.0.lock()[start..end].to_vec();
        batches
            .into_iter()
            .map(|batch| {
                let batch = match &request.projection {
                    Some(columns) => batch.project(columns)?,
                    None => batch,
                };
                let schema = batch.schema();
                let rows = stream::iter([Ok(batch)]);
                Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)) as _)
            })
            .collect()
    }

    async fn changed(&self) {}
}

pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("k", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

pub(crate) fn batch(rows: &[Row<'_>]) -> RecordBatch {
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(TimestampMicrosecondArray::from_iter(
                rows.iter().map(|r| r.0),
            )),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
        ],
    )
    .expect("columns fit the schema")
}

/// A session with the streams `events` and `other`, and the static table `dim`.
pub(crate) struct Fixture {
    pub(crate) ctx: SessionContext,
    pub(crate) events: Arc<TestSource>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let ctx = SessionContext::new();
        register_functions(&ctx).expect("registered");
        let events = Arc::new(TestSource::default());
        let source: Arc<dyn Source> = Arc::clone(&events) as _;
        let table = |name: &str, source| Arc::new(StreamTable::new(name, source, false));
        ctx.register_table("events", table("events", source))
            .expect("registered");
        ctx.register_table("other", table("other", Arc::new(TestSource::default())))
            .expect("registered");
        let dim = MemTable::try_new(schema(), vec![vec![batch(&[(Some(0), "a", 2)])]]);
        ctx.register_table("dim", Arc::new(dim.expect("a table")))
            .expect("registered");
        Self { ctx, events }
    }

    /// The plan of `sql`, neither analyzed nor optimized.
    pub(crate) async fn logical(&self, sql: &str) -> Result<LogicalPlan> {
        let state = self.ctx.state();
        let mut statement = state.sql_to_statement(sql, &datafusion::config::Dialect::Generic)?;
        resolve_window_names(&mut statement);
        Ok(state.statement_to_plan(statement).await?)
    }

    pub(crate) async fn plan(&self, sql: &str, mode: OutputMode) -> Result<IncrementalPlan> {
        self.incremental(self.logical(sql).await?, mode).await
    }

    pub(crate) async fn incremental(
        &self,
        plan: LogicalPlan,
        mode: OutputMode,
    ) -> Result<IncrementalPlan> {
        let session = self.ctx.state();
        plan_query(PlanRequest {
            state_ttl: None,
            plan,
            session,
            mode,
            refresh: StaticRefresh::default(),
        })
        .await
    }
}

/// Runs micro-batch `id`, which reads the `id`-th addition to `events`, at `id` seconds.
pub(crate) async fn run(plan: &IncrementalPlan, id: u64) -> Result<Vec<RecordBatch>> {
    let range = OffsetRange::new(Offset::from(id), Offset::from(id + 1));
    plan.open(&MicroBatch {
        id: BatchId(id),
        ranges: plan
            .sources()
            .into_iter()
            .map(|source| (source.name, range.clone()))
            .collect(),
        time: Timestamp::from_millis(1_000 * i64::try_from(id).unwrap_or(0)),
        watermark: Watermark::default(),
        late_watermark: Watermark::default(),
    })?;
    let batches = plan.execute()?.try_collect().await?;
    for operator in plan.operators() {
        operator.commit();
    }
    Ok(batches)
}

/// The rows as text, a line each, sorted.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let text = pretty_format_batches(batches)
        .expect("formatted")
        .to_string();
    let mut lines: Vec<_> = text
        .lines()
        .skip(3)
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    lines.sort();
    lines
}
