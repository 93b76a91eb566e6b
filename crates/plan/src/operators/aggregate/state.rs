//! What a streaming aggregation remembers and does in one trigger, apart from where rows come from.
//!
//! ```text
//!  begin ─► consume (each input batch) ─► finish ─► store (range by range) ─► [scan] ─► commit
//! ```

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, PhysicalGroupBy, aggregate_expressions, evaluate_group_by,
    evaluate_many,
};
use highwater_core::{Error, OutputMode};
use highwater_state::{Chunk, StateTable, Touched};

use super::function::Function;

/// Rows of a record batch that goes to the checkpoint.
const CHANGE_ROWS: usize = 64 * 1024;

/// What an aggregation computes: it does not change while the query runs.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) mode: OutputMode,
    pub(super) group_by: PhysicalGroupBy,
    /// The arguments of each function, those of its ORDER BY included.
    arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// The columns of the result: keys, then values.
    pub(super) schema: SchemaRef,
    input_schema: SchemaRef,
    /// The number of key columns.
    pub(super) keys: usize,
}

impl Recipe {
    pub(super) fn try_new(
        aggregate: &AggregateExec,
        name: String,
        mode: OutputMode,
    ) -> Result<Self> {
        let group_by = aggregate.group_expr().clone();
        Ok(Self {
            name,
            mode,
            arguments: aggregate_expressions(aggregate.aggr_expr(), &AggregateMode::Single, 0)?,
            filters: aggregate.filter_expr().to_vec(),
            schema: Arc::clone(aggregate.cache().equivalence_properties().schema()),
            input_schema: aggregate.input().schema(),
            keys: group_by.num_group_exprs(),
            group_by,
        })
    }

    /// True for an aggregation without GROUP BY: it has one row, always.
    pub(super) fn is_global(&self) -> bool {
        self.group_by.is_true_no_grouping()
    }
}

/// The rows of one input batch, ready for the functions.
struct Rows<'a> {
    arguments: &'a [Vec<ArrayRef>],
    filters: &'a [Option<BooleanArray>],
}

/// The state of a streaming aggregation.
#[derive(Debug)]
pub(super) struct AggregateState {
    recipe: Arc<Recipe>,
    table: StateTable,
    functions: Vec<Function>,
    reservation: Option<MemoryReservation>,
    /// Scratch: the local id of each row.
    ids: Vec<usize>,
    /// What each batch touched, where a function merges old state at the end.
    at_end: Vec<Touched>,
    /// Bytes reserved last.
    reserved: usize,
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
        let table = StateTable::try_new(Arc::new(Schema::new(keys)), Arc::new(Schema::new(values)))
            .map_err(|e| e.with_operator(recipe.name.as_str()))?;
        Ok(Self {
            recipe,
            table,
            functions,
            reservation: None,
            ids: Vec::new(),
            at_end: Vec::new(),
            reserved: 0,
        })
    }

    pub(super) fn table(&self) -> &StateTable {
        &self.table
    }

    /// A trigger begins: what the last one touched is forgotten.
    pub(super) fn begin(&mut self, context: &TaskContext) {
        self.table.commit();
        if self.reservation.is_none() {
            let consumer = MemoryConsumer::new(format!("state of {}", self.recipe.name));
            self.reservation = Some(consumer.register(context.memory_pool()));
        }
    }

    pub(super) fn commit(&mut self) {
        self.table.commit();
    }

    /// Adds the rows of one input batch.
    pub(super) fn consume(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let recipe = Arc::clone(&self.recipe);
        let arguments = evaluate_many(&recipe.arguments, batch)?;
        let filters = evaluate_filters(&recipe.filters, batch)?;
        let rows = Rows {
            arguments: &arguments,
            filters: &filters,
        };
        if recipe.is_global() {
            let touched = self.table.intern(&[], 1, &mut self.ids)?;
            self.ids.resize(batch.num_rows(), 0);
            self.add(touched, &rows)?;
        } else {
            for keys in evaluate_group_by(&recipe.group_by, batch)? {
                let touched = self.table.intern(&keys, batch.num_rows(), &mut self.ids)?;
                self.add(touched, &rows)?;
            }
        }
        self.reserve()
    }

    /// Adds rows whose local ids are in `self.ids`; those in `touched` were given out for them.
    fn add(&mut self, touched: Touched, rows: &Rows<'_>) -> Result<()> {
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
        if self.recipe.mode == OutputMode::Complete {
            return Ok(None);
        }
        let keys = self.table.keys(range.clone())?;
        self.rows_of(keys, &part, range.len()).map(Some)
    }

    /// The next rows of the whole result, at most `rows`, and where to go on.
    pub(super) fn scan(&mut self, from: u32, rows: usize) -> Result<Option<(RecordBatch, u32)>> {
        let Some(Chunk {
            keys,
            values,
            rows,
            next,
        }) = self.table.scan(from, rows)?
        else {
            return Ok(None);
        };
        Ok(Some((self.rows_of(keys, &values, rows)?, next)))
    }

    /// Rows of the result from keys and state.
    fn rows_of(
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

    /// The touched records, in the columns of the state: keys, then values.
    pub(super) fn changes(&self) -> highwater_core::Result<Vec<RecordBatch>> {
        let fields = self.table.key_schema().fields().iter();
        let fields = fields.chain(self.table.value_schema().fields().iter());
        let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let total = self.table.touched();
        (0..total)
            .step_by(CHANGE_ROWS)
            .map(|from| {
                let range = from..total.min(from + CHANGE_ROWS);
                let mut columns = self.table.keys(range.clone())?;
                columns.extend(self.table.values(range.clone())?);
                Ok(batch_of(&schema, columns, range.len())?)
            })
            .collect()
    }

    /// Puts records of [`changes`](Self::changes) back.
    pub(super) fn restore(&mut self, records: &RecordBatch) -> highwater_core::Result<()> {
        let keys = self.recipe.keys;
        if records.num_columns() < keys {
            return Err(Error::corrupt("records of state lack key columns"));
        }
        let (keys, values) = records.columns().split_at(keys);
        self.table.restore(keys, values, records.num_rows())
    }

    /// Reserves what state and accumulators hold now from the session's memory pool.
    pub(super) fn reserve(&mut self) -> Result<()> {
        let accumulators: usize = self.functions.iter().map(Function::size).sum();
        let bytes = self.table.memory_bytes() + accumulators;
        let Some(reservation) = self.reservation.as_ref().filter(|_| bytes != self.reserved) else {
            return Ok(());
        };
        reservation.try_resize(bytes).map_err(|e| {
            Error::unavailable(format!(
                "operator `{}` needs {bytes} bytes for its state, and the memory pool refuses them",
                self.recipe.name
            ))
            .with_operator(self.recipe.name.as_str())
            .with_hint("give the session a larger memory pool, or keep fewer keys")
            .with_source(e)
        })?;
        self.reserved = bytes;
        Ok(())
    }
}

fn evaluate_filters(
    filters: &[Option<Arc<dyn PhysicalExpr>>],
    batch: &RecordBatch,
) -> Result<Vec<Option<BooleanArray>>> {
    let evaluate = |filter: &Arc<dyn PhysicalExpr>| -> Result<BooleanArray> {
        let mask = filter.evaluate(batch)?.into_array(batch.num_rows())?;
        mask.as_boolean_opt()
            .cloned()
            .ok_or_else(|| Error::internal("the FILTER of an aggregate is no boolean").into())
    };
    filters
        .iter()
        .map(|filter| filter.as_ref().map(evaluate).transpose())
        .collect()
}

/// A batch that may have no column.
fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}
