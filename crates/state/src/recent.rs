//! The keys of one word that were just touched, with their local ids: a cache in front of the index.
//!
//! A trigger that sees few keys often finds nearly all of them here, in one load and one comparison,
//! without a look at the index or at the records. What is not here is no error: the caller asks the table.

use crate::hash::{hash_word, tag};

/// Keys that are looked up together.
pub(crate) const CHUNK: usize = 128;
/// Entries; 64 KiB of them.
const ENTRIES: usize = 4096;
/// Rows of a batch for which the cache is made.
const WORTH_IT: usize = 1024;
/// Bits of a tag that tell an entry: the top ones.
const PLACE_SHIFT: u32 = u32::BITS - ENTRIES.ilog2();

/// A direct-mapped cache of local ids by key.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Empty until a batch is worth it.
    entries: Vec<Entry>,
    /// Entries of other generations, which end when ids change, do not count.
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    id: u32,
    generation: u32,
}

impl Recent {
    /// Bytes it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// True when it can be used; it is made when a batch has `rows` enough to be worth it.
    pub(crate) fn is_ready(&mut self, rows: usize) -> bool {
        if self.entries.is_empty() && rows >= WORTH_IT {
            self.entries = vec![Entry::default(); ENTRIES];
            self.generation = 1;
        }
        !self.entries.is_empty()
    }

    /// Forgets all keys: their ids are no longer theirs.
    pub(crate) fn forget(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.entries = Vec::new();
        }
    }

    /// Writes the id of each key that is here; gives back the places of the others. Without a branch,
    /// so that what is missed costs no more than that. There are at most [`CHUNK`] keys.
    #[inline]
    pub(crate) fn look_up<'a>(
        &self,
        keys: &[u64],
        ids: &mut [usize],
        missed: &'a mut [usize; CHUNK],
    ) -> &'a [usize] {
        let mut count = 0;
        for (at, (key, id)) in keys.iter().zip(ids).enumerate() {
            missed[count] = at;
            let Some(entry) = self.entries.get(place(tag(hash_word(*key, 0)))) else {
                count += 1;
                continue;
            };
            *id = entry.id as usize;
            count += usize::from((entry.key != *key) | (entry.generation != self.generation));
        }
        &missed[..count]
    }

    /// Remembers a key's id in place of another key's.
    #[inline]
    pub(crate) fn remember(&mut self, key: u64, tag: u32, id: usize) {
        if let Some(entry) = self.entries.get_mut(place(tag)) {
            *entry = Entry {
                key,
                id: id as u32,
                generation: self.generation,
            };
        }
    }
}

#[inline]
fn place(tag: u32) -> usize {
    (tag >> PLACE_SHIFT) as usize
}
