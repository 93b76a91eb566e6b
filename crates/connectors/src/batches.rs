//! Small steps with batches that several connectors take.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, TryStreamExt, stream};
use highwater_core::{BatchOutput, Result};

/// The columns of `schema` that a projection keeps.
///
/// # Errors
/// `Invalid` when there is no such column.
pub(crate) fn project(schema: &SchemaRef, projection: Option<&[usize]>) -> Result<SchemaRef> {
    match projection {
        None => Ok(Arc::clone(schema)),
        Some(columns) => Ok(Arc::new(schema.project(columns)?)),
    }
}

/// A stream of what `batches` gives.
pub(crate) fn stream_of(
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
) -> SendableRecordBatchStream {
    let items = batches.map(|batch| batch.map_err(DataFusionError::from));
    adapt(schema, stream::iter(items))
}

fn adapt(
    schema: SchemaRef,
    items: impl Stream<Item = Result<RecordBatch, DataFusionError>> + Send + 'static,
) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, items))
}

/// Pulls the whole result of a micro-batch into memory, without its empty batches.
///
/// # Errors
/// What the query failed with.
pub(crate) async fn collect(output: BatchOutput) -> Result<Vec<RecordBatch>> {
    let mut stream = output.stream;
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        if batch.num_rows() > 0 {
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// The number of rows in `batches`.
pub(crate) fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// The same rows under `schema`, which may differ in names, metadata and nullability.
///
/// # Errors
/// `Invalid` when the columns are of other types.
pub(crate) fn under(schema: &SchemaRef, batch: RecordBatch) -> Result<RecordBatch> {
    if Arc::ptr_eq(schema, batch.schema_ref()) || schema == batch.schema_ref() {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        batch.columns().to_vec(),
        &options,
    )?)
}
