//! For tests: a table whose rows are put in trigger by trigger, and a query over it made
//! incremental the way a streaming query is.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{TableProvider, TableType};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateMode, AggregateOutputMode,
};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, SchedulingType, reset_plan_states,
};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, collect,
};
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater_core::OutputMode;
use parking_lot::Mutex;

use super::{BatchCell, StatefulAggregateExec, StatefulOperator};

/// A table that gives the rows it was last given.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    schema: SchemaRef,
    rows: Arc<Mutex<Vec<RecordBatch>>>,
}

impl Replay {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            rows: Arc::default(),
        }
    }

    /// Puts in the rows of the next trigger.
    pub(crate) fn put(&self, rows: Vec<RecordBatch>) {
        *self.rows.lock() = rows;
    }
}

#[async_trait]
impl TableProvider for Replay {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&projected)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(ReplayExec {
            replay: self.clone(),
            projection: projection.cloned(),
            projected,
            properties: Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative)),
        }))
    }
}

/// The scan of a [`Replay`].
#[derive(Debug)]
struct ReplayExec {
    replay: Replay,
    projection: Option<Vec<usize>>,
    projected: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl ExecutionPlan for ReplayExec {
    fn name(&self) -> &str {
        "ReplayExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.replay.rows.lock().clone();
        let (schema, projection) = (Arc::clone(&self.projected), self.projection.clone());
        Ok(Box::pin(MemoryStream::try_new(rows, schema, projection)?))
    }
}

impl DisplayAs for ReplayExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayExec")
    }
}

/// A query over the table `t`, whose aggregations keep their state.
pub(crate) struct Query {
    replay: Replay,
    context: SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    pub(crate) operators: Vec<Arc<dyn StatefulOperator>>,
}

impl Query {
    pub(crate) async fn try_new(sql: &str, schema: SchemaRef, mode: OutputMode) -> Result<Self> {
        Self::with_context(session(), sql, schema, mode).await
    }

    pub(crate) async fn with_context(
        context: SessionContext,
        sql: &str,
        schema: SchemaRef,
        mode: OutputMode,
    ) -> Result<Self> {
        let replay = Replay::new(schema);
        context.register_table("t", Arc::new(replay.clone()))?;
        let plan = context.sql(sql).await?.create_physical_plan().await?;
        let mut operators = Vec::new();
        let plan = plan
            .transform_up(|node| {
                let aggregate = match node.downcast_ref::<AggregateExec>() {
                    Some(last) if last.mode().output_mode() == AggregateOutputMode::Final => {
                        in_one_step(last)?
                    }
                    _ => return Ok(Transformed::no(node)),
                };
                let name = format!("aggregate_{}", operators.len());
                let cell = BatchCell::default();
                let stateful = StatefulAggregateExec::try_new(&aggregate, name, mode, cell)?;
                operators.push(stateful.operator());
                Ok(Transformed::yes(
                    Arc::new(stateful) as Arc<dyn ExecutionPlan>
                ))
            })
            .data()?;
        Ok(Self {
            replay,
            context,
            plan,
            operators,
        })
    }

    /// Runs one trigger over these rows.
    pub(crate) async fn run(&mut self, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.replay.put(rows);
        self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        collect(Arc::clone(&self.plan), self.context.task_ctx()).await
    }

    /// The columns of the result.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// The operators keep what the last trigger did.
    pub(crate) fn commit(&self) {
        self.operators.iter().for_each(|operator| operator.commit());
    }
}

/// The aggregate itself, or for one in two steps (grouping sets) both steps as one.
fn in_one_step(last: &AggregateExec) -> Result<AggregateExec> {
    match last.input().downcast_ref::<AggregateExec>() {
        Some(first) if last.mode().input_mode() == AggregateInputMode::Partial => {
            AggregateExec::try_new(
                AggregateMode::Single,
                first.group_expr().clone(),
                first.aggr_expr().to_vec(),
                first.filter_expr().to_vec(),
                Arc::clone(first.input()),
                first.input_schema(),
            )
        }
        _ => Ok(last.clone()),
    }
}

/// A session that plans as streaming queries are planned.
pub(crate) fn session() -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    context.remove_optimizer_rule("single_distinct_aggregation_to_group_by");
    context
}
