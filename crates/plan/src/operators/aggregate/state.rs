//! What a streaming aggregation remembers and does in one trigger, apart from where rows come from.
//!
//! ```text
//!  begin ─► consume (each input batch) ─► finish ─► store (range by range) ─► [output] ─► changes ─► commit
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::aggregates::{AggregateExec, evaluate_group_by};
use highwater_core::{Error, OutputMode};
use highwater_state::{StateTable, Touched};

use super::event::EventKey;
use super::function::Function;
use super::late::{LateRows, late_for_any, late_rows};
use super::output::Output;
use super::recipe::{Recipe, Rows};
use crate::cell::BatchNumbers;
use crate::event_time::without_marks;
use crate::operators::memory::StateMemory;
use crate::operators::records::{CHANGE_ROWS, completed, evicted_to, evicting};

/// The state of a streaming aggregation.
#[derive(Debug)]
pub(super) struct AggregateState {
    recipe: Arc<Recipe>,
    pub(super) table: StateTable,
    pub(super) functions: Vec<Function>,
    /// The numbers of the micro-batch that began last.
    pub(super) numbers: BatchNumbers,
    /// Of the groups that close together, the one that ends last comes out first.
    pub(super) latest_first: bool,
    late: LateRows,
    memory: StateMemory,
    /// Scratch: the local id of each row.
    ids: Vec<usize>,
    /// What each batch touched, where a function merges old state at the end.
    at_end: Vec<Touched>,
}

impl AggregateState {
    pub(super) fn try_new(aggregate: &AggregateExec, recipe: Arc<Recipe>) -> Result<Self> {
        let mut functions = Vec::with_capacity(aggregate.aggr_expr().len());
        let mut values = Vec::new();
        for (expr, args) in aggregate.aggr_expr().iter().zip(&recipe.arguments) {
            let function = Function::try_new(expr, args, &recipe.input_schema, values.len())?;
            let nullable = |field: &arrow::datatypes::FieldRef| {
                Arc::new(field.as_ref().clone().with_nullable(true))
            };
            values.extend(function.state_fields().iter().map(nullable));
            functions.push(function);
        }
        let keys: Vec<_> = recipe.schema.fields()[..recipe.keys].to_vec();
        let keys = without_marks(&Arc::new(Schema::new(keys)));
        let table = StateTable::try_new(keys, Arc::new(Schema::new(values)))
            .map_err(|e| e.with_operator(recipe.name.as_str()))?;
        Ok(Self {
            recipe,
            table,
            functions,
            numbers: BatchNumbers::default(),
            late: LateRows::default(),
            latest_first: false,
            memory: StateMemory::default(),
            ids: Vec::new(),
            at_end: Vec::new(),
        })
    }

    pub(super) fn table(&self) -> &StateTable {
        &self.table
    }

    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The key column that tells the time of a group, where there is one.
    pub(super) fn event_column(&self) -> usize {
        self.recipe.event.as_ref().map_or(0, |event| event.column)
    }

    /// The late rows of the trigger.
    pub(super) fn late(&self) -> &LateRows {
        &self.late
    }

    /// A trigger begins: what the last one touched is forgotten.
    pub(super) fn begin(&mut self, context: &TaskContext) {
        self.table.commit();
        self.numbers = self.recipe.cell.numbers();
        self.late = LateRows::default();
        self.memory.begin(&self.recipe.name, context);
    }

    /// The trigger is kept: what it touched is forgotten, what the watermark has closed is removed. How many
    /// records went.
    pub(super) fn commit(&mut self) -> highwater_core::Result<usize> {
        self.table.commit();
        match self.recipe.closing() {
            Some(event) => self.table.evict(event.over(self.numbers.closes_us())),
            None => Ok(0),
        }
    }

    /// Adds the rows of one input batch.
    pub(super) fn consume(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let recipe = Arc::clone(&self.recipe);
        let rows = recipe.rows(batch)?;
        if recipe.is_global() {
            let touched = self.table.intern(&[], 1, &mut self.ids)?;
            self.ids.resize(batch.num_rows(), 0);
            self.add(touched, &rows)?;
        } else {
            let mut late = None;
            for keys in evaluate_group_by(&recipe.group_by, batch)? {
                if let Some(mask) = self.consume_keys(&keys, batch.num_rows(), &rows)? {
                    late = Some(late_for_any(late, mask)?);
                }
            }
            if let Some(late) = late {
                self.late.rows += late.true_count() as u64;
                if recipe.cell.late().wanted() {
                    let rows = late_rows(batch, &late)?;
                    recipe.cell.late().put(&recipe.name, rows);
                }
            }
        }
        self.reserve()
    }

