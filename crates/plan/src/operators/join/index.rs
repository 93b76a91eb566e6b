//! The rows of a side by the hash of their key: who may match, without looking at a column.
//!
//! A row has a *slot*: its chunk times [`CHUNK_ROWS`] plus its place in it. Rows of one bucket are a chain in the
//! order they came, doubly linked, so that a row leaves in constant time. The buckets are split into tables by
//! the upper bits of the hash: one grows at a time, so that no trigger pays for all.
//!
//! ```text
//!  heads ─► first ⇄ second ⇄ last        first.prev = last: the end of a chain is found from its head
//! ```
//! The hash is seeded the same in every process, but reaches no file.

/// Rows of a chunk.
pub(super) const CHUNK_ROWS: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 13;
/// No row.
pub(super) const NONE: u32 = u32::MAX;
/// Tables, as bits of the hash.
const TABLE_BITS: u32 = 6;
const LEAST_BUCKETS: usize = 8;
const LEAST_LINKS: usize = 64;

/// The slot of the row at `place` of `chunk`.
pub(super) fn slot(chunk: u32, place: usize) -> u32 {
    // A place is below 2^13.
    (chunk << CHUNK_BITS) | (place as u32)
}

/// The chunk of a slot, and the place in it.
pub(super) fn place(slot: u32) -> (usize, usize) {
    ((slot >> CHUNK_BITS) as usize, slot as usize % CHUNK_ROWS)
}

/// The most chunks a side can have at once.
pub(super) const MOST_CHUNKS: usize = 1 << (32 - CHUNK_BITS);

#[derive(Clone, Copy, Debug)]
struct Link {
    hash: u32,
    next: u32,
    /// Of the first of a chain: the last. [`NONE`]: the row is in no chain.
    prev: u32,
}

const UNLINKED: Link = Link {
    hash: 0,
    next: NONE,
    prev: NONE,
};

#[derive(Debug, Default)]
struct Table {
    heads: Vec<u32>,
    rows: usize,
}

/// Chains of rows that have the bucket of their key in common.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
    /// By chunk, then by place.
    links: Links,
    buckets: usize,
}

#[derive(Debug, Default)]
struct Links {
    chunks: Vec<Vec<Link>>,
    /// Links there is room for.
    room: usize,
}

impl Links {
    fn at(&self, slot: u32) -> Link {
        let (chunk, place) = place(slot);
        self.chunks[chunk][place]
    }

    fn at_mut(&mut self, slot: u32) -> &mut Link {
        let (chunk, place) = place(slot);
        &mut self.chunks[chunk][place]
    }

    /// Puts `slot` at the end of the chain that begins at `head`; gives the new head.
    fn append(&mut self, head: u32, slot: u32) -> u32 {
        if head == NONE {
            let link = self.at_mut(slot);
            (link.next, link.prev) = (NONE, slot);
            return slot;
        }
        let last = std::mem::replace(&mut self.at_mut(head).prev, slot);
        self.at_mut(last).next = slot;
        let link = self.at_mut(slot);
        (link.next, link.prev) = (NONE, last);
        head
    }

    /// Joins two chains; gives the head of both.
    fn chain(&mut self, first: u32, second: u32) -> u32 {
        match (first, second) {
            (NONE, head) | (head, NONE) => head,
            _ => {
                let end = self.at(second).prev;
                let middle = std::mem::replace(&mut self.at_mut(first).prev, end);
                self.at_mut(middle).next = second;
                self.at_mut(second).prev = middle;
                first
            }
        }
    }
}

impl Index {
    pub(super) fn new() -> Self {
        let tables = (0..1 << TABLE_BITS).map(|_| Table::default());
        Self {
            tables: tables.collect(),
            links: Links::default(),
            buckets: 0,
        }
    }

    /// The first row of the bucket of `hash`; [`NONE`] when it is empty.
    pub(super) fn first(&self, hash: u32) -> u32 {
        let table = &self.tables[(hash >> (32 - TABLE_BITS)) as usize];
        match table.heads.len() {
            0 => NONE,
            buckets => table.heads[hash as usize & (buckets - 1)],
        }
    }

    /// The hash of a row in a chain, and the row after it.
    pub(super) fn after(&self, slot: u32) -> (u32, u32) {
        let link = self.links.at(slot);
        (link.hash, link.next)
    }

    /// Makes room for the rows of `chunk`.
    pub(super) fn open(&mut self, chunk: u32) {
        let chunk = chunk as usize;
        if self.links.chunks.len() <= chunk {
            self.links.chunks.resize_with(chunk + 1, Vec::new);
        }
    }

    /// Gives back the room for the rows of `chunk`, all of which were taken out.
    pub(super) fn close(&mut self, chunk: u32) {
        let links = std::mem::take(&mut self.links.chunks[chunk as usize]);
        self.links.room -= links.capacity();
    }

