//! Streaming aggregation: GROUP BY over a stream, in append, update and complete mode.
//!
//! One operator over a keyed state table, made from the `AggregateExec` that DataFusion planned and
//! with its group expressions and aggregate functions:
//!
//! ```text
//!  input rows ─► group expressions ─► intern in the state table ─► local ids
//!      │                                      │ old state of newly touched keys
//!      └► arguments, FILTER ────────────► DataFusion's GroupsAccumulators ─► new state ─► table
//!                                                                               └─► rows of the result
//! ```
//!
//! Where a key is event time, the watermark drops late rows before they are interned, and evicts the groups
//! that are over after the trigger; append mode gives a group when it is over, and only then.
//!
//! - [`recipe`](self): what is computed; [`function`](self): one aggregate function and its accumulators.
//! - [`event`](self): the key that tells when a group is over; [`late`](self): the rows that came too late.
//! - [`shared`](self): the arithmetic of sliding windows that are kept as pieces, each row in one.
//! - [`state`](self): the table, and the steps of a trigger.
//! - [`output`](self): what comes out after them; [`windows`](self) and [`changed`](self): windows of pieces.
//! - [`stream`](self): the steps in their order, pulled by the sink.
//! - [`operator`](self): the handle the engine has.

mod changed;
mod event;
pub(super) mod function;
mod late;
mod operator;
mod output;
mod recipe;
mod shared;
mod state;
mod stream;
mod windows;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, OrderingRequirements, Partitioning, PhysicalExpr,
};
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateOutputMode,
};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, PlanProperties,
    apply_expression_roots,
};
use highwater_core::{Error, OutputMode};

use self::operator::AggregateOperator;
use self::recipe::Recipe;
use self::state::AggregateState;
use self::stream::AggregateStream;
use super::StatefulOperator;
use crate::cell::BatchCell;

/// A streaming aggregation: each execution is one micro-batch.
///
/// In update mode it gives a row for every key that the micro-batch touched, in complete mode a row
/// for every key there is, in append mode a row for every key whose time is over by the watermark, the
/// oldest first. Without GROUP BY it gives its one row in every micro-batch (Spark). Its schema is that
/// of the `AggregateExec` it was made from; its rows are in no other order.
pub struct StatefulAggregateExec {
    input: Arc<dyn ExecutionPlan>,
    /// What it replaces: the source of its expressions, for optimizers and for display.
    aggregate: AggregateExec,
    recipe: Arc<Recipe>,
    operator: Arc<AggregateOperator>,
    properties: Arc<PlanProperties>,
}

impl StatefulAggregateExec {
    /// The streaming form of `aggregate`, which must go from rows to results in one step. `name` is
    /// its identity in the checkpoint.
    ///
    /// # Errors
    /// `Unsupported` in append mode without a key that is event time, for an aggregate function whose state cannot be kept, and for
    /// key or state types that cannot; `Internal` for a partial or final aggregate.
    pub fn try_new(
        aggregate: &AggregateExec,
        name: String,
        mode: OutputMode,
        cell: BatchCell,
    ) -> highwater_core::Result<Self> {
        one_step(aggregate, &name)?;
        let recipe = Arc::new(Recipe::try_new(aggregate, name, mode, cell)?);
        check(&recipe)?;
        let state = AggregateState::try_new(aggregate, Arc::clone(&recipe))
            .map_err(|e| Error::from(e).with_operator(recipe.name.as_str()))?;
        let operator = Arc::new(AggregateOperator::new(Arc::clone(&recipe), state));
        Ok(Self {
            input: Arc::clone(aggregate.input()),
            properties: properties(&recipe.schema),
            aggregate: aggregate.clone(),
            recipe,
            operator,
        })
    }

    /// The handle to its state, shared by all copies of this node.
    #[must_use]
    pub fn operator(&self) -> Arc<dyn StatefulOperator> {
        Arc::clone(&self.operator) as Arc<dyn StatefulOperator>
    }

    /// From now on, of the groups that close together, the one that ends last comes out first.
    pub(crate) fn emit_latest_first(&self) {
        self.operator.emit_latest_first();
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self {
            input,
            aggregate: self.aggregate.clone(),
            recipe: Arc::clone(&self.recipe),
            operator: Arc::clone(&self.operator),
            properties: Arc::clone(&self.properties),
        }
    }
}

/// Refuses what does not go from rows to results in one step.
pub(super) fn one_step(aggregate: &AggregateExec, name: &str) -> highwater_core::Result<()> {
    let one_step = aggregate.mode().input_mode() == AggregateInputMode::Raw
        && aggregate.mode().output_mode() == AggregateOutputMode::Final;
    if one_step {
        return Ok(());
    }
    Err(Error::internal(format!(
        "a streaming aggregate made from one in mode {:?}",
        aggregate.mode()
    ))
    .with_operator(name))
}

/// Append mode gives a group when it is over: some key must tell when that is.
fn check(recipe: &Recipe) -> highwater_core::Result<()> {
    let closes = recipe.closing().is_some();
    match recipe.mode {
        OutputMode::Update | OutputMode::Complete => Ok(()),
        OutputMode::Append if closes => Ok(()),
        mode => Err(Error::unsupported(format!(
            "{mode} output mode for an aggregation without a watermark"
        ))
        .with_condition("STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION")
        .with_operator(recipe.name.as_str())
        .with_hint(
            "group by a window of a column with a watermark, or use the update or the complete output mode",
        )),
    }
}

/// One partition, no order, bounded within a micro-batch.
pub(super) fn properties(schema: &SchemaRef) -> Arc<PlanProperties> {
    let equivalences = EquivalenceProperties::new(Arc::clone(schema));
    let properties = PlanProperties::new(
        equivalences,
        Partitioning::UnknownPartitioning(1),
        EmissionType::Final,
        Boundedness::Bounded,
    );
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

impl ExecutionPlan for StatefulAggregateExec {
    fn name(&self) -> &str {
        "StatefulAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.aggregate.required_input_ordering()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(input), None) => Ok(Arc::new(self.with_input(input))),
            _ => Err(Error::internal("an aggregation has one input").into()),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let functions = self.aggregate.aggr_expr().iter().flat_map(|function| {
            let all = function.all_expressions();
            all.args.into_iter().chain(all.order_by_exprs)
        });
        let filters = self.aggregate.filter_expr().iter().flatten().cloned();
        let groups = self.recipe.group_by.input_exprs();
        apply_expression_roots(groups.into_iter().chain(functions).chain(filters), f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let stream = AggregateStream::new(
            Arc::clone(&self.recipe),
            Arc::clone(&self.operator),
            input,
            context,
        );
        Ok(Box::pin(cooperative(stream)))
    }
}

impl DisplayAs for StatefulAggregateExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, mode) = (&self.recipe.name, self.recipe.mode);
        if kind == DisplayFormatType::TreeRender {
            return writeln!(f, "{}", self.operator.describe());
        }
        // The keys and functions as DataFusion shows them, after its own name and mode.
        let shown = Shown(&self.aggregate, kind).to_string();
        let rest = shown.split_once(", gby=").map_or("", |(_, rest)| rest);
        write!(
            f,
            "StatefulAggregateExec: name={name}, mode={mode}, gby={rest}"
        )
    }
}

struct Shown<'a>(&'a AggregateExec, DisplayFormatType);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(self.1, f)
    }
}

impl fmt::Debug for StatefulAggregateExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatefulAggregateExec")
            .field("operator", &self.operator)
            .field("batch", &self.recipe.cell.numbers())
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}
