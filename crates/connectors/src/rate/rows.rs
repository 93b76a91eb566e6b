//! The rows of both rate sources: a timestamp and a running number, made as they are pulled.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{ReadRequest, Result};

use crate::batches::{project, stream_of};

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("timestamp", micros, true),
        Field::new("value", DataType::Int64, true),
    ]))
});

/// `timestamp TIMESTAMP, value BIGINT`.
pub(super) fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// The rows whose numbers are `values`; `micros` tells the timestamp of each, in microseconds since 1970.
pub(super) fn stream(
    request: &ReadRequest,
    values: Range<i64>,
    micros: impl Fn(i64) -> i64 + Clone + Send + 'static,
) -> Result<SendableRecordBatchStream> {
    let schema = project(&SCHEMA, request.projection.as_deref())?;
    let columns = request.projection.clone().unwrap_or_else(|| vec![0, 1]);
    let size = request.task.session_config().batch_size();
    let end = values.end;
    let own = Arc::clone(&schema);
    let batches = values.step_by(size).map(move |first| {
        let part = first..end.min(first.saturating_add_unsigned(size as u64));
        let make = |column: &usize| column_of(*column, part.clone(), &micros);
        let arrays = columns.iter().map(make).collect();
        let rows = usize::try_from(part.end - part.start).unwrap_or(0);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&own),
            arrays,
            &options,
        )?)
    });
    Ok(stream_of(schema, batches))
}

fn column_of(column: usize, values: Range<i64>, micros: &impl Fn(i64) -> i64) -> ArrayRef {
    match column {
        0 => Arc::new(TimestampMicrosecondArray::from_iter_values(
            values.map(micros),
        )),
        _ => Arc::new(Int64Array::from_iter_values(values)),
    }
}
