//! The index from a key's hash to its slot: many small open-addressing tables, split as they grow.
//!
//! ```text
//!  tag (32 bits of the hash)
//!  ├─ top bits ──► directory ──► sub-table        as many bits as the directory is deep
//!  └─ low bits ─────────────────► home position   then the next ones, until an empty entry
//! ```
//!
//! An entry is `tag << 32 | slot + 1`; zero is empty. A sub-table that is full is split in two by one
//! more bit of the tag (extendible hashing), up to [`MAX_DEPTH`] bits; only then does it double. So growth rehashes one small sub-table and never the whole index.

use crate::pages::prefetch;

/// Entries of the first sub-table.
const FIRST_ENTRIES: usize = 64;
/// A sub-table with so many entries is split rather than doubled.
const SPLIT_ENTRIES: usize = 2048;
/// The depth at which sub-tables are no longer split: there are at most 1024.
const MAX_DEPTH: u32 = 10;

/// An index of slots by 32-bit tags. Several keys may have one tag: the caller compares keys.
#[derive(Debug)]
pub(crate) struct SlotIndex {
    /// The sub-table of each value of the top `depth` bits.
    directory: Vec<u32>,
    sub_tables: Vec<SubTable>,
    depth: u32,
    len: usize,
}

#[derive(Debug)]
struct SubTable {
    /// A power of two of them.
    entries: Vec<u64>,
    len: usize,
    /// The top bits that all its tags share.
    depth: u32,
}

impl SlotIndex {
    pub(crate) fn new() -> Self {
        Self {
            directory: vec![0],
            sub_tables: vec![SubTable::with_entries(FIRST_ENTRIES, 0)],
            depth: 0,
            len: 0,
        }
    }

    /// How many slots it holds.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let entries: usize = self.sub_tables.iter().map(|t| t.entries.capacity()).sum();
        entries * size_of::<u64>()
            + self.directory.capacity() * size_of::<u32>()
            + self.sub_tables.capacity() * size_of::<SubTable>()
    }

    /// The slot under `tag` for which `same` holds.
    #[inline]
    pub(crate) fn find(&self, tag: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = self.sub_table(tag);
        let mut at = table.home(tag);
        loop {
            let entry = table.entries[at];
            if entry == 0 {
                return None;
            }
            if tag_of(entry) == tag && same(slot_of(entry)) {
                return Some(slot_of(entry));
            }
            at = table.after(at);
        }
    }

    /// Fetches the entry where a search for `tag` begins into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, tag: u32) {
        let table = self.sub_table(tag);
        prefetch(&table.entries[table.home(tag)]);
    }

    /// Puts in a slot that is not there yet.
    pub(crate) fn insert(&mut self, tag: u32, slot: u32) {
        while self.sub_table(tag).is_full() {
            self.grow(tag);
        }
        let at = self.directory[self.directory_index(tag)] as usize;
        self.sub_tables[at].insert(entry(tag, slot));
        self.len += 1;
    }

    /// Takes a slot out; true when it was there.
    pub(crate) fn remove(&mut self, tag: u32, slot: u32) -> bool {
        let at = self.directory[self.directory_index(tag)] as usize;
        let removed = self.sub_tables[at].remove(entry(tag, slot));
        self.len -= usize::from(removed);
        removed
    }

    #[inline]
    fn directory_index(&self, tag: u32) -> usize {
        (u64::from(tag) >> (32 - self.depth)) as usize
    }

    #[inline]
    fn sub_table(&self, tag: u32) -> &SubTable {
        &self.sub_tables[self.directory[self.directory_index(tag)] as usize]
    }

    fn grow(&mut self, tag: u32) {
        let at = self.directory[self.directory_index(tag)];
        let table = &mut self.sub_tables[at as usize];
        if table.entries.len() < SPLIT_ENTRIES || table.depth == MAX_DEPTH {
            table.double();
            return;
        }
        if table.depth == self.depth {
            self.directory = self.directory.iter().flat_map(|t| [*t, *t]).collect();
            self.depth += 1;
        }
        let upper = self.sub_tables[at as usize].split();
        let shift = self.depth - upper.depth;
        let new = self.sub_tables.len() as u32;
        self.sub_tables.push(upper);
        // Of the directory entries that share the old sub-table, those with the new bit set move.
        for (index, target) in self.directory.iter_mut().enumerate() {
            if *target == at && (index >> shift) & 1 == 1 {
                *target = new;
            }
        }
    }
}

