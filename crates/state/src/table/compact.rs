//! What removed records leave: their memory goes back as they go.
//!
//! Where the pages have a quarter more slots than there are records, the emptiest page is given back and its
//! records move into free slots of others, a few with each call. About one record moves for each that is
//! removed: a call pays for what it removed.

use super::{IN_PANE, OCCUPIED, StateTable};
use crate::hash::tag;

/// Records that are looked at together, so that the processor fetches them at the same time.
const BLOCK: usize = 64;
/// Records that may move for each that is removed.
const MOVES: usize = 2;
/// Records for which the lists of a trigger keep room.
const LISTED: usize = 4096;

impl StateTable {
    /// Takes records that are in no pane any more out of the index and frees them.
    pub(super) fn discard(&mut self, slots: &[u32]) {
        let mut tags = Vec::with_capacity(BLOCK);
        let ahead = |number: usize| slots.iter().skip(number * BLOCK).take(BLOCK);
        ahead(0).for_each(|slot| self.store.pages.prefetch(*slot));
        for (number, block) in slots.chunks(BLOCK).enumerate() {
            self.fetch_entries(block, &mut tags);
            ahead(number + 1).for_each(|slot| self.store.pages.prefetch(*slot));
            for (slot, tag) in block.iter().zip(&tags) {
                let removed = self.store.index.remove(*tag, *slot);
                debug_assert!(removed, "a record that was in the index");
                self.release(*slot);
            }
        }
    }

    /// Frees a record that is neither in the index nor in a pane.
    pub(super) fn release(&mut self, slot: u32) {
        if self.keys.owns_heap() || self.values.owns_heap() {
            let record = self.store.pages.record_mut(slot);
            let freed = self.keys.free(record, self.store.key_at) + self.values.free(record);
            self.store.heap -= freed;
        }
        self.store.pages.release(slot);
    }

    /// Gives memory back after so many records were removed. Only between triggers.
    pub(super) fn give_back(&mut self, removed: usize) {
        self.store.give_back_lists(LISTED);
        let mut moves = if self.slots_known { 0 } else { removed * MOVES };
        let used = |record: &[u64]| record[0] & OCCUPIED != 0;
        let mut tags = Vec::with_capacity(BLOCK);
        loop {
            let slots = self.store.pages.shrink(moves.min(BLOCK), used);
            if slots.is_empty() {
                return;
            }
            moves -= slots.len();
            self.fetch_entries(&slots, &mut tags);
            for (from, tag) in slots.iter().zip(&tags) {
                self.relocate(*from, *tag);
            }
        }
    }

    /// Moves a record into a free slot.
    fn relocate(&mut self, from: u32, tag: u32) {
        let store = &mut self.store;
        let Some(to) = store.pages.allocate() else {
            return;
        };
        if store.pages.record(from)[0] & IN_PANE != 0 {
            self.panes.relocate(&store.pages, from, to);
        }
        store.index.replace(tag, from, to);
        store.pages.relocate(from, to);
    }

    /// The tags of records; their entries in the index are fetched.
    fn fetch_entries(&self, slots: &[u32], tags: &mut Vec<u32>) {
        let store = &self.store;
        tags.clear();
        tags.extend(slots.iter().map(|slot| {
            let record = store.pages.record(*slot);
            let tag = tag(self.keys.hash_of(record, store.key_at));
            store.index.prefetch(tag);
            tag
        }));
    }
}
