//! Records in pages: fixed-width rows of 64-bit words that stay where they are while pages are added.
//!
//! The first page starts small and doubles in place of others, so that an empty table is cheap; after
//! that whole pages are added and nothing is copied. Slots that are freed are used again first, and a page
//! without records can be given back: its memory is an allocation of its own, and so large that allocators
//! return it to the system.
//!
//! Where records are in panes, a page has a word for each of them behind the records.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

use crate::fill::{Fill, Place};

/// The bytes a whole page is aimed at.
const PAGE_BYTES: usize = 1024 * 1024;
/// The bytes the first page starts with.
const FIRST_PAGE_BYTES: usize = 4 * 1024;
/// A cache line, to which pages are aligned.
const LINE: usize = 64;

/// All records of a table, by slot.
#[derive(Debug)]
pub(crate) struct Pages {
    pages: Vec<Page>,
    /// Words of a record.
    stride: usize,
    /// A page has `1 << shift` records; the mask takes a slot's place within its page.
    shift: u32,
    mask: u32,
    fill: Fill,
    /// Words in all pages.
    words: usize,
    /// Words beside each record: one where records are in panes.
    beside: usize,
    /// The page that takes no record, as it is to be given back, and its first slot that may be in use.
    leaving: Option<(u32, u32)>,
}

impl Pages {
    /// Pages for records of `stride` words.
    pub(crate) fn new(stride: usize) -> Self {
        let stride = padded(stride);
        let records = PAGE_BYTES / (stride * size_of::<u64>());
        let shift = records.max(16).ilog2();
        Self {
            pages: Vec::new(),
            stride,
            shift,
            mask: (1 << shift) - 1,
            fill: Fill::new(1 << shift),
            words: 0,
            beside: 0,
            leaving: None,
        }
    }

    /// The pages ever used are below.
    pub(crate) fn end(&self) -> u32 {
        self.fill.end()
    }

    /// The slots of a page that were ever used; none of a page that was given back.
    pub(crate) fn slots_of(&self, page: u32) -> Range<u32> {
        let used = self.fill.used(page);
        (page << self.shift) + used.start..(page << self.shift) + used.end
    }

