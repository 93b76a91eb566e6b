//! Up to 8192 rows of a side, as Arrow columns, and when each of them leaves.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;

use super::bounds::Bound;
use super::index::CHUNK_ROWS;
use crate::event_time::ends;

/// A bit for each row of a chunk.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Room for so many rows.
    fn reach(&mut self, rows: usize) {
        let words = rows.div_ceil(64);
        if words > self.0.len() {
            self.0.resize(words, 0);
        }
    }

    pub(super) fn get(&self, at: usize) -> bool {
        let word = self.0.get(at / 64);
        word.is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    /// True when the bit was not set before.
    pub(super) fn set(&mut self, at: usize) -> bool {
        let before = self.get(at);
        self.reach(at + 1);
        self.0[at / 64] |= 1 << (at % 64);
        !before
    }

    /// True when the bit was set before.
    pub(super) fn clear(&mut self, at: usize) -> bool {
        let before = self.get(at);
        if before {
            self.0[at / 64] &= !(1 << (at % 64));
        }
        before
    }

    fn memory_bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }
}

/// The rows that are to leave, by time.
#[derive(Debug)]
enum Order {
    /// As they came, from here on.
    Straight(usize),
    /// In this order, from here on.
    Sorted(Box<[u16]>, usize),
}

/// Rows that came one after the other. Dead ones stay until all are dead, or it is [compacted](Self::compact).
#[derive(Debug)]
pub(super) struct Chunk {
    /// The number of the first row.
    pub(super) base: i64,
    /// The rows as they were appended; small ones are put together.
    pieces: Vec<RecordBatch>,
    /// The place of each piece's first row.
    starts: Vec<usize>,
    pub(super) rows: usize,
    /// The number of the next row less `base`: more than `rows` where rows that are gone were dropped.
    next: usize,
    /// Rows that are there.
    pub(super) live: usize,
    alive: Bits,
    /// Rows that matched, where that must be known.
    matched: Option<Bits>,
    /// The numbers of the rows less `base`, where they are not 0, 1, 2, …
    numbers: Option<Vec<u16>>,
    order: Order,
    /// The rows that `order` knows of.
    ordered: usize,
    /// The least time at which a row leaves; `i64::MAX`: none does.
    pub(super) due: i64,
    bytes: usize,
}

impl Chunk {
    pub(super) fn new(base: i64, matched: bool) -> Self {
        Self {
            base,
            pieces: Vec::new(),
            starts: Vec::new(),
            rows: 0,
            next: 0,
            live: 0,
            alive: Bits::default(),
            matched: matched.then(Bits::default),
            numbers: None,
            order: Order::Straight(0),
            ordered: 0,
            due: i64::MAX,
            bytes: 0,
        }
    }

    /// Bytes of the rows' columns, and of what is known of the rows.
    pub(super) fn bytes(&self) -> usize {
        let matched = self.matched.as_ref().map_or(0, Bits::memory_bytes);
        let places = match &self.order {
            Order::Straight(_) => 0,
            Order::Sorted(order, _) => order.len(),
        };
        let numbers = self.numbers.as_ref().map_or(0, Vec::capacity);
        size_of::<Self>()
            + self.bytes
            + self.alive.memory_bytes()
            + matched
            + (places + numbers) * size_of::<u16>()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows == CHUNK_ROWS
    }

    /// How many rows may still be appended.
    pub(super) fn room(&self) -> usize {
        CHUNK_ROWS - self.next
    }

    pub(super) fn is_alive(&self, place: usize) -> bool {
        self.alive.get(place)
    }

    pub(super) fn is_matched(&self, place: usize) -> bool {
        self.matched.as_ref().is_some_and(|bits| bits.get(place))
    }

    /// True when the row had not matched before.
    pub(super) fn match_now(&mut self, place: usize) -> bool {
        self.matched.as_mut().is_some_and(|bits| bits.set(place))
    }

    /// True when the row was there before.
    pub(super) fn kill(&mut self, place: usize) -> bool {
        let lived = self.alive.clear(place);
        self.live -= usize::from(lived);
        lived
    }

    /// The number of a row.
    pub(super) fn number(&self, place: usize) -> i64 {
        let offset = match &self.numbers {
            Some(numbers) => numbers[place] as usize,
            None => place,
        };
        self.base + offset as i64
    }