    /// Adds rows to the groups of `keys`; those that are late, if any, are left out and told.
    fn consume_keys(
        &mut self,
        keys: &[ArrayRef],
        count: usize,
        rows: &Rows,
    ) -> Result<Option<BooleanArray>> {
        let late = self.judge(keys)?;
        let Some(late) = late else {
            self.add_to(keys, count, rows)?;
            return Ok(None);
        };
        let kept: Vec<ArrayRef> = keys
            .iter()
            .map(|key| Ok(arrow::compute::filter(key, &late.counts)?))
            .collect::<Result<_>>()?;
        let count = late.counts.true_count();
        if count > 0 {
            self.add_to(&kept, count, &rows.only(&late.counts)?)?;
        }
        Ok(Some(late.late))
    }

    /// What the watermark says of rows with these keys, and the note of those that are late.
    fn judge(&mut self, keys: &[ArrayRef]) -> Result<Option<super::event::Late>> {
        let Some(event) = self.recipe.closing() else {
            return Ok(None);
        };
        let us = self.numbers.late_us();
        let late = event.judge(&keys[event.column], us)?;
        if let Some(late) = &late {
            self.late
                .note(self.table.key_schema(), event, keys, late, us)?;
        }
        Ok(late)
    }

    fn add_to(&mut self, keys: &[ArrayRef], count: usize, rows: &Rows) -> Result<()> {
        let touched = self.table.intern(keys, count, &mut self.ids)?;
        if !touched.fresh.is_empty()
            && let Some(event) = Arc::clone(&self.recipe).paned()
        {
            self.put_in_panes(touched.fresh.clone(), event, &keys[event.column])?;
        }
        self.add(touched, rows)
    }

    /// Puts fresh records into the panes that the key of any of their rows tells.
    fn put_in_panes(
        &mut self,
        fresh: Range<usize>,
        event: &EventKey,
        key: &ArrayRef,
    ) -> Result<()> {
        let ends = event.ends(key)?;
        let mut of_fresh = vec![None; fresh.len()];
        for (row, id) in self.ids.iter().enumerate() {
            if *id >= fresh.start {
                of_fresh[id - fresh.start] = ends.is_valid(row).then(|| ends.value(row));
            }
        }
        self.table.put_in_panes(fresh, &of_fresh.into())?;
        Ok(())
    }

    /// Adds rows whose local ids are in `self.ids`; those in `touched` were given out for them.
    fn add(&mut self, touched: Touched, rows: &Rows) -> Result<()> {
        self.merge_old(touched)?;
        let total = self.table.touched();
        for (number, function) in self.functions.iter_mut().enumerate() {
            let filter = rows.filters[number].as_ref();
            function.update(&rows.arguments[number], &self.ids, filter, total)?;
        }
        Ok(())
    }

    /// Merges the old state of keys that were just touched, or notes them for the end.
    fn merge_old(&mut self, touched: Touched) -> Result<()> {
        if self.functions.iter().any(Function::merges_first) && !touched.existing.is_empty() {
            let old = self.table.values(touched.existing.clone())?;
            for function in &mut self.functions {
                function.merge_old(&old, touched.existing.clone())?;
            }
        }
        if !touched.all().is_empty() && !self.functions.iter().all(Function::merges_first) {
            self.at_end.push(touched);
        }
        Ok(())
    }

