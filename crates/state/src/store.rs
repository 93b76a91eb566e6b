//! The records of a table and how they are found: a batch of keys becomes local ids.
//!
//! ```text
//!  keys ─► recent keys of this trigger ─► done             while the trigger touched few keys
//!                     │ missed
//!                     ▼
//!     hashes ─► index: probable slots ─► records: compare, touch
//! ```
//!
//! Each step runs over a block of rows before the next one begins. So the processor overlaps the waits
//! for memory of many rows, and a branch that it mispredicts throws little work away.

use std::ops::Range;

use highwater_core::{Error, Result};

use crate::hash::tag;
use crate::index::SlotIndex;
use crate::keys::{KeyBatch, KeyVisitor};
use crate::pages::Pages;
use crate::recent::{CHUNK, Recent};
use crate::values::HAS_VALUES;

/// The header bit that says a slot is in use.
pub(crate) const OCCUPIED: u64 = 1 << 32;
/// The header bit that says the record is in a pane.
pub(crate) const IN_PANE: u64 = 1 << 34;
/// From so many records on, keys are looked up with the processor fetching ahead.
const FETCH_AHEAD_FROM: usize = 32 * 1024;
/// Rows of a block: with fetching no more than the processor can wait for at a time.
const BLOCK: usize = 128;
const FETCHED_BLOCK: usize = 8;
/// While a trigger touched at most so many keys, they are looked for among the recent ones first.
const FEW: usize = 4096;

/// The records and how they are found, apart from what is in them.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) index: SlotIndex,
    pub(crate) pages: Pages,
    /// The slot of each local id.
    pub(crate) touched: Vec<u32>,
    /// How many of those that the running call touched had values before.
    pub(crate) existing: usize,
    /// The first word of the key in a record.
    pub(crate) key_at: usize,
    /// Bytes that records hold on the heap.
    pub(crate) heap: isize,
    recent: Recent,
    /// Scratch: the tags of a batch and the slots that they probably lead to.
    tags: Vec<u32>,
    slots: Vec<u32>,
}

/// Finds or makes the record of each key, and writes its local id.
pub(crate) struct Intern<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) ids: &'a mut Vec<usize>,
}

impl KeyVisitor for Intern<'_> {
    fn visit<K: KeyBatch>(self, keys: &K) -> Result<()> {
        self.ids.resize(keys.len(), 0);
        self.store.intern(keys, self.ids)
    }
}

/// Takes the records of keys out of the index.
pub(crate) struct TakeOut<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) found: &'a mut Vec<u32>,
}

impl KeyVisitor for TakeOut<'_> {
    fn visit<K: KeyBatch>(self, keys: &K) -> Result<()> {
        for row in 0..keys.len() {
            let tag = tag(keys.hash(row));
            if let Some(slot) = self.store.find(keys, row, tag) {
                self.store.index.remove(tag, slot);
                self.found.push(slot);
            }
        }
        Ok(())
    }
}

