//! The handles of a join: what the engine sees of its two sides between micro-batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::JoinType;
use highwater_core::{BatchId, Error, Result};
use parking_lot::Mutex;

use super::bounds::{Bound, length};
use super::recipe::{Recipe, Side};
use super::records::state_schema;
use super::state::JoinState;
use crate::operators::{OperatorMetrics, Part, StateSchema, StatefulOperator};

/// The state between micro-batches. While one runs, its stream has the state; a stream that fails
/// does not give it back, so that nothing half-done is ever read or committed.
#[derive(Debug)]
pub(super) struct JoinOperator {
    recipe: Arc<Recipe>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    state: Option<Box<JoinState>>,
    metrics: OperatorMetrics,
    /// The micro-batch the metrics are of.
    batch: Option<BatchId>,
}

impl JoinOperator {
    pub(super) fn new(recipe: Arc<Recipe>) -> Self {
        let state = JoinState::new(&recipe);
        Self {
            recipe,
            held: Mutex::new(Held {
                state: Some(Box::new(state)),
                metrics: OperatorMetrics::default(),
                batch: None,
            }),
        }
    }

    /// Takes the state for a micro-batch.
    ///
    /// # Errors
    /// `Internal` when another stream has it, or a micro-batch failed with it.
    pub(super) fn take(&self) -> Result<Box<JoinState>> {
        self.held.lock().state.take().ok_or_else(|| self.lost())
    }

    /// Gives the state back after a micro-batch.
    pub(super) fn give_back(&self, state: Box<JoinState>) {
        let mut held = self.held.lock();
        let (left, right) = (&state.left.changes, &state.right.changes);
        let late = left.late + right.late;
        held.metrics = OperatorMetrics {
            rows_updated: left.appended + right.appended,
            rows_removed: left.removed + right.removed,
            // Spark counts rows here, not keys.
            rows_dropped_by_watermark: late,
            late_rows: late,
            ..standing(&state)
        };
        held.batch = Some(state.numbers.id);
        held.state = Some(state);
    }

    fn lost(&self) -> Error {
        Error::internal(format!(
            "the state of operator `{}` is in use, or was lost in a micro-batch that failed",
            self.recipe.name
        ))
        .with_operator(self.recipe.name.as_str())
    }

    /// Of both sides. A micro-batch that did not reach the join did nothing to it.
    fn metrics(&self) -> OperatorMetrics {
        let held = self.held.lock();
        if held.batch == Some(self.recipe.cell.numbers().id) {
            return held.metrics;
        }
        OperatorMetrics {
            rows_total: held.metrics.rows_total,
            memory_bytes: held.metrics.memory_bytes,
            ..OperatorMetrics::default()
        }
    }
}

/// What there is, whatever the micro-batch did.
fn standing(state: &JoinState) -> OperatorMetrics {
    OperatorMetrics {
        rows_total: (state.left.live + state.right.live) as u64,
        memory_bytes: state.memory_bytes() as u64,
        ..OperatorMetrics::default()
    }
}

/// One side of a join as the engine sees it; the left one tells of both.
#[derive(Debug)]
pub(super) struct JoinSide {
    join: Arc<JoinOperator>,
    side: Side,
}

impl JoinSide {
    pub(super) fn new(join: Arc<JoinOperator>, side: Side) -> Self {
        Self { join, side }
    }

    /// All rows of the side whose chunk's number leaves `number` when divided by `of`: a part of a snapshot.
    ///
    /// # Errors
    /// `Internal` when the state is lost.
    pub(super) fn records_of_part(&self, number: u32, of: u32) -> Result<Vec<RecordBatch>> {
        let held = self.join.held.lock();
        let state = held.state.as_ref().ok_or_else(|| self.join.lost())?;
        let recipe = self.join.recipe.side(self.side);
        let records = state.side(self.side).records_of_part(recipe, number, of);
        records.map_err(|e| Error::from(e).with_operator(self.name()))
    }
}

impl StatefulOperator for JoinSide {
    fn name(&self) -> &str {
        &self.join.recipe.side(self.side).name
    }

