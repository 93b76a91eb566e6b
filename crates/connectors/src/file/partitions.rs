//! Columns that are written in the path: `…/country=NO/day=2024-05-01/part.csv`.
//!
//! Which columns there are is fixed when the source is opened; later files may bring new values, not
//! new columns. Types are those of the user's schema, or are inferred from the values as Spark does.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use highwater_core::{Error, Result};
use percent_encoding::percent_decode_str;

/// The value that stands for null in a path (Hive's and Spark's).
pub(super) const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The partition columns of files whose folders are `folders`, typed by `given` where it has them.
///
/// # Errors
/// `Invalid` when the files do not agree on their columns.
pub(super) fn discover(folders: &[Vec<&str>], given: Option<&SchemaRef>) -> Result<Vec<FieldRef>> {
    let Some(first) = folders.first() else {
        return Ok(vec![]);
    };
    let names: Vec<String> = first.iter().filter_map(|folder| key(folder)).collect();
    let mut values: Vec<Vec<Option<String>>> = vec![vec![]; names.len()];
    for folders in folders {
        let found: Vec<String> = folders.iter().filter_map(|folder| key(folder)).collect();
        if found != names {
            return Err(Error::invalid(format!(
                "conflicting partition columns: {names:?} and {found:?}"
            ))
            .with_hint("all files must have the same partition columns, or set basePath"));
        }
        for (column, folder) in values
            .iter_mut()
            .zip(folders.iter().filter(|f| key(f).is_some()))
        {
            column.push(value(folder));
        }
    }
    Ok(names
        .into_iter()
        .zip(&values)
        .map(|(name, values)| typed(name, values, given))
        .collect())
}

/// The partition column `name`, which is known before there is a file; its type is that of `given`.
///
/// # Errors
/// `Invalid` when there is no such column.
pub(super) fn known(name: &str, given: Option<&SchemaRef>) -> Result<FieldRef> {
    let field = given.and_then(|schema| schema.field_with_name(name).ok());
    field.cloned().map(Arc::new).ok_or_else(|| {
        Error::invalid(format!("there is no column `{name}` to partition by"))
            .with_column(name)
            .with_option("partitionBy")
    })
}

fn typed(name: String, values: &[Option<String>], given: Option<&SchemaRef>) -> FieldRef {
    let wanted = given.and_then(|schema| {
        let mut fields = schema.fields().iter();
        fields.find(|field| field.name().eq_ignore_ascii_case(&name))
    });
    match wanted {
        Some(field) => Arc::clone(field),
        None => Arc::new(Field::new(name, infer(values), true)),
    }
}

/// The first type, in Spark's order, that all values are.
fn infer(values: &[Option<String>]) -> DataType {
    const TYPES: [DataType; 5] = [
        DataType::Int32,
        DataType::Int64,
        DataType::Float64,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, None),
    ];
    let all = |data_type: &DataType| {
        values
            .iter()
            .flatten()
            .all(|value| parse(value, data_type).is_some())
    };
    if values.iter().flatten().next().is_none() {
        return DataType::Utf8View;
    }
    TYPES.into_iter().find(all).unwrap_or(DataType::Utf8View)
}

/// The values of `columns` in the folders of one file.
///
/// # Errors
/// `Invalid`, naming the file and the column, when the path has other columns or a value of another type.
pub(super) fn values(
    folders: &[&str],
    columns: &[FieldRef],
    file: &str,
) -> Result<Vec<ScalarValue>> {
    for folder in folders {
        if let Some(name) = key(folder)
            && !columns
                .iter()
                .any(|column| column.name().eq_ignore_ascii_case(&name))
        {
            return Err(Error::invalid(format!(
                "file {file} has a partition column `{name}` that was not there when the source was opened"
            ))
            .with_column(name));
        }
    }
    columns
        .iter()
        .map(|column| {
            let folder = folders.iter().find(|folder| {
                key(folder).is_some_and(|name| name.eq_ignore_ascii_case(column.name()))
            });
            let folder = folder.ok_or_else(|| {
                Error::invalid(format!(
                    "file {file} lacks the partition column `{}`",
                    column.name()
                ))
                .with_column(column.name())
            })?;
            let Some(text) = value(folder) else {
                return Ok(ScalarValue::try_from(column.data_type())?);
            };
            parse(&text, column.data_type()).ok_or_else(|| {
                Error::invalid(format!(
                    "file {file}: partition column `{}` is `{text}`, which is no {}",
                    column.name(),
                    column.data_type()
                ))
                .with_column(column.name())
            })
        })
        .collect()
}

fn key(folder: &str) -> Option<String> {
    let (name, _) = folder.split_once('=')?;
    (!name.is_empty()).then(|| percent_decode_str(name).decode_utf8_lossy().into_owned())
}

/// `None` for null.
fn value(folder: &str) -> Option<String> {
    let (_, value) = folder.split_once('=')?;
    (value != NULL).then(|| percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn parse(text: &str, data_type: &DataType) -> Option<ScalarValue> {
    let strings: ArrayRef = Arc::new(StringViewArray::from(vec![text]));
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = cast_with_options(&strings, data_type, &strict).ok()?;
    ScalarValue::try_from_array(&cast, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_inferred_in_sparks_order() {
        for (values, expected) in [
            (&["1", "2"][..], DataType::Int32),
            (&["1", "3000000000"], DataType::Int64),
            (&["1", "2.5"], DataType::Float64),
            (&["2024-05-01"], DataType::Date32),
            (&["01", "x"], DataType::Utf8View),
            (&["a"], DataType::Utf8View),
        ] {
            let folders: Vec<String> = values.iter().map(|v| format!("k={v}")).collect();
            let folders: Vec<Vec<&str>> = folders.iter().map(|f| vec![f.as_str()]).collect();
            let columns = discover(&folders, None).expect("discovered");
            assert_eq!(columns[0].data_type(), &expected, "{values:?}");
        }
    }

    #[test]
    fn a_column_that_was_not_there_is_named() {
        let columns = discover(&[vec!["k=1"]], None).expect("discovered");
        let read = values(&["k=7"], &columns, "f").expect("values");
        assert_eq!(read, [ScalarValue::Int32(Some(7))]);
        let null = values(&["k=__HIVE_DEFAULT_PARTITION__"], &columns, "f").expect("values");
        assert!(null[0].is_null());
        for folders in [&["k=1", "j=2"][..], &["j=2"], &["k=x"], &[]] {
            assert!(values(folders, &columns, "f").is_err(), "{folders:?}");
        }
    }
}
