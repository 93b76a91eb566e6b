//! Panes: the slots of records by the time they are over.
//!
//! ```text
//!  end ─► leaf: up to 256 slots, each with its end     where panes are small, one leaf has many of them
//!     └─► leaf: any number of slots with one end       a pane of its own
//!  slot ─► leaf and position                           so that one slot is found, moved and taken out
//! ```
//!
//! The place of a slot is kept beside its record. A leaf has the ends from its key on, up to the key of the next one. So a pane of one record takes about
//! 25 bytes, one of many 12 a record, and what is over is a run of leaves of which only the last is cut.

use std::collections::BTreeMap;

use crate::pages::Pages;

/// The slots of a leaf of many panes.
const LEAF_SLOTS: usize = 256;

/// The slots of records that are over at a time, in microseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Panes {
    /// The number of each leaf by its key.
    by_end: BTreeMap<i64, u32>,
    leaves: Vec<Leaf>,
    /// Numbers of leaves that are not in use.
    vacant: Vec<u32>,
    /// Bytes that leaves hold.
    held: usize,
}

#[derive(Debug, Default)]
struct Leaf {
    /// No end is below.
    key: i64,
    slots: Vec<u32>,
    /// The end of each slot; nothing when all are the key.
    ends: Vec<i64>,
}

impl Panes {
    /// Bytes they take, those of the tree of leaves about.
    pub(crate) fn memory_bytes(&self) -> usize {
        /// A node of a tree is two thirds full.
        const ENTRY: usize = size_of::<(i64, u32)>() * 3 / 2;
        self.held
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.by_end.len() * ENTRY
    }

    /// Puts in a slot that is in no pane.
    pub(crate) fn insert(&mut self, pages: &mut Pages, slot: u32, end: i64) {
        pages.put_words_beside();
        let number = self.leaf_for(pages, end);
        let position = self.change(number, |leaf| {
            if !leaf.is_one_pane() || leaf.slots.is_empty() {
                leaf.ends.push(end);
            }
            leaf.slots.push(slot);
            leaf.slots.len() - 1
        });
        set_place(pages, slot, number, position);
    }

    /// When a slot that is in a pane is over.
    pub(crate) fn end_of(&self, pages: &Pages, slot: u32) -> i64 {
        let (number, position) = place(pages, slot);
        let leaf = &self.leaves[number as usize];
        leaf.ends.get(position).copied().unwrap_or(leaf.key)
    }

    /// Takes out a slot that is in a pane.
    pub(crate) fn remove(&mut self, pages: &mut Pages, slot: u32) {
        let (number, position) = place(pages, slot);
        let last = self.change(number, |leaf| {
            leaf.slots.swap_remove(position);
            if !leaf.ends.is_empty() {
                leaf.ends.swap_remove(position);
            }
            leaf.shrink();
            leaf.slots.get(position).copied()
        });
        if let Some(last) = last {
            set_place(pages, last, number, position);
        } else if self.leaves[number as usize].slots.is_empty() {
            self.drop_leaf(number);
        }
    }

    /// The record of a slot that is in a pane is about to move.
    pub(crate) fn relocate(&mut self, pages: &Pages, from: u32, to: u32) {
        let (number, position) = place(pages, from);
        self.leaves[number as usize].slots[position] = to;
    }

    /// Takes out slots that are over at `until` or before, a leaf of them; `None` when there are none.
    pub(crate) fn take_due(&mut self, pages: &mut Pages, until: i64) -> Option<Vec<u32>> {
        let number = *self.by_end.range(..=until).next()?.1;
        let due = if self.leaves[number as usize].last_end() <= until {
            let slots = self.change(number, |leaf| std::mem::take(&mut leaf.slots));
            self.drop_leaf(number);
            slots
        } else {
            self.cut(pages, number, until)
        };
        (!due.is_empty()).then_some(due)
    }

