//! Values: how the value columns are kept in records, copied out (gathered) and put back (scattered).
//!
//! Types of fixed width take one or two words and a validity bit of the header. Strings and binaries
//! take a cell with their bytes; everything else (lists, structs) a cell with the bytes of an Arrow row.

use std::borrow::Cow;

use arrow::array::{Array, ArrayData, ArrayRef};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::RowConverter;
use highwater_core::{Error, Result};

use crate::bytes;
use crate::fixed::{self, Width, Words};
use crate::keys::{bit, retyped, row_converter};
use crate::pages::Pages;

/// The header bit that says a record has values: it is more than a key that was just seen.
pub(crate) const HAS_VALUES: u64 = 1 << 33;

/// Words of a cell that holds a value's bytes: 8 bytes without a box.
const CELL: usize = 2;
/// Records that are looked at together, so that they stay in the first cache.
const BLOCK: usize = 64;

/// How the values of a table are kept.
#[derive(Debug)]
pub(crate) struct ValueCodec {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// The header words of a record.
    header: usize,
}

#[derive(Debug)]
struct Column {
    data_type: DataType,
    kind: Kind,
    /// The word it begins at.
    at: usize,
    /// Its validity bit in the header.
    bit: usize,
}

#[derive(Debug)]
enum Kind {
    Fixed(Width),
    Bytes,
    Row(RowConverter),
}

/// A column while it is gathered.
enum Gathered {
    One(Vec<u64>),
    Two(Vec<i128>),
    Later,
}

