//! Streaming deduplication: the first row of each key passes, in input order, and no other.
//!
//! ```text
//!  rows ─► late ones put aside ─► keys ─ intern ─► local ids ─► first row of each fresh id ─► rows out
//!                                                                     │
//!                                            expiry of the key ◄──────┘ pane of the table; evicted in commit
//! ```
//!
//! | call | late | a key is forgotten |
//! |---|---|---|
//! | `drop_duplicates`, no event time in the input | never | never |
//! | … event time in the input, not in the key | by the event time | never (Spark) |
//! | … event time in the key | by the event time | when the watermark reaches the key's event time |
//! | `drop_duplicates_within_watermark` | by the event time | when it reaches the first row's event time plus the delay |
//!
//! Duplicates never extend a key's life.

mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::lt_eq;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use futures::future::ready;
use highwater_core::{Error, Result};
use parking_lot::Mutex;

use self::state::DedupState;
use super::unary::UnaryOperator;
use super::{OperatorMetrics, Part, StateSchema, StatefulOperator};
use crate::analyze::within_without_watermark;
use crate::cell::BatchCell;
use crate::event_time::{EventTime, Span, ends, event_time_of};

/// What a deduplication does: it does not change while the query runs.
#[derive(Debug)]
pub(crate) struct Recipe {
    name: String,
    input: SchemaRef,
    /// The key columns, by their place in the input.
    keys: Vec<usize>,
    within_watermark: bool,
    /// The column that judges late rows, and its span.
    late: Option<(usize, Option<Span>)>,
    expiry: Expiry,
}

/// When a key is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Never,
    /// When its event time is over.
    OfKey {
        /// The place among the keys.
        key: usize,
        span: Option<Span>,
    },
    /// When the event time of its first row is over by the delay.
    OfFirstRow {
        /// The place in the input.
        column: usize,
        span: Option<Span>,
        delay_us: i64,
    },
}

impl Recipe {
    /// A deduplication of rows of `input` by the columns at `keys`. `delay_ms` is that of the watermark, where
    /// keys live within it.
    ///
    /// # Errors
    /// `Unsupported` when a key lives within the watermark and there is no event time.
    pub(crate) fn try_new(
        name: String,
        input: SchemaRef,
        keys: Vec<usize>,
        delay_ms: Option<i64>,
    ) -> Result<Self> {
        let marked = event_time_of(&input);
        let expiry = match (delay_ms, marked) {
            (Some(delay_ms), Some((column, mark))) => Expiry::OfFirstRow {
                column,
                span: mark.span,
                delay_us: delay_ms.saturating_mul(1_000),
            },
            (Some(_), None) => return Err(within_without_watermark()),
            (None, _) => expiry_of_key(&input, &keys),
        };
        Ok(Self {
            name,
            keys,
            within_watermark: delay_ms.is_some(),
            late: marked.map(|(at, mark)| (at, mark.span)),
            input,
            expiry,
        })
    }

    fn key_names(&self) -> String {
        let fields = self.keys.iter().map(|at| self.input.field(*at));
        let names: Vec<_> = fields.map(|field| field.name().as_str()).collect();
        names.join(", ")
    }
}

/// The first key column that is event time bounds the state.
fn expiry_of_key(input: &Schema, keys: &[usize]) -> Expiry {
    let marks = keys
        .iter()
        .map(|at| EventTime::of(input.field(*at)))
        .enumerate();
    let mut marks = marks.filter_map(|(key, mark)| Some((key, mark?)));
    marks.next().map_or(Expiry::Never, |(key, mark)| {
        let span = mark.span;
        Expiry::OfKey { key, span }
    })
}

/// The operator: its state, and what the micro-batch did to it.
#[derive(Debug)]
pub(crate) struct DedupOperator {
    recipe: Recipe,
    cell: BatchCell,
    /// The cell in its place, where rows come out of a join that holds them back.
    delayed: OnceLock<BatchCell>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    state: DedupState,
    /// Of the micro-batch that runs.
    late_rows: u64,
    /// Of the micro-batch that was committed last.
    metrics: OperatorMetrics,
}

impl DedupOperator {
    /// An operator with an empty state.
    ///
    /// # Errors
    /// `Unsupported` when a key column's type cannot be kept.
    pub(crate) fn try_new(recipe: Recipe, cell: BatchCell) -> Result<Self> {
        let state = DedupState::try_new(&recipe).map_err(|e| {
            e.with_operator(recipe.name.as_str())
                .with_hint("name key columns of other types, or cast them")
        })?;
        Ok(Self {
            recipe,
            cell,
            delayed: OnceLock::new(),
            held: Mutex::new(Held {
                state,
                late_rows: 0,
                metrics: OperatorMetrics::default(),
            }),
        })
    }

