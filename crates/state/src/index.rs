//! The index from a key's hash to its slot: many small hash tables of buckets, split as they grow.
//!
//! ```text
//!  tag (32 bits of the hash)
//!  ├─ top bits ──► directory ──► sub-table      as many bits as the directory is deep
//!  └─ low bits ─────────────────► home bucket   then the next ones, while they are full
//! ```
//!
//! A bucket is a cache line of eight tags and their slots; all eight are compared at once, so that a
//! search nearly always ends in its first bucket and never waits for a mispredicted branch. A sub-table
//! that is full is split in two by one more bit of the tag (extendible hashing), up to [`MAX_DEPTH`]
//! bits; only then does it double. One that has become sparse is halved. So growth rehashes one small
//! sub-table and never the whole index.

use crate::pages::prefetch;

/// Entries of a bucket.
const LANES: usize = 8;
/// Buckets of the first sub-table.
const FIRST_BUCKETS: usize = 8;
/// A sub-table with so many buckets is split rather than doubled.
const SPLIT_BUCKETS: usize = 256;
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
    /// A power of two of them. A bucket that an entry was not put into for want of room is full.
    buckets: Vec<Bucket>,
    len: usize,
    /// The top bits that all its tags share.
    depth: u32,
}

/// A cache line of entries: those in use come first.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; LANES],
    /// Each is the slot plus one; zero is empty.
    slots: [u32; LANES],
}

impl SlotIndex {
    pub(crate) fn new() -> Self {
        Self {
            directory: vec![0],
            sub_tables: vec![SubTable::with_buckets(FIRST_BUCKETS, 0)],
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
        let buckets: usize = self.sub_tables.iter().map(|t| t.buckets.capacity()).sum();
        buckets * size_of::<Bucket>()
            + self.directory.capacity() * size_of::<u32>()
            + self.sub_tables.capacity() * size_of::<SubTable>()
    }

    /// The slot under `tag` for which `same` holds.
    #[inline]
    pub(crate) fn find(&self, tag: u32, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = self.sub_table(tag);
        let mut at = table.home(tag);
        loop {
            let bucket = &table.buckets[at];
            if let Some(slot) = bucket.slots_of(tag).find(|slot| same(*slot)) {
                return Some(slot);
            }
            if !bucket.is_full() {
                return None;
            }
            at = table.after(at);
        }
    }

    /// Calls `each` with the place of each tag and the slot that is probably the one sought, found
    /// without a branch; where there is none it is some other, or one that was never allocated.
    #[inline]
    pub(crate) fn probable(&self, tags: &[u32], mut each: impl FnMut(usize, u32)) {
        let tags = tags.iter().enumerate();
        match &self.sub_tables[..] {
            [only] => {
                let buckets = &only.buckets[..];
                let last = buckets.len() - 1;
                tags.for_each(|(at, tag)| each(at, buckets[*tag as usize & last].probable(*tag)));
            }
            _ => tags.for_each(|(at, tag)| each(at, self.sub_table(*tag).probable(*tag))),
        }
    }

    /// Fetches the bucket where a search for `tag` begins into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, tag: u32) {
        let table = self.sub_table(tag);
        prefetch(&table.buckets[table.home(tag)]);
    }