    /// The slots from `from` on that were ever used: every occupied slot is among them.
    pub(crate) fn slots_from(&self, from: u32) -> impl Iterator<Item = u32> + '_ {
        let pages = from >> self.shift..self.fill.end();
        pages.flat_map(move |page| {
            let slots = self.slots_of(page);
            slots.start.max(from)..slots.end
        })
    }

    /// Bytes the pages take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.words * size_of::<u64>()
            + self.fill.memory_bytes()
            + self.pages.capacity() * size_of::<Page>()
    }

    /// A slot whose record is all zero; `None` when there are nearly 2³² already.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let page = match self.fill.with_room() {
            Some(page) => page,
            None => self.make_room()?,
        };
        let first = page << self.shift;
        match self.fill.take(page) {
            Place::Freed(place) => {
                let before = std::mem::take(&mut self.record_mut(first + place)[0]);
                self.fill.set_freed(page, before as u32);
                Some(first + place)
            }
            Place::New(place) => {
                let records = self.pages[page as usize].records;
                if place as usize >= records {
                    self.remake(page as usize, records * 2);
                }
                Some(first + place)
            }
        }
    }

    #[cold]
    fn make_room(&mut self) -> Option<u32> {
        self.stay();
        if let Some(page) = self.fill.with_room() {
            return Some(page);
        }
        if self.fill.pages() >= (u32::MAX >> self.shift) as usize {
            return None;
        }
        let first = FIRST_PAGE_BYTES / (self.stride * size_of::<u64>());
        let alone = self.fill.pages() == 0;
        let page = self.fill.add();
        if page as usize == self.pages.len() {
            self.pages.push(Page::NONE);
        }
        let records = if alone { first.max(1) } else { usize::MAX };
        self.remake(page as usize, records);
        Some(page)
    }

    /// Gives a page room for so many records, as far as a page goes.
    fn remake(&mut self, page: usize, records: usize) {
        let records = records.min(1 << self.shift);
        let mut new = Page::zeroed(records, records * (self.stride + self.beside));
        let old = &self.pages[page];
        let (stored, beside) = old.as_slice().split_at(old.records * self.stride);
        new.as_mut_slice()[..stored.len()].copy_from_slice(stored);
        new.as_mut_slice()[records * self.stride..][..beside.len()].copy_from_slice(beside);
        self.words = self.words + new.words - old.words;
        self.pages[page] = new;
    }

    /// From now on there is a word beside each record.
    pub(crate) fn put_words_beside(&mut self) {
        if self.beside == 0 {
            self.beside = 1;
            let pages = 0..self.pages.len();
            pages.for_each(|page| self.remake(page, self.pages[page].records));
        }
    }

    /// The word beside the record of a slot.
    #[inline]
    pub(crate) fn beside(&self, slot: u32) -> u64 {
        let (page, offset) = self.locate_beside(slot);
        self.pages[page].as_slice()[offset]
    }

    #[inline]
    pub(crate) fn set_beside(&mut self, slot: u32, word: u64) {
        let (page, offset) = self.locate_beside(slot);
        self.pages[page].as_mut_slice()[offset] = word;
    }

    #[inline]
    fn locate_beside(&self, slot: u32) -> (usize, usize) {
        let (page, place) = self.locate(slot);
        (page, self.pages[page].records * self.stride + place)
    }

    /// Gives a slot back; its record becomes all zero but for the low half of its first word.
    pub(crate) fn release(&mut self, slot: u32) {
        let before = self.fill.free(slot >> self.shift, slot & self.mask);
        let record = self.record_mut(slot);
        record.fill(0);
        record[0] = u64::from(before);
    }

    /// Gives pages back that are empty, as long as there are too many. Then the slots, as many as `most`, whose
    /// records are to move so that another page becomes empty: those for which `used` holds.
    pub(crate) fn shrink(&mut self, most: usize, used: impl Fn(&[u64]) -> bool) -> Vec<u32> {
        let mut slots = Vec::new();
        while slots.is_empty() && self.has_too_many() {
            let Some((page, from)) = self.leaving.or_else(|| self.leave(most > 0)) else {
                break;
            };
            if self.fill.live_in(page) == 0 {
                self.leaving = None;
                self.fill.give_back(page);
                self.words -= self.pages[page as usize].words;
                self.pages[page as usize] = Page::NONE;
                continue;
            }
            let rest = from..self.slots_of(page).end;
            slots.extend(rest.filter(|slot| used(self.record(*slot))).take(most));
            let Some(last) = slots.last().copied() else {
                break;
            };
            self.leaving = Some((page, last + 1));
        }
        slots
    }

    /// True when the pages have more slots than the records need and a quarter of that and a page to spare.
    fn has_too_many(&self) -> bool {
        let live = self.fill.live();
        self.fill.pages().saturating_sub(1) << self.shift > live + live / 4
    }

    /// Chooses the page to be given back; one with records only where they may move.
    fn leave(&mut self, may_move: bool) -> Option<(u32, u32)> {
        let page = self.fill.emptiest(may_move)?;
        self.fill.close(page);
        self.leaving = Some((page, page << self.shift));
        self.leaving
    }

    /// No page is to be given back just now.
    pub(crate) fn stay(&mut self) {
        if let Some((page, _)) = self.leaving.take() {
            self.fill.reopen(page);
        }
    }

    /// Moves a record to a slot that was just allocated, and gives its own back.
    pub(crate) fn relocate(&mut self, from: u32, to: u32) {
        let (from_page, from_place) = self.locate(from);
        let (to_page, to_place) = self.locate(to);
        let (at, to_at) = (from_place * self.stride, to_place * self.stride);
        let record = at..at + self.stride;
        match self.pages.get_disjoint_mut([from_page, to_page]) {
            Ok([old, new]) => {
                let into = &mut new.as_mut_slice()[to_at..to_at + self.stride];
                into.copy_from_slice(&old.as_slice()[record]);
            }
            Err(_) => self.pages[from_page]
                .as_mut_slice()
                .copy_within(record, to_at),
        }
        if self.beside > 0 {
            self.set_beside(to, self.beside(from));
        }
        self.release(from);
    }

    /// The record of a slot that was allocated.
    #[inline]
    pub(crate) fn record(&self, slot: u32) -> &[u64] {
        self.get(slot).unwrap_or_else(|| no_record(slot))
    }

    /// The record of a slot that was allocated, to be changed.
    #[inline]
    pub(crate) fn record_mut(&mut self, slot: u32) -> &mut [u64] {
        let record = self.at(slot).unwrap_or_else(|| no_record(slot));
        // SAFETY: `stride` initialized words are there, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(record, self.stride) }
    }

    /// The record of a slot; `None` where there is no page, or none any more.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&[u64]> {
        let record = self.at(slot)?;
        // SAFETY: `stride` initialized words are there, and they are borrowed as long as `self`.
        Some(unsafe { std::slice::from_raw_parts(record, self.stride) })
    }

    /// Where the `stride` words of a slot's record begin, if its page has room for it.
    #[inline]
    fn at(&self, slot: u32) -> Option<*mut u64> {
        let (page, place) = self.locate(slot);
        let page = self.pages.get(page)?;
        // SAFETY: a page begins with `stride` words for each record that it has room for; one that was
        // given back has room for none.
        (place < page.records).then(|| unsafe { page.words_at.as_ptr().add(place * self.stride) })
    }

    /// Fetches a record into the cache: its first line and, where it has one, its second. Nothing
    /// happens for a slot without a page.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32) {
        let Some(record) = self.get(slot) else {
            return;
        };
        prefetch(&record[0]);
        if !self.stride.is_power_of_two() || self.stride > LINE / size_of::<u64>() {
            prefetch(&record[self.stride - 1]);
        }
    }

    /// The page of a slot, and its place there.
    #[inline]
    fn locate(&self, slot: u32) -> (usize, usize) {
        let page = (slot >> self.shift) as usize;
        (page, (slot & self.mask) as usize)
    }
}

