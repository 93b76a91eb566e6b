//! What operators agree on about the records that go to the checkpoint.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use highwater_core::{Error, Result};

/// Rows of a record batch that goes to the checkpoint.
pub(crate) const CHANGE_ROWS: usize = 64 * 1024;

/// Metadata: after the records, all that is over by this time is forgotten; microseconds since 1970.
const EVICTED_TO: &str = "highwater.evicted_to";

/// `schema` of records after which all that is over at `until` is forgotten.
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
