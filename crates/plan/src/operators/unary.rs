//! The one implementation of `ExecutionPlan` for operators with one input and one partition.
//!
//! An operator says what it is called, what it does to a stream of batches, and nothing of planning.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    Partitioning, PlanProperties,
};

/// What a one-input operator does.
pub(crate) trait UnaryOperator: fmt::Debug + Send + Sync + 'static {
    /// Its name in `explain`.
    fn name(&self) -> &'static str;

    /// What stands behind the name in `explain`.
    fn describe(&self) -> String;

    /// A micro-batch begins; `run` comes next.
    fn begin(&self, _context: &TaskContext) {}

    /// Starts one micro-batch: the rows out, made from the rows in.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn run(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> Result<SendableRecordBatchStream>;
}

/// A [`UnaryOperator`] in a physical plan. The operator is shared by all copies of the node, so its state
/// outlives the resets between micro-batches.
#[derive(Debug)]
pub(crate) struct UnaryExec<O> {
    operator: Arc<O>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl<O: UnaryOperator> UnaryExec<O> {
    /// The operator above `input`, giving rows of `schema`.
    pub(crate) fn new(operator: Arc<O>, input: Arc<dyn ExecutionPlan>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            operator,
            input,
            properties: Arc::new(properties),
        }
    }

    /// The operator.
    pub(crate) fn operator(&self) -> &Arc<O> {
        &self.operator
    }
}

impl<O: UnaryOperator> ExecutionPlan for UnaryExec<O> {
    fn name(&self) -> &str {
        self.operator.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("{} has one input", self.name());
        };
        Ok(Arc::new(Self {
            operator: Arc::clone(&self.operator),
            input,
            properties: Arc::clone(&self.properties),
        }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.operator.begin(&context);
        let input = self.input.execute(partition, context)?;
        Arc::clone(&self.operator).run(input, self.schema())
    }
}

impl<O: UnaryOperator> DisplayAs for UnaryExec<O> {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.operator.name(), self.operator.describe())
    }
}
