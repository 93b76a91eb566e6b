//! The handle of a streaming aggregation: what the engine sees of it between micro-batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_core::{BatchId, Error, OutputMode, Result};
use parking_lot::Mutex;

use super::recipe::Recipe;
use super::state::AggregateState;
use crate::operators::part::part_of;
use crate::operators::{OperatorMetrics, Part, StateSchema, StatefulOperator};

/// The state between micro-batches. While one runs, its stream has the state; a stream that fails
/// does not give it back, so that nothing half-done is ever read or committed.
#[derive(Debug)]
pub(super) struct AggregateOperator {
    recipe: Arc<Recipe>,
    schema: StateSchema,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    state: Option<Box<AggregateState>>,
    metrics: OperatorMetrics,
    /// The micro-batch the metrics are of.
    batch: Option<BatchId>,
}

impl AggregateOperator {
    pub(super) fn new(recipe: Arc<Recipe>, state: AggregateState) -> Self {
        Self {
            schema: StateSchema {
                keys: Arc::clone(state.table.key_schema()),
                values: Arc::clone(state.table.value_schema()),
                pane: recipe.pane(),
            },
            recipe,
            held: Mutex::new(Held {
                state: Some(Box::new(state)),
                metrics: OperatorMetrics::default(),
                batch: None,
            }),
        }
    }

    /// From now on, of the groups that close together, the one that ends last comes out first.
    pub(super) fn emit_latest_first(&self) {
        if let Some(state) = &mut self.held.lock().state {
            state.latest_first = true;
        }
    }

    /// Takes the state for a micro-batch.
    ///
    /// # Errors
    /// `Internal` when another stream has it, or a micro-batch failed with it.
    pub(super) fn take(&self) -> Result<Box<AggregateState>> {
        self.held.lock().state.take().ok_or_else(|| self.lost())
    }

    /// Gives the state back after a micro-batch.
    pub(super) fn give_back(&self, state: Box<AggregateState>) {
        let mut held = self.held.lock();
        held.metrics = OperatorMetrics {
            rows_total: state.table.len() as u64,
            rows_updated: state.table.touched() as u64,
            rows_removed: 0,
            rows_dropped_by_watermark: state.late().groups(),
            late_rows: state.late().rows,
            memory_bytes: state.table.memory_bytes() as u64,
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
}

impl StatefulOperator for AggregateOperator {
    fn name(&self) -> &str {
        &self.recipe.name
    }

    fn kind(&self) -> &'static str {
        "stateStoreSave"
    }

    fn state_schema(&self) -> StateSchema {
        self.schema.clone()
    }

    fn changes(&self) -> Result<Vec<RecordBatch>> {
        let held = self.held.lock();
        held.state
            .as_ref()
            .ok_or_else(|| self.lost())?
            .changes()
            .map_err(|e| e.with_operator(self.name()))
    }

    /// A state that cannot be evicted is dropped: the next micro-batch says that it is lost.
    fn commit(&self) {
        let mut held = self.held.lock();
        let Some(state) = &mut held.state else {
            return;
        };
        match state.commit() {
            Ok(removed) => {
                let (total, bytes) = (state.table.len(), state.table.memory_bytes());
                held.metrics.rows_total = total as u64;
                held.metrics.rows_removed = removed as u64;
                held.metrics.memory_bytes = bytes as u64;
            }
            Err(_) => held.state = None,
        }
    }

    fn restore(&self, records: &RecordBatch) -> Result<()> {
        let mut held = self.held.lock();
        let state = held.state.as_mut().ok_or_else(|| self.lost())?;
        state
            .restore(records)
            .map_err(|e| e.with_operator(self.name()))?;
        held.metrics.rows_total = held.state.as_ref().map_or(0, |s| s.table.len() as u64);
        Ok(())
    }

    fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        let held = self.held.lock();
        let state = held.state.as_ref().ok_or_else(|| self.lost())?;
        part_of(&state.table, part).map_err(|e| e.with_operator(self.name()))
    }

    /// A micro-batch that did not reach the operator (above it a limit is full) did nothing to it.
    fn metrics(&self) -> OperatorMetrics {
        let held = self.held.lock();
        let metrics = held.metrics;
        if held.batch == Some(self.recipe.cell.numbers().id) {
            return metrics;
        }
        OperatorMetrics {
            rows_total: metrics.rows_total,
            memory_bytes: metrics.memory_bytes,
            ..OperatorMetrics::default()
        }
    }

    fn takes_new_values(&self) -> bool {
        true
    }

    fn wants_batch_without_data(&self) -> bool {
        self.recipe.mode != OutputMode::Complete
    }

    fn late_schema(&self) -> Option<SchemaRef> {
        self.recipe
            .closing()
            .map(|_| Arc::clone(&self.recipe.input_schema))
    }

    fn describe(&self) -> String {
        let recipe = &self.recipe;
        if recipe.is_global() {
            return format!("aggregate without key, {} mode, one record", recipe.mode);
        }
        let fields = recipe.schema.fields()[..recipe.keys].iter();
        let keys: Vec<_> = fields.map(|f| f.name().as_str()).collect();
        format!(
            "aggregate keyed by ({}), {} mode, {}",
            keys.join(", "),
            recipe.mode,
            recipe.bound()
        )
    }
}
