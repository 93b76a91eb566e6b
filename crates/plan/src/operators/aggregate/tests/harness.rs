//! For tests: a query over the table `t`, whose rows are put in trigger by trigger, planned as a streaming
//! query is.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use highwater_core::{
    BatchId, Interval, MicroBatch, Offset, OffsetRange, OutputMode, ReadLimit, ReadRequest, Result,
    Source, SourceTraits, Timestamp, Watermark,
};
use parking_lot::Mutex;

use crate::functions::{register_functions, resolve_window_names};
use crate::nodes;
use crate::operators::StatefulOperator;
use crate::plan::{IncrementalPlan, PlanRequest, plan_query};
use crate::table::StreamTable;

/// A source whose offset is the number of batches.
#[derive(Debug)]
struct Batches {
    schema: SchemaRef,
    batches: Mutex<Vec<RecordBatch>>,
}

impl Batches {
    fn add(&self, rows: Vec<RecordBatch>) -> OffsetRange {
        let mut batches = self.batches.lock();
        let start = Offset::from(batches.len() as u64);
        batches.extend(rows);
        OffsetRange::new(start, Offset::from(batches.len() as u64))
    }
}

#[async_trait]
impl Source for Batches {
    fn description(&self) -> String {
        "Batches".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        Ok(Offset::from(self.batches.lock().len() as u64))
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let (start, end): (usize, usize) =
            (request.range.start.parse()?, request.range.end.parse()?);
        let batches = self.batches.lock()[start..end].to_vec();
        let schema = match &request.projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let rows = MemoryStream::try_new(batches, schema, request.projection)?;
        Ok(vec![Box::pin(rows)])
    }

    async fn changed(&self) {}
}

/// A query over `t`, run trigger by trigger.
#[derive(Debug)]
pub(super) struct Query {
    source: Arc<Batches>,
    pub(super) plan: IncrementalPlan,
    pub(super) operators: Vec<Arc<dyn StatefulOperator>>,
    triggers: u64,
}

impl Query {
    pub(super) async fn try_new(sql: &str, schema: SchemaRef, mode: OutputMode) -> Result<Self> {
        Self::with_context(session(), sql, schema, mode).await
    }

    pub(super) async fn with_context(
        context: SessionContext,
        sql: &str,
        schema: SchemaRef,
        mode: OutputMode,
    ) -> Result<Self> {
        Self::over(context, sql, schema, None, mode).await
    }

    /// A query over `t`, which has a watermark without delay on a column.
    pub(super) async fn with_watermark(
        context: SessionContext,
        sql: &str,
        schema: SchemaRef,
        column: &str,
        mode: OutputMode,
    ) -> Result<Self> {
        Self::over(context, sql, schema, Some(column), mode).await
    }

    async fn over(
        context: SessionContext,
        sql: &str,
        schema: SchemaRef,
        watermark: Option<&str>,
        mode: OutputMode,
    ) -> Result<Self> {
        let source = Arc::new(Batches {
            schema,
            batches: Mutex::default(),
        });
        let table = Arc::new(StreamTable::new("t", Arc::clone(&source) as _, false));
        let scan = LogicalPlanBuilder::scan("s", provider_as_source(table), None)?.build()?;
        let view = match watermark {
            Some(column) => nodes::watermark(scan, column, Interval::default())?,
            None => scan,
        };
        context.register_table("t", Arc::new(ViewTable::new(view, None)))?;
        let session = context.state();
        let mut statement = session.sql_to_statement(sql, &datafusion::config::Dialect::Generic)?;
        resolve_window_names(&mut statement);
        let plan = session.statement_to_plan(statement).await?;
        let request = PlanRequest {
            state_ttl: None,
            plan,
            session,
            mode,
            refresh: crate::StaticRefresh::default(),
        };
        let plan = plan_query(request).await?;
        Ok(Self {
            source,
            operators: plan.operators().to_vec(),
            plan,
            triggers: 0,
        })
    }

    /// Runs one trigger over these rows.
    pub(super) async fn run(&mut self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.run_at(rows, 0, 0).await
    }

    /// Runs one trigger over these rows with these watermarks, in seconds: what judges late rows, and what
    /// closes groups.
    pub(super) async fn run_at(
        &mut self,
        rows: Vec<RecordBatch>,
        late: i64,
        closes: i64,
    ) -> Result<Vec<RecordBatch>> {
        let range = self.source.add(rows);
        let sources = self.plan.sources().into_iter();
        self.plan.open(&MicroBatch {
            id: BatchId(self.triggers),
            ranges: sources.map(|s| (s.name, range.clone())).collect(),
            time: Timestamp::default(),
            watermark: Watermark(closes * 1_000),
            late_watermark: Watermark(late * 1_000),
        })?;
        self.triggers += 1;
        Ok(self.plan.execute()?.try_collect().await?)
    }

    /// The columns of the result.
    pub(super) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// The operators keep what the last trigger did.
    pub(super) fn commit(&self) {
        self.operators.iter().for_each(|operator| operator.commit());
    }
}

/// A session in one partition, with the functions of streams.
pub(super) fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    register_functions(&context).expect("registered");
    context
}
