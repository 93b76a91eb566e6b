//! The state of one side of a join: its rows in chunks, found by their key, leaving by their time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::min;
use datafusion::common::Result;
use highwater_core::Error;

use super::bounds::Bound;
use super::chunk::Chunk;
use super::index::{CHUNK_ROWS, Index, MOST_CHUNKS, place, slot};
use super::restore::Restored;
use crate::event_time::ends;

/// Rows with their hashes.
pub(super) struct Hashed<'a> {
    pub(super) rows: &'a RecordBatch,
    pub(super) hashes: &'a [u32],
    /// The rows whose key can match; `None`: all.
    pub(super) can_match: Option<&'a NullBuffer>,
}

impl Hashed<'_> {
    pub(super) fn hash(&self, row: usize) -> Option<u32> {
        let can = self.can_match.is_none_or(|valid| valid.is_valid(row));
        can.then(|| self.hashes[row])
    }
}

/// What the running micro-batch did to a side.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rows with this number or a higher one are new.
    pub(super) first: i64,
    /// Older rows that matched for the first time.
    pub(super) matched: Vec<i64>,
    /// Older rows that left because they matched.
    pub(super) taken: Vec<i64>,
    /// Rows put in.
    pub(super) appended: u64,
    /// Rows that left.
    pub(super) removed: u64,
    pub(super) late: u64,
    /// Rows over by this time left.
    pub(super) evicted_to: Option<i64>,
}

/// The rows of one side.
#[derive(Debug)]
pub(super) struct SideState {
    bound: Option<Bound>,
    marks: bool,
    pub(super) chunks: Vec<Option<Box<Chunk>>>,
    free: Vec<u32>,
    /// The chunk that takes the next row.
    tail: Option<u32>,
    pub(super) index: Index,
    /// The number of the next row.
    pub(super) next: i64,
    /// Chunks by the time at which the next row of each leaves. An entry is out of date when the chunk has another
    /// base or another time.
    due: BinaryHeap<Reverse<(i64, i64, u32)>>,
    pub(super) live: usize,
    /// Rows that chunks hold, those that are gone among them.
    pub(super) held: usize,
    bytes: usize,
    pub(super) changes: Changes,
    /// While records are put back.
    pub(super) restored: Option<Restored>,
}

impl SideState {
    /// A side without rows. `marks`: it must be known which rows matched.
    pub(super) fn new(bound: Option<Bound>, marks: bool) -> Self {
        Self {
            bound,
            marks,
            chunks: Vec::new(),
            free: Vec::new(),
            tail: None,
            index: Index::new(),
            next: 0,
            due: BinaryHeap::new(),
            live: 0,
            held: 0,
            bytes: 0,
            changes: Changes::default(),
            restored: None,
        }
    }

