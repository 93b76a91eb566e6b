//! Session windows over a stream: GROUP BY `session_window(ts, gap)` and keys, in every output mode.
//!
//! Each row opens a session from its time to a gap later; sessions of a key that overlap or touch become one.
//! A row is late by its own session alone (Spark). Made from the `AggregateExec` that DataFusion planned:
//!
//! ```text
//!  input rows ─► keys, own session ─► late? ─► buffer ─(end of input)─► by key and start
//!                                                                          │ + the sessions they meet
//!       rows of the result ◄─ sessions, by key and by end ◄─ new state ◄─ groups ─► DataFusion's accumulators
//! ```
//!
//! Append mode gives a session when it is closed, complete mode all of them, update mode those that changed:
//! there each row says in `superseded` which earlier rows it replaces (Spark refuses update mode).
//!
//! - [`recipe`](self): what is computed.
//! - [`sessions`](self), [`sweep`](self): which sessions there are, and what rows make of them.
//! - [`fold`](self), [`codec`](self): the functions and their state.
//! - [`state`](self), [`late`](self), [`rows`](self), [`records`](self): the steps of a trigger, late rows, output, checkpoint.
//! - [`stream`](self), [`operator`](self): the steps in their order; the handle the engine has.
//! - [`superseded`](self): the column of update mode.

mod codec;
mod fold;
mod late;
mod operator;
mod recipe;
mod records;
mod rows;
mod sessions;
mod state;
mod stream;
mod superseded;
mod sweep;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, PlanProperties,
    apply_expression_roots,
};
use highwater_core::{Error, OutputMode};

use self::operator::SessionOperator;
use self::recipe::Recipe;
pub(crate) use self::recipe::has_session;
use self::state::SessionState;
use self::stream::SessionStream;
pub(crate) use self::superseded::with_superseded;
use super::StatefulOperator;
use super::aggregate::{one_step, properties};
use crate::cell::BatchCell;

/// A streaming aggregation by session: each execution is one micro-batch.
///
/// Its schema is that of the `AggregateExec` it was made from. In append mode its rows come by the end of the
/// session; else they are in no order.
pub struct StatefulSessionExec {
    input: Arc<dyn ExecutionPlan>,
    /// What it replaces: the source of its expressions, for optimizers and for display.
    aggregate: AggregateExec,
    recipe: Arc<Recipe>,
    operator: Arc<SessionOperator>,
    properties: Arc<PlanProperties>,
}

impl StatefulSessionExec {
    /// The streaming form of `aggregate`, which must go from rows to results in one step and group by one
    /// session and at least one key. `name` is its identity in the checkpoint.
    ///
    /// # Errors
    /// `Unsupported` without another key, in append mode without a watermark, for an aggregate function whose
    /// state cannot be kept, and for key or state types that cannot; `Internal` for a partial or final aggregate.
    pub fn try_new(
        aggregate: &AggregateExec,
        name: String,
        mode: OutputMode,
        cell: BatchCell,
    ) -> highwater_core::Result<Self> {
        one_step(aggregate, &name)?;
        let operator = name.clone();
        let made = |e: Error| e.with_operator(operator.as_str());
        let recipe = Recipe::try_new(aggregate, name, mode).map_err(made)?;
        let recipe = Arc::new(recipe);
        let state = SessionState::try_new(Arc::clone(&recipe), cell).map_err(made)?;
        Ok(Self {
            input: Arc::clone(aggregate.input()),
            properties: properties(&recipe.schema),
            aggregate: aggregate.clone(),
            operator: Arc::new(SessionOperator::new(Arc::clone(&recipe), state)),
            recipe,
        })
    }

    /// The handle to its state, shared by all copies of this node.
    #[must_use]
    pub fn operator(&self) -> Arc<dyn StatefulOperator> {
        Arc::clone(&self.operator) as Arc<dyn StatefulOperator>
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

impl ExecutionPlan for StatefulSessionExec {
    fn name(&self) -> &str {
        "StatefulSessionExec"
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
        let groups = self.aggregate.group_expr().input_exprs();
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
        let stream = SessionStream::new(
            Arc::clone(&self.recipe),
            Arc::clone(&self.operator),
            input,
            context,
        );
        Ok(Box::pin(cooperative(stream)))
    }
}

impl DisplayAs for StatefulSessionExec {
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
            "StatefulSessionExec: name={name}, mode={mode}, gby={rest}"
        )
    }
}

struct Shown<'a>(&'a AggregateExec, DisplayFormatType);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(self.1, f)
    }
}

impl fmt::Debug for StatefulSessionExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatefulSessionExec")
            .field("operator", &self.operator)
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}
