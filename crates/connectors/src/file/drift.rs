//! What a file's own schema may differ in: names in case, missing and surplus columns, narrower types.
//!
//! A missing column is null, a surplus one is ignored, a value of a narrower type is widened. Anything
//! else is an error that names the file, the column and both types.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use highwater_core::{Error, Result};

/// The wanted columns with their names spelled as in the file, so that they are found there.
///
/// # Errors
/// `Invalid`, naming the file, the column and both types, when a column cannot be widened.
pub(super) fn align(wanted: &SchemaRef, found: &Schema, file: &str) -> Result<SchemaRef> {
    let fields = align_fields(wanted.fields(), found.fields(), file, "")?;
    Ok(Arc::new(Schema::new(fields)))
}

fn align_fields(wanted: &Fields, found: &Fields, file: &str, inside: &str) -> Result<Fields> {
    wanted
        .iter()
        .map(|field| {
            let exact = found.iter().find(|f| f.name() == field.name());
            let folded = || {
                let name = field.name().to_lowercase();
                found.iter().find(|f| f.name().to_lowercase() == name)
            };
            match exact.or_else(folded) {
                Some(other) => {
                    let path = format!("{inside}{}", field.name());
                    let data_type = align_type(field.data_type(), other.data_type(), file, &path)?;
                    let aligned = field.as_ref().clone().with_name(other.name());
                    Ok(Arc::new(aligned.with_data_type(data_type)))
                }
                None => Ok(Arc::clone(field)),
            }
        })
        .collect()
}

fn align_type(wanted: &DataType, found: &DataType, file: &str, column: &str) -> Result<DataType> {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct};
    let item = |wanted: &FieldRef, found: &FieldRef| -> Result<FieldRef> {
        let data_type = align_type(wanted.data_type(), found.data_type(), file, column)?;
        Ok(Arc::new(wanted.as_ref().clone().with_data_type(data_type)))
    };
    match (wanted, found) {
        (Struct(wanted), Struct(found)) => {
            align_fields(wanted, found, file, &format!("{column}.")).map(Struct)
        }
        (List(wanted), List(found) | LargeList(found)) => item(wanted, found).map(List),
        (LargeList(wanted), List(found) | LargeList(found)) => item(wanted, found).map(LargeList),
        (FixedSizeList(wanted, n), FixedSizeList(found, m)) if n == m => {
            Ok(FixedSizeList(item(wanted, found)?, *n))
        }
        (Map(wanted, sorted), Map(found, _)) => Ok(Map(entries(wanted, found, item)?, *sorted)),
        _ if widens(found, wanted) => Ok(wanted.clone()),
        _ => Err(Error::invalid(format!(
            "file {file}: column `{column}` is {found} in the file and {wanted} in the schema"
        ))
        .with_column(column)
        .with_condition("FAILED_READ_FILE.PARQUET_COLUMN_DATA_TYPE_MISMATCH")
        .with_hint("a column may be narrower in a file than in the schema, but not wider or of another kind")),
    }
}

/// Keys and values go by position: their names are nobody's business.
fn entries(
    wanted: &FieldRef,
    found: &FieldRef,
    item: impl Fn(&FieldRef, &FieldRef) -> Result<FieldRef>,
) -> Result<FieldRef> {
    let (DataType::Struct(w), DataType::Struct(f)) = (wanted.data_type(), found.data_type()) else {
        return Ok(Arc::clone(wanted));
    };
    let fields = w
        .iter()
        .zip(f)
        .map(|(w, f)| item(w, f))
        .collect::<Result<Fields>>()?;
    let entries = Field::new(
        wanted.name(),
        DataType::Struct(fields),
        wanted.is_nullable(),
    );
    Ok(Arc::new(entries))
}