    /// Appends rows; they must fit. `due`: the least time at which one of them leaves.
    pub(super) fn append(&mut self, rows: RecordBatch, due: i64) -> Result<()> {
        let count = rows.num_rows();
        let rows = match pins_others(&rows) {
            true => compact(&rows)?,
            false => rows,
        };
        for place in self.rows..self.rows + count {
            self.alive.set(place);
        }
        if let Some(matched) = &mut self.matched {
            matched.reach(self.rows + count);
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.extend((self.next..self.next + count).map(|offset| offset as u16));
        }
        self.starts.push(self.rows);
        self.bytes += bytes_of(&rows);
        self.pieces.push(rows);
        self.rows += count;
        self.next += count;
        self.live += count;
        self.due = self.due.min(due);
        if self.is_full() || self.room() == 0 {
            return self.in_one_piece();
        }
        self.merge_small()
    }

    /// As [`append`](Self::append), for rows with these numbers less `base`.
    pub(super) fn append_numbered(
        &mut self,
        rows: RecordBatch,
        due: i64,
        offsets: &[u16],
    ) -> Result<()> {
        let first = self.rows;
        let straight = offsets.iter().enumerate();
        let straight = straight.clone().all(|(i, at)| *at as usize == first + i);
        if !straight && self.numbers.is_none() {
            self.numbers = Some((0..first).map(|place| place as u16).collect());
        }
        self.append(rows, due)?;
        if let Some(numbers) = &mut self.numbers {
            numbers.truncate(first);
            numbers.extend_from_slice(offsets);
        }
        Ok(())
    }

    /// All rows in one piece, whose memory nobody else holds.
    pub(super) fn in_one_piece(&mut self) -> Result<()> {
        let rows = match self.pieces.as_slice() {
            [] => return Ok(()),
            [one] => compact(one)?,
            [first, ..] => compact_views(concat_batches(&first.schema(), &self.pieces)?)?,
        };
        self.replace(0, rows);
        Ok(())
    }

    /// Drops the rows that are gone. `moved` is told of each that stays where it was and where it is, in their order.
    pub(super) fn compact(&mut self, mut moved: impl FnMut(usize, usize)) -> Result<()> {
        let mut kept = Vec::with_capacity(self.pieces.len());
        for (piece, start) in self.pieces.iter().zip(&self.starts) {
            let alive = |row: usize| self.alive.get(start + row);
            let alive = BooleanBuffer::collect_bool(piece.num_rows(), alive);
            let alive = BooleanArray::new(alive, None);
            kept.push(filter_record_batch(piece, &alive)?);
        }
        let Some(first) = kept.first() else {
            return Ok(());
        };
        let rows = compact_views(concat_batches(&first.schema(), &kept)?)?;
        let places = (0..self.rows).filter(|place| self.alive.get(*place));
        let places: Vec<usize> = places.collect();
        let offset = |place: &usize| (self.number(*place) - self.base) as u16;
        let numbers = places.iter().map(offset).collect();
        let mut matched = Bits::default();
        matched.reach(places.len());
        for (to, from) in places.iter().enumerate() {
            if self.is_matched(*from) {
                matched.set(to);
            }
            moved(*from, to);
        }
        self.numbers = Some(numbers);
        self.matched = self.matched.is_some().then_some(matched);
        self.alive = Bits(vec![0; places.len().div_ceil(64)]);
        (0..places.len()).for_each(|place| {
            self.alive.set(place);
        });
        self.rows = places.len();
        (self.order, self.ordered) = (Order::Straight(0), 0);
        self.replace(0, rows);
        Ok(())
    }

    pub(super) fn is_in_one_piece(&self) -> bool {
        self.pieces.len() <= 1
    }

    /// Keeps each piece at least twice as large as the one after it, so that there are few.
    fn merge_small(&mut self) -> Result<()> {
        let mut from = self.pieces.len() - 1;
        let mut rows = self.pieces[from].num_rows();
        while from > 0 && self.pieces[from - 1].num_rows() < 2 * rows {
            from -= 1;
            rows += self.pieces[from].num_rows();
        }
        if from + 1 < self.pieces.len() {
            let schema = self.pieces[from].schema();
            let merged = concat_batches(&schema, &self.pieces[from..])?;
            self.replace(from, compact_views(merged)?);
        }
        Ok(())
    }

