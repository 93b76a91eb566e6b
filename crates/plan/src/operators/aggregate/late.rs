//! The late rows of one micro-batch: how many there were, and of how many groups.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter, filter_record_batch, or, take};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use highwater_core::Error;
use highwater_state::StateTable;

use super::event::{EventKey, Late};
use super::shared::SharedPanes;
use crate::event_time::ends;

/// What was late.
#[derive(Debug, Default)]
pub(super) struct LateRows {
    /// Rows of the input that were late for a group.
    pub(super) rows: u64,
    /// The groups they were late for, counted as Spark does: after the grouping. A table without values.
    groups: Option<StateTable>,
}

impl LateRows {
    /// How many groups had late rows.
    pub(super) fn groups(&self) -> u64 {
        self.groups
            .as_ref()
            .map_or(0, |groups| groups.touched() as u64)
    }

    /// Notes the groups of late rows; `keys` are the keys of all rows of a batch.
    pub(super) fn note(
        &mut self,
        schema: &SchemaRef,
        event: &EventKey,
        keys: &[ArrayRef],
        late: &Late,
        us: i64,
    ) -> Result<()> {
        let mut keys: Vec<ArrayRef> = keys
            .iter()
            .map(|key| Ok(filter(key, &late.late)?))
            .collect::<Result<_>>()?;
        if let Some(shared) = event.shared {
            keys = windows_over(shared, event.column, &keys, us)?;
        }
        let rows = keys.first().map_or(0, |key| key.len());
        let groups = match &mut self.groups {
            Some(groups) => groups,
            None => self.groups.insert(StateTable::try_new(
                Arc::clone(schema),
                Arc::new(Schema::empty()),
            )?),
        };
        groups.intern(&keys, rows, &mut Vec::new())?;
        Ok(())
    }
}

/// Rows that are late for a group or another, when a batch goes into several.
pub(super) fn late_for_any(
    before: Option<BooleanArray>,
    late: BooleanArray,
) -> Result<BooleanArray> {
    Ok(match before {
        Some(before) => or(&before, &late)?,
        None => late,
    })
}

/// The late rows themselves.
pub(super) fn late_rows(batch: &RecordBatch, late: &BooleanArray) -> Result<RecordBatch> {
    Ok(filter_record_batch(batch, late)?)
}

/// A row for each of the windows over at `us` that a piece is in, with the window in the piece's place.
fn windows_over(
    shared: SharedPanes,
    column: usize,
    keys: &[ArrayRef],
    us: i64,
) -> Result<Vec<ArrayRef>> {
    let pieces = ends(&keys[column], None)?;
    let last_over = shared.last_over(us);
    let (mut rows, mut windows) = (Vec::new(), Vec::new());
    for (row, piece) in pieces.values().iter().enumerate() {
        let row = u32::try_from(row).map_err(|_| Error::internal("a batch of 2^32 rows"))?;
        let mut window = shared.first_start(*piece);
        while window <= last_over.min(shared.last_start(*piece)) {
            rows.push(row);
            windows.push(window);
            window = window.saturating_add(shared.slide);
        }
    }
    let rows = UInt32Array::from(rows);
    keys.iter()
        .enumerate()
        .map(|(at, key)| match at == column {
            true => shared.column(&windows, key.data_type()),
            false => Ok(take(key, &rows, None)?),
        })
        .collect()
}
