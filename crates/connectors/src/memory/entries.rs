//! The entries of a memory source: how they become the columns of the source, and batches to read.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use highwater_core::{Error, Result};

/// How many of `entries` fit `most` rows; at least one, so that nothing gets stuck.
pub(super) fn admit(entries: &[RecordBatch], most: u64) -> u64 {
    let mut rows = 0;
    let fitting = entries.iter().take_while(|entry| {
        rows += entry.num_rows() as u64;
        rows <= most
    });
    (fitting.count() as u64).max(u64::from(!entries.is_empty()))
}

/// The rows of `entries` in batches of at most `size` rows: small entries together, large ones in slices.
pub(super) fn gather(
    schema: &SchemaRef,
    mut entries: Vec<RecordBatch>,
    size: usize,
) -> Result<Vec<RecordBatch>> {
    entries.retain(|entry| entry.num_rows() > 0);
    if entries.iter().all(|entry| entry.num_rows() <= size) && entries.len() <= 1 {
        return Ok(entries);
    }
    let mut batches = Vec::new();
    let mut small: Vec<RecordBatch> = Vec::new();
    let mut rows = 0;
    for entry in entries {
        for start in (0..entry.num_rows()).step_by(size) {
            let slice = entry.slice(start, size.min(entry.num_rows() - start));
            if rows + slice.num_rows() > size {
                flush(schema, &mut small, &mut batches)?;
                rows = 0;
            }
            rows += slice.num_rows();
            small.push(slice);
        }
    }
    flush(schema, &mut small, &mut batches)?;
    Ok(batches)
}

fn flush(
    schema: &SchemaRef,
    small: &mut Vec<RecordBatch>,
    batches: &mut Vec<RecordBatch>,
) -> Result<()> {
    match small.len() {
        0 => {}
        1 => batches.append(small),
        _ => batches.push(concat_batches(schema, small.iter())?),
    }
    small.clear();
    Ok(())
}

/// The rows under `schema`: columns by name, cast where the types differ.
pub(super) fn conform(schema: &SchemaRef, rows: RecordBatch) -> Result<RecordBatch> {
    if Arc::ptr_eq(schema, rows.schema_ref()) || schema == rows.schema_ref() {
        return Ok(rows);
    }
    let given = rows.schema_ref();
    if let Some(field) = given
        .fields()
        .iter()
        .find(|f| schema.index_of(f.name()).is_err())
    {
        return Err(Error::invalid(format!(
            "the rows have a column `{}`, the source has not",
            field.name()
        ))
        .with_column(field.name()));
    }
    let columns = schema.fields().iter().map(|field| column(field, &rows));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

fn column(field: &Field, rows: &RecordBatch) -> Result<ArrayRef> {
    let name = field.name();
    let Some(values) = rows.column_by_name(name) else {
        return Err(Error::invalid(format!("the rows have no column `{name}`")).with_column(name));
    };
    if values.data_type() == field.data_type() {
        return Ok(Arc::clone(values));
    }
    if values.is_empty() {
        return Ok(new_empty_array(field.data_type()));
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(values, field.data_type(), &strict).map_err(|e| {
        Error::invalid(format!(
            "column `{name}` of type {} cannot be cast to {}",
            values.data_type(),
            field.data_type()
        ))
        .with_column(name)
        .with_source(e)
    })
}
