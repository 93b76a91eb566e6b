//! The keys that a deduplication has seen, and when each is forgotten.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch,
    RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::execution::TaskContext;
use highwater_core::{Pane, Result};
use highwater_state::StateTable;

use super::{Expiry, Recipe, corrupt};
use crate::event_time::{ends, until_end};
use crate::operators::memory::StateMemory;
use crate::operators::part::part_of;
use crate::operators::records::{CHANGE_ROWS, evicted_to, evicting};
use crate::operators::{OperatorMetrics, Part, StateSchema};

/// The value column where keys live within the watermark.
const EXPIRES_AT: &str = "expires_at";

/// The state.
#[derive(Debug)]
pub(super) struct DedupState {
    table: StateTable,
    expiry: Expiry,
    /// The columns of a record: the key, then what is known of it.
    schema: SchemaRef,
    /// Local ids of the keys that this micro-batch saw first, in rising order.
    fresh: Vec<Range<usize>>,
    /// Scratch: the local id of each row.
    ids: Vec<usize>,
    memory: StateMemory,
}

impl DedupState {
    pub(super) fn try_new(recipe: &Recipe) -> Result<Self> {
        let plain = |at: &usize| {
            let field = recipe.input.field(*at);
            Field::new(field.name(), field.data_type().clone(), true)
        };
        let keys: Vec<Field> = recipe.keys.iter().map(plain).collect();
        let values = match recipe.expiry {
            Expiry::OfFirstRow { .. } => {
                let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
                vec![Field::new(EXPIRES_AT, micros, false)]
            }
            Expiry::Never | Expiry::OfKey { .. } => Vec::new(),
        };
        let schema = Arc::new(Schema::new([keys.clone(), values.clone()].concat()));
        Ok(Self {
            table: StateTable::try_new(Arc::new(Schema::new(keys)), Arc::new(Schema::new(values)))?,
            expiry: recipe.expiry,
            schema,
            fresh: Vec::new(),
            ids: Vec::new(),
            memory: StateMemory::default(),
        })
    }

    pub(super) fn schema(&self) -> StateSchema {
        StateSchema {
            keys: Arc::clone(self.table.key_schema()),
            values: Arc::clone(self.table.value_schema()),
            pane: self.pane(),
        }
    }

    fn pane(&self) -> Option<Pane> {
        let keys = self.table.key_schema().fields();
        match self.expiry {
            Expiry::Never => None,
            Expiry::OfKey { key, span } => Some(Pane {
                column: key,
                add_us: until_end(keys[key].data_type(), span),
            }),
            Expiry::OfFirstRow { .. } => Some(Pane {
                column: keys.len(),
                add_us: 0,
            }),
        }
    }

    /// A micro-batch begins.
    pub(super) fn begin(&mut self, name: &str, context: &TaskContext) {
        self.table.commit();
        self.fresh.clear();
        self.memory.begin(name, context);
    }

    /// The rows of `batch` whose key was never seen before; `None` when there is none.
    pub(super) fn first_rows(
        &mut self,
        recipe: &Recipe,
        batch: RecordBatch,
    ) -> Result<Option<RecordBatch>> {
        let columns = recipe.keys.iter().map(|at| Arc::clone(batch.column(*at)));
        let columns: Vec<ArrayRef> = columns.collect();
        let rows = batch.num_rows();
        let fresh = self.table.intern(&columns, rows, &mut self.ids)?.fresh;
        if fresh.is_empty() {
            return Ok(None);
        }
        let first = if fresh.len() == rows {
            batch
        } else {
            filter_record_batch(&batch, &first_touch(&self.ids, fresh.start))?
        };
        self.remember(recipe, &first, fresh)?;
        self.memory.hold(&recipe.name, self.table.memory_bytes())?;
        Ok(Some(first))
    }

    /// Keeps the keys of `first`, whose rows are in the order of the local ids in `fresh`.
    fn remember(
        &mut self,
        recipe: &Recipe,
        first: &RecordBatch,
        fresh: Range<usize>,
    ) -> Result<()> {
        let table = &mut self.table;
        match self.expiry {
            Expiry::Never => table.set_values(fresh.clone(), &[])?,
            Expiry::OfKey { key, span } => {
                table.set_values(fresh.clone(), &[])?;
                let over = ends(first.column(recipe.keys[key]), span)?;
                table.put_in_panes(fresh.clone(), &over)?;
            }
            Expiry::OfFirstRow {
                column,
                span,
                delay_us,
            } => {
                let over = expiries(&ends(first.column(column), span)?, delay_us);
                let kept: TimestampMicrosecondArray = over.reinterpret_cast();
                table.set_values(fresh.clone(), &[Arc::new(kept)])?;
                table.put_in_panes(fresh.clone(), &over)?;
            }
        }
        match self.fresh.last_mut().filter(|last| last.end == fresh.start) {
            Some(last) => last.end = fresh.end,
            None => self.fresh.push(fresh),
        }
        Ok(())
    }

