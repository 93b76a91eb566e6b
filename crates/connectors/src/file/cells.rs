//! Columns of text become typed columns; what does not parse is null and is told.
//!
//! The functions that parse are those of arrow's CSV reader.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::types::*;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, StringArray,
    StringViewArray, new_null_array,
};
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::{DataType, TimeUnit};
use chrono::Utc;
use highwater_core::{Error, Result};

/// The column, and the rows whose text is of another type.
///
/// # Errors
/// `Internal` when there is no text form of the type: such columns are refused when a source is opened.
pub(super) fn parse(
    texts: &[Option<&str>],
    data_type: &DataType,
) -> Result<(ArrayRef, Vec<usize>)> {
    let (column, failed) = match data_type {
        DataType::Boolean => booleans(texts),
        DataType::Int8 => numbers::<Int8Type>(texts),
        DataType::Int16 => numbers::<Int16Type>(texts),
        DataType::Int32 => numbers::<Int32Type>(texts),
        DataType::Int64 => numbers::<Int64Type>(texts),
        DataType::UInt8 => numbers::<UInt8Type>(texts),
        DataType::UInt16 => numbers::<UInt16Type>(texts),
        DataType::UInt32 => numbers::<UInt32Type>(texts),
        DataType::UInt64 => numbers::<UInt64Type>(texts),
        DataType::Float16 => numbers::<Float16Type>(texts),
        DataType::Float32 => numbers::<Float32Type>(texts),
        DataType::Float64 => numbers::<Float64Type>(texts),
        DataType::Date32 => numbers::<Date32Type>(texts),
        DataType::Date64 => numbers::<Date64Type>(texts),
        DataType::Time32(TimeUnit::Second) => numbers::<Time32SecondType>(texts),
        DataType::Time32(TimeUnit::Millisecond) => numbers::<Time32MillisecondType>(texts),
        DataType::Time64(TimeUnit::Microsecond) => numbers::<Time64MicrosecondType>(texts),
        DataType::Time64(TimeUnit::Nanosecond) => numbers::<Time64NanosecondType>(texts),
        DataType::Timestamp(unit, zone) => timestamps(texts, *unit, zone.as_deref(), data_type)?,
        DataType::Decimal128(precision, scale) => decimals(texts, *precision, *scale)?,
        DataType::Utf8 => (
            Arc::new(texts.iter().collect::<StringArray>()) as ArrayRef,
            vec![],
        ),
        DataType::Utf8View => (
            Arc::new(texts.iter().collect::<StringViewArray>()) as ArrayRef,
            vec![],
        ),
        DataType::Null => (new_null_array(data_type, texts.len()), vec![]),
        other => return Err(Error::internal(format!("there is no text form of {other}"))),
    };
    Ok((column, failed))
}

/// Applies `parse` to what is not null, and tells where it fails.
fn each<V>(
    texts: &[Option<&str>],
    parse: impl Fn(&str) -> Option<V>,
) -> (Vec<Option<V>>, Vec<usize>) {
    let mut failed = Vec::new();
    let values = texts
        .iter()
        .enumerate()
        .map(|(row, text)| {
            let value = text.and_then(&parse);
            if text.is_some() && value.is_none() {
                failed.push(row);
            }
            value
        })
        .collect();
    (values, failed)
}

fn numbers<T: ArrowPrimitiveType + Parser>(texts: &[Option<&str>]) -> (ArrayRef, Vec<usize>) {
    let (values, failed) = each(texts, T::parse);
    (
        Arc::new(values.into_iter().collect::<PrimitiveArray<T>>()),
        failed,
    )
}

fn booleans(texts: &[Option<&str>]) -> (ArrayRef, Vec<usize>) {
    let (values, failed) = each(texts, |text| match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    });
    (Arc::new(BooleanArray::from(values)), failed)
}

fn decimals(texts: &[Option<&str>], precision: u8, scale: i8) -> Result<(ArrayRef, Vec<usize>)> {
    let (values, failed) = each(texts, |text| {
        parse_decimal::<Decimal128Type>(text, precision, scale).ok()
    });
    let column = values
        .into_iter()
        .collect::<PrimitiveArray<Decimal128Type>>();
    Ok((
        Arc::new(column.with_precision_and_scale(precision, scale)?),
        failed,
    ))
}

fn timestamps(
    texts: &[Option<&str>],
    unit: TimeUnit,
    zone: Option<&str>,
    data_type: &DataType,
) -> Result<(ArrayRef, Vec<usize>)> {
    let zone: Option<Tz> = zone.map(str::parse).transpose()?;
    let (values, failed) = each(texts, |text| {
        let time = match &zone {
            Some(zone) => string_to_datetime(zone, text).ok()?.to_utc(),
            None => string_to_datetime(&Utc, text).ok()?,
        };
        match unit {
            TimeUnit::Second => Some(time.timestamp()),
            TimeUnit::Millisecond => Some(time.timestamp_millis()),
            TimeUnit::Microsecond => Some(time.timestamp_micros()),
            TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
        }
    });
    let integers = values.into_iter().collect::<PrimitiveArray<Int64Type>>();
    let data = integers
        .into_data()
        .into_builder()
        .data_type(data_type.clone());
    Ok((arrow::array::make_array(data.build()?), failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_cells_are_null_and_told() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (data_type, texts, failed) in [
            (DataType::Int32, [Some("1"), None, Some("x")], vec![2]),
            (
                DataType::Float64,
                [Some("1.5"), Some("-"), Some("NaN")],
                vec![1],
            ),
            (
                DataType::Boolean,
                [Some("TRUE"), Some("yes"), None],
                vec![1],
            ),
            (
                micros,
                [Some("2010-12-01 08:26:00"), Some("soon"), None],
                vec![1],
            ),
            (
                DataType::Date32,
                [Some("2010-12-01"), Some("1/2/10"), None],
                vec![1],
            ),
            (
                DataType::Decimal128(5, 2),
                [Some("1.25"), Some("1,25"), None],
                vec![1],
            ),
            (DataType::Utf8View, [Some("a"), None, Some("b")], vec![]),
        ] {
            let (column, bad) = parse(&texts, &data_type).expect("parsed");
            assert_eq!(column.data_type(), &data_type);
            assert_eq!(bad, failed, "{data_type}");
            for (row, text) in texts.iter().enumerate() {
                assert_eq!(column.is_null(row), text.is_none() || bad.contains(&row));
            }
        }
    }
}
