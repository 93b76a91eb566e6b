//! Looking without touching: records by key, and records by slot.

use arrow::array::ArrayRef;
use highwater_core::Result;

use super::{Chunk, StateTable, Store};
use crate::hash::tag;
use crate::keys::{KeyBatch, KeyVisitor};

impl StateTable {
    /// The slot of the record of each of `rows` keys, where there is one. Nothing is touched.
    /// The slots are good until records are removed.
    ///
    /// # Errors
    /// `Internal` when the columns are not those of the table.
    pub fn find(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<Option<u32>>> {
        let mut slots = Vec::with_capacity(rows);
        let (store, found) = (&self.store, &mut slots);
        self.keys.encode(keys, rows, Find { store, found })?;
        Ok(slots)
    }

    /// The slots of the records that are over at `until` or before, oldest pane first. They are good until
    /// records are removed.
    #[must_use]
    pub fn due_slots(&self, until: i64) -> Vec<u32> {
        self.panes.due(until).collect()
    }

    /// The slots of one part of the table, in rising order: the records whose keys' hashes begin with the bits of
    /// `number`, where there are `of` parts, a power of two. Every record is in one part. The slots are good until
    /// records are removed; only the part is looked at, not the whole table.
    #[must_use]
    pub fn part_slots(&self, number: u32, of: u32) -> Vec<u32> {
        let bits = of.max(1).ilog2();
        if number >> bits != 0 {
            return Vec::new();
        }
        let mut slots: Vec<u32> = self.store.index.part(number, bits).collect();
        slots.sort_unstable();
        slots
    }

    /// The records in these slots.
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a record cannot be read.
    pub fn gather(&self, slots: &[u32]) -> Result<Chunk> {
        Ok(Chunk {
            next: 0,
            rows: slots.len(),
            keys: self.keys_of(slots)?,
            values: self.gather_values(slots)?,
        })
    }

    /// The values of the records in these slots.
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a value cannot be read.
    pub fn gather_values(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.values.gather(&self.store.pages, slots)
    }
}

/// Finds the record of each key.
struct Find<'a> {
    store: &'a Store,
    found: &'a mut Vec<Option<u32>>,
}

impl KeyVisitor for Find<'_> {
    fn visit<K: KeyBatch>(self, keys: &K) -> Result<()> {
        let find = |row| self.store.find(keys, row, tag(keys.hash(row)));
        self.found.extend((0..keys.len()).map(find));
        Ok(())
    }
}
