//! Values of fixed width as 64-bit words, and back.
//!
//! A value of up to eight bytes takes one word, its bits in the low end; one of sixteen takes two, the
//! low half first. Eight-byte columns are not converted at all: their buffer is the words.

use std::borrow::Cow;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use highwater_core::{Error, Result};

/// How wide a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One bit: booleans.
    Bit,
    /// So many bytes: 1, 2, 4 or 8.
    Bytes(usize),
    /// Sixteen bytes: two words.
    Wide,
}

impl Width {
    /// The width of a type's values; `None` for what is not of fixed width or is wider.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Bit),
            _ => match data_type.primitive_width() {
                Some(16) => Some(Self::Wide),
                Some(bytes @ (1 | 2 | 4 | 8)) => Some(Self::Bytes(bytes)),
                _ => None,
            },
        }
    }

    /// The words a value takes.
    pub(crate) fn words(self) -> usize {
        if self == Self::Wide { 2 } else { 1 }
    }

    /// The bits a value takes when it is packed.
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::Bit => 1,
            Self::Bytes(bytes) => bytes * 8,
            Self::Wide => 128,
        }
    }
}

/// The words of a column: borrowed where its buffer is the words already.
pub(crate) enum Words<'a> {
    /// One word a value.
    One(Cow<'a, [u64]>),
    /// Two words a value.
    Two(&'a [i128]),
}

/// The words of the values of `data`, nulls included, whatever stands there.
pub(crate) fn words_of(data: &ArrayData, width: Width) -> Result<Words<'_>> {
    let (offset, len) = (data.offset(), data.len());
    let Some(buffer) = data.buffers().first() else {
        return Err(Error::internal("a column of fixed width without a buffer"));
    };
    Ok(match width {
        Width::Bit => {
            let bits = BooleanBuffer::new(buffer.clone(), offset, len);
            Words::One(bits.iter().map(u64::from).collect())
        }
        Width::Bytes(1) => widened(&buffer.typed_data::<u8>()[offset..offset + len]),
        Width::Bytes(2) => widened(&buffer.typed_data::<u16>()[offset..offset + len]),
        Width::Bytes(4) => widened(&buffer.typed_data::<u32>()[offset..offset + len]),
        Width::Bytes(_) => {
            let words = &buffer.typed_data::<u64>()[offset..offset + len];
            Words::One(Cow::Borrowed(words))
        }
        Width::Wide => Words::Two(&buffer.typed_data::<i128>()[offset..offset + len]),
    })
}

fn widened<T: ArrowNativeType + Into<u64>>(values: &[T]) -> Words<'static> {
    Words::One(values.iter().map(|v| (*v).into()).collect())
}

/// A column of `data_type` from words of one each.
pub(crate) fn array_of(
    data_type: &DataType,
    words: Vec<u64>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let len = words.len();
    let buffer = match Width::of(data_type) {
        Some(Width::Bit) => {
            BooleanBuffer::collect_bool(len, |row| words[row] & 1 == 1).into_inner()
        }
        Some(Width::Bytes(1)) => narrowed(&words, |word| word as u8),
        Some(Width::Bytes(2)) => narrowed(&words, |word| word as u16),
        Some(Width::Bytes(4)) => narrowed(&words, |word| word as u32),
        _ => Buffer::from_vec(words),
    };
    build(data_type, len, buffer, nulls)
}

/// A column of `data_type` from values of two words each.
pub(crate) fn array_of_wide(
    data_type: &DataType,
    values: Vec<i128>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let len = values.len();
    build(data_type, len, Buffer::from_vec(values), nulls)
}

fn narrowed<T: ArrowNativeType>(words: &[u64], narrow: impl Fn(u64) -> T) -> Buffer {
    let values: Vec<T> = words.iter().map(|word| narrow(*word)).collect();
    Buffer::from_vec(values)
}

fn build(
    data_type: &DataType,
    len: usize,
    buffer: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let data = ArrayData::builder(data_type.clone())
        .len(len)
        .add_buffer(buffer)
        .nulls(nulls)
        .build()?;
    Ok(make_array(data))
}

/// The value of two words.
#[inline]
pub(crate) fn wide(low: u64, high: u64) -> i128 {
    ((u128::from(high) << 64) | u128::from(low)) as i128
}

/// The two words of a value, the low one first.
#[inline]
pub(crate) fn halves(value: i128) -> (u64, u64) {
    (value as u64, (value as u128 >> 64) as u64)
}

/// The buffer of an eight-byte column without nulls, as words; `None` for any other column.
pub(crate) fn borrowed_words(array: &dyn Array) -> Option<&[u64]> {
    use arrow::datatypes::*;
    macro_rules! words {
        ($($pattern:pat => $native:ty),* $(,)?) => {
            match array.data_type() {
                $($pattern => array.as_primitive::<$native>().values().inner(),)*
                _ => return None,
            }
        };
    }
    if array.null_count() > 0 {
        return None;
    }
    let buffer = words!(
        DataType::Int64 => Int64Type,
        DataType::UInt64 => UInt64Type,
        DataType::Date64 => Date64Type,
        DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
        DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
        DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType,
    );
    Some(buffer.typed_data::<u64>())
}