    /// Puts the next row of `chunk` in; without a hash it is in no chain.
    pub(super) fn put_in(&mut self, chunk: u32, hash: Option<u32>) {
        let links = &mut self.links.chunks[chunk as usize];
        let before = links.capacity();
        if links.len() == before {
            // Not twice the room: what is held is to be little more than what is there.
            links.reserve_exact((before / 4).max(LEAST_LINKS));
        }
        links.push(UNLINKED);
        self.links.room += links.capacity() - before;
        let slot = slot(chunk, links.len() - 1);
        let Some(hash) = hash else { return };
        let table = &mut self.tables[(hash >> (32 - TABLE_BITS)) as usize];
        if table.rows == table.heads.len() {
            self.buckets += table.grow(&mut self.links);
        }
        table.rows += 1;
        self.links.at_mut(slot).hash = hash;
        let bucket = hash as usize & (table.heads.len() - 1);
        table.heads[bucket] = self.links.append(table.heads[bucket], slot);
    }

    /// Takes a row out of its chain, where it is in one.
    pub(super) fn take_out(&mut self, slot: u32) {
        let Link { hash, next, prev } = std::mem::replace(self.links.at_mut(slot), UNLINKED);
        if prev == NONE {
            return;
        }
        let table = &mut self.tables[(hash >> (32 - TABLE_BITS)) as usize];
        let bucket = hash as usize & (table.heads.len() - 1);
        let head = table.heads[bucket];
        if next != NONE {
            self.links.at_mut(next).prev = prev;
        }
        if head == slot {
            table.heads[bucket] = next;
        } else {
            self.links.at_mut(prev).next = next;
            if next == NONE {
                self.links.at_mut(head).prev = prev;
            }
        }
        table.rows -= 1;
        if table.rows * 8 < table.heads.len() && table.heads.len() > LEAST_BUCKETS {
            self.buckets -= table.shrink(&mut self.links);
        }
    }

    /// The row at slot `from` is at `to` from now on, where none is.
    pub(super) fn relocate(&mut self, from: u32, to: u32) {
        if from == to {
            return;
        }
        let link = std::mem::replace(self.links.at_mut(from), UNLINKED);
        *self.links.at_mut(to) = link;
        if link.prev == NONE {
            return;
        }
        let table = &mut self.tables[(link.hash >> (32 - TABLE_BITS)) as usize];
        let bucket = link.hash as usize & (table.heads.len() - 1);
        let head = table.heads[bucket];
        if head == from {
            table.heads[bucket] = to;
        } else {
            self.links.at_mut(link.prev).next = to;
        }
        // The end of a chain is told by its head, which may be itself.
        match link.next {
            NONE if head == from => self.links.at_mut(to).prev = to,
            NONE => self.links.at_mut(head).prev = to,
            next => self.links.at_mut(next).prev = to,
        }
    }

    /// `chunk` has so few rows from now on.
    pub(super) fn cut(&mut self, chunk: u32, rows: usize) {
        let links = &mut self.links.chunks[chunk as usize];
        let before = links.capacity();
        links.truncate(rows);
        links.shrink_to_fit();
        self.links.room -= before - links.capacity();
    }

    /// Gives back buckets where there are far more than rows.
    pub(super) fn fit(&mut self) {
        let rows: usize = self.tables.iter().map(|table| table.rows).sum();
        if self.buckets <= rows * 9 / 4 + LEAST_BUCKETS * self.tables.len() {
            return;
        }
        for table in &mut self.tables {
            while table.heads.len() > LEAST_BUCKETS && table.heads.len() / 2 >= table.rows {
                self.buckets -= table.shrink(&mut self.links);
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buckets * size_of::<u32>() + self.links.room * size_of::<Link>()
    }
}

impl Table {
    /// Twice the buckets; gives how many more.
    fn grow(&mut self, links: &mut Links) -> usize {
        let old = self.heads.len();
        if old == 0 {
            self.heads = vec![NONE; LEAST_BUCKETS];
            return LEAST_BUCKETS;
        }
        self.heads.resize(2 * old, NONE);
        for bucket in 0..old {
            let mut at = self.heads[bucket];
            let (mut low, mut high) = (NONE, NONE);
            while at != NONE {
                let link = links.at(at);
                if link.hash as usize & old == 0 {
                    low = links.append(low, at);
                } else {
                    high = links.append(high, at);
                }
                at = link.next;
            }
            self.heads[bucket] = low;
            self.heads[bucket + old] = high;
        }
        old
    }

    /// Half the buckets; gives how many less.
    fn shrink(&mut self, links: &mut Links) -> usize {
        let half = self.heads.len() / 2;
        for bucket in 0..half {
            self.heads[bucket] = links.chain(self.heads[bucket], self.heads[bucket + half]);
        }
        self.heads.truncate(half);
        self.heads.shrink_to_fit();
        half
    }
}