#[cold]
#[inline(never)]
fn no_record(slot: u32) -> ! {
    panic!("slot {slot} was never allocated, or its page was given back")
}

/// A record that is nearly a power of two of words becomes one, so that it stays within a cache line.
fn padded(stride: usize) -> usize {
    match stride {
        0 => 1,
        3 => 4,
        7 => 8,
        _ => stride,
    }
}

/// Words on the heap, zeroed, aligned to a cache line.
struct Page {
    words_at: NonNull<u64>,
    words: usize,
    /// How many records there is room for.
    records: usize,
}

impl Page {
    /// No page: it has no words.
    const NONE: Self = Self {
        words_at: NonNull::dangling(),
        words: 0,
        records: 0,
    };

    /// A page of `words` zero words for so many records; there is at least one.
    fn zeroed(records: usize, words: usize) -> Self {
        let layout = Self::layout(words.max(1));
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        match NonNull::new(at.cast::<u64>()) {
            Some(words_at) => Self {
                words_at,
                words: words.max(1),
                records,
            },
            None => handle_alloc_error(layout),
        }
    }

    fn layout(words: usize) -> Layout {
        let lines = Layout::array::<[u64; LINE / size_of::<u64>()]>(words.div_ceil(8));
        lines
            .and_then(|layout| layout.align_to(LINE))
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<u64>()))
    }

    #[inline]
    fn as_slice(&self) -> &[u64] {
        // SAFETY: the allocation, if any, has `words` initialized words, and is borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts(self.words_at.as_ptr(), self.words) }
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [u64] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.words_at.as_ptr(), self.words) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if self.words > 0 {
            // SAFETY: a page with words was allocated in `zeroed` with this layout.
            unsafe { dealloc(self.words_at.as_ptr().cast(), Self::layout(self.words)) }
        }
    }
}

// SAFETY: a page owns its words as a `Box<[u64]>` does.
unsafe impl Send for Page {}
// SAFETY: as above; they are changed only through `&mut`.
unsafe impl Sync for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("words", &self.words)
            .finish_non_exhaustive()
    }
}

/// Asks the processor to fetch what `at` points to; does nothing where that is not known how.
#[inline]
pub(crate) fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_given_back_has_no_records() {
        let mut pages = Pages::new(8);
        assert!(pages.get(0).is_none());
        let records = 3 << pages.shift;
        let slots: Vec<u32> = (0..records)
            .map(|_| pages.allocate().expect("a slot"))
            .collect();
        for slot in &slots {
            pages.record_mut(*slot).fill(u64::from(*slot) + 1);
        }
        let (middle, rest) = (1 << pages.shift, 2 << pages.shift);
        (middle..rest).for_each(|slot| pages.release(slot));
        (rest + 9..rest + middle).for_each(|slot| pages.release(slot));
        assert!(pages.shrink(0, |_| true).is_empty());
        for slot in slots {
            match pages.get(slot) {
                None => assert!((middle..rest).contains(&slot)),
                Some(record) if slot < rest + 9 => assert_eq!(record, [u64::from(slot) + 1; 8]),
                Some(record) => assert_eq!(record[1..], [0; 7]),
            }
        }
        for slot in [middle, rest - 1, 3 << pages.shift, u32::MAX] {
            assert!(pages.get(slot).is_none());
            pages.prefetch(slot);
        }
    }
}