    /// From now on the watermark is so much behind that of the query.
    pub(crate) fn delay(&self, delay_ms: i64) {
        if delay_ms > 0 {
            self.delayed.get_or_init(|| self.cell.shifted(delay_ms));
        }
    }

    fn cell(&self) -> &BatchCell {
        self.delayed.get().unwrap_or(&self.cell)
    }

    /// The rows of `batch` that are the first of their key.
    fn take(&self, batch: RecordBatch) -> Result<Option<RecordBatch>> {
        let batch = self.without_late(batch)?;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let mut held = self.held.lock();
        held.state.first_rows(&self.recipe, batch)
    }

    /// The rows of `batch` that are not late; the others are counted and put aside.
    fn without_late(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let Some((at, span)) = self.recipe.late else {
            return Ok(batch);
        };
        let over = ends(batch.column(at), span)?;
        let late_us = Int64Array::new_scalar(self.cell().numbers().late_us());
        let late = lt_eq(&over, &late_us)?;
        let count = late.true_count();
        if count == 0 {
            return Ok(batch);
        }
        let late = match late.nulls() {
            Some(valid) => BooleanArray::new(late.values() & valid.inner(), None),
            None => late,
        };
        self.held.lock().late_rows += count as u64;
        if self.cell().late().wanted() {
            let rows = filter_record_batch(&batch, &late)?;
            self.cell().late().put(&self.recipe.name, rows);
        }
        let on_time = BooleanArray::new(!late.values(), None);
        Ok(filter_record_batch(&batch, &on_time)?)
    }
}

impl UnaryOperator for DedupOperator {
    fn name(&self) -> &'static str {
        "DeduplicateExec"
    }

    fn describe(&self) -> String {
        let recipe = &self.recipe;
        format!(
            "name={}, columns=[{}], within_watermark={}",
            recipe.name,
            recipe.key_names(),
            recipe.within_watermark
        )
    }

    fn begin(&self, context: &TaskContext) {
        let mut held = self.held.lock();
        held.late_rows = 0;
        held.state.begin(&self.recipe.name, context);
    }

    fn run(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let rows = input.try_filter_map(move |batch| {
            let rows = self.take(batch);
            ready(rows.map_err(|e| e.with_operator(self.recipe.name.as_str()).into()))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

impl StatefulOperator for DedupOperator {
    fn name(&self) -> &str {
        &self.recipe.name
    }

    fn kind(&self) -> &'static str {
        if self.recipe.within_watermark {
            "dedupeWithinWatermark"
        } else {
            "dedupe"
        }
    }

    fn state_schema(&self) -> StateSchema {
        self.held.lock().state.schema()
    }

    fn changes(&self) -> Result<Vec<RecordBatch>> {
        let closes_us = self.cell().numbers().closes_us();
        let held = self.held.lock();
        let changes = held.state.changes(closes_us);
        changes.map_err(|e| e.with_operator(self.recipe.name.as_str()))
    }

    fn commit(&self) {
        let closes_us = self.cell().numbers().closes_us();
        let mut held = self.held.lock();
        let late_rows = std::mem::take(&mut held.late_rows);
        held.metrics = OperatorMetrics {
            // Spark counts rows here, not keys.
            rows_dropped_by_watermark: late_rows,
            late_rows,
            ..held.state.commit(closes_us)
        };
    }

    fn restore(&self, records: &RecordBatch) -> Result<()> {
        let mut held = self.held.lock();
        let rows_total = held
            .state
            .restore(records)
            .map_err(|e| e.with_operator(self.recipe.name.as_str()))?;
        held.metrics.rows_total = rows_total;
        Ok(())
    }

    fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        let part = self.held.lock().state.part(part);
        part.map_err(|e| e.with_operator(self.recipe.name.as_str()))
    }

    fn metrics(&self) -> OperatorMetrics {
        self.held.lock().metrics
    }

    fn wants_batch_without_data(&self) -> bool {
        true
    }

    fn late_schema(&self) -> Option<SchemaRef> {
        self.recipe.late?;
        Some(Arc::clone(&self.recipe.input))
    }

    fn describe(&self) -> String {
        let recipe = &self.recipe;
        let bound = match recipe.expiry {
            Expiry::Never => "unbounded state".to_owned(),
            Expiry::OfKey { key, .. } => format!(
                "keys are kept until the watermark reaches `{}`",
                recipe.input.field(recipe.keys[key]).name()
            ),
            Expiry::OfFirstRow {
                column, delay_us, ..
            } => format!(
                "keys are kept until the watermark reaches `{}` of their first row plus {} ms",
                recipe.input.field(column).name(),
                delay_us / 1_000
            ),
        };
        format!("{} by ({}), {bound}", recipe.name, recipe.key_names())
    }
}

/// Says what is wrong with records; the caller adds the operator.
fn corrupt(what: &str) -> Error {
    Error::corrupt(format!("records of state {what}"))
}
