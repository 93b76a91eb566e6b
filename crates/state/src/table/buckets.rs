//! Where keys lie: the first bits of their hash.

use arrow::array::ArrayRef;
use highwater_core::Result;

use super::StateTable;
use crate::keys::{KeyBatch, KeyVisitor};

/// Bits of a hash that are a bucket: there are 64 buckets.
const BITS: u32 = 6;

impl StateTable {
    /// The bucket of each of `rows` keys, 0 to 63: the first bits of the hash that leads to their records. Nothing
    /// is touched, and the keys need not be in the table.
    ///
    /// # Errors
    /// `Internal` when the columns are not those of the table.
    pub fn buckets(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<i32>> {
        let mut buckets = Vec::with_capacity(rows);
        self.keys.encode(keys, rows, First(&mut buckets))?;
        Ok(buckets)
    }
}

struct First<'a>(&'a mut Vec<i32>);

impl KeyVisitor for First<'_> {
    fn visit<K: KeyBatch>(self, keys: &K) -> Result<()> {
        let bucket = |row| (keys.hash(row) >> (u64::BITS - BITS)) as i32;
        self.0.extend((0..keys.len()).map(bucket));
        Ok(())
    }
}
