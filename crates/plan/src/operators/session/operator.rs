//! The handle of a session aggregation: what the engine sees of it between micro-batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_core::{Error, OutputMode, Pane, Result};
use parking_lot::Mutex;

use super::recipe::Recipe;
use super::state::SessionState;
use crate::operators::{OperatorMetrics, Part, StateSchema, StatefulOperator};

/// The state between micro-batches. While one runs, its stream has the state; a stream that fails
/// does not give it back, so that nothing half-done is ever read or committed.
#[derive(Debug)]
pub(super) struct SessionOperator {
    recipe: Arc<Recipe>,
    schema: StateSchema,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    state: Option<Box<SessionState>>,
    metrics: OperatorMetrics,
}

impl SessionOperator {
    pub(super) fn new(recipe: Arc<Recipe>, state: SessionState) -> Self {
        let (keys, values) = state.schemas();
        // The end is the first value column.
        let column = keys.fields().len();
        let pane = recipe.is_timed().then_some(Pane { column, add_us: 0 });
        Self {
            recipe,
            schema: StateSchema { keys, values, pane },
            held: Mutex::new(Held {
                state: Some(Box::new(state)),
                metrics: OperatorMetrics::default(),
            }),
        }
    }

    /// Takes the state for a micro-batch.
    ///
    /// # Errors
    /// `Internal` when another stream has it, or a micro-batch failed with it.
    pub(super) fn take(&self) -> Result<Box<SessionState>> {
        self.held.lock().state.take().ok_or_else(|| self.lost())
    }

    /// Gives the state back after a micro-batch.
    pub(super) fn give_back(&self, state: Box<SessionState>) {
        let counts = state.counts();
        *self.held.lock() = Held {
            state: Some(state),
            metrics: OperatorMetrics {
                rows_total: counts.total,
                rows_updated: counts.updated,
                rows_removed: counts.merged,
                rows_dropped_by_watermark: counts.late_sessions,
                late_rows: counts.late_rows,
                memory_bytes: counts.bytes,
            },
        };
    }

    fn lost(&self) -> Error {
        Error::internal(format!(
            "the state of operator `{}` is in use, or was lost in a micro-batch that failed",
            self.recipe.name
        ))
        .with_operator(self.recipe.name.as_str())
    }
}

impl StatefulOperator for SessionOperator {
    fn name(&self) -> &str {
        &self.recipe.name
    }

    fn kind(&self) -> &'static str {
        "sessionWindowStateStoreSaveExec"
    }

    fn state_schema(&self) -> StateSchema {
        self.schema.clone()
    }

    fn changes(&self) -> Result<Vec<RecordBatch>> {
        let held = self.held.lock();
        let state = held.state.as_ref().ok_or_else(|| self.lost())?;
        let changes = state.changes();
        changes.map_err(|e| Error::from(e).with_operator(self.name()))
    }

    fn commit(&self) {
        let held = &mut *self.held.lock();
        // Keys that were read a moment ago can be read: should they not, the state is lost, not wrong.
        let Some(Ok(evicted)) = held.state.as_mut().map(|state| state.commit()) else {
            held.state = None;
            return;
        };
        if let Some(state) = &held.state {
            let counts = state.counts();
            held.metrics.rows_total = counts.total;
            held.metrics.memory_bytes = counts.bytes;
            held.metrics.rows_removed += evicted;
        }
    }

    fn restore(&self, records: &RecordBatch) -> Result<()> {
        let mut held = self.held.lock();
        let state = held.state.as_mut().ok_or_else(|| self.lost())?;
        state
            .restore(records)
            .map_err(|e| e.with_operator(self.name()))?;
        held.metrics.rows_total = held.state.as_ref().map_or(0, |s| s.sessions.len() as u64);
        Ok(())
    }

    fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        let held = self.held.lock();
        let state = held.state.as_ref().ok_or_else(|| self.lost())?;
        let part = state.part(part);
        part.map_err(|e| Error::from(e).with_operator(self.name()))
    }

    fn metrics(&self) -> OperatorMetrics {
        self.held.lock().metrics
    }

    fn takes_new_values(&self) -> bool {
        true
    }

    fn wants_batch_without_data(&self) -> bool {
        self.recipe.mode != OutputMode::Complete
    }

    fn late_schema(&self) -> Option<SchemaRef> {
        let bounded = self.recipe.is_bounded();
        bounded.then(|| Arc::clone(&self.recipe.input_schema))
    }

    fn describe(&self) -> String {
        let recipe = &self.recipe;
        let keys: Vec<_> = recipe.keys.iter().map(|f| f.name().as_str()).collect();
        let bound = match recipe.is_bounded() {
            true => "a session goes when the watermark has passed its end",
            false => "unbounded state",
        };
        format!(
            "sessions keyed by ({}), {} mode, {bound}",
            keys.join(", "),
            recipe.mode
        )
    }
}
