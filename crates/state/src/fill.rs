//! How full pages are: which of them takes the next record, and which is emptied first.
//!
//! Every page is in the list of its level (empty, up to a quarter, ..., full), so that both questions are
//! answered without a look at the pages: records go to the fullest page that has room, and the emptiest
//! page is given back.

use std::ops::Range;

/// The level of a page without a free slot; below are one for each quarter, and 0 of empty pages.
const FULL: usize = 5;
/// The level of pages that are in no list: they take no record.
const OUT: usize = 6;

/// How full each page is.
#[derive(Debug)]
pub(crate) struct Fill {
    pages: Vec<PageFill>,
    /// The pages of each level.
    levels: [Vec<u32>; OUT],
    /// Numbers of pages that were given back.
    vacant: Vec<u32>,
    /// Records that a page has room for: a power of two.
    room: u32,
    /// Records in all pages.
    live: usize,
}

#[derive(Clone, Copy, Debug)]
struct PageFill {
    /// Records in it.
    live: u32,
    /// The first place that was never used.
    used: u32,
    /// The place that was freed last, plus one; zero is none. Its record knows the one before.
    freed: u32,
    level: usize,
    /// Where it is in the list of its level.
    at: u32,
}

impl PageFill {
    const NEW: Self = Self {
        live: 0,
        used: 0,
        freed: 0,
        level: OUT,
        at: 0,
    };
}

/// A place in a page.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// It was used before.
    Freed(u32),
    /// It was never used.
    New(u32),
}

impl Fill {
    /// No pages yet; each will have room for so many records, a power of two and at least four.
    pub(crate) fn new(room: u32) -> Self {
        debug_assert!(room.is_power_of_two() && room >= 4);
        Self {
            pages: Vec::new(),
            levels: Default::default(),
            vacant: Vec::new(),
            room,
            live: 0,
        }
    }

    /// Records in all pages.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Pages that there are, those given back not counted.
    pub(crate) fn pages(&self) -> usize {
        self.pages.len() - self.vacant.len()
    }

    /// The numbers of pages ever used are below.
    pub(crate) fn end(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Records in a page.
    pub(crate) fn live_in(&self, page: u32) -> u32 {
        self.pages[page as usize].live
    }

    /// The places of a page that were ever used; none of one that was given back.
    pub(crate) fn used(&self, page: u32) -> Range<u32> {
        0..self.pages[page as usize].used
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let listed: usize = self.levels.iter().map(Vec::capacity).sum();
        (listed + self.vacant.capacity()) * size_of::<u32>()
            + self.pages.capacity() * size_of::<PageFill>()
    }

    /// The fullest page with room.
    #[inline]
    pub(crate) fn with_room(&self) -> Option<u32> {
        let levels = self.levels[..FULL].iter().rev();
        levels.filter_map(|pages| pages.last()).next().copied()
    }

    /// An empty page, or failing that the emptiest that is not full where records may move.
    pub(crate) fn emptiest(&self, may_move: bool) -> Option<u32> {
        let levels = self.levels[..if may_move { FULL } else { 1 }].iter();
        levels.filter_map(|pages| pages.last()).next().copied()
    }

    /// A page number that is free, which becomes that of an empty page.
    pub(crate) fn add(&mut self) -> u32 {
        let page = self.vacant.pop().unwrap_or_else(|| {
            self.pages.push(PageFill::NEW);
            self.pages.len() as u32 - 1
        });
        self.place_in_list(page);
        page
    }

    /// Takes a place of a page with room.
    #[inline]
    pub(crate) fn take(&mut self, page: u32) -> Place {
        let fill = &mut self.pages[page as usize];
        fill.live += 1;
        self.live += 1;
        let place = match fill.freed {
            0 => {
                fill.used += 1;
                Place::New(fill.used - 1)
            }
            freed => Place::Freed(freed - 1),
        };
        self.relist(page);
        place
    }

    /// The place that was freed last was taken: this is the one before, as [`free`](Self::free) gave it.
    #[inline]
    pub(crate) fn set_freed(&mut self, page: u32, before: u32) {
        self.pages[page as usize].freed = before;
    }

    /// Gives a place back; what its record is to keep.
    #[inline]
    pub(crate) fn free(&mut self, page: u32, place: u32) -> u32 {
        let fill = &mut self.pages[page as usize];
        fill.live -= 1;
        self.live -= 1;
        let before = fill.freed;
        fill.freed = place + 1;
        self.relist(page);
        before
    }

    /// Takes a page out of its list: it takes no record from now on.
    pub(crate) fn close(&mut self, page: u32) {
        let PageFill { level, at, .. } = self.pages[page as usize];
        if level == OUT {
            return;
        }
        self.pages[page as usize].level = OUT;
        self.levels[level].swap_remove(at as usize);
        if let Some(moved) = self.levels[level].get(at as usize) {
            self.pages[*moved as usize].at = at;
        }
    }

    /// A closed page takes records again.
    pub(crate) fn reopen(&mut self, page: u32) {
        if self.pages[page as usize].level == OUT {
            self.place_in_list(page);
        }
    }

    /// A closed page without records is no more; its number is free.
    pub(crate) fn give_back(&mut self, page: u32) {
        self.pages[page as usize] = PageFill::NEW;
        self.vacant.push(page);
    }

    #[inline]
    fn relist(&mut self, page: u32) {
        let fill = &self.pages[page as usize];
        if fill.level != OUT && fill.level != self.level_of(fill.live) {
            self.close(page);
            self.place_in_list(page);
        }
    }

    fn place_in_list(&mut self, page: u32) {
        let level = self.level_of(self.pages[page as usize].live);
        let fill = &mut self.pages[page as usize];
        fill.level = level;
        fill.at = self.levels[level].len() as u32;
        self.levels[level].push(page);
    }

    #[inline]
    fn level_of(&self, live: u32) -> usize {
        match live {
            0 => 0,
            live if live == self.room => FULL,
            live => 1 + ((live - 1) >> (self.room.ilog2() - 2)) as usize,
        }
    }
}