impl SubTable {
    fn with_entries(entries: usize, depth: u32) -> Self {
        Self {
            entries: vec![0; entries],
            len: 0,
            depth,
        }
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.entries.len() - 1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.entries.len() - 1)
    }

    /// At seven tenths.
    fn is_full(&self) -> bool {
        self.len * 10 >= self.entries.len() * 7
    }

    fn insert(&mut self, entry: u64) {
        let mut at = self.home(tag_of(entry));
        while self.entries[at] != 0 {
            at = self.after(at);
        }
        self.entries[at] = entry;
        self.len += 1;
    }

    /// Takes an entry out and closes the gap, so that no search stops short.
    fn remove(&mut self, entry: u64) -> bool {
        let mut gap = self.home(tag_of(entry));
        while self.entries[gap] != entry {
            if self.entries[gap] == 0 {
                return false;
            }
            gap = self.after(gap);
        }
        let mut at = self.after(gap);
        while self.entries[at] != 0 {
            let mask = self.entries.len() - 1;
            let home = self.home(tag_of(self.entries[at]));
            // An entry may move back to the gap when its home is not between the gap and itself.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.entries[gap] = self.entries[at];
                gap = at;
            }
            at = self.after(at);
        }
        self.entries[gap] = 0;
        self.len -= 1;
        true
    }

    fn double(&mut self) {
        let mut grown = Self::with_entries(self.entries.len() * 2, self.depth);
        self.entries
            .iter()
            .filter(|entry| **entry != 0)
            .for_each(|entry| grown.insert(*entry));
        *self = grown;
    }

    /// Moves the tags whose next bit is set into a new sub-table.
    fn split(&mut self) -> Self {
        let depth = self.depth + 1;
        let mut lower = Self::with_entries(self.entries.len(), depth);
        let mut upper = Self::with_entries(self.entries.len(), depth);
        for entry in self.entries.iter().filter(|entry| **entry != 0) {
            let bit = (tag_of(*entry) >> (32 - depth)) & 1;
            if bit == 1 { &mut upper } else { &mut lower }.insert(*entry);
        }
        *self = lower;
        upper
    }
}

#[inline]
fn entry(tag: u32, slot: u32) -> u64 {
    u64::from(tag) << 32 | (u64::from(slot) + 1)
}

#[inline]
fn tag_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

#[inline]
fn slot_of(entry: u64) -> u32 {
    (entry as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{hash_word, tag};

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let mut index = SlotIndex::new();
        let tags: Vec<u32> = (0..200_000_u64).map(|n| tag(hash_word(n, 0))).collect();
        for (slot, tag) in tags.iter().enumerate() {
            index.insert(*tag, slot as u32);
        }
        assert!(index.sub_tables.len() >= 64);
        for (slot, tag) in tags.iter().enumerate().step_by(3) {
            assert!(index.remove(*tag, slot as u32));
            assert!(!index.remove(*tag, slot as u32));
        }
        for (slot, tag) in tags.iter().enumerate() {
            let found = index.find(*tag, |found| found == slot as u32);
            assert_eq!(found.is_some(), slot % 3 != 0, "{slot}");
        }
    }

    #[test]
    fn tags_that_are_all_alike_still_fit() {
        let mut index = SlotIndex::new();
        (0..5_000).for_each(|slot| index.insert(7, slot));
        assert_eq!(index.find(7, |slot| slot == 4_999), Some(4_999));
        assert!(index.sub_tables.len() <= 1 << MAX_DEPTH);
    }
}
