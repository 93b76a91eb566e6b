//! Rows that a program adds: the source of tests and small tools.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_connectors::memory::MemorySource;
use highwater_plan::StreamTable;

use crate::row::{IntoRow, batch_of};
use crate::{IntoSchema, Offset, Result, Source, StreamFrame, StreamSession};

/// A stream that a program adds rows to; all of it is kept, and any number of queries may read it.
///
/// Cloning is cheap, and clones are the same stream.
///
/// ```
/// # use highwater::prelude::*;
/// # #[tokio::main] async fn main() -> highwater::Result<()> {
/// let session = StreamSession::new();
/// let pumps = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING, psi DOUBLE")?;
/// let query = pumps.to_frame().filter(col("psi").lt(lit(0.5)))?
///     .write_stream().format("memory").query_name("low").start().await?;
/// pumps.add_data([("2024-05-01 00:00:03", "a", 0.9), ("2024-05-01 00:00:08", "b", 0.4)])?;
/// query.process_all_available().await?;
/// assert_eq!(session.table("low").await?.count().await?, 1);
/// query.stop().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStream {
    source: Arc<MemorySource>,
    schema: SchemaRef,
    frame: StreamFrame,
}

impl MemoryStream {
    /// A stream without rows; all columns are nullable.
    ///
    /// # Errors
    /// `Invalid` when `schema` is no DDL.
    pub fn new(session: &StreamSession, schema: impl IntoSchema) -> Result<Self> {
        let schema = schema.into_schema()?;
        let source = Arc::new(MemorySource::new(&schema));
        let shared: Arc<dyn Source> = Arc::<MemorySource>::clone(&source);
        let frame = session.stream("memory", StreamTable::new("memory", shared, false))?;
        Ok(Self {
            schema: source.schema(),
            source,
            frame,
        })
    }

    /// The stream as a frame.
    #[must_use]
    pub fn to_frame(&self) -> StreamFrame {
        self.frame.clone()
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Adds rows, all of which come in one micro-batch; the offset is where the stream then ends.
    ///
    /// Values are cast to the columns' types: `"2024-05-01 12:00:00"` is a timestamp in a timestamp column.
    /// Without rows it still makes a micro-batch, as in Spark.
    ///
    /// # Errors
    /// `Invalid` for a row of the wrong length and for a value that its column cannot hold.
    pub fn add_data(&self, rows: impl IntoIterator<Item = impl IntoRow>) -> Result<Offset> {
        self.source.add(batch_of(&self.schema, rows)?)
    }

    /// Adds the rows of an Arrow batch.
    ///
    /// # Errors
    /// `Invalid` when its columns do not fit.
    pub fn add_batch(&self, rows: RecordBatch) -> Result<Offset> {
        self.source.add(rows)
    }
}