    /// A micro-batch begins.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.settle()?;
        self.forget_changes();
        Ok(())
    }

    /// What the micro-batch did is the ground for the next.
    pub(super) fn forget_changes(&mut self) {
        self.changes = Changes {
            first: self.next,
            ..Changes::default()
        };
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.index.memory_bytes()
    }

    pub(super) fn chunk(&self, at: usize) -> Option<&Chunk> {
        self.chunks.get(at)?.as_deref()
    }

    /// When each of `rows` leaves; `None`: never.
    pub(super) fn ends(&self, rows: &RecordBatch) -> Result<Option<Int64Array>> {
        let bound = self.bound.as_ref();
        bound
            .map(|bound| ends(rows.column(bound.column), bound.span))
            .transpose()
    }

    /// Puts rows in. `matched` tells of each whether it has matched already.
    pub(super) fn append(
        &mut self,
        rows: &Hashed<'_>,
        matched: Option<&dyn Fn(usize) -> bool>,
    ) -> Result<()> {
        let ends = self.ends(rows.rows)?;
        let total = rows.rows.num_rows();
        let mut from = 0;
        while from < total {
            let at = self.tail()?;
            let Some(chunk) = &mut self.chunks[at as usize] else {
                return Err(lost());
            };
            let first = chunk.rows;
            let count = chunk.room().min(total - from);
            let part = rows.rows.slice(from, count);
            let bytes = chunk.bytes();
            let due = ends.as_ref().and_then(|ends| min(&ends.slice(from, count)));
            let before = chunk.due;
            chunk.append(part, due.unwrap_or(i64::MAX))?;
            self.bytes = self.bytes + chunk.bytes() - bytes;
            if chunk.due < before {
                self.due.push(Reverse((chunk.due, chunk.base, at)));
            }
            if let Some(matched) = matched {
                let rows = (0..count).filter(|row| matched(from + row));
                rows.for_each(|row| {
                    chunk.match_now(first + row);
                });
            }
            if chunk.room() == 0 {
                self.tail = None;
            }
            for row in from..from + count {
                self.index.put_in(at, rows.hash(row));
            }
            from += count;
            self.next += count as i64;
        }
        self.live += total;
        self.held += total;
        self.changes.appended += total as u64;
        Ok(())
    }

    /// The chunk that takes the next row.
    fn tail(&mut self) -> Result<u32> {
        if let Some(tail) = self.tail {
            return Ok(tail);
        }
        let rows = CHUNK_ROWS as i64;
        self.next = (self.next + rows - 1).div_euclid(rows) * rows;
        let tail = self.open(self.next)?;
        self.tail = Some(tail);
        Ok(tail)
    }

    /// A new chunk whose first row has the number `base`.
    pub(super) fn open(&mut self, base: i64) -> Result<u32> {
        let chunk = Box::new(Chunk::new(base, self.marks));
        self.bytes += chunk.bytes();
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.chunks.len() == MOST_CHUNKS => {
                return Err(Error::unavailable("a join cannot hold 2^32 rows of one side").into());
            }
            None => {
                self.chunks.push(None);
                self.chunks.len() as u32 - 1
            }
        };
        self.chunks[at as usize] = Some(chunk);
        self.index.open(at);
        Ok(at)
    }

    /// Notes what changed in a chunk other than by [`append`](Self::append).
    pub(super) fn changed(&mut self, at: u32, bytes_before: usize) {
        if let Some(chunk) = &self.chunks[at as usize] {
            self.bytes = self.bytes + chunk.bytes() - bytes_before;
            if chunk.due < i64::MAX {
                self.due.push(Reverse((chunk.due, chunk.base, at)));
            }
        }
    }

    /// Marks rows as matched; those that were not go into `fresh`.
    pub(super) fn mark(&mut self, slots: &[u32], fresh: &mut Vec<u32>) {
        for at in slots {
            let (chunk, row) = place(*at);
            if let Some(chunk) = &mut self.chunks[chunk]
                && chunk.match_now(row)
            {
                fresh.push(*at);
            }
        }
    }

    /// Notes for the checkpoint that rows matched for the first time.
    pub(super) fn note_matched(&mut self, slots: &[u32]) {
        let first = self.changes.first;
        let numbers = slots.iter().map(|at| self.number(*at));
        let older: Vec<i64> = numbers.filter(|number| *number < first).collect();
        self.changes.matched.extend(older);
    }

    /// Takes rows out that matched and are not needed any more.
    pub(super) fn take_matched(&mut self, slots: &[u32]) {
        let first = self.changes.first;
        let numbers = slots.iter().map(|at| self.number(*at));
        let older: Vec<i64> = numbers.filter(|number| *number < first).collect();
        self.changes.taken.extend(older);
        self.remove(slots);
    }

    pub(super) fn number(&self, at: u32) -> i64 {
        let (chunk, row) = place(at);
        self.chunk(chunk).map_or(0, |chunk| chunk.number(row))
    }

    pub(super) fn is_matched(&self, at: u32) -> bool {
        let (chunk, row) = place(at);
        self.chunk(chunk).is_some_and(|chunk| chunk.is_matched(row))
    }

    /// Takes rows out; a chunk whose last row leaves is freed.
    pub(super) fn remove(&mut self, slots: &[u32]) {
        for at in slots {
            let (index, row) = place(*at);
            let Some(chunk) = &mut self.chunks[index] else {
                continue;
            };
            if !chunk.kill(row) {
                continue;
            }
            self.index.take_out(*at);
            self.live -= 1;
            self.changes.removed += 1;
            if chunk.live == 0 {
                self.close(index as u32);
            }
        }
    }

    fn close(&mut self, at: u32) {
        if let Some(chunk) = self.chunks[at as usize].take() {
            self.bytes -= chunk.bytes();
            self.held -= chunk.rows;
            self.index.close(at);
            self.free.push(at);
        }
        if self.tail == Some(at) {
            self.tail = None;
        }
        if let Some(restored) = &mut self.restored {
            restored.close(at);
        }
    }

    /// Puts rows that are over at `until` into `slots`, at most `limit` at a time; false when there are no more.
    /// They must be taken out before the next call.
    pub(super) fn take_due(
        &mut self,
        until: i64,
        limit: usize,
        slots: &mut Vec<u32>,
    ) -> Result<bool> {
        let Some(bound) = self.bound.clone() else {
            return Ok(false);
        };
        let mut places = Vec::new();
        while slots.len() < limit {
            let Some(Reverse((due, base, at))) = self.due.peek().copied() else {
                return Ok(!slots.is_empty());
            };
            if due > until {
                return Ok(!slots.is_empty());
            }
            self.due.pop();
            let chunk = self.chunks[at as usize].as_deref_mut();
            let Some(chunk) = chunk.filter(|chunk| (chunk.base, chunk.due) == (base, due)) else {
                continue;
            };
            places.clear();
            let bytes = chunk.bytes();
            chunk.take_due(&bound, until, limit - slots.len(), &mut places)?;
            self.bytes = self.bytes + chunk.bytes() - bytes;
            if chunk.due < i64::MAX {
                self.due.push(Reverse((chunk.due, base, at)));
            }
            slots.extend(places.iter().map(|row| slot(at, *row as usize)));
        }
        Ok(true)
    }

    /// Drops rows that are gone from the chunks that have many of them, once those are many in all: so what is held is
    /// little more than what is there, and no row is copied for few others. Slots change.
    pub(super) fn compact(&mut self) -> Result<()> {
        self.index.fit();
        if self.held - self.live <= few(self.live) + SLACK {
            return Ok(());
        }
        for at in 0..self.chunks.len() {
            let Some(chunk) = &mut self.chunks[at] else {
                continue;
            };
            if chunk.rows - chunk.live <= few(chunk.live) {
                continue;
            }
            let (bytes, rows, index) = (chunk.bytes(), chunk.rows, &mut self.index);
            let number = at as u32;
            chunk.compact(|from, to| index.relocate(slot(number, from), slot(number, to)))?;
            index.cut(number, chunk.rows);
            self.held -= rows - chunk.rows;
            self.bytes = self.bytes + chunk.bytes() - bytes;
        }
        Ok(())
    }

    /// Which of `rows` leave at `until`; `None`: none does.
    pub(super) fn leaving(&self, rows: &RecordBatch, until: i64) -> Result<Option<BooleanBuffer>> {
        let Some(ends) = self.ends(rows)? else {
            return Ok(None);
        };
        if min(&ends).is_none_or(|least| least > until) {
            return Ok(None);
        }
        let leaves = |row: usize| ends.is_valid(row) && ends.value(row) <= until;
        Ok(Some(BooleanBuffer::collect_bool(ends.len(), leaves)))
    }
}

/// Rows that are gone and may lie among so many that are there.
fn few(live: usize) -> usize {
    live * 3 / 20
}

/// Rows that are gone and may lie in a side, however few are there.
const SLACK: usize = if cfg!(test) { 8 } else { 256 };

fn lost() -> datafusion::error::DataFusionError {
    Error::internal("a chunk of a join's state is gone").into()
}