    fn kind(&self) -> &'static str {
        "symmetricHashJoin"
    }

    fn state_schema(&self) -> StateSchema {
        state_schema(self.join.recipe.side(self.side))
    }

    fn changes(&self) -> Result<Vec<RecordBatch>> {
        let held = self.join.held.lock();
        let state = held.state.as_ref().ok_or_else(|| self.join.lost())?;
        let records = state
            .side(self.side)
            .records(self.join.recipe.side(self.side));
        records.map_err(|e| Error::from(e).with_operator(self.name()))
    }

    fn commit(&self) {
        if let Some(state) = &mut self.join.held.lock().state {
            state.side_mut(self.side).forget_changes();
        }
    }

    fn restore(&self, records: &RecordBatch) -> Result<()> {
        let mut held = self.join.held.lock();
        let state = held.state.as_mut().ok_or_else(|| self.join.lost())?;
        let recipe = self.join.recipe.side(self.side);
        state
            .side_mut(self.side)
            .restore(recipe, records)
            .map_err(|e| e.with_operator(self.name()))?;
        held.metrics = held.state.as_deref().map(standing).unwrap_or_default();
        Ok(())
    }

    fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        self.records_of_part(part.number, part.of)
    }

    /// Those of the left side are the join's; of the right one only its rows are told, by which snapshots go.
    fn metrics(&self) -> OperatorMetrics {
        if self.side == Side::Left {
            return self.join.metrics();
        }
        let held = self.join.held.lock();
        let rows = held.state.as_ref().map_or(0, |state| state.right.live);
        OperatorMetrics {
            rows_total: rows as u64,
            ..OperatorMetrics::default()
        }
    }

    fn shows(&self) -> bool {
        self.side == Side::Left
    }

    fn wants_batch_without_data(&self) -> bool {
        let recipe = &self.join.recipe;
        let mut bounds = [&recipe.left.bound, &recipe.right.bound]
            .into_iter()
            .flatten();
        bounds.any(|bound| bound.age_us.is_none())
    }

    fn late_schema(&self) -> Option<SchemaRef> {
        let side = self.join.recipe.side(self.side);
        side.late.map(|_| Arc::clone(&side.schema))
    }

    fn describe(&self) -> String {
        self.join.recipe.describe()
    }
}

impl Recipe {
    fn describe(&self) -> String {
        let pairs = self.left.keys.iter().zip(&self.right.keys);
        let pairs = pairs.map(|(l, r)| {
            let (l, r) = (self.left.schema.field(*l), self.right.schema.field(*r));
            format!("{} = {}", l.name(), r.name())
        });
        let pairs = pairs.collect::<Vec<_>>().join(", ");
        let head = format!(
            "{} of two streams, {} join on ({pairs})",
            self.name,
            words(self.join_type)
        );
        if self.left.bound.is_none() && self.right.bound.is_none() {
            return format!("{head}, unbounded state");
        }
        let (left, right) = (self.leave(Side::Left), self.leave(Side::Right));
        format!("{head}, {left}, {right}")
    }

    /// When rows of a side leave.
    fn leave(&self, side: Side) -> String {
        let name = match side {
            Side::Left => "left",
            Side::Right => "right",
        };
        let of = self.side(side);
        let Some(bound @ Bound { column, .. }) = &of.bound else {
            return format!("unbounded state of {name} rows");
        };
        if let Some(age_us) = bound.age_us {
            let age = length(age_us / 1_000);
            return format!("{name} rows leave {age} after they came (stateTtl)");
        }
        let column = of.schema.field(*column).name();
        match column.starts_with("__") {
            true => format!("{name} rows leave when {bound} passes their event time"),
            false => format!("{name} rows leave when {bound} passes `{column}`"),
        }
    }
}

fn words(join_type: JoinType) -> &'static str {
    match join_type {
        JoinType::Inner => "inner",
        JoinType::Left => "left outer",
        JoinType::Right => "right outer",
        JoinType::Full => "full outer",
        JoinType::LeftSemi => "left semi",
        JoinType::RightSemi => "right semi",
        JoinType::LeftAnti => "left anti",
        JoinType::RightAnti => "right anti",
        JoinType::LeftMark => "left mark",
        JoinType::RightMark => "right mark",
    }
}
