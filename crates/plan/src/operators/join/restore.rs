//! Puts the rows of a side back, whatever the order and the batches in which records come.
//!
//! A record is a row with its number; a row that is there already stays, and may have matched in the meantime.
//! Numbers are in the chunk they were in before, so that parts of a snapshot stay the same parts.

use std::collections::HashMap;

use arrow::array::{Array, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{min, take_record_batch};
use datafusion::common::Result;

use super::index::{CHUNK_ROWS, place, slot};
use super::side::{Hashed, SideState};

/// Where the rows of each number are, while records are put back.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The chunks with numbers from a base on; more than one where numbers came again.
    chunks: HashMap<i64, Vec<u32>>,
    /// Of each chunk: the place of each number less the base, plus one; 0: it is not there.
    places: HashMap<u32, Box<[u16]>>,
}

impl Restored {
    /// A chunk is gone.
    pub(super) fn close(&mut self, at: u32) {
        self.places.remove(&at);
        self.chunks
            .values_mut()
            .for_each(|of| of.retain(|c| *c != at));
        self.chunks.retain(|_, of| !of.is_empty());
    }

    /// The places of a chunk's numbers.
    fn places(&mut self, at: u32) -> &mut [u16] {
        let places = self.places.entry(at);
        places.or_insert_with(|| vec![0; CHUNK_ROWS].into_boxed_slice())
    }

    /// True when a chunk has numbers from `base` on.
    fn knows(&self, base: i64) -> bool {
        self.chunks.contains_key(&base)
    }

    fn places_of(&self, number: i64) -> impl Iterator<Item = u32> + '_ {
        let base = base_of(number);
        let offset = (number - base) as usize;
        let chunks = self.chunks.get(&base).into_iter().flatten();
        chunks.filter_map(move |at| match self.places.get(at)?[offset] {
            0 => None,
            place => Some(slot(*at, place as usize - 1)),
        })
    }
}

/// The number of the first row of a number's chunk.
fn base_of(number: i64) -> i64 {
    number - number.rem_euclid(CHUNK_ROWS as i64)
}

impl SideState {
    /// Where the row with a number is, if it is there.
    fn find(&self, number: i64) -> Option<u32> {
        let mut slots = self.restored.as_ref()?.places_of(number);
        slots.find(|at| {
            let (chunk, row) = place(*at);
            self.chunk(chunk).is_some_and(|chunk| chunk.is_alive(row))
        })
    }

    /// Puts rows with their numbers back.
    pub(super) fn put_back(
        &mut self,
        rows: &Hashed<'_>,
        numbers: &Int64Array,
        matched: Option<&BooleanArray>,
    ) -> Result<()> {
        self.restored.get_or_insert_default();
        let values = numbers.values();
        let mut from = 0;
        while from < values.len() {
            let base = base_of(values[from]);
            let same = values[from..].iter();
            let count = same.take_while(|n| base_of(**n) == base).count();
            self.put_back_run(rows, from..from + count, values, matched)?;
            from += count;
        }
        let last = values.iter().max().map_or(0, |last| last + 1);
        self.next = self.next.max(last);
        Ok(())
    }

    /// Puts rows back whose numbers are of one chunk.
    fn put_back_run(
        &mut self,
        rows: &Hashed<'_>,
        run: std::ops::Range<usize>,
        numbers: &[i64],
        matched: Option<&BooleanArray>,
    ) -> Result<()> {
        let has_matched = |row: usize| matched.is_some_and(|m| m.is_valid(row) && m.value(row));
        let base = base_of(numbers[run.start]);
        let known = self
            .restored
            .as_ref()
            .is_some_and(|restored| restored.knows(base));
        let mut fresh = Vec::with_capacity(run.len());
        for row in run {
            let there = known.then(|| self.find(numbers[row])).flatten();
            match there {
                Some(at) if has_matched(row) => self.mark(&[at], &mut Vec::new()),
                Some(_) => {}
                None => fresh.push(row),
            }
        }
        let mut fresh = fresh.as_slice();
        while !fresh.is_empty() {
            let at = self.chunk_with_room(base)?;
            let Some(chunk) = &mut self.chunks[at as usize] else {
                return Ok(());
            };
            let first = chunk.rows;
            let (now, later) = fresh.split_at(fresh.len().min(CHUNK_ROWS - first));
            let offsets: Vec<u16> = now
                .iter()
                .map(|row| (numbers[*row] - base) as u16)
                .collect();
            self.put_back_in(at, rows, now, &offsets)?;
            for (i, row) in now.iter().enumerate() {
                if has_matched(*row) {
                    self.mark(&[slot(at, first + i)], &mut Vec::new());
                }
            }
            fresh = later;
        }
        Ok(())
    }

    fn put_back_in(
        &mut self,
        at: u32,
        rows: &Hashed<'_>,
        which: &[usize],
        offsets: &[u16],
    ) -> Result<()> {
        let straight = which.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        let part = match which {
            [first, ..] if straight => rows.rows.slice(*first, which.len()),
            _ => {
                let indices: UInt32Array = which.iter().map(|row| *row as u32).collect();
                take_record_batch(rows.rows, &indices)?
            }
        };
        let due = self.ends(&part)?.and_then(|ends| min(&ends));
        let Some(chunk) = &mut self.chunks[at as usize] else {
            return Ok(());
        };
        let (first, bytes) = (chunk.rows, chunk.bytes());
        chunk.append_numbered(part, due.unwrap_or(i64::MAX), offsets)?;
        self.changed(at, bytes);
        self.live += which.len();
        self.held += which.len();
        for row in which {
            self.index.put_in(at, rows.hash(*row));
        }
        let places = self.restored.get_or_insert_default().places(at);
        for (i, offset) in offsets.iter().enumerate() {
            places[*offset as usize] = (first + i) as u16 + 1;
        }
        Ok(())
    }

    fn chunk_with_room(&mut self, base: i64) -> Result<u32> {
        let restored = self.restored.get_or_insert_default();
        let chunks = restored.chunks.get(&base).into_iter().flatten().copied();
        let mut chunks = chunks.collect::<Vec<_>>().into_iter();
        let open = |at: &u32| {
            let chunk = self.chunk(*at as usize);
            chunk.is_some_and(|chunk| !chunk.is_full())
        };
        if let Some(at) = chunks.find(open) {
            return Ok(at);
        }
        let at = self.open(base)?;
        let restored = self.restored.get_or_insert_default();
        restored.chunks.entry(base).or_default().push(at);
        Ok(at)
    }

    /// Rows of these numbers matched: they are marked, or gone where `taken`.
    pub(super) fn matched_before(&mut self, numbers: &Int64Array, taken: bool) {
        let slots: Vec<u32> = numbers
            .iter()
            .flatten()
            .filter_map(|n| self.find(n))
            .collect();
        if taken {
            self.remove(&slots);
        } else {
            self.mark(&slots, &mut Vec::new());
        }
    }

    /// Nothing more is put back: what is only needed for that is dropped.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.restored.take().is_none() {
            return Ok(());
        }
        for at in 0..self.chunks.len() {
            if let Some(chunk) = &mut self.chunks[at]
                && !chunk.is_in_one_piece()
            {
                let bytes = chunk.bytes();
                chunk.in_one_piece()?;
                self.changed(at as u32, bytes);
            }
        }
        Ok(())
    }
}
