//! Keys: how the key columns of a batch become something that can be hashed, compared and kept.
//!
//! | key columns | kept in the record as |
//! |---|---|
//! | none | nothing: there is one record |
//! | of fixed width, together up to 16 bytes | one or two words, nulls in the header |
//! | one string or binary | its bytes |
//! | anything else | the bytes of an Arrow row |
//!
//! Keys are made canonical first: −0.0 is 0.0, all NaN are one, dictionaries are their values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use highwater_core::{Error, Result};

use crate::bytes;
use crate::fixed::{self, Width, Words};
use crate::hash::{hash_bytes, hash_word, hash_words};

/// The first of the header's bits that belong to keys (1: the key column is null), then to values.
pub(crate) const FIRST_BIT: usize = 35;

/// Words of a cell that holds a key's bytes: 24 bytes without a box.
const CELL: usize = 4;

/// How the keys of a table are kept.
#[derive(Debug)]
pub(crate) struct KeyCodec {
    schema: SchemaRef,
    /// The types after canonicalisation.
    types: Vec<DataType>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unit,
    Fixed { places: Vec<Place>, words: usize },
    Bytes,
    Rows(RowConverter),
}

/// Where a column of fixed width lies in the words of a key.
#[derive(Clone, Copy, Debug)]
struct Place {
    word: usize,
    shift: usize,
    width: Width,
}

/// Calls a closure-like body with the key batch in its own type, so that each gets its own loop.
pub(crate) trait KeyVisitor {
    fn visit<K: KeyBatch>(self, keys: &K) -> Result<()>;
}

/// The keys of one batch, row by row. Key words begin at word `at` of a record.
pub(crate) trait KeyBatch {
    fn len(&self) -> usize;
    fn hash(&self, row: usize) -> u64;
    fn is_in(&self, row: usize, record: &[u64], at: usize) -> bool;
    /// The keys themselves where each is one word and none is null.
    fn words(&self) -> Option<&[u64]> {
        None
    }
    /// Writes the key into a record of zeros; the heap bytes it took.
    fn write(&self, row: usize, record: &mut [u64], at: usize) -> isize;
}