    /// The slots that are over at `until` or before, by their ends.
    pub(crate) fn due(&self, until: i64) -> impl Iterator<Item = u32> + '_ {
        let leaves = self.by_end.range(..=until);
        leaves.flat_map(move |(_, number)| {
            let leaf = &self.leaves[*number as usize];
            let pane: &[u32] = if leaf.is_one_pane() { &leaf.slots } else { &[] };
            let ends = leaf.ends.iter().copied().zip(leaf.slots.iter().copied());
            let mut due: Vec<(i64, u32)> = ends.filter(|(end, _)| *end <= until).collect();
            due.sort_by_key(|(end, _)| *end);
            let due = due.into_iter().map(|(_, slot)| slot);
            pane.iter().copied().chain(due)
        })
    }

    /// How many slots are over at `until` or before.
    pub(crate) fn count_due(&self, until: i64) -> usize {
        let leaves = self.by_end.range(..=until);
        let count = |number: &u32| match &self.leaves[*number as usize] {
            leaf if leaf.is_one_pane() => leaf.slots.len(),
            leaf => leaf.ends.iter().filter(|end| **end <= until).count(),
        };
        leaves.map(|(_, number)| count(number)).sum()
    }

    /// The leaf that takes a slot with this end; it has room.
    fn leaf_for(&mut self, pages: &mut Pages, end: i64) -> u32 {
        loop {
            let before = self.by_end.range(..=end).next_back();
            let Some(number) = before.map(|(_, number)| *number) else {
                return self.lower_or_add(end);
            };
            let leaf = &self.leaves[number as usize];
            if leaf.takes(end) {
                return number;
            }
            if leaf.is_one_pane() || end > leaf.last_end() {
                return self.lower_or_add(end);
            }
            self.split(pages, number);
        }
    }

    /// The next leaf after an end, whose key is lowered to it, or a new one with this key.
    fn lower_or_add(&mut self, end: i64) -> u32 {
        let after = self.by_end.range(end..).next();
        if let Some(number) = after.map(|(_, number)| *number)
            && !self.leaves[number as usize].is_one_pane()
            && self.leaves[number as usize].slots.len() < LEAF_SLOTS
        {
            self.set_key(number, end);
            return number;
        }
        self.add_leaf(end)
    }

    fn add_leaf(&mut self, key: i64) -> u32 {
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.leaves.push(Leaf::default());
            self.leaves.len() as u32 - 1
        });
        self.leaves[number as usize].key = key;
        self.by_end.insert(key, number);
        number
    }

    fn drop_leaf(&mut self, number: u32) {
        let key = self.leaves[number as usize].key;
        self.by_end.remove(&key);
        self.change(number, |leaf| *leaf = Leaf::default());
        self.vacant.push(number);
        if self.by_end.is_empty() {
            (self.leaves, self.vacant) = (Vec::new(), Vec::new());
        }
    }

    fn set_key(&mut self, number: u32, key: i64) {
        let leaf = &mut self.leaves[number as usize];
        self.by_end.remove(&leaf.key);
        leaf.key = key;
        self.by_end.insert(key, number);
    }

    /// Divides a full leaf of many panes between two of them, near its middle; one that has only one pane
    /// becomes the leaf of that.
    fn split(&mut self, pages: &mut Pages, number: u32) {
        let leaf = &self.leaves[number as usize];
        let ends = leaf.ends.iter().copied();
        let mut order: Vec<(i64, u32)> = ends.zip(leaf.slots.iter().copied()).collect();
        order.sort_unstable_by_key(|(end, _)| *end);
        let middle = order[order.len() / 2].0;
        let cut = match order.partition_point(|(end, _)| *end < middle) {
            0 => order.partition_point(|(end, _)| *end <= middle),
            cut => cut,
        };
        let (lower, upper) = order.split_at(cut);
        if let Some((key, _)) = upper.first() {
            self.refill(pages, number, lower);
            let added = self.add_leaf(*key);
            self.refill(pages, added, upper);
        } else {
            self.change(number, |leaf| leaf.ends = Vec::new());
            self.set_key(number, middle);
        }
    }

    /// Takes the slots that are over at `until` or before out of a leaf of many panes, of which some stay.
    fn cut(&mut self, pages: &mut Pages, number: u32, until: i64) -> Vec<u32> {
        let leaf = &self.leaves[number as usize];
        let ends = leaf.ends.iter().copied();
        let (due, rest): (Vec<_>, Vec<_>) = ends
            .zip(leaf.slots.iter().copied())
            .partition(|(end, _)| *end <= until);
        if !due.is_empty() {
            self.refill(pages, number, &rest);
        }
        due.into_iter().map(|(_, slot)| slot).collect()
    }

    fn refill(&mut self, pages: &mut Pages, number: u32, content: &[(i64, u32)]) {
        self.change(number, |leaf| {
            (leaf.ends, leaf.slots) = content.iter().copied().unzip();
        });
        for (position, (_, slot)) in content.iter().enumerate() {
            set_place(pages, *slot, number, position);
        }
    }

    /// Changes a leaf and counts the bytes.
    #[inline]
    fn change<T>(&mut self, number: u32, change: impl FnOnce(&mut Leaf) -> T) -> T {
        let leaf = &mut self.leaves[number as usize];
        let before = leaf.held();
        let result = change(leaf);
        self.held = self.held + leaf.held() - before;
        result
    }
}

