//! Bytes of any length in a record: a cell of a few words that holds them itself when they are short.
//!
//! ```text
//!  word 0: length │ words 1..: the bytes, where they fit; else word 1: a pointer to a box of them
//! ```
//!
//! A cell of zeros holds no bytes. Cells are copied with their record only when that or its page is moved, never
//! doubled: the table that owns the record frees them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BinaryViewBuilder, LargeBinaryBuilder,
    LargeStringBuilder, StringBuilder, StringViewBuilder,
};
use arrow::datatypes::DataType;
use highwater_core::{Error, Result};

/// The bytes in a cell.
#[inline]
pub(crate) fn read(cell: &[u64]) -> &[u8] {
    let length = cell[0] as usize;
    let at = if length <= room(cell) {
        cell[1..].as_ptr().cast::<u8>()
    } else {
        cell[1] as *const u8
    };
    // SAFETY: cells are zero or were written by `write`: the bytes are in the cell, or in a box of that
    // length which the cell owns until it is written again or freed. Both live as long as the record.
    unsafe { std::slice::from_raw_parts(at, length) }
}

/// Puts bytes into a cell in place of those it held; the change in heap bytes.
pub(crate) fn write(cell: &mut [u64], bytes: &[u8]) -> isize {
    let freed = free(cell);
    cell[0] = bytes.len() as u64;
    if bytes.len() <= room(cell) {
        for (word, chunk) in cell[1..].iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(padded);
        }
        return -freed;
    }
    let owned: Box<[u8]> = Box::from(bytes);
    cell[1] = Box::into_raw(owned).cast::<u8>() as u64;
    bytes.len() as isize - freed
}

/// Empties a cell; the heap bytes that were freed.
pub(crate) fn free(cell: &mut [u64]) -> isize {
    let length = cell[0] as usize;
    let freed = if length > room(cell) {
        let at = std::ptr::slice_from_raw_parts_mut(cell[1] as *mut u8, length);
        // SAFETY: a cell longer than its room owns a box of that length (see `write`), once.
        drop(unsafe { Box::from_raw(at) });
        length as isize
    } else {
        0
    };
    cell.fill(0);
    freed
}

/// The bytes that fit into the cell itself.
#[inline]
fn room(cell: &[u64]) -> usize {
    (cell.len() - 1) * size_of::<u64>()
}

/// True for the types whose values are bytes as they are.
pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(
        data_type,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView
    )
}

/// The bytes of each row of a string or binary array.
pub(crate) fn slices(array: &dyn Array) -> Result<Vec<Option<&[u8]>>> {
    fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Vec<Option<&'a [u8]>> {
        values.map(|v| v.map(str::as_bytes)).collect()
    }
    Ok(match array.data_type() {
        DataType::Utf8 => text(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => text(array.as_string::<i64>().iter()),
        DataType::Utf8View => text(array.as_string_view().iter()),
        DataType::Binary => array.as_binary::<i32>().iter().collect(),
        DataType::LargeBinary => array.as_binary::<i64>().iter().collect(),
        DataType::BinaryView => array.as_binary_view().iter().collect(),
        other => return Err(Error::internal(format!("{other} is no type of bytes"))),
    })
}

/// An array of strings or binaries of `data_type`.
pub(crate) fn array<'a>(
    data_type: &DataType,
    values: impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<ArrayRef> {
    macro_rules! build {
        ($builder:expr, $convert:expr) => {{
            let mut builder = $builder;
            for value in values {
                builder.append_option(value.map($convert).transpose()?);
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    Ok(match data_type {
        DataType::Utf8 => build!(StringBuilder::new(), utf8),
        DataType::LargeUtf8 => build!(LargeStringBuilder::new(), utf8),
        DataType::Utf8View => build!(StringViewBuilder::new(), utf8),
        DataType::Binary => build!(BinaryBuilder::new(), Ok::<_, Error>),
        DataType::LargeBinary => build!(LargeBinaryBuilder::new(), Ok::<_, Error>),
        DataType::BinaryView => build!(BinaryViewBuilder::new(), Ok::<_, Error>),
        other => return Err(Error::internal(format!("{other} is no type of bytes"))),
    })
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Error::corrupt("a string in the state is not UTF-8").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_bytes_come_back_and_are_counted() {
        let mut cell = [0_u64; 3];
        assert_eq!(read(&cell), b"");
        for (text, change) in [
            ("short", 0),
            ("exactly sixteen!", 0),
            ("more than sixteen bytes", 23),
            ("another text of other length", 5),
            ("", -28),
        ] {
            assert_eq!(write(&mut cell, text.as_bytes()), change, "{text}");
            assert_eq!(read(&cell), text.as_bytes());
        }
        assert_eq!(free(&mut cell), 0);
    }
}