/// True when every value of `from` is a value of `to`.
///
/// Timestamps of any unit and zone are the same thing here: moments, in UTC; what is finer than the
/// schema's unit is cut off.
pub(super) fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Decimal128, Decimal256, Dictionary, FixedSizeBinary,
        Float16, Float32, Float64, LargeBinary, LargeUtf8, Null, Timestamp, Utf8, Utf8View,
    };
    match (from, to) {
        _ if from == to => true,
        (Null, _) => true,
        (Dictionary(_, values), to) => widens(values, to),
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_),
            Binary | LargeBinary | BinaryView,
        ) => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (Timestamp(..), Timestamp(..)) => true,
        (Date32, Date64) => true,
        (Date32, Timestamp(unit, _)) => *unit != TimeUnit::Nanosecond,
        (Decimal128(p1, s1) | Decimal256(p1, s1), Decimal128(p2, s2) | Decimal256(p2, s2)) => {
            s2 >= s1 && i16::from(*p2) - i16::from(*s2) >= i16::from(*p1) - i16::from(*s1)
        }
        (from, Decimal128(p, s) | Decimal256(p, s)) if from.is_integer() => {
            i16::from(*p) - i16::from(*s) >= digits(from)
        }
        (from, Float64) if from.is_integer() => digits(from) <= 10,
        (from, Float32) if from.is_integer() => digits(from) <= 5,
        (from, to) if from.is_integer() && to.is_integer() => integer_fits(from, to),
        _ => false,
    }
}

fn integer_fits(from: &DataType, to: &DataType) -> bool {
    let (from_bits, to_bits) = (from.primitive_width(), to.primitive_width());
    match (from.is_signed_integer(), to.is_signed_integer()) {
        (true, false) => false,
        (false, true) => from_bits < to_bits,
        _ => from_bits <= to_bits,
    }
}

/// The most decimal digits of an integer type.
fn digits(integer: &DataType) -> i16 {
    match integer.primitive_width() {
        Some(1) => 3,
        Some(2) => 5,
        Some(4) => 10,
        _ => 20,
    }
}

/// The same values under `to`, which differs from the array's type in names only.
///
/// # Errors
/// When it differs in more.
pub(super) fn rename(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    rename_data(array.to_data(), to).map(make_array)
}

fn rename_data(data: ArrayData, to: &DataType) -> Result<ArrayData, ArrowError> {
    if data.data_type() == to {
        return Ok(data);
    }
    let inside: Vec<&DataType> = match to {
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => vec![item.data_type()],
        _ => vec![],
    };
    let children = data.child_data().iter().zip(inside);
    let children = children
        .map(|(child, to)| rename_data(child.clone(), to))
        .collect::<Result<Vec<_>, _>>()?;
    data.into_builder()
        .data_type(to.clone())
        .child_data(children)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_loses_nothing_widens() {
        let types = |from: &str, to: &str| {
            let parse = |text| highwater_core::parse_data_type(text).expect("type");
            (parse(from), parse(to))
        };
        for (from, to, expected) in [
            ("int", "bigint", true),
            ("bigint", "int", false),
            ("int", "double", true),
            ("bigint", "double", false),
            ("float", "double", true),
            ("double", "float", false),
            ("date", "timestamp", true),
            ("timestamp", "date", false),
            ("timestamp_ltz", "timestamp", true),
            ("int", "decimal(12,2)", true),
            ("int", "decimal(10,2)", false),
            ("decimal(10,2)", "decimal(12,3)", true),
            ("decimal(10,2)", "decimal(10,3)", false),
            ("int", "string", false),
            ("string", "int", false),
            ("boolean", "int", false),
        ] {
            let (a, b) = types(from, to);
            assert_eq!(widens(&a, &b), expected, "{from} to {to}");
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_errors_say_both_types() {
        let parse = |text| Arc::new(highwater_core::parse_schema(text).expect("schema"));
        let wanted = parse("a bigint, s struct<b: int, c: string>, gone int");
        let found = parse("\"A\" int, extra int, s struct<\"B\": int>");
        let aligned = align(&wanted, &found, "f").expect("aligned");
        let expected = parse("\"A\" bigint, s struct<\"B\": int, c: string>, gone int");
        assert_eq!(aligned, expected);

        let found = parse("s struct<b: string>");
        let error = align(&wanted, &found, "f.parquet").expect_err("refused");
        assert_eq!(error.column(), Some("s.b"));
        for part in ["f.parquet", "Utf8View", "Int32"] {
            assert!(error.message().contains(part), "{error}");
        }
    }
}