impl Leaf {
    /// True when all slots have the key as their end, and there may be any number of them.
    #[inline]
    fn is_one_pane(&self) -> bool {
        self.ends.is_empty()
    }

    /// True when there is room for a slot with this end, which is not below the key.
    #[inline]
    fn takes(&self, end: i64) -> bool {
        if self.is_one_pane() {
            end == self.key
        } else {
            self.slots.len() < LEAF_SLOTS
        }
    }

    fn last_end(&self) -> i64 {
        self.ends.iter().max().copied().unwrap_or(self.key)
    }

    fn held(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.ends.capacity() * size_of::<i64>()
    }

    /// Gives back what is not needed when less than a quarter is.
    fn shrink(&mut self) {
        if self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
            self.ends.shrink_to(self.ends.len() * 2);
        }
    }
}

/// The leaf of a slot that is in a pane, and the position there.
#[inline]
fn place(pages: &Pages, slot: u32) -> (u32, usize) {
    let word = pages.beside(slot);
    ((word >> 32) as u32, word as u32 as usize)
}

#[inline]
fn set_place(pages: &mut Pages, slot: u32, leaf: u32, position: usize) {
    pages.set_beside(slot, u64::from(leaf) << 32 | position as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pane has its slots, and leaves are as they must be.
    fn check(panes: &Panes, pages: &Pages, expected: &BTreeMap<u32, i64>) {
        let mut by_end: Vec<(i64, u32)> = expected.iter().map(|(s, e)| (*e, *s)).collect();
        by_end.sort_unstable();
        let mut due: Vec<(i64, u32)> = panes
            .due(i64::MAX)
            .map(|s| (panes.end_of(pages, s), s))
            .collect();
        assert!(due.is_sorted_by_key(|(end, _)| *end), "oldest first");
        due.sort_unstable();
        assert_eq!(due, by_end);
        let held: usize = panes.leaves.iter().map(Leaf::held).sum();
        assert_eq!(held, panes.held);
        for (key, number) in &panes.by_end {
            assert_eq!(panes.leaves[*number as usize].key, *key);
        }
    }

    #[test]
    fn ends_in_every_order_are_found_and_taken_out() {
        let orders: [fn(i64) -> i64; 6] = [
            |n| n,
            |n| -n,
            |n| n * 7_919 % 3_001,
            |n| n / 700,
            |n| -(n / 700),
            |n| if n % 2 == 0 { 0 } else { n * 31 % 997 - 500 },
        ];
        for (number, end) in orders.into_iter().enumerate() {
            let mut panes = Panes::default();
            let mut pages = Pages::new(1);
            let mut expected = BTreeMap::new();
            for n in 0..3_000 {
                let slot = pages.allocate().expect("a slot");
                panes.insert(&mut pages, slot, end(n));
                expected.insert(slot, end(n));
            }
            check(&panes, &pages, &expected);
            assert!(panes.by_end.len() <= 40, "order {number}: few leaves");
            for slot in (0..3_000).step_by(3) {
                assert_eq!(panes.end_of(&pages, slot), end(i64::from(slot)));
                panes.remove(&mut pages, slot);
                expected.remove(&slot);
            }
            check(&panes, &pages, &expected);
            for slot in (1..3_000).step_by(3) {
                let to = pages.allocate().expect("a slot");
                panes.relocate(&pages, slot, to);
                pages.relocate(slot, to);
                expected.insert(to, end(i64::from(slot)));
                expected.remove(&slot);
            }
            check(&panes, &pages, &expected);
            for until in [-1_000, -3, 0, 2, 100, 1_500, 4_000] {
                let over = expected.values().filter(|end| **end <= until).count();
                assert_eq!(panes.count_due(until), over);
                while let Some(slots) = panes.take_due(&mut pages, until) {
                    for slot in slots {
                        assert!(expected.remove(&slot).is_some_and(|end| end <= until));
                    }
                }
                check(&panes, &pages, &expected);
            }
            assert_eq!((panes.held, panes.by_end.len()), (0, 0));
        }
    }

    #[test]
    fn a_pane_of_one_record_is_small() {
        for spread in [1, 7_919] {
            let mut panes = Panes::default();
            let mut pages = Pages::new(1);
            for n in 0..100_003 {
                let slot = pages.allocate().expect("a slot");
                panes.insert(&mut pages, slot, n * spread % 100_003);
            }
            let each = 8.0 + panes.memory_bytes() as f64 / 100_003.0;
            assert!(each <= 40.0, "{each} bytes a record");
        }
    }
}