impl KeyCodec {
    pub(crate) fn try_new(schema: SchemaRef) -> Result<Self> {
        let types: Vec<DataType> = schema
            .fields()
            .iter()
            .map(|f| canonical_type(f.data_type()))
            .collect();
        let kind = match &types[..] {
            [] => Kind::Unit,
            [one] if bytes::is_bytes(one) => Kind::Bytes,
            many => match places(many) {
                Some((places, words)) => Kind::Fixed { places, words },
                None => Kind::Rows(row_converter(many)?),
            },
        };
        Ok(Self {
            schema,
            types,
            kind,
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Words a key takes in a record.
    pub(crate) fn words(&self) -> usize {
        match &self.kind {
            Kind::Unit => 0,
            Kind::Fixed { words, .. } => *words,
            Kind::Bytes | Kind::Rows(_) => CELL,
        }
    }

    /// Header bits a key takes.
    pub(crate) fn bits(&self) -> usize {
        match &self.kind {
            Kind::Unit => 0,
            Kind::Fixed { places, .. } => places.len(),
            Kind::Bytes | Kind::Rows(_) => 1,
        }
    }

    /// The hash of the key in a record: that of the key in a batch.
    #[inline]
    pub(crate) fn hash_of(&self, record: &[u64], at: usize) -> u64 {
        match &self.kind {
            Kind::Unit => 0,
            Kind::Fixed { places, words } => {
                let nulls = (record[0] >> FIRST_BIT) & ((1 << places.len()) - 1);
                match words {
                    2 => hash_words(record[at], record[at + 1], nulls),
                    _ => hash_word(record[at], nulls),
                }
            }
            Kind::Bytes | Kind::Rows(_) => {
                let bytes = bytes::read(&record[at..at + CELL]);
                hash_bytes((!bit(record, FIRST_BIT)).then_some(bytes))
            }
        }
    }

    /// Frees what a record's key holds on the heap; the bytes freed.
    pub(crate) fn free(&self, record: &mut [u64], at: usize) -> isize {
        match &self.kind {
            Kind::Unit | Kind::Fixed { .. } => 0,
            Kind::Bytes | Kind::Rows(_) => bytes::free(&mut record[at..at + CELL]),
        }
    }

    /// True when records hold keys on the heap.
    pub(crate) fn owns_heap(&self) -> bool {
        matches!(self.kind, Kind::Bytes | Kind::Rows(_))
    }

    /// Encodes the key columns of a batch of `rows` rows and hands them to `visitor`.
    pub(crate) fn encode(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        visitor: impl KeyVisitor,
    ) -> Result<()> {
        self.check(columns)?;
        if let (Kind::Fixed { places, .. }, [column]) = (&self.kind, columns)
            && let Some(words) = fixed::borrowed_words(column.as_ref())
            && places.len() == 1
        {
            return visitor.visit(&WordKeys(words));
        }
        let columns: Vec<ArrayRef> = columns.iter().map(canonical).collect::<Result<_>>()?;
        match &self.kind {
            Kind::Unit => visitor.visit(&UnitKeys(rows)),
            Kind::Fixed { places, words } => {
                visitor.visit(&FixedKeys::pack(&columns, places, *words, rows)?)
            }
            Kind::Bytes => {
                let slices = bytes::slices(columns[0].as_ref())?;
                visitor.visit(&ByteKeys { slices })
            }
            Kind::Rows(converter) => {
                let rows = converter.convert_columns(&columns)?;
                let slices = rows.iter().map(|row| Some(row.data())).collect();
                visitor.visit(&ByteKeys { slices })
            }
        }
    }

    fn check(&self, columns: &[ArrayRef]) -> Result<()> {
        let fits = columns.len() == self.types.len()
            && columns
                .iter()
                .zip(&self.types)
                .all(|(c, t)| canonical_type(c.data_type()).equals_datatype(t));
        if fits {
            return Ok(());
        }
        let got: Vec<_> = columns.iter().map(|c| c.data_type().to_string()).collect();
        let expected: Vec<_> = self.types.iter().map(ToString::to_string).collect();
        Err(Error::internal(format!(
            "key columns of types [{}] for a table keyed by [{}]",
            got.join(", "),
            expected.join(", ")
        )))
    }

    /// The key columns of records; key words begin at word `at`.
    pub(crate) fn decode<'a>(
        &self,
        records: impl Iterator<Item = &'a [u64]> + Clone,
        at: usize,
    ) -> Result<Vec<ArrayRef>> {
        let columns = match &self.kind {
            Kind::Unit => Vec::new(),
            Kind::Fixed { places, .. } => places
                .iter()
                .zip(&self.types)
                .enumerate()
                .map(|(column, (place, t))| unpack(records.clone(), column, at, *place, t))
                .collect::<Result<_>>()?,
            Kind::Bytes => {
                let values = records.map(|record| {
                    (!bit(record, FIRST_BIT)).then(|| bytes::read(&record[at..at + CELL]))
                });
                vec![bytes::array(&self.types[0], values)?]
            }
            Kind::Rows(converter) => {
                let parser = converter.parser();
                let rows = records.map(|record| parser.parse(bytes::read(&record[at..at + CELL])));
                converter.convert_rows(rows)?
            }
        };
        columns
            .into_iter()
            .zip(self.schema.fields())
            .map(|(column, field)| retyped(column, field.data_type()))
            .collect()
    }
}

/// The header bit `at` of a record.
#[inline]
pub(crate) fn bit(record: &[u64], at: usize) -> bool {
    (record[at / 64] >> (at % 64)) & 1 == 1
}

/// The column as `data_type`; its own array when it is that already.
pub(crate) fn retyped(column: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column);
    }
    Ok(cast(&column, data_type)?)
}

/// A converter for columns of these types.
pub(crate) fn row_converter(types: &[DataType]) -> Result<RowConverter> {
    let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
    if !RowConverter::supports_fields(&fields) {
        let names: Vec<_> = types.iter().map(ToString::to_string).collect();
        return Err(Error::unsupported(format!(
            "state of type {} cannot be kept",
            names.join(", ")
        )));
    }
    Ok(RowConverter::new(fields)?)
}

