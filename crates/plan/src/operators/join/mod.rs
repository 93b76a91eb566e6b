//! The join of two streams: every row meets the rows of the other side that came before it, and waits for those to come.
//!
//! Made from the `HashJoinExec` that DataFusion planned, with its keys, condition, join type and projection:
//!
//! ```text
//!  left rows ─► late? ─► own condition ─► probe right side ─► left side ─┐
//!                                              │ pairs                   ├─► rows over by the watermark leave;
//!  right rows ─► late? ─► own condition ─► probe left side ──► right side┘   those that never matched come out
//!                                              │ pairs                       with nulls (outer), or as they are (anti)
//! ```
//!
//! The left input is read first (Spark), so a right row meets the left rows of its own micro-batch too. A semi join
//! gives a row at its first match, and forgets it. Rows with a null key match nothing, and wait only where they come out;
//! but in a full join they match each other (Spark).
//!
//! - [`recipe`](self): what is computed; [`bounds`](self): what bounds the state; [`refuse`](self): what never ends.
//! - [`side`](self): the rows of a side; [`chunk`](self), [`index`](self), [`gather`](self): where they are.
//! - [`probe`](self): rows meet the other side; [`state`](self): the steps of a trigger; [`stream`](self): in their order.
//! - [`records`](self), [`restore`](self): the checkpoint; [`operator`](self): the handles the engine has.

mod bounds;
mod chunk;
mod gather;
mod index;
mod operator;
mod probe;
mod recipe;
mod records;
mod refuse;
mod restore;
mod side;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, PlanProperties,
    apply_expression_roots,
};
use highwater_core::Error;

pub(crate) use self::bounds::length;
use self::operator::{JoinOperator, JoinSide};
pub(crate) use self::probe::{comparable, same};
use self::recipe::{Recipe, Side};
use self::stream::JoinStream;
use super::StatefulOperator;
use crate::cell::BatchCell;

/// A join of two streams: each execution is one micro-batch. Its schema is that of the `HashJoinExec` it was made from;
/// its rows are in the order in which they were found.
pub struct StreamJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    recipe: Arc<Recipe>,
    operator: Arc<JoinOperator>,
    /// What it replaces, for display: the keys, the condition, the projection.
    shown: String,
    properties: Arc<PlanProperties>,
}

impl StreamJoinExec {
    /// The streaming form of `join`, both inputs of which stream. `name` is its identity in the checkpoint.
    ///
    /// # Errors
    /// `Unsupported` for an outer, semi or anti join whose rows could never be let go; `Internal` for a join of a form
    /// that is not planned for streams.
    pub fn try_new(
        join: &HashJoinExec,
        name: String,
        cell: BatchCell,
    ) -> highwater_core::Result<Self> {
        if join.null_aware || join.fetch().is_some() {
            return Err(
                Error::internal("a join of two streams with a limit or for NOT IN")
                    .with_operator(name),
            );
        }
        let recipe = Arc::new(Recipe::try_new(join, &name, cell)?);
        Ok(Self {
            left: Arc::clone(join.left()),
            right: Arc::clone(join.right()),
            operator: Arc::new(JoinOperator::new(Arc::clone(&recipe))),
            shown: shown(join),
            properties: properties(&recipe.schema),
            recipe,
        })
    }

    /// The same join, whose rows leave after so many microseconds on sides that nothing else bounds: `stateTtl`. `None`
    /// for one that has no such side, or is not an inner join.
    pub(crate) fn by_age(&self, age_us: i64) -> Option<Self> {
        let recipe = Arc::new(self.recipe.by_age(age_us)?);
        Some(Self {
            operator: Arc::new(JoinOperator::new(Arc::clone(&recipe))),
            recipe,
            ..self.with_inputs(Arc::clone(&self.left), Arc::clone(&self.right))
        })
    }

    /// The handles to its state, shared by all copies of this node: of the left side, and of the right.
    #[must_use]
    pub fn operators(&self) -> [Arc<dyn StatefulOperator>; 2] {
        let side = |side| Arc::new(JoinSide::new(Arc::clone(&self.operator), side));
        [side(Side::Left), side(Side::Right)]
    }

    /// How far what comes out may be behind the watermark of what comes in, in milliseconds.
    pub(crate) fn delay_ms(&self) -> i64 {
        self.recipe.delay_ms()
    }

    fn with_inputs(&self, left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>) -> Self {
        Self {
            left,
            right,
            recipe: Arc::clone(&self.recipe),
            operator: Arc::clone(&self.operator),
            shown: self.shown.clone(),
            properties: Arc::clone(&self.properties),
        }
    }
}

/// One partition, no order, bounded within a micro-batch.
fn properties(schema: &SchemaRef) -> Arc<PlanProperties> {
    let properties = PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(schema)),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    );
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

/// The join as DataFusion shows it, after its own name and mode.
fn shown(join: &HashJoinExec) -> String {
    let shown = Shown(join).to_string();
    shown
        .split_once("join_type=")
        .map_or_else(String::new, |(_, rest)| rest.to_owned())
}

struct Shown<'a>(&'a HashJoinExec);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

impl ExecutionPlan for StreamJoinExec {
    fn name(&self) -> &str {
        "StreamJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![
            Distribution::SinglePartition,
            Distribution::SinglePartition,
        ])
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 2]>::try_from(children) {
            Ok([left, right]) => Ok(Arc::new(self.with_inputs(left, right))),
            Err(_) => Err(Error::internal("a join has two inputs").into()),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let own = [&self.recipe.left.own, &self.recipe.right.own];
        let both = self
            .recipe
            .residual
            .iter()
            .map(|r| Arc::clone(&r.condition));
        apply_expression_roots(own.into_iter().flatten().cloned().chain(both), f)
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
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let right = self.right.execute(partition, Arc::clone(&context))?;
        let stream = JoinStream::new(
            Arc::clone(&self.recipe),
            Arc::clone(&self.operator),
            left,
            right,
            context,
        );
        Ok(Box::pin(cooperative(stream)))
    }
}

impl DisplayAs for StreamJoinExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if kind == DisplayFormatType::TreeRender {
            return writeln!(f, "{}", self.operators()[0].describe());
        }
        let (name, shown) = (&self.recipe.name, &self.shown);
        write!(f, "StreamJoinExec: name={name}, join_type={shown}")
    }
}

impl fmt::Debug for StreamJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamJoinExec")
            .field("operator", &self.operator)
            .field("left", &self.left)
            .field("right", &self.right)
            .finish_non_exhaustive()
    }
}
