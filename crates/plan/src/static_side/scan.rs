//! The physical leaf that stands for a static side.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, SchedulingType, reset_plan_states,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use futures::future::ready;
use futures::{TryStreamExt, stream};

use super::StaticCell;

/// Reads a static side, or gives the rows that are kept of it: one partition, without statistics, so that the plan
/// around it is the same however many rows there are.
#[derive(Debug)]
pub(crate) struct StaticScanExec {
    pub(crate) cell: Arc<StaticCell>,
    properties: Arc<PlanProperties>,
}

impl StaticScanExec {
    pub(crate) fn new(cell: Arc<StaticCell>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(cell.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            cell,
            properties: Arc::new(properties),
        }
    }
}

impl ExecutionPlan for StaticScanExec {
    fn name(&self) -> &'static str {
        "StaticScanExec"
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
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = Arc::clone(&self.cell).stream(context)?;
        let rows = RecordBatchStreamAdapter::new(self.schema(), rows);
        Ok(Box::pin(cooperative(rows)))
    }
}

impl DisplayAs for StaticScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StaticScanExec: tables=[{}]", self.cell.name())
    }
}

/// The rows that a cell keeps, read at the first poll where they are not there yet.
pub(super) fn kept(cell: Arc<StaticCell>, context: Arc<TaskContext>) -> SendableRecordBatchStream {
    let schema = cell.schema();
    let rows = async move {
        let batches = cell.rows(context).await?;
        let all = (0..batches.len()).map(move |at| Ok(batches[at].clone()));
        Ok::<_, DataFusionError>(stream::iter(all))
    };
    let rows = stream::once(rows).try_flatten();
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// The partitions of a plan one after the other, so that the rows always come in the same order.
pub(super) fn all_partitions(
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let plan = reset_plan_states(plan)?;
    let partitions = plan.output_partitioning().partition_count();
    let promised = Arc::clone(&schema);
    let rows = stream::iter((0..partitions).map(Ok))
        .and_then(move |partition| ready(plan.execute(partition, Arc::clone(&context))))
        .try_flatten()
        .and_then(move |batch| ready(under(&promised, &batch)));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// The same rows under the schema that was promised: plans may disagree in what may be null.
pub(super) fn under(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}
