//! What operators agree on about the records that go to the checkpoint.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{FieldRef, Fields, Schema};
use highwater_core::records::{EVICTED_TO, match_columns, retyped};
use highwater_core::{Error, Result};

/// Rows of a record batch that goes to the checkpoint.
pub(crate) const CHANGE_ROWS: usize = 64 * 1024;

/// `schema` of records after which all whose pane ends at `until` or before is forgotten.
pub(crate) fn evicting(mut schema: Schema, until: i64) -> Schema {
    schema
        .metadata
        .insert(EVICTED_TO.to_owned(), until.to_string());
    schema
}

/// Up to when to forget after these records; `None` when nothing was forgotten.
///
/// # Errors
/// `Corrupt` when they say something that is no time.
pub(crate) fn evicted_to(records: &RecordBatch) -> Result<Option<i64>> {
    let said = records.schema_ref().metadata().get(EVICTED_TO);
    let until = said.map(|text| text.parse()).transpose();
    until.map_err(|e| {
        Error::corrupt("records of state do not say up to when they were evicted").with_source(e)
    })
}

/// The value columns of `records`, after `keys` key columns, as `values` has them. Where they were written before a
/// function was added, the state of `empty` stands in its columns, an array of one row for each of `values`.
///
/// # Errors
/// `Corrupt` when a column of the records is none of `values`, or there are others; what `empty` says.
pub(crate) fn completed(
    records: &RecordBatch,
    keys: usize,
    values: &Fields,
    empty: impl FnOnce() -> Result<Vec<ArrayRef>>,
) -> Result<Vec<ArrayRef>> {
    let schema = records.schema_ref();
    let found = schema.fields().get(keys..).unwrap_or_default();
    let places = match_columns(values, found).ok_or_else(|| misfit(values, found))?;
    let stored = &records.columns()[keys..];
    let empty = match places.iter().all(Option::is_some) {
        true => Vec::new(),
        false => empty()?,
    };
    let rows = UInt32Array::from(vec![0; records.num_rows()]);
    let columns = places.iter().zip(values).enumerate();
    let columns = columns.map(|(at, (place, field))| match place {
        Some(place) => retyped(&stored[*place], field),
        None => Ok(take(&empty[at], &rows, None)?),
    });
    columns.collect()
}

fn misfit(wanted: &[FieldRef], found: &[FieldRef]) -> Error {
    let said = |fields: &[FieldRef]| {
        let fields = fields.iter();
        let fields = fields.map(|f| format!("`{}` {}", f.name(), f.data_type()));
        fields.collect::<Vec<_>>().join(", ")
    };
    Error::corrupt(format!(
        "records of state have the value columns [{}] for [{}]",
        said(found),
        said(wanted)
    ))
}
