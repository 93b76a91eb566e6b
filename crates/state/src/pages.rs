//! Records in pages: fixed-width rows of 64-bit words that never move once there is more than one page.
//!
//! The first page starts small and doubles in place of others, so that an empty table is cheap; after
//! that whole pages are added and nothing is copied. Slots that are freed are used again first.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

/// The bytes a whole page is aimed at.
const PAGE_BYTES: usize = 256 * 1024;
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
    /// The first slot that was never used.
    next: u32,
    free: Vec<u32>,
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
            next: 0,
            free: Vec::new(),
        }
    }

    /// The slots ever used: every occupied slot is below.
    pub(crate) fn end(&self) -> u32 {
        self.next
    }

    /// Bytes the pages take.
    pub(crate) fn memory_bytes(&self) -> usize {
        let words: usize = self.pages.iter().map(|page| page.words).sum();
        words * size_of::<u64>()
            + self.free.capacity() * size_of::<u32>()
            + self.pages.capacity() * size_of::<Page>()
    }

    /// A slot whose record is all zero; `None` when there are 2³² − 2 already.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = self.next;
        if slot >= u32::MAX - 1 {
            return None;
        }
        let (page, offset) = self.locate(slot);
        if page == self.pages.len() {
            let whole = self.stride << self.shift;
            let first = (FIRST_PAGE_BYTES / size_of::<u64>()).max(self.stride);
            let words = if page == 0 { first.min(whole) } else { whole };
            self.pages.push(Page::zeroed(words));
        } else if offset + self.stride > self.pages[page].words {
            let whole = self.stride << self.shift;
            let mut grown = Page::zeroed((self.pages[page].words * 2).min(whole));
            let old = &self.pages[page];
            grown.as_mut_slice()[..old.words].copy_from_slice(old.as_slice());
            self.pages[page] = grown;
        }
        self.next += 1;
        Some(slot)
    }

    /// Gives a slot back; its record becomes all zero.
    pub(crate) fn release(&mut self, slot: u32) {
        self.record_mut(slot).fill(0);
        self.free.push(slot);
    }

    /// The record of a slot that was allocated.
    #[inline]
    pub(crate) fn record(&self, slot: u32) -> &[u64] {
        assert!(slot < self.next, "a record that was never allocated");
        // SAFETY: the slot was allocated.
        unsafe { std::slice::from_raw_parts(self.at(slot), self.stride) }
    }

    /// The record of a slot that was allocated, to be changed.
    #[inline]
    pub(crate) fn record_mut(&mut self, slot: u32) -> &mut [u64] {
        assert!(slot < self.next, "a record that was never allocated");
        // SAFETY: the slot was allocated, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at(slot), self.stride) }
    }

    /// The record of a slot; `None` when it was never allocated.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&[u64]> {
        (slot < self.next).then(|| self.record(slot))
    }

    /// Where the record of a slot below `next` begins.
    #[inline]
    unsafe fn at(&self, slot: u32) -> *mut u64 {
        let (page, offset) = self.locate(slot);
        // SAFETY: `allocate` made the page, and made it long enough, before it counted the slot.
        unsafe { self.pages.get_unchecked(page).words_at.as_ptr().add(offset) }
    }

    /// Fetches a record into the cache: its first line and, where it has one, its second. Nothing
    /// happens for a slot that was never allocated.
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

    #[inline]
    fn locate(&self, slot: u32) -> (usize, usize) {
        let page = (slot >> self.shift) as usize;
        let offset = (slot & self.mask) as usize * self.stride;
        (page, offset)
    }
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
}

impl Page {
    /// A page of `words` zero words; there is at least one.
    fn zeroed(words: usize) -> Self {
        let layout = Self::layout(words.max(1));
        // SAFETY: the layout is not empty.
        let at = unsafe { alloc_zeroed(layout) };
        match NonNull::new(at.cast::<u64>()) {
            Some(words_at) => Self {
                words_at,
                words: words.max(1),
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
        // SAFETY: the allocation has `words` initialized words, and is borrowed as long as `self`.
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
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.words_at.as_ptr().cast(), Self::layout(self.words)) }
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
