//! Rows of the result, from sessions and the state of their functions.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ListArray, RecordBatch, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Fields};
use datafusion::common::Result;

use super::recipe::Recipe;
use super::sessions::Session;
use super::superseded::item;

/// Times in microseconds as a column of this type.
pub(super) fn times(micros: impl Iterator<Item = i64>, time: &DataType) -> ArrayRef {
    let times = TimestampMicrosecondArray::from_iter_values(micros);
    Arc::new(times.with_data_type(time.clone()))
}

/// A column of sessions.
pub(super) fn spans<'a>(
    sessions: impl Iterator<Item = &'a Session> + Clone,
    fields: &Fields,
) -> Result<StructArray> {
    let time = fields[0].data_type();
    let starts = times(sessions.clone().map(|session| session.start), time);
    let ends = times(sessions.map(|session| session.end), time);
    Ok(StructArray::try_new(
        fields.clone(),
        vec![starts, ends],
        None,
    )?)
}

/// The column `superseded`: of the i-th row the next `lengths[i]` sessions.
pub(super) fn lists<'a>(
    olds: impl Iterator<Item = &'a Session> + Clone,
    lengths: impl Iterator<Item = usize>,
    time: &DataType,
) -> Result<ArrayRef> {
    let item = item(time);
    let DataType::Struct(fields) = item.data_type() else {
        return Err(highwater_core::Error::internal("a session is a struct").into());
    };
    let values = Arc::new(spans(olds, fields)?);
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None)?))
}

/// Rows of keys, sessions, and the values of the functions; `superseded` stands where there is no value.
pub(super) fn assemble(
    recipe: &Recipe,
    mut columns: Vec<ArrayRef>,
    sessions: StructArray,
    values: Vec<Option<ArrayRef>>,
    superseded: Option<&ArrayRef>,
) -> Result<RecordBatch> {
    let rows = sessions.len();
    columns.insert(recipe.session, Arc::new(sessions));
    for value in values {
        let value = value.or_else(|| superseded.cloned());
        columns.push(match value {
            Some(value) => value,
            // Only update mode has earlier rows to replace.
            None => lists([].iter(), std::iter::repeat_n(0, rows), recipe.time())?,
        });
    }
    Ok(RecordBatch::try_new(Arc::clone(&recipe.schema), columns)?)
}
