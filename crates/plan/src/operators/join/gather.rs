//! Columns of rows that lie in many chunks.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take};
use datafusion::common::Result;

use super::index::{NONE, place};
use super::side::SideState;

/// Where some rows of a side are.
pub(super) struct Gather<'a> {
    sources: Vec<&'a RecordBatch>,
    rows: Rows,
}

enum Rows {
    /// Of the only source.
    One(UInt32Array),
    Many(Vec<(usize, usize)>),
}

impl<'a> Gather<'a> {
    /// The rows at `slots`.
    pub(super) fn new(side: &'a SideState, slots: &[u32]) -> Self {
        let mut first_source = vec![NONE; side.chunks.len()];
        let mut sources: Vec<&RecordBatch> = Vec::new();
        let mut rows = Vec::with_capacity(slots.len());
        for slot in slots {
            let (at, row) = place(*slot);
            let Some(chunk) = &side.chunks[at] else {
                continue;
            };
            if first_source[at] == NONE {
                first_source[at] = sources.len() as u32;
                sources.extend(chunk.pieces());
            }
            let (piece, row) = chunk.piece_of(row);
            rows.push((first_source[at] as usize + piece, row));
        }
        let rows = match sources.len() {
            1 => Rows::One(rows.into_iter().map(|(_, row)| row as u32).collect()),
            _ => Rows::Many(rows),
        };
        Self { sources, rows }
    }

    /// Their values in the column `at`.
    pub(super) fn column(&self, at: usize) -> Result<ArrayRef> {
        Ok(match &self.rows {
            Rows::One(rows) => take(self.sources[0].column(at), rows, None)?,
            Rows::Many(rows) => {
                let columns = self.sources.iter().map(|source| source.column(at).as_ref());
                let columns: Vec<&dyn Array> = columns.collect();
                interleave(&columns, rows)?
            }
        })
    }
}