impl Store {
    /// No records in `pages` yet; their keys will begin at word `key_at`.
    pub(crate) fn new(pages: Pages, key_at: usize) -> Self {
        Self {
            index: SlotIndex::new(),
            pages,
            touched: Vec::new(),
            existing: 0,
            key_at,
            heap: 0,
            recent: Recent::default(),
            tags: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Bytes it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let slots = self.touched.capacity() + self.tags.capacity() + self.slots.capacity();
        self.index.memory_bytes()
            + self.pages.memory_bytes()
            + self.recent.memory_bytes()
            + usize::try_from(self.heap).unwrap_or(0)
            + slots * size_of::<u32>()
    }

    /// Takes back all local ids.
    pub(crate) fn forget_touched(&mut self) {
        self.touched.clear();
        self.recent.forget();
    }

    /// After records were removed: no local id counts, and lists keep room for about as many records
    /// as there are, `least` at least.
    pub(crate) fn give_back_lists(&mut self, least: usize) {
        self.forget_touched();
        let room = self.index.len().max(least);
        for list in [&mut self.touched, &mut self.tags, &mut self.slots] {
            list.truncate(room);
            list.shrink_to(room);
        }
    }

    /// Writes the local id of each key.
    fn intern<K: KeyBatch>(&mut self, keys: &K, ids: &mut [usize]) -> Result<()> {
        let rows = keys.len();
        let large = self.index.len() >= FETCH_AHEAD_FROM;
        // The first batch of a trigger finds nothing there, and fetching is worth more.
        let recent = !(large && self.touched.is_empty());
        let from = match recent.then(|| keys.words()).flatten() {
            Some(words) if self.recent.is_ready(rows) => self.intern_recent(keys, words, ids)?,
            _ => 0,
        };
        if large {
            self.intern_blocks::<K, FETCHED_BLOCK, true>(keys, from..rows, ids)
        } else {
            self.intern_blocks::<K, BLOCK, false>(keys, from..rows, ids)
        }
    }

    /// Looks for the keys among the recent ones first, until too many are touched; how many rows it did.
    fn intern_recent<K: KeyBatch>(
        &mut self,
        keys: &K,
        words: &[u64],
        ids: &mut [usize],
    ) -> Result<usize> {
        let (mut missed, mut tags, mut slots) = ([0; CHUNK], [0; CHUNK], [0; CHUNK]);
        let chunks = words.chunks(CHUNK).zip(ids.chunks_mut(CHUNK));
        for (number, (words, ids)) in chunks.enumerate() {
            let from = number * CHUNK;
            if self.touched.len() > FEW {
                return Ok(from);
            }
            let missed = self.recent.look_up(words, ids, &mut missed);
            let (tags, slots) = (&mut tags[..missed.len()], &mut slots[..missed.len()]);
            for (at, into) in missed.iter().zip(&mut *tags) {
                *into = tag(keys.hash(from + at));
            }
            self.index.probable(tags, |at, slot| slots[at] = slot);
            for ((at, tag), slot) in missed.iter().zip(tags).zip(slots) {
                ids[*at] = self.local_id(keys, from + at, *tag, *slot)?;
                self.recent.remember(words[*at], *tag, ids[*at]);
            }
        }
        Ok(words.len())
    }

    /// Looks up the keys of `rows` block by block. With `FETCH` the three steps are a block apart: fetch
    /// the index's bucket, read it and fetch the record it leads to, compare the key.
    fn intern_blocks<K: KeyBatch, const BLOCK: usize, const FETCH: bool>(
        &mut self,
        keys: &K,
        rows: Range<usize>,
        ids: &mut [usize],
    ) -> Result<()> {
        let (mut tags, mut slots) = (
            std::mem::take(&mut self.tags),
            std::mem::take(&mut self.slots),
        );
        tags.resize(keys.len(), 0);
        slots.resize(keys.len(), 0);
        let apart = usize::from(FETCH);
        let start = |n: usize| (rows.start + n * BLOCK).min(rows.end);
        let block = |n: usize| start(n)..start(n + 1);
        for n in 0..rows.len().div_ceil(BLOCK) + 2 * apart {
            for row in block(n) {
                tags[row] = tag(keys.hash(row));
                if FETCH {
                    self.index.prefetch(tags[row]);
                }
            }
            if n >= apart {
                let block = block(n - apart);
                let slots = &mut slots[block.clone()];
                self.index.probable(&tags[block], |at, slot| {
                    slots[at] = slot;
                    if FETCH {
                        self.pages.prefetch(slot);
                    }
                });
            }
            if n >= 2 * apart {
                let block = block(n - 2 * apart);
                let found = tags[block.clone()].iter().zip(&slots[block.clone()]);
                for (at, ((tag, slot), id)) in found.zip(&mut ids[block.clone()]).enumerate() {
                    *id = self.local_id(keys, block.start + at, *tag, *slot)?;
                }
            }
        }
        (self.tags, self.slots) = (tags, slots);
        Ok(())
    }

    /// The local id of a key whose record is probably that of `slot`.
    #[inline(always)]
    fn local_id<K: KeyBatch>(
        &mut self,
        keys: &K,
        row: usize,
        tag: u32,
        slot: u32,
    ) -> Result<usize> {
        let record = self.pages.get(slot);
        let (slot, header) = match record.filter(|record| keys.is_in(row, record, self.key_at)) {
            Some(record) => (slot, record[0]),
            None => self.find_or_insert(keys, row, tag)?,
        };
        if self.has_id(header, slot) {
            return Ok(id_of(header));
        }
        Ok(self.touch(slot))
    }

    /// True when the local id in the header of a slot counts.
    #[inline]
    fn has_id(&self, header: u64, slot: u32) -> bool {
        self.touched.get(id_of(header)) == Some(&slot)
    }

    /// The slot of a key, which gets one if it has none, and the header there.
    #[cold]
    #[inline(never)]
    fn find_or_insert<K: KeyBatch>(
        &mut self,
        keys: &K,
        row: usize,
        tag: u32,
    ) -> Result<(u32, u64)> {
        let slot = match self.find(keys, row, tag) {
            Some(slot) => slot,
            None => self.insert(keys, row, tag)?,
        };
        Ok((slot, self.pages.record(slot)[0]))
    }

    #[inline]
    pub(crate) fn find<K: KeyBatch>(&self, keys: &K, row: usize, tag: u32) -> Option<u32> {
        let same = |slot| keys.is_in(row, self.pages.record(slot), self.key_at);
        self.index.find(tag, same)
    }

    fn insert<K: KeyBatch>(&mut self, keys: &K, row: usize, tag: u32) -> Result<u32> {
        let slot = self.pages.allocate().ok_or_else(|| {
            Error::unavailable("a state table is full: it has more than four billion records")
        })?;
        let record = self.pages.record_mut(slot);
        record[0] = OCCUPIED;
        self.heap += keys.write(row, record, self.key_at);
        self.index.insert(tag, slot);
        Ok(slot)
    }

    /// The local id of a slot that was not touched so far.
    #[inline]
    fn touch(&mut self, slot: u32) -> usize {
        let header = &mut self.pages.record_mut(slot)[0];
        let id = self.touched.len();
        self.touched.push(slot);
        self.existing += usize::from(*header & HAS_VALUES != 0);
        *header = with_id(*header, id);
        id
    }

    /// Renumbers the ids from `from` on so that those of existing records, which are as many as lie
    /// between `from` and `middle`, come first.
    pub(crate) fn existing_first(&mut self, from: usize, middle: usize, ids: &mut [usize]) {
        self.recent.forget();
        let slots = self.touched.split_off(from);
        self.touched.resize(from + slots.len(), 0);
        let (mut existing, mut fresh) = (from, middle);
        let mut renumbered = Vec::with_capacity(slots.len());
        for slot in slots {
            let header = &mut self.pages.record_mut(slot)[0];
            let next = if *header & HAS_VALUES == 0 {
                &mut fresh
            } else {
                &mut existing
            };
            *header = with_id(*header, *next);
            self.touched[*next] = slot;
            renumbered.push(*next);
            *next += 1;
        }
        for id in ids.iter_mut().filter(|id| **id >= from) {
            *id = renumbered[*id - from];
        }
    }
}

/// The local id in a header.
#[inline]
fn id_of(header: u64) -> usize {
    (header as u32 as usize).wrapping_sub(1)
}

/// A header with another local id.
#[inline]
fn with_id(header: u64, id: usize) -> u64 {
    (header & !u64::from(u32::MAX)) | (id as u64 + 1)
}