    /// What goes to the checkpoint: the fresh keys that are not over at `closes_us`, and that the others are.
    pub(super) fn changes(&self, closes_us: i64) -> Result<Vec<RecordBatch>> {
        let schema = self.logged(closes_us);
        let mut batches = Vec::new();
        let mut parts: Vec<RecordBatch> = Vec::new();
        for range in &self.fresh {
            for from in range.clone().step_by(CHANGE_ROWS) {
                let part = from..range.end.min(from + CHANGE_ROWS);
                parts.push(self.records(&schema, part, closes_us)?);
                if parts.iter().map(RecordBatch::num_rows).sum::<usize>() >= CHANGE_ROWS {
                    batches.push(concat_batches(&schema, &parts)?);
                    parts.clear();
                }
            }
        }
        if parts.iter().any(|part| part.num_rows() > 0) {
            batches.push(concat_batches(&schema, &parts)?);
        }
        if batches.is_empty() && self.table.count_due(closes_us) > 0 {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }

    /// The records of the local ids in `range` that are not over at `closes_us`.
    fn records(
        &self,
        schema: &SchemaRef,
        range: Range<usize>,
        closes_us: i64,
    ) -> Result<RecordBatch> {
        let mut columns = self.table.keys(range.clone())?;
        columns.extend(self.table.values(range.clone())?);
        let options = RecordBatchOptions::new().with_row_count(Some(range.len()));
        let over = self.over(&columns)?;
        let records = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        let Some(over) = over else {
            return Ok(records);
        };
        let open = gt(&over, &Int64Array::new_scalar(closes_us))?;
        let open = match open.nulls() {
            // A key without a time is never over.
            Some(valid) => BooleanArray::new(open.values() | &!valid.inner(), None),
            None => open,
        };
        Ok(filter_record_batch(&records, &open)?)
    }

    /// When each of these records is over; `None` where none ever is.
    fn over(&self, columns: &[ArrayRef]) -> Result<Option<Int64Array>> {
        Ok(match self.expiry {
            Expiry::Never => None,
            Expiry::OfKey { key, span } => Some(ends(&columns[key], span)?),
            Expiry::OfFirstRow { .. } => {
                let kept = columns.last();
                let kept = kept.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
                let kept = kept.ok_or_else(|| corrupt("lack the time they are kept until"))?;
                Some(kept.reinterpret_cast::<Int64Type>())
            }
        })
    }

    /// The schema of records of a micro-batch that forgets what is over at `closes_us`.
    fn logged(&self, closes_us: i64) -> SchemaRef {
        if self.expiry == Expiry::Never {
            return Arc::clone(&self.schema);
        }
        Arc::new(evicting(self.schema.as_ref().clone(), closes_us))
    }

    /// The micro-batch is committed: keys that are over at `closes_us` are forgotten.
    pub(super) fn commit(&mut self, closes_us: i64) -> OperatorMetrics {
        self.table.commit();
        let fresh = std::mem::take(&mut self.fresh);
        // It fails only where records are touched, and none is now.
        let removed = self.table.evict(closes_us).unwrap_or(0);
        OperatorMetrics {
            rows_total: self.table.len() as u64,
            rows_updated: fresh.iter().map(|range| range.len() as u64).sum(),
            rows_removed: removed as u64,
            memory_bytes: self.table.memory_bytes() as u64,
            ..OperatorMetrics::default()
        }
    }

    /// The keys of one part.
    pub(super) fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        part_of(&self.table, part)
    }

    /// Puts records of [`changes`](Self::changes) back; how many keys there are then.
    pub(super) fn restore(&mut self, records: &RecordBatch) -> Result<u64> {
        let fits = records.num_columns() == self.schema.fields().len();
        if !fits {
            return Err(corrupt("have other columns than the deduplication"));
        }
        let over = self.over(records.columns())?;
        let keys = self.table.key_schema().fields().len();
        let (keys, values) = records.columns().split_at(keys);
        let rows = records.num_rows();
        self.table.restore(keys, values, over.as_ref(), rows)?;
        if let Some(until) = evicted_to(records)? {
            self.table.evict(until)?;
        }
        Ok(self.table.len() as u64)
    }
}

/// True for the first row of each id from `next` on. Ids are given out in the order of first touch, so these
/// rows have `next`, `next + 1`, and so on.
fn first_touch(ids: &[usize], mut next: usize) -> BooleanArray {
    let mut first = BooleanBufferBuilder::new(ids.len());
    for id in ids {
        let is_first = *id == next;
        next += usize::from(is_first);
        first.append(is_first);
    }
    BooleanArray::new(first.finish(), None)
}

/// When keys are forgotten whose first rows have these event times; a row without one counts as of 1970 (Spark).
fn expiries(times: &Int64Array, delay_us: i64) -> Int64Array {
    if times.null_count() == 0 {
        return times.unary(|time| time.saturating_add(delay_us));
    }
    let expiry = |time: Option<i64>| time.unwrap_or(0).saturating_add(delay_us);
    times.iter().map(expiry).collect::<Vec<_>>().into()
}