    /// Input is at its end: the new state columns of all touched keys, in the order of their ids.
    ///
    /// An aggregation without GROUP BY touches its one record even when there was no row.
    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        if self.recipe.is_global() && self.table.touched() == 0 {
            let touched = self.table.intern(&[], 1, &mut self.ids)?;
            self.merge_old(touched)?;
            for function in &mut self.functions {
                function.make_group()?;
            }
        }
        if self.table.touched() == 0 {
            return Ok(Vec::new());
        }
        let mut old = Vec::with_capacity(self.at_end.len());
        for touched in std::mem::take(&mut self.at_end) {
            let values = self.table.values(touched.existing.clone())?;
            old.push((touched, values));
        }
        let mut states = Vec::with_capacity(self.table.value_schema().fields().len());
        for function in &mut self.functions {
            states.extend(function.finish(&old)?);
        }
        Ok(states)
    }

    /// Puts a range of the new state into the table; in update mode, the rows it means.
    pub(super) fn store(
        &mut self,
        states: &[ArrayRef],
        range: Range<usize>,
    ) -> Result<Option<RecordBatch>> {
        let part: Vec<ArrayRef> = states
            .iter()
            .map(|column| column.slice(range.start, range.len()))
            .collect();
        self.table.set_values(range.clone(), &part)?;
        if self.recipe.mode != OutputMode::Update || self.recipe.shared().is_some() {
            return Ok(None);
        }
        let keys = self.table.keys(range.clone())?;
        self.rows_of(keys, &part, range.len()).map(Some)
    }

    /// Everything is in the table: what is to come out beyond the rows of [`store`](Self::store).
    pub(super) fn output(&self) -> Result<Option<Output>> {
        Output::of(self)
    }

    /// Rows of the result from keys and state.
    pub(super) fn rows_of(
        &mut self,
        mut columns: Vec<ArrayRef>,
        states: &[ArrayRef],
        rows: usize,
    ) -> Result<RecordBatch> {
        for function in &mut self.functions {
            columns.push(function.evaluate(states, rows)?);
        }
        batch_of(&self.recipe.schema, columns, rows)
    }

    /// The touched records that are not over, in the columns of the state: keys, then values. Where the trigger
    /// evicts, their metadata says which panes.
    pub(super) fn changes(&self) -> highwater_core::Result<Vec<RecordBatch>> {
        let schema = Arc::new(self.record_schema());
        let total = self.table.touched();
        let mut changes = Vec::new();
        for from in (0..total).step_by(CHANGE_ROWS) {
            let range = from..total.min(from + CHANGE_ROWS);
            let rows = range.len();
            let mut columns = self.table.keys(range.clone())?;
            columns.extend(self.table.values(range)?);
            let records = self.without_closed(batch_of(&schema, columns, rows)?)?;
            changes.extend((records.num_rows() > 0).then_some(records));
        }
        if changes.is_empty() && self.evicts() > 0 {
            changes.push(RecordBatch::new_empty(schema));
        }
        Ok(changes)
    }

    fn record_schema(&self) -> Schema {
        let keys = self.table.key_schema().fields().iter();
        let fields = keys.chain(self.table.value_schema().fields().iter());
        let schema = Schema::new(fields.cloned().collect::<Vec<_>>());
        match self.recipe.closing() {
            Some(event) => evicting(schema, event.over(self.numbers.closes_us())),
            None => schema,
        }
    }

    /// How many records the trigger evicts.
    fn evicts(&self) -> usize {
        self.recipe.closing().map_or(0, |event| {
            self.table.count_due(event.over(self.numbers.closes_us()))
        })
    }

    fn without_closed(&self, records: RecordBatch) -> Result<RecordBatch> {
        let Some(event) = self.recipe.closing() else {
            return Ok(records);
        };
        let over = event.over(self.numbers.closes_us());
        let ends = event.ends(records.column(event.column))?;
        let open = BooleanBuffer::collect_bool(ends.len(), |row| {
            ends.is_null(row) || ends.value(row) > over
        });
        if open.count_set_bits() == records.num_rows() {
            return Ok(records);
        }
        Ok(filter_record_batch(
            &records,
            &BooleanArray::new(open, None),
        )?)
    }

    /// Puts records of [`changes`](Self::changes) back.
    pub(super) fn restore(&mut self, records: &RecordBatch) -> highwater_core::Result<()> {
        let count = self.recipe.keys;
        if records.num_columns() < count {
            return Err(Error::corrupt("records of state lack key columns"));
        }
        let keys = &records.columns()[..count];
        let schema = Arc::clone(self.table.value_schema());
        let values = completed(records, count, schema.fields(), || self.empty_values())?;
        let event = self.recipe.event.as_ref();
        let ends = event
            .map(|event| event.ends(&keys[event.column]))
            .transpose()?;
        self.table
            .restore(keys, &values, ends.as_ref(), records.num_rows())?;
        let Some(evicted_to) = evicted_to(records)? else {
            return Ok(());
        };
        if !event.is_some_and(|event| event.marked) {
            return Err(Error::invalid(
                "the state was kept with a watermark on a grouping key, and the query has none there",
            )
            .with_hint("put the watermark back, or start with a new checkpoint"));
        }
        self.table.evict(evicted_to)?;
        Ok(())
    }

    /// The state of one group without a row.
    fn empty_values(&mut self) -> highwater_core::Result<Vec<ArrayRef>> {
        let mut values = Vec::with_capacity(self.table.value_schema().fields().len());
        for function in &mut self.functions {
            values.extend(function.empty_state()?);
        }
        Ok(values)
    }

    /// Reserves what state and accumulators hold now from the session's memory pool.
    pub(super) fn reserve(&mut self) -> Result<()> {
        let accumulators: usize = self.functions.iter().map(Function::size).sum();
        let bytes = self.table.memory_bytes() + accumulators;
        Ok(self.memory.hold(&self.recipe.name, bytes)?)
    }
}

/// A batch that may have no column.
pub(super) fn batch_of(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}