    /// The slots whose tags begin with the `bits` lowest bits of `number`.
    pub(crate) fn part(&self, number: u32, bits: u32) -> impl Iterator<Item = u32> + '_ {
        let (first, count) = if self.depth < bits {
            (number >> (bits - self.depth), 1)
        } else {
            (number << (self.depth - bits), 1 << (self.depth - bits))
        };
        // A sub-table that is less deep than the directory stands in it several times, side by side.
        let mut tables = self.directory[first as usize..][..count].to_vec();
        tables.dedup();
        let tables = tables.into_iter();
        let entries = tables.flat_map(|table| self.sub_tables[table as usize].entries());
        let is_in = move |tag: u32| u64::from(tag) >> (32 - bits) == u64::from(number);
        entries.filter_map(move |(tag, slot)| is_in(tag).then_some(slot))
    }

    /// Puts in a slot that is not there yet.
    pub(crate) fn insert(&mut self, tag: u32, slot: u32) {
        while self.sub_table(tag).is_full() {
            self.grow(tag);
        }
        let at = self.directory[self.directory_index(tag)] as usize;
        self.sub_tables[at].insert(tag, slot);
        self.len += 1;
    }

    /// Takes a slot out; true when it was there.
    pub(crate) fn remove(&mut self, tag: u32, slot: u32) -> bool {
        let at = self.directory[self.directory_index(tag)] as usize;
        let removed = self.sub_tables[at].remove(tag, slot);
        self.len -= usize::from(removed);
        if self.sub_tables[at].is_sparse() && self.depth > 0 {
            self.shrink(at);
        }
        removed
    }

    /// Halves one sub-table of several; when there is nothing left at all, the index begins anew with one.
    #[cold]
    fn shrink(&mut self, at: usize) {
        let half = self.sub_tables[at].buckets.len() / 2;
        if self.len == 0 {
            *self = Self::new();
        } else if half >= FIRST_BUCKETS {
            self.sub_tables[at].resize(half);
        }
    }

    /// Puts the slot `to` in the place of `from`.
    pub(crate) fn replace(&mut self, tag: u32, from: u32, to: u32) {
        let removed = self.remove(tag, from);
        debug_assert!(removed, "a slot that was in the index");
        self.insert(tag, to);
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
        if table.buckets.len() < SPLIT_BUCKETS || table.depth == MAX_DEPTH {
            table.resize(table.buckets.len() * 2);
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
    fn with_buckets(buckets: usize, depth: u32) -> Self {
        Self {
            buckets: vec![Bucket::EMPTY; buckets],
            len: 0,
            depth,
        }
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    #[inline]
    fn probable(&self, tag: u32) -> u32 {
        self.buckets[self.home(tag)].probable(tag)
    }

    /// How many buckets `at` lies after `from`.
    fn distance(&self, from: usize, at: usize) -> usize {
        at.wrapping_sub(from) & (self.buckets.len() - 1)
    }

    /// At seven tenths.
    fn is_full(&self) -> bool {
        self.len * 10 >= self.buckets.len() * LANES * 7
    }

    /// Below a quarter: halved, it is still well below the limit.
    fn is_sparse(&self) -> bool {
        self.len * 4 < self.buckets.len() * LANES
    }

    fn insert(&mut self, tag: u32, slot: u32) {
        let mut at = self.home(tag);
        while self.buckets[at].is_full() {
            at = self.after(at);
        }
        self.buckets[at].push(tag, slot);
        self.len += 1;
    }

    /// Takes an entry out and closes the gap, so that no search stops short.
    fn remove(&mut self, tag: u32, slot: u32) -> bool {
        let mut gap = self.home(tag);
        let lane = loop {
            let bucket = &self.buckets[gap];
            match bucket.lane_of(tag, slot) {
                Some(lane) => break lane,
                None if !bucket.is_full() => return false,
                None => gap = self.after(gap),
            }
        };
        self.len -= 1;
        let mut open = self.buckets[gap].take(lane);
        let mut at = gap;
        while open {
            at = self.after(at);
            open = self.buckets[at].is_full();
            if let Some(lane) = self.movable(gap, at) {
                let bucket = &mut self.buckets[at];
                let (tag, slot) = (bucket.tags[lane], bucket.slots[lane] - 1);
                bucket.take(lane);
                self.buckets[gap].push(tag, slot);
                gap = at;
            }
        }
        true
    }

    /// An entry of bucket `at` that may move back to `gap`: its home is not after that.
    fn movable(&self, gap: usize, at: usize) -> Option<usize> {
        let bucket = &self.buckets[at];
        let back = self.distance(gap, at);
        (0..bucket.len()).find(|lane| self.distance(self.home(bucket.tags[*lane]), at) >= back)
    }

    fn resize(&mut self, buckets: usize) {
        let mut resized = Self::with_buckets(buckets, self.depth);
        self.entries()
            .for_each(|(tag, slot)| resized.insert(tag, slot));
        *self = resized;
    }

    /// Moves the tags whose next bit is set into a new sub-table.
    fn split(&mut self) -> Self {
        let depth = self.depth + 1;
        let mut lower = Self::with_buckets(self.buckets.len(), depth);
        let mut upper = Self::with_buckets(self.buckets.len(), depth);
        for (tag, slot) in self.entries() {
            let bit = (tag >> (32 - depth)) & 1;
            if bit == 1 { &mut upper } else { &mut lower }.insert(tag, slot);
        }
        *self = lower;
        upper
    }

    /// All tags and slots.
    fn entries(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.buckets.iter().flat_map(|bucket| {
            let slots = bucket.slots[..bucket.len()].iter().map(|slot| slot - 1);
            bucket.tags.into_iter().zip(slots)
        })
    }
}

impl Bucket {
    const EMPTY: Self = Self {
        tags: [0; LANES],
        slots: [0; LANES],
    };

    #[inline]
    fn is_full(&self) -> bool {
        self.slots[LANES - 1] != 0
    }

    fn len(&self) -> usize {
        self.slots.iter().take_while(|slot| **slot != 0).count()
    }

    /// A bit for each lane whose tag is `tag`, those of empty lanes included.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    fn matches(&self, tag: u32) -> u32 {
        use std::arch::x86_64::*;
        let tags = self.tags.as_ptr().cast::<__m128i>();
        // SAFETY: SSE2 is part of x86-64; the eight tags are two aligned vectors, as a bucket is
        // aligned to a cache line.
        let (low, high) = unsafe {
            let tag = _mm_set1_epi32(tag.cast_signed());
            let low = _mm_cmpeq_epi32(_mm_load_si128(tags), tag);
            let high = _mm_cmpeq_epi32(_mm_load_si128(tags.add(1)), tag);
            (
                _mm_movemask_ps(_mm_castsi128_ps(low)),
                _mm_movemask_ps(_mm_castsi128_ps(high)),
            )
        };
        (low | high << 4).cast_unsigned()
    }

    /// A bit for each lane whose tag is `tag`, those of empty lanes included.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    fn matches(&self, tag: u32) -> u32 {
        let lanes = self.tags.iter().enumerate();
        lanes.fold(0, |mask, (lane, t)| mask | u32::from(*t == tag) << lane)
    }

    /// The slots under `tag`.
    #[inline]
    fn slots_of(&self, tag: u32) -> impl Iterator<Item = u32> + '_ {
        let mut mask = self.matches(tag);
        std::iter::from_fn(move || {
            let slot = self.slots.get(mask.trailing_zeros() as usize)?;
            mask &= mask - 1;
            slot.checked_sub(1)
        })
    }

    /// The first slot under `tag`; when there is none, some other, or the number above all slots.
    #[inline]
    fn probable(&self, tag: u32) -> u32 {
        let lane = (self.matches(tag) | 1 << (LANES - 1)).trailing_zeros();
        self.slots[lane as usize % LANES].wrapping_sub(1)
    }

    fn lane_of(&self, tag: u32, slot: u32) -> Option<usize> {
        (0..LANES).find(|lane| self.tags[*lane] == tag && self.slots[*lane] == slot + 1)
    }

    /// Puts an entry into a bucket that is not full.
    fn push(&mut self, tag: u32, slot: u32) {
        let lane = self.len();
        self.tags[lane] = tag;
        self.slots[lane] = slot + 1;
    }

    /// Takes an entry out, the last one taking its place; true when the bucket was full.
    fn take(&mut self, lane: usize) -> bool {
        let was_full = self.is_full();
        let last = self.len() - 1;
        self.tags[lane] = self.tags[last];
        self.slots[lane] = self.slots[last];
        self.tags[last] = 0;
        self.slots[last] = 0;
        was_full
    }
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
    fn what_is_taken_out_makes_it_smaller() {
        let mut index = SlotIndex::new();
        let empty = index.memory_bytes();
        let tags: Vec<u32> = (0..400_000_u64).map(|n| tag(hash_word(n, 0))).collect();
        for (slot, tag) in tags.iter().enumerate() {
            index.insert(*tag, slot as u32);
        }
        let full = index.memory_bytes();
        for (slot, tag) in tags.iter().enumerate().skip(40_000) {
            assert!(index.remove(*tag, slot as u32));
        }
        assert!(index.memory_bytes() < full / 4);
        for (slot, tag) in tags.iter().enumerate() {
            let found = index.find(*tag, |found| found == slot as u32);
            assert_eq!(found.is_some(), slot < 40_000, "{slot}");
        }
        for (slot, tag) in tags.iter().enumerate().take(40_000) {
            index.replace(*tag, slot as u32, slot as u32 + 1_000_000);
        }
        for (slot, tag) in tags.iter().enumerate().take(40_000) {
            assert!(index.remove(*tag, slot as u32 + 1_000_000));
        }
        assert_eq!((index.len(), index.memory_bytes()), (0, empty));
    }

    #[test]
    fn tags_that_are_all_alike_still_fit() {
        let mut index = SlotIndex::new();
        (0..5_000).for_each(|slot| index.insert(7, slot));
        assert_eq!(index.find(7, |slot| slot == 4_999), Some(4_999));
        assert!(index.sub_tables.len() <= 1 << MAX_DEPTH);
    }

    #[test]
    fn entries_move_back_when_a_full_bucket_before_them_loses_one() {
        let mut index = SlotIndex::new();
        // Two homes beside each other, the first of them overflowing, around the end of the table.
        let tags: Vec<u32> = (0..36).map(|n| if n % 3 == 0 { 0 } else { 7 }).collect();
        for (slot, tag) in tags.iter().enumerate() {
            index.insert(*tag, slot as u32);
        }
        for gone in (0..36).map(|n| n * 5 % 36) {
            assert!(index.remove(tags[gone as usize], gone));
            assert!(!index.remove(tags[gone as usize], gone));
            let found = |slot: u32| index.find(tags[slot as usize], |found| found == slot);
            let left = (0..36).filter(|slot| found(*slot).is_some()).count();
            assert_eq!(left, index.len());
        }
        assert_eq!(index.len(), 0);
    }
}
