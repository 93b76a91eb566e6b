//! The state of a join: its two sides, and the steps a row takes into them.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::kernels::cmp::lt_eq;
use arrow::compute::{filter_record_batch, not, prep_null_mask_filter};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use highwater_core::Error;

use super::probe::{Probe, alone, alone_at};
use super::recipe::{Keeps, Recipe, Side};
use super::side::SideState;
use crate::cell::BatchNumbers;
use crate::event_time::ends;
use crate::operators::memory::StateMemory;

/// The rows that a join holds.
#[derive(Debug)]
pub(super) struct JoinState {
    pub(super) left: SideState,
    pub(super) right: SideState,
    /// The micro-batch that runs, or ran last.
    pub(super) numbers: BatchNumbers,
    memory: StateMemory,
}

/// What a batch of the input gave at once, and the probe that goes on with the rest.
pub(super) struct Entered {
    pub(super) output: Option<RecordBatch>,
    pub(super) probe: Option<Probe>,
}

impl JoinState {
    pub(super) fn new(recipe: &Recipe) -> Self {
        let side = |side: Side| {
            let of = recipe.side(side);
            SideState::new(of.bound.clone(), of.keeps != Keeps::Plain)
        };
        Self {
            left: side(Side::Left),
            right: side(Side::Right),
            numbers: BatchNumbers::default(),
            memory: StateMemory::default(),
        }
    }

    pub(super) fn side(&self, side: Side) -> &SideState {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> &mut SideState {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    /// A micro-batch begins.
    pub(super) fn begin(&mut self, recipe: &Recipe, context: &TaskContext) -> Result<()> {
        self.numbers = recipe.cell.numbers();
        self.memory.begin(&recipe.name, context);
        self.left.begin()?;
        self.right.begin()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.left.memory_bytes() + self.right.memory_bytes()
    }

    /// At the end of a micro-batch: what is held of rows that are gone is given back, where it is much.
    pub(super) fn compact(&mut self) -> Result<()> {
        self.left.compact()?;
        self.right.compact()
    }

    /// Asks the session's pool for the memory that is held.
    ///
    /// # Errors
    /// `Unavailable` when it refuses.
    pub(super) fn reserve(&self, recipe: &Recipe) -> Result<()> {
        Ok(self.memory.hold(&recipe.name, self.memory_bytes())?)
    }

    /// A batch of `side` comes in: late rows go, and so do those that cannot match by what they are themselves.
    pub(super) fn enter(
        &mut self,
        recipe: &Recipe,
        side: Side,
        batch: &RecordBatch,
    ) -> Result<Entered> {
        let of = recipe.side(side);
        let rows = RecordBatch::try_new(Arc::clone(&of.loose), batch.columns().to_vec())?;
        let rows = self.without_late(recipe, side, rows)?;
        let rows = self.with_arrival(recipe, side, rows)?;
        let (rows, failed) = match &of.own {
            Some(own) if rows.num_rows() > 0 => {
                let pass = own.evaluate(&rows)?.into_array(rows.num_rows())?;
                split(rows, pass.as_boolean_opt())?
            }
            _ => (rows, None),
        };
        let failed = failed.filter(|_| of.keeps.keeps_unmatched());
        let output = failed
            .map(|failed| alone(recipe, side, &failed))
            .transpose()?;
        let probe = match rows.num_rows() {
            0 => None,
            _ => Some(Probe::new(recipe, side, rows, self.side(side.other()))?),
        };
        Ok(Entered { output, probe })
    }

    /// The rows that are not late; the others are counted and put aside.
    fn without_late(
        &mut self,
        recipe: &Recipe,
        side: Side,
        rows: RecordBatch,
    ) -> Result<RecordBatch> {
        let of = recipe.side(side);
        let Some((at, span)) = of.late else {
            return Ok(rows);
        };
        let over = ends(rows.column(at), span)?;
        let late = lt_eq(&over, &Int64Array::new_scalar(self.numbers.late_us()))?;
        let count = late.true_count();
        if count == 0 {
            return Ok(rows);
        }
        let late = match late.null_count() {
            0 => late,
            _ => prep_null_mask_filter(&late),
        };
        self.side_mut(side).changes.late += count as u64;
        if recipe.cell.late().wanted() {
            let rows = filter_record_batch(&rows, &late)?;
            recipe.cell.late().put(&of.name, rows);
        }
        Ok(filter_record_batch(&rows, &not(&late)?)?)
    }

    /// The rows with the batch time as when they came, on a side that they leave by age.
    fn with_arrival(&self, recipe: &Recipe, side: Side, rows: RecordBatch) -> Result<RecordBatch> {
        let of = recipe.side(side);
        if of.bound.as_ref().is_none_or(|bound| bound.age_us.is_none()) {
            return Ok(rows);
        }
        let now = self.numbers.time.as_micros();
        let arrived = TimestampMicrosecondArray::from_value(now, rows.num_rows());
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(arrived));
        Ok(RecordBatch::try_new(Arc::clone(&of.stored), columns)?)
    }

    /// Rows of `side` leave that are over by the watermark or their age, at most `size`: those that come out, as rows of the
    /// result. `None` when no more leave.
    pub(super) fn evict(
        &mut self,
        recipe: &Recipe,
        side: Side,
        size: usize,
    ) -> Result<Option<Option<RecordBatch>>> {
        let of = recipe.side(side);
        let Some(bound) = &of.bound else {
            return Ok(None);
        };
        let until = bound.until(&self.numbers);
        let state = self.side_mut(side);
        let mut slots = Vec::new();
        if !state.take_due(until, size, &mut slots)? {
            return Ok(None);
        }
        state.changes.evicted_to = Some(until);
        let unmatched: Vec<u32> = match of.keeps.keeps_unmatched() {
            true => slots
                .iter()
                .copied()
                .filter(|at| !state.is_matched(*at))
                .collect(),
            false => Vec::new(),
        };
        let output = match unmatched.is_empty() {
            true => None,
            false => Some(alone_at(recipe, side, state, &unmatched)?),
        };
        state.remove(&slots);
        Ok(Some(output))
    }
}

/// The rows that pass, and the others where there are any; null is not passing.
fn split(
    rows: RecordBatch,
    pass: Option<&BooleanArray>,
) -> Result<(RecordBatch, Option<RecordBatch>)> {
    let pass = pass.ok_or_else(|| Error::internal("the condition of a join is no boolean"))?;
    let pass = match pass.null_count() {
        0 => pass.clone(),
        _ => prep_null_mask_filter(pass),
    };
    if pass.true_count() == rows.num_rows() {
        return Ok((rows, None));
    }
    let failed = filter_record_batch(&rows, &not(&pass)?)?;
    Ok((filter_record_batch(&rows, &pass)?, Some(failed)))
}
