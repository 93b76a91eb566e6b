//! Panes: the records that are over at the same time, so that eviction costs what it evicts.

use std::ops::Range;

use arrow::array::Int64Array;
use highwater_core::{Error, Result};

use super::{Chunk, IN_PANE, StateTable};

impl StateTable {
    /// Puts the touched records in `range` into panes: the record of the i-th id is over at the i-th of `ends`,
    /// in microseconds since 1970, and never where that is null. A record that is in another pane leaves it.
    ///
    /// # Errors
    /// `Internal` when there are not as many ends as ids.
    pub fn put_in_panes(&mut self, range: Range<usize>, ends: &Int64Array) -> Result<()> {
        let touched = std::mem::take(&mut self.store.touched);
        let result = self.put_slots_in_panes(&touched[range], ends);
        self.store.touched = touched;
        result
    }

    pub(super) fn put_slots_in_panes(&mut self, slots: &[u32], ends: &Int64Array) -> Result<()> {
        if ends.len() != slots.len() {
            return Err(Error::internal(
                "a pane for each record, no more and no less",
            ));
        }
        let pages = &mut self.store.pages;
        for (slot, end) in slots.iter().zip(ends) {
            if pages.record(*slot)[0] & IN_PANE != 0 {
                if end == Some(self.panes.end_of(pages, *slot)) {
                    continue;
                }
                self.panes.remove(pages, *slot);
                pages.record_mut(*slot)[0] &= !IN_PANE;
            }
            if let Some(end) = end {
                self.panes.insert(pages, *slot, end);
                pages.record_mut(*slot)[0] |= IN_PANE;
            }
        }
        Ok(())
    }

    /// The records that are over at `until` or before, oldest pane first, in chunks of `rows`.
    /// Nothing is removed.
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a record cannot be read.
    pub fn due(&self, until: i64, rows: usize) -> impl Iterator<Item = Result<Chunk>> + '_ {
        let mut slots = self.panes.due(until);
        std::iter::from_fn(move || {
            let part: Vec<u32> = slots.by_ref().take(rows.max(1)).collect();
            (!part.is_empty()).then(|| {
                Ok(Chunk {
                    next: 0,
                    rows: part.len(),
                    keys: self.keys_of(&part)?,
                    values: self.values.gather(&self.store.pages, &part)?,
                })
            })
        })
    }

    /// How many records are over at `until` or before.
    #[must_use]
    pub fn count_due(&self, until: i64) -> usize {
        self.panes.count_due(until)
    }

    /// Removes the records that are over at `until` or before; how many there were. Only between triggers.
    ///
    /// # Errors
    /// `Internal` when records are touched.
    pub fn evict(&mut self, until: i64) -> Result<usize> {
        if !self.store.touched.is_empty() {
            return Err(Error::internal("records are evicted within a trigger"));
        }
        let mut removed = 0;
        while let Some(slots) = self.panes.take_due(&mut self.store.pages, until) {
            removed += slots.len();
            self.discard(&slots);
        }
        if removed > 0 {
            self.give_back(removed);
        }
        Ok(removed)
    }

    /// The slots of the touched records in `range`.
    ///
    /// From the first call on a record keeps its slot as long as it lives. Otherwise eviction and removal move
    /// records together; where they may not, only pages without a record are given back.
    pub fn slots(&mut self, range: Range<usize>) -> &[u32] {
        if !self.slots_known {
            self.slots_known = true;
            self.store.pages.stay();
        }
        &self.store.touched[range]
    }
}