/// Where each column lies when all of them fit into two words.
fn places(types: &[DataType]) -> Option<(Vec<Place>, usize)> {
    let mut used = [0_usize; 2];
    let mut places = Vec::with_capacity(types.len());
    for data_type in types {
        let width = Width::of(data_type)?;
        let word = match width {
            Width::Wide if used == [0, 0] => {
                used = [64, 64];
                places.push(Place {
                    word: 0,
                    shift: 0,
                    width,
                });
                continue;
            }
            Width::Wide => return None,
            _ => (0..2).find(|word| used[*word] + width.bits() <= 64)?,
        };
        places.push(Place {
            word,
            shift: used[word],
            width,
        });
        used[word] += width.bits();
    }
    // The null bits must lie in the first header word.
    (places.len() <= 16).then(|| (places, 1 + usize::from(used[1] > 0)))
}

/// The type that keys of a type are kept as.
fn canonical_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => canonical_type(values),
        other => other.clone(),
    }
}

/// The column with one bit pattern for each value that compares equal.
fn canonical(column: &ArrayRef) -> Result<ArrayRef> {
    macro_rules! floats {
        ($native:ty) => {{
            type Native = <$native as arrow::array::ArrowPrimitiveType>::Native;
            let one = |v: Native| match v {
                v if v.is_nan() => Native::NAN,
                v if v == Native::default() => Native::default(),
                v => v,
            };
            Arc::new(column.as_primitive::<$native>().unary::<_, $native>(one))
        }};
    }
    Ok(match column.data_type() {
        DataType::Float16 => floats!(Float16Type),
        DataType::Float32 => floats!(Float32Type),
        DataType::Float64 => floats!(Float64Type),
        DataType::Dictionary(_, values) => canonical(&cast(column, values)?)?,
        DataType::Struct(fields) if !fields.is_empty() => {
            let parts = column.as_struct();
            let children = parts
                .columns()
                .iter()
                .map(canonical)
                .collect::<Result<_>>()?;
            let kept = StructArray::try_new(fields.clone(), children, parts.nulls().cloned());
            // A dictionary inside a struct keeps its type; Arrow's rows make it canonical.
            kept.map_or_else(|_| Arc::clone(column), |parts| Arc::new(parts) as ArrayRef)
        }
        DataType::List(field) => {
            let list = column.as_list::<i32>();
            let (offsets, values) = (list.offsets().clone(), canonical(list.values())?);
            let kept =
                ListArray::try_new(Arc::clone(field), offsets, values, list.nulls().cloned());
            kept.map_or_else(|_| Arc::clone(column), |list| Arc::new(list) as ArrayRef)
        }
        _ => Arc::clone(column),
    })
}

fn unpack<'a>(
    records: impl Iterator<Item = &'a [u64]> + Clone,
    column: usize,
    at: usize,
    place: Place,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let null_bit = FIRST_BIT + column;
    let any_null = records.clone().any(|record| bit(record, null_bit));
    let nulls = any_null
        .then(|| NullBuffer::from_iter(records.clone().map(|record| !bit(record, null_bit))));
    if place.width == Width::Wide {
        let values = records.map(|record| fixed::wide(record[at], record[at + 1]));
        return fixed::array_of_wide(data_type, values.collect(), nulls);
    }
    let mask = u64::MAX >> (64 - place.width.bits());
    let values = records.map(|record| (record[at + place.word] >> place.shift) & mask);
    fixed::array_of(data_type, values.collect(), nulls)
}

/// No key columns: every row has the one key there is.
struct UnitKeys(usize);

impl KeyBatch for UnitKeys {
    fn len(&self) -> usize {
        self.0
    }

    fn hash(&self, _row: usize) -> u64 {
        0
    }

    fn is_in(&self, _row: usize, _record: &[u64], _at: usize) -> bool {
        true
    }

    fn write(&self, _row: usize, _record: &mut [u64], _at: usize) -> isize {
        0
    }
}

/// One eight-byte column without nulls.
struct WordKeys<'a>(&'a [u64]);

impl KeyBatch for WordKeys<'_> {
    fn words(&self) -> Option<&[u64]> {
        Some(self.0)
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn hash(&self, row: usize) -> u64 {
        hash_word(self.0[row], 0)
    }

    #[inline]
    fn is_in(&self, row: usize, record: &[u64], at: usize) -> bool {
        record[at] == self.0[row] && (record[0] >> FIRST_BIT) & 1 == 0
    }

    #[inline]
    fn write(&self, row: usize, record: &mut [u64], at: usize) -> isize {
        record[at] = self.0[row];
        0
    }
}