    fn replace(&mut self, from: usize, rows: RecordBatch) {
        self.pieces.truncate(from);
        self.starts.truncate(from + 1);
        self.pieces.push(rows);
        self.bytes = self.pieces.iter().map(bytes_of).sum();
    }

    pub(super) fn pieces(&self) -> &[RecordBatch] {
        &self.pieces
    }

    /// The piece that a row is in, and its place there.
    pub(super) fn piece_of(&self, place: usize) -> (usize, usize) {
        if self.pieces.len() == 1 {
            return (0, place);
        }
        let piece = self.starts.partition_point(|start| *start <= place) - 1;
        (piece, place - self.starts[piece])
    }

    /// Puts the places of rows that leave by `until` into `out`, at most `limit`; afterwards [`due`](Self::due) is the
    /// time of the next.
    pub(super) fn take_due(
        &mut self,
        bound: &Bound,
        until: i64,
        limit: usize,
        out: &mut Vec<u16>,
    ) -> Result<()> {
        let ends = self.ends(bound)?;
        if self.ordered != self.rows {
            self.order = self.sorted(&ends);
            self.ordered = self.rows;
        }
        let most = out.len() + limit;
        let values = ends.values();
        let alive = &self.alive;
        self.due = i64::MAX;
        while let Some(at) = self.order.peek(self.rows) {
            if alive.get(at as usize) {
                let time = values[at as usize];
                if time > until || out.len() == most {
                    self.due = time;
                    break;
                }
                out.push(at);
            }
            self.order.advance();
        }
        Ok(())
    }

    fn sorted(&self, ends: &Int64Array) -> Order {
        let values = ends.values();
        if ends.null_count() == 0 && values.is_sorted() {
            return Order::Straight(0);
        }
        let places = 0..self.rows;
        let leaving = places.filter(|at| self.alive.get(*at) && ends.is_valid(*at));
        let mut order: Vec<u16> = leaving.map(|at| at as u16).collect();
        order.sort_by_key(|at| values[*at as usize]);
        Order::Sorted(order.into_boxed_slice(), 0)
    }

    /// When each row is over.
    fn ends(&self, bound: &Bound) -> Result<Int64Array> {
        let column = |piece: &RecordBatch| ends(piece.column(bound.column), bound.span);
        if let [one] = self.pieces.as_slice() {
            return column(one);
        }
        let parts = self.pieces.iter().map(column);
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part as &dyn Array).collect();
        Ok(concat(&parts)?.as_primitive().clone())
    }
}

impl Order {
    /// The next place, of `rows`.
    fn peek(&self, rows: usize) -> Option<u16> {
        match self {
            Self::Straight(next) => (*next < rows).then_some(*next as u16),
            Self::Sorted(order, next) => order.get(*next).copied(),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Straight(next) | Self::Sorted(_, next) => *next += 1,
        }
    }
}

/// True for a part of something larger that would be kept with it.
fn pins_others(rows: &RecordBatch) -> bool {
    let held: usize = rows
        .columns()
        .iter()
        .map(|c| c.get_buffer_memory_size())
        .sum();
    held > 2 * bytes_of(rows) + 1_024
}

/// A copy of `rows` that shares no memory with what they were cut from.
fn compact(rows: &RecordBatch) -> Result<RecordBatch> {
    let all = UInt32Array::from_iter_values(0..rows.num_rows() as u32);
    compact_views(take_record_batch(rows, &all)?)
}

/// Views in memory of their own.
fn compact_views(rows: RecordBatch) -> Result<RecordBatch> {
    let schema: SchemaRef = rows.schema();
    if !schema.fields().iter().any(|f| is_view(f.data_type())) {
        return Ok(rows);
    }
    let own = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    let columns = rows.columns().iter().map(own).collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn is_view(t: &DataType) -> bool {
    matches!(t, DataType::Utf8View | DataType::BinaryView)
}

fn bytes_of(rows: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| {
        if is_view(column.data_type()) {
            return column.get_array_memory_size();
        }
        let whole = |_| column.get_array_memory_size();
        column
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(whole)
    };
    rows.columns().iter().map(bytes).sum()
}
