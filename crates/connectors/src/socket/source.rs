//! The source itself: lines from the buffer, as columns.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{
    Clock, Error, Offset, ReadLimit, ReadRequest, Result, Source, SourceContext, SourceProvider,
    SourceSpec, SourceTraits,
};
use tokio::runtime::Handle;

use super::SocketSourceOptions;
use super::buffer::{Buffer, Line};
use super::reader::Reader;
use crate::batches::{project, stream_of};
use crate::refuse;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("value", DataType::Utf8View, true),
        Field::new("timestamp", micros, true),
    ]))
});

/// Lines of text from a TCP connection.
///
/// Each query makes a connection of its own when it starts, and a new one when that breaks. The offset
/// is the number of lines. Lines wait in memory until they are committed. It **cannot replay**: lines
/// that came in an earlier run are gone, and a micro-batch that is run again after a restart is empty.
pub struct SocketSource {
    options: SocketSourceOptions,
    runtime: Handle,
    schema: SchemaRef,
    buffer: Arc<Buffer>,
    /// None until a query has its own instance.
    reader: Option<Reader>,
}

impl SocketSource {
    /// A source whose connections live on the runtime this is called on.
    ///
    /// # Errors
    /// `Invalid` outside a runtime.
    pub fn try_new(options: SocketSourceOptions) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|e| {
            Error::invalid("source `socket` must be opened on a tokio runtime").with_source(e)
        })?;
        let columns: &[usize] = match options.include_timestamp {
            true => &[0, 1],
            false => &[0],
        };
        Ok(Self {
            schema: project(&SCHEMA, Some(columns))?,
            options,
            runtime,
            buffer: Arc::default(),
            reader: None,
        })
    }

    /// The instance for one query: connected, with a buffer of its own.
    async fn connected(&self, clock: Arc<dyn Clock>) -> Result<Self> {
        let buffer = Arc::new(Buffer::default());
        let reader = Reader::start(
            self.options.clone(),
            clock,
            Arc::clone(&buffer),
            &self.runtime,
        );
        Ok(Self {
            reader: Some(reader.await?),
            options: self.options.clone(),
            runtime: self.runtime.clone(),
            schema: Arc::clone(&self.schema),
            buffer,
        })
    }
}

impl fmt::Debug for SocketSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketSource")
            .field("options", &self.options)
            .field("connected", &self.reader.is_some())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for SocketSource {
    fn description(&self) -> String {
        let SocketSourceOptions { host, port, .. } = &self.options;
        format!("TextSocketV2[host: {host}, port: {port}]")
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: false,
            bounded: false,
        }
    }

    async fn initial_offset(&self) -> Result<Offset> {
        Ok(Offset::from(0))
    }

    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        let from: u64 = start.parse()?;
        let mut end = self.buffer.end(from);
        if let Some(upto) = upto {
            end = end.min(upto.parse()?);
        }
        if let ReadLimit::MaxRows(most) = limit {
            end = end.min(from.saturating_add((*most).max(1)));
        }
        Ok(Offset::from(end.max(from)))
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let lines = self.buffer.range(&request.range)?;
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let schema = project(&self.schema, request.projection.as_deref())?;
        let batch = batch(&schema, &lines)?;
        let size = request.task.session_config().batch_size();
        let rows = batch.num_rows();
        let slices = (0..rows).step_by(size);
        let slices = slices.map(move |start| Ok(batch.slice(start, size.min(rows - start))));
        Ok(vec![stream_of(schema, slices)])
    }

    async fn for_query(&self, context: SourceContext) -> Result<Option<Arc<dyn Source>>> {
        Ok(Some(Arc::new(self.connected(context.clock).await?)))
    }

    async fn commit(&self, end: &Offset) -> Result<()> {
        self.buffer.forget(end)
    }

    async fn changed(&self) {
        self.buffer.changed().await;
    }
}

/// The columns of `schema`, which are `value`, `timestamp` or both.
fn batch(schema: &SchemaRef, lines: &[Line]) -> Result<RecordBatch> {
    let fields = schema.fields().iter();
    let columns = fields.map(|field| -> ArrayRef {
        match field.data_type() {
            DataType::Utf8View => Arc::new(StringViewArray::from_iter_values(
                lines.iter().map(|line| &line.text),
            )),
            _ => Arc::new(TimestampMicrosecondArray::from_iter_values(
                lines.iter().map(|line| line.came.as_micros()),
            )),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(lines.len()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns.collect(),
        &options,
    )?)
}

/// The format `socket`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketProvider;

#[async_trait]
impl SourceProvider for SocketProvider {
    fn format(&self) -> &str {
        "socket"
    }

    async fn open(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        refuse::source_path(&spec)?;
        refuse::source_schema(&spec)?;
        let options = SocketSourceOptions::try_from(spec.options)?;
        Ok(Arc::new(SocketSource::try_new(options)?))
    }
}
