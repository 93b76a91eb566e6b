//! What is kept of a static side: its rows as one batch, and their places by the hash of their key.

use std::future::poll_fn;
use std::task::Poll;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use datafusion::common::Result;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use highwater_core::Error;

use super::keys::Keys;
use super::recipe::Recipe;
use crate::static_side::held::Held;

/// No row.
pub(super) const NONE: u32 = u32::MAX;
/// Rows that are put into the index before other tasks get their turn.
const ROWS_A_TURN: usize = 1 << 16;

/// The rows of a static side.
pub(super) struct Table {
    pub(super) rows: RecordBatch,
    pub(super) keys: Vec<ArrayRef>,
    pub(super) index: Index,
    /// The rows with a null key, where a null matches.
    pub(super) nulls: Vec<u32>,
    pub(super) bytes: usize,
    _held: Held,
}

impl Table {
    /// Reads `rows` to their end.
    pub(super) async fn read(
        recipe: &Recipe,
        mut rows: SendableRecordBatchStream,
        held: Held,
    ) -> Result<Self> {
        let schema = rows.schema();
        let mut batches = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            held.grow(get_record_batch_memory_size(&batch))?;
            batches.push(batch);
        }
        let rows = concat_batches(&schema, &batches)?;
        drop(batches);
        if rows.num_rows() >= NONE as usize {
            return Err(Error::unavailable("a static side cannot have 2^32 rows").into());
        }
        let keys = Keys::of(&recipe.static_keys, &recipe.key_types, recipe.nulls, &rows)?;
        let mut nulls = Vec::new();
        if recipe.null_matches {
            let all = 0..rows.num_rows();
            nulls.extend(
                all.filter(|row| !keys.can_match(*row))
                    .map(|row| row as u32),
            );
        }
        let index = Index::of(&keys).await;
        let bytes = get_record_batch_memory_size(&rows)
            + own_bytes(&keys.columns, &rows)
            + index.memory_bytes()
            + nulls.capacity() * size_of::<u32>();
        held.resize(bytes)?;
        Ok(Self {
            rows,
            keys: keys.columns,
            index,
            nulls,
            bytes,
            _held: held,
        })
    }
}

/// Of keys that are no columns of `rows`.
fn own_bytes(keys: &[ArrayRef], rows: &RecordBatch) -> usize {
    let shared = |key: &ArrayRef| {
        rows.columns()
            .iter()
            .any(|column| key.to_data().ptr_eq(&column.to_data()))
    };
    let own = keys.iter().filter(|key| !shared(key));
    own.map(|key| key.get_array_memory_size()).sum()
}

/// Chains of rows that have the lower bits of their hash in common, each in the order of the rows.
pub(super) struct Index {
    heads: Vec<u32>,
    next: Vec<u32>,
    hashes: Vec<u32>,
}

impl Index {
    async fn of(keys: &Keys) -> Self {
        if keys.columns.is_empty() {
            return Self {
                heads: Vec::new(),
                next: Vec::new(),
                hashes: Vec::new(),
            };
        }
        let rows = keys.hashes.len();
        let buckets = rows.next_power_of_two();
        let mut heads = vec![NONE; buckets];
        let mut next = vec![NONE; rows];
        for row in (0..rows).rev() {
            if keys.can_match(row) {
                let head = &mut heads[keys.hashes[row] as usize & (buckets - 1)];
                next[row] = std::mem::replace(head, row as u32);
            }
            if row % ROWS_A_TURN == 0 {
                breathe().await;
            }
        }
        Self {
            heads,
            next,
            hashes: keys.hashes.clone(),
        }
    }

    /// The first row of the chain of `hash`.
    pub(super) fn first(&self, hash: u32) -> u32 {
        match self.heads.len() {
            0 => NONE,
            buckets => self.heads[hash as usize & (buckets - 1)],
        }
    }

    /// The hash of a row, and the row after it.
    pub(super) fn after(&self, row: u32) -> (u32, u32) {
        (self.hashes[row as usize], self.next[row as usize])
    }

    fn memory_bytes(&self) -> usize {
        (self.heads.len() + self.next.len() + self.hashes.len()) * size_of::<u32>()
    }
}

/// Other tasks get their turn.
pub(super) async fn breathe() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
