//! Keys, in the form in which equal values are the same, and their hashes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::{NullEquality, Result};
use datafusion::physical_expr::PhysicalExpr;

use crate::operators::join::comparable;

/// The seed of the hashes, which no file has.
const SEED: u64 = 0x6869_6768_7761_7465;

/// The keys of some rows.
pub(super) struct Keys {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) hashes: Vec<u32>,
    /// The rows that equal something; `None`: all.
    pub(super) can_match: Option<NullBuffer>,
}

impl Keys {
    /// The values of `keys`, as `types`, for `rows`.
    pub(super) fn of(
        keys: &[Arc<dyn PhysicalExpr>],
        types: &[DataType],
        nulls: NullEquality,
        rows: &RecordBatch,
    ) -> Result<Self> {
        let count = rows.num_rows();
        let columns = keys.iter().zip(types).map(|(key, key_type)| {
            let column = key.evaluate(rows)?.into_array(count)?;
            comparable(&column, key_type)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut hashes = vec![0; count];
        if !columns.is_empty() {
            create_hashes(&columns, &RandomState::with_seed(SEED), &mut hashes)?;
        }
        let can_match = match nulls {
            NullEquality::NullEqualsNull => None,
            NullEquality::NullEqualsNothing => {
                let nulls: Vec<_> = columns.iter().map(|c| c.logical_nulls()).collect();
                NullBuffer::union_many(nulls.iter().map(Option::as_ref))
            }
        };
        let folded = hashes.iter().map(|hash| (hash ^ (hash >> 32)) as u32);
        Ok(Self {
            hashes: folded.collect(),
            columns,
            can_match: can_match.filter(|valid| valid.null_count() > 0),
        })
    }

    pub(super) fn can_match(&self, row: usize) -> bool {
        self.can_match
            .as_ref()
            .is_none_or(|valid| valid.is_valid(row))
    }
}
