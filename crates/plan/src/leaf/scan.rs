//! The physical leaf: reads the range that its cell holds.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, Partitioning,
    PlanProperties,
};
use highwater_core::{OffsetRange, ReadRequest};

use super::{LeafCell, read};

/// Reads one streaming source: one partition, bounded by the range of the micro-batch, without statistics
/// (with them DataFusion would answer `count(*)` at planning time).
#[derive(Debug)]
pub struct StreamScanExec {
    cell: Arc<LeafCell>,
    projection: Option<Vec<usize>>,
    filters: Vec<Expr>,
    properties: Arc<PlanProperties>,
}

impl StreamScanExec {
    /// A scan of the leaf `cell` whose source has the columns of `schema`.
    ///
    /// # Errors
    /// When the projection names a column that is not there.
    pub fn try_new(
        cell: Arc<LeafCell>,
        schema: &SchemaRef,
        projection: Option<Vec<usize>>,
        filters: Vec<Expr>,
    ) -> Result<Self> {
        let schema = match &projection {
            Some(columns) => Arc::new(schema.project(columns)?),
            None => Arc::clone(schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self {
            cell,
            projection,
            filters,
            properties: Arc::new(properties),
        })
    }
}

impl StreamScanExec {
    /// The name of the source in the checkpoint.
    pub(crate) fn source(&self) -> &str {
        &self.cell.name
    }
}

impl ExecutionPlan for StreamScanExec {
    fn name(&self) -> &'static str {
        "StreamScanExec"
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
        let schema = self.schema();
        let binding = self.cell.binding();
        let Some(range) = binding.range.filter(|range| !OffsetRange::is_empty(range)) else {
            return Ok(Box::pin(EmptyRecordBatchStream::new(schema)));
        };
        let request = ReadRequest {
            range,
            projection: self.projection.clone(),
            filters: self.filters.clone(),
            batch_time: binding.batch_time,
            task: context,
        };
        Ok(read::read(
            binding.source,
            request,
            schema,
            Arc::clone(&self.cell),
        ))
    }
}

impl DisplayAs for StreamScanExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamScanExec: source={}", self.cell.name)?;
        let columns: Vec<_> = self
            .properties
            .equivalence_properties()
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        write!(f, ", columns=[{}]", columns.join(", "))?;
        if !self.filters.is_empty() {
            let filters: Vec<_> = self.filters.iter().map(ToString::to_string).collect();
            write!(f, ", filters=[{}]", filters.join(", "))?;
        }
        Ok(())
    }
}