/// Columns of fixed width packed into one or two words; a null is zero with its null bit set.
struct FixedKeys {
    first: Vec<u64>,
    second: Option<Vec<u64>>,
    nulls: Vec<u64>,
    null_mask: u64,
}

impl FixedKeys {
    fn pack(columns: &[ArrayRef], places: &[Place], words: usize, rows: usize) -> Result<Self> {
        let mut keys = Self {
            first: vec![0; rows],
            second: (words == 2).then(|| vec![0; rows]),
            nulls: vec![0; rows],
            null_mask: (1 << places.len()) - 1,
        };
        for (number, (column, place)) in columns.iter().zip(places).enumerate() {
            keys.add(number, column, *place)?;
        }
        Ok(keys)
    }

    fn add(&mut self, number: usize, column: &ArrayRef, place: Place) -> Result<()> {
        let data = column.to_data();
        let nulls = column
            .logical_nulls()
            .filter(|nulls| nulls.null_count() > 0);
        let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        match fixed::words_of(&data, place.width)? {
            Words::One(words) => {
                let target = match (&mut self.second, place.word) {
                    (Some(second), 1) => second,
                    _ => &mut self.first,
                };
                for (row, (into, word)) in target.iter_mut().zip(words.iter()).enumerate() {
                    *into |= if valid(row) { word << place.shift } else { 0 };
                }
            }
            Words::Two(values) => {
                for (row, value) in values.iter().enumerate().filter(|(row, _)| valid(*row)) {
                    let (low, high) = fixed::halves(*value);
                    self.first[row] = low;
                    self.second.iter_mut().for_each(|second| second[row] = high);
                }
            }
        }
        if let Some(nulls) = nulls {
            for (bits, valid) in self.nulls.iter_mut().zip(nulls.iter()) {
                *bits |= u64::from(!valid) << number;
            }
        }
        Ok(())
    }
}

impl KeyBatch for FixedKeys {
    fn words(&self) -> Option<&[u64]> {
        let one = self.second.is_none() && self.nulls.iter().all(|nulls| *nulls == 0);
        one.then_some(&self.first)
    }

    #[inline]
    fn len(&self) -> usize {
        self.first.len()
    }

    #[inline]
    fn hash(&self, row: usize) -> u64 {
        match &self.second {
            Some(second) => hash_words(self.first[row], second[row], self.nulls[row]),
            None => hash_word(self.first[row], self.nulls[row]),
        }
    }

    #[inline]
    fn is_in(&self, row: usize, record: &[u64], at: usize) -> bool {
        record[at] == self.first[row]
            && (record[0] >> FIRST_BIT) & self.null_mask == self.nulls[row]
            && self
                .second
                .as_ref()
                .is_none_or(|second| record[at + 1] == second[row])
    }

    #[inline]
    fn write(&self, row: usize, record: &mut [u64], at: usize) -> isize {
        record[0] |= self.nulls[row] << FIRST_BIT;
        record[at] = self.first[row];
        if let Some(second) = &self.second {
            record[at + 1] = second[row];
        }
        0
    }
}

/// Keys that are bytes.
struct ByteKeys<'a> {
    slices: Vec<Option<&'a [u8]>>,
}

impl KeyBatch for ByteKeys<'_> {
    fn len(&self) -> usize {
        self.slices.len()
    }

    fn hash(&self, row: usize) -> u64 {
        hash_bytes(self.slices[row])
    }

    #[inline]
    fn is_in(&self, row: usize, record: &[u64], at: usize) -> bool {
        let cell = &record[at..at + CELL];
        match self.slices[row] {
            None => bit(record, FIRST_BIT) && cell[0] == 0,
            Some(bytes) => {
                cell[0] == bytes.len() as u64
                    && bytes::read(cell) == bytes
                    && (!bytes.is_empty() || !bit(record, FIRST_BIT))
            }
        }
    }

    fn write(&self, row: usize, record: &mut [u64], at: usize) -> isize {
        match self.slices[row] {
            None => {
                record[0] |= 1 << FIRST_BIT;
                0
            }
            Some(bytes) => bytes::write(&mut record[at..at + CELL], bytes),
        }
    }
}