impl ValueCodec {
    /// Values whose validity bits begin at `first_bit`, in records with `key_words` words of key.
    pub(crate) fn try_new(schema: SchemaRef, first_bit: usize, key_words: usize) -> Result<Self> {
        let header = (first_bit + schema.fields().len()).div_ceil(64);
        let mut at = header + key_words;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (number, field) in schema.fields().iter().enumerate() {
            let data_type = field.data_type().clone();
            let kind = match Width::of(&data_type) {
                Some(width) => Kind::Fixed(width),
                None if bytes::is_bytes(&data_type) => Kind::Bytes,
                None => Kind::Row(row_converter(std::slice::from_ref(&data_type))?),
            };
            let words = match &kind {
                Kind::Fixed(width) => width.words(),
                Kind::Bytes | Kind::Row(_) => CELL,
            };
            let bit = first_bit + number;
            columns.push(Column {
                data_type,
                kind,
                at,
                bit,
            });
            at += words;
        }
        Ok(Self {
            schema,
            columns,
            header,
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The header words of a record, before its key.
    pub(crate) fn header(&self) -> usize {
        self.header
    }

    /// Words of all values together.
    pub(crate) fn words(&self) -> usize {
        self.columns.iter().map(Column::words).sum()
    }

    /// True when records hold values on the heap.
    pub(crate) fn owns_heap(&self) -> bool {
        self.columns
            .iter()
            .any(|c| !matches!(c.kind, Kind::Fixed(_)))
    }

    /// Frees what a record's values hold on the heap; the bytes freed.
    pub(crate) fn free(&self, record: &mut [u64]) -> isize {
        let cells = self
            .columns
            .iter()
            .filter(|c| !matches!(c.kind, Kind::Fixed(_)));
        cells
            .map(|c| bytes::free(&mut record[c.at..c.at + CELL]))
            .sum()
    }

    /// The values of the records in `slots`, in that order.
    pub(crate) fn gather(&self, pages: &Pages, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let (gathered, headers) = self.gather_words(pages, slots);
        let all: Vec<u64> = headers
            .iter()
            .map(|words| words.iter().fold(u64::MAX, |all, word| all & word))
            .collect();
        let columns = self.columns.iter().zip(gathered);
        let finish = |(column, gathered): (&Column, Gathered)| {
            let nulls = (!bit(&all, column.bit)).then(|| {
                let (word, shift) = (column.bit / 64, column.bit % 64);
                NullBuffer::from_iter(headers[word].iter().map(|w| (w >> shift) & 1 == 1))
            });
            match gathered {
                Gathered::One(words) => fixed::array_of(&column.data_type, words, nulls),
                Gathered::Two(values) => fixed::array_of_wide(&column.data_type, values, nulls),
                Gathered::Later => column.gather_cells(pages, slots),
            }
        };
        columns.map(finish).collect()
    }

    /// The words of the columns of fixed width, and the headers, block by block.
    fn gather_words(&self, pages: &Pages, slots: &[u32]) -> (Vec<Gathered>, Vec<Vec<u64>>) {
        let room = slots.len();
        let mut gathered: Vec<Gathered> = self.columns.iter().map(|c| c.empty(room)).collect();
        let mut headers = vec![Vec::with_capacity(room); self.header];
        let mut records: Vec<&[u64]> = Vec::with_capacity(BLOCK);
        for block in slots.chunks(BLOCK) {
            records.clear();
            block.iter().for_each(|slot| pages.prefetch(*slot));
            records.extend(block.iter().map(|slot| pages.record(*slot)));
            for (word, header) in headers.iter_mut().enumerate() {
                header.extend(records.iter().map(|record| record[word]));
            }
            for (column, into) in self.columns.iter().zip(&mut gathered) {
                let at = column.at;
                match into {
                    Gathered::One(words) => words.extend(records.iter().map(|r| r[at])),
                    Gathered::Two(values) => {
                        values.extend(records.iter().map(|r| fixed::wide(r[at], r[at + 1])));
                    }
                    Gathered::Later => {}
                }
            }
        }
        (gathered, headers)
    }

    /// Puts row i of `columns` into the record of `slots[i]`; the change in heap bytes.
    pub(crate) fn scatter(
        &self,
        pages: &mut Pages,
        slots: &[u32],
        columns: &[ArrayRef],
    ) -> Result<isize> {
        self.check(slots.len(), columns)?;
        let data: Vec<ArrayData> = columns.iter().map(|c| c.to_data()).collect();
        let mut words: Vec<(usize, Cow<'_, [u64]>)> = Vec::with_capacity(columns.len());
        for (column, data) in self.columns.iter().zip(&data) {
            column.push_words(data, &mut words)?;
        }
        let words: Vec<(usize, &[u64])> = words.iter().map(|(at, w)| (*at, w.as_ref())).collect();
        let validity = self.validity(slots.len(), columns);
        for (number, block) in slots.chunks(BLOCK).enumerate() {
            block.iter().for_each(|slot| pages.prefetch(*slot));
            for (row, slot) in (number * BLOCK..).zip(block) {
                let record = pages.record_mut(*slot);
                for (at, header) in record[..self.header].iter_mut().enumerate() {
                    *header = (*header & !validity.masks[at]) | validity.word(at, row);
                }
                record[0] |= HAS_VALUES;
                words
                    .iter()
                    .for_each(|(at, words)| record[*at] = words[row]);
            }
        }
        let cells = self.columns.iter().zip(columns);
        cells
            .map(|(column, values)| column.scatter_cells(pages, slots, values))
            .sum()
    }

    /// Which value bits of the header are set in each row.
    fn validity(&self, rows: usize, columns: &[ArrayRef]) -> Validity {
        let mut masks = vec![0_u64; self.header];
        for column in &self.columns {
            masks[column.bit / 64] |= 1 << (column.bit % 64);
        }
        let mut rows_of: Vec<Option<Vec<u64>>> = vec![None; self.header];
        for (column, values) in self.columns.iter().zip(columns) {
            let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
            let Some(nulls) = nulls else { continue };
            let (word, shift) = (column.bit / 64, column.bit % 64);
            let bits = rows_of[word].get_or_insert_with(|| vec![masks[word]; rows]);
            for (bits, valid) in bits.iter_mut().zip(nulls.iter()) {
                *bits &= !(u64::from(!valid) << shift);
            }
        }
        Validity {
            masks,
            rows: rows_of,
        }
    }

    fn check(&self, rows: usize, columns: &[ArrayRef]) -> Result<()> {
        if columns.len() != self.columns.len() {
            return Err(Error::internal(format!(
                "{} value columns for a table with {}",
                columns.len(),
                self.columns.len()
            )));
        }
        for ((column, values), field) in self.columns.iter().zip(columns).zip(self.schema.fields())
        {
            let fits = values.data_type().equals_datatype(&column.data_type);
            if !fits || values.len() != rows {
                return Err(Error::internal(format!(
                    "{} values of type {} where {rows} of type {} are kept",
                    values.len(),
                    values.data_type(),
                    column.data_type
                ))
                .with_column(field.name().as_str()));
            }
        }
        Ok(())
    }
}

/// The value bits of the header, for each header word: all of them, and those set in each row.
struct Validity {
    masks: Vec<u64>,
    rows: Vec<Option<Vec<u64>>>,
}

impl Validity {
    #[inline]
    fn word(&self, at: usize, row: usize) -> u64 {
        self.rows[at]
            .as_ref()
            .map_or(self.masks[at], |rows| rows[row])
    }
}

impl Column {
    fn words(&self) -> usize {
        match &self.kind {
            Kind::Fixed(width) => width.words(),
            Kind::Bytes | Kind::Row(_) => CELL,
        }
    }

    fn empty(&self, room: usize) -> Gathered {
        match &self.kind {
            Kind::Fixed(Width::Wide) => Gathered::Two(Vec::with_capacity(room)),
            Kind::Fixed(_) => Gathered::One(Vec::with_capacity(room)),
            Kind::Bytes | Kind::Row(_) => Gathered::Later,
        }
    }

    /// The words of a column of fixed width, with the word of the record each goes to.
    fn push_words<'a>(
        &self,
        data: &'a ArrayData,
        into: &mut Vec<(usize, Cow<'a, [u64]>)>,
    ) -> Result<()> {
        let Kind::Fixed(width) = &self.kind else {
            return Ok(());
        };
        match fixed::words_of(data, *width)? {
            Words::One(words) => into.push((self.at, words)),
            Words::Two(values) => {
                let (low, high): (Vec<u64>, Vec<u64>) =
                    values.iter().map(|value| fixed::halves(*value)).unzip();
                into.push((self.at, Cow::Owned(low)));
                into.push((self.at + 1, Cow::Owned(high)));
            }
        }
        Ok(())
    }

    fn gather_cells(&self, pages: &Pages, slots: &[u32]) -> Result<ArrayRef> {
        let records = slots.iter().map(|slot| pages.record(*slot));
        let array = match &self.kind {
            Kind::Row(converter) => {
                let parser = converter.parser();
                let cells = records.map(|record| bytes::read(&record[self.at..self.at + CELL]));
                let mut columns = converter.convert_rows(cells.map(|bytes| parser.parse(bytes)))?;
                columns.pop()
            }
            _ => {
                let values = records.map(|record| {
                    bit(record, self.bit).then(|| bytes::read(&record[self.at..self.at + CELL]))
                });
                Some(bytes::array(&self.data_type, values)?)
            }
        };
        let array = array.ok_or_else(|| Error::internal("a row of state has no column"))?;
        retyped(array, &self.data_type)
    }

    fn scatter_cells(&self, pages: &mut Pages, slots: &[u32], values: &ArrayRef) -> Result<isize> {
        let cell = self.at..self.at + CELL;
        let mut heap = 0;
        match &self.kind {
            Kind::Fixed(_) => {}
            Kind::Bytes => {
                for (slot, value) in slots.iter().zip(bytes::slices(values.as_ref())?) {
                    let value = value.unwrap_or_default();
                    heap += bytes::write(&mut pages.record_mut(*slot)[cell.clone()], value);
                }
            }
            Kind::Row(converter) => {
                let rows = converter.convert_columns(std::slice::from_ref(values))?;
                for (slot, row) in slots.iter().zip(rows.iter()) {
                    heap += bytes::write(&mut pages.record_mut(*slot)[cell.clone()], row.data());
                }
            }
        }
        Ok(heap)
    }
}
