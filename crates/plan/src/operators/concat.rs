//! Several inputs one after the other, as one partition.
//!
//! DataFusion's union has a partition per input, which run at once and meet in any order. A micro-batch must
//! give the same rows in the same order whenever it runs again, so a streaming union reads its inputs in turn.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use futures::future::ready;
use futures::{StreamExt, TryStreamExt, stream};

/// All rows of the first input, then all of the second, and so on.
#[derive(Debug)]
pub(crate) struct ConcatExec {
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    properties: Arc<PlanProperties>,
}

impl ConcatExec {
    /// The rows of `union`, an operator whose output is that of its inputs, in turn.
    pub(crate) fn of(union: &dyn ExecutionPlan) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(union.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            inputs: union.children().into_iter().cloned().collect(),
            properties: Arc::new(properties),
        }
    }
}

impl ExecutionPlan for ConcatExec {
    fn name(&self) -> &'static str {
        "ConcatExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            inputs,
            properties: Arc::clone(&self.properties),
        }))
    }

    fn execute(
        &self,
        _partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let waiting: Vec<_> = self
            .inputs
            .iter()
            .flat_map(|input| {
                let partitions = input.output_partitioning().partition_count();
                (0..partitions).map(|partition| (Arc::clone(input), partition))
            })
            .collect();
        let schema = self.schema();
        let promised = Arc::clone(&schema);
        let rows = stream::iter(waiting)
            .map(move |(input, partition)| input.execute(partition, Arc::clone(&context)))
            .try_flatten()
            .and_then(move |batch| {
                // Inputs may disagree in what may be null.
                let columns = batch.columns().to_vec();
                ready(RecordBatch::try_new(Arc::clone(&promised), columns).map_err(Into::into))
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

impl DisplayAs for ConcatExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ConcatExec")
    }
}
