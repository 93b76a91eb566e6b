//! Parts of a state, for snapshots: the state goes to the checkpoint a part at a time.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use highwater_core::Result;
use highwater_state::StateTable;

use super::records::CHANGE_ROWS;

/// One part of a state: the records whose keys' hashes begin with the bits of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one, from 0.
    pub number: u32,
    /// Of so many, a power of two.
    pub of: u32,
}

impl Part {
    /// The whole state.
    pub const WHOLE: Self = Self { number: 0, of: 1 };
}

/// The records of a part of `table`: keys, then values.
///
/// # Errors
/// `Corrupt` or `Internal` when a record cannot be read.
pub(crate) fn part_of(table: &StateTable, part: Part) -> Result<Vec<RecordBatch>> {
    let keys = table.key_schema().fields().iter();
    let fields = keys.chain(table.value_schema().fields().iter());
    let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
    let slots = table.part_slots(part.number, part.of);
    let batches = slots.chunks(CHANGE_ROWS).map(|slots| {
        let chunk = table.gather(slots)?;
        let columns = [chunk.keys, chunk.values].concat();
        let options = RecordBatchOptions::new().with_row_count(Some(chunk.rows));
        let schema = Arc::clone(&schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    });
    batches.collect()
}

#[cfg(test)]
mod tests;
