//! A source of rows that a program adds: Spark's `MemoryStream`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{
    Error, Offset, OffsetRange, ReadLimit, ReadRequest, Result, Source, SourceContext, SourceTraits,
};
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::entries::{admit, conform, gather};
use crate::batches::{project, stream_of};

/// Rows that a program adds, entry by entry.
///
/// The offset is the number of entries; an entry without rows counts too, and so makes a micro-batch.
/// All rows are kept as long as the source lives, as several queries, and the next run of the same
/// query, may read them again: a commit drops nothing.
///
/// [`for_query`](Source::for_query) gives each query its own reader of the same rows.
pub struct MemorySource {
    shared: Arc<Shared>,
    /// How far the reader of this instance has come: where it last asked what comes next.
    position: AtomicU64,
}

struct Shared {
    schema: SchemaRef,
    entries: RwLock<Vec<RecordBatch>>,
    /// The length of `entries`, to look at without the lock.
    length: AtomicU64,
    grown: Notify,
}

impl MemorySource {
    /// A source without rows; every column becomes nullable, as in every source.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let fields = schema.fields().iter();
        let nullable: Vec<Field> = fields
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        Self::reader(Arc::new(Shared {
            schema: Arc::new(Schema::new_with_metadata(
                nullable,
                schema.metadata().clone(),
            )),
            entries: RwLock::default(),
            length: AtomicU64::new(0),
            grown: Notify::new(),
        }))
    }

    fn reader(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            position: AtomicU64::new(0),
        }
    }

    /// Adds one entry and gives the offset that ends with it.
    ///
    /// Columns are found by name and cast to the types of the source.
    ///
    /// # Errors
    /// `Invalid`, naming the column, when one is missing, unknown, or holds a value that cannot be cast.
    pub fn add(&self, rows: RecordBatch) -> Result<Offset> {
        let rows = conform(&self.shared.schema, rows)?;
        let length = {
            let mut entries = self.shared.entries.write();
            entries.push(rows);
            let length = entries.len() as u64;
            self.shared.length.store(length, Ordering::Release);
            length
        };
        self.shared.grown.notify_waiters();
        Ok(Offset::from(length))
    }

    /// The number of entries so far, as an offset.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset::from(self.shared.length.load(Ordering::Acquire))
    }

    /// Reads both ends of a range as indices into the entries.
    fn bounds(&self, range: &OffsetRange) -> Result<(usize, usize)> {
        let (start, end) = (range.start.parse::<u64>()?, range.end.parse::<u64>()?);
        let length = self.shared.length.load(Ordering::Acquire);
        if start > end || end > length {
            return Err(gone(end.max(start), length));
        }
        let index = |n: u64| usize::try_from(n).map_err(|_| gone(n, length));
        Ok((index(start)?, index(end)?))
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource")
            .field("description", &self.description())
            .field("entries", &self.shared.length)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for MemorySource {
    fn description(&self) -> String {
        let fields = self.shared.schema.fields().iter();
        let names: Vec<&str> = fields.map(|f| f.name().as_str()).collect();
        format!("MemoryStream[{}]", names.join(","))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shared.schema)
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: true,
            bounded: false,
        }
    }

    async fn initial_offset(&self) -> Result<Offset> {
        Ok(Offset::from(0))
    }

    /// A limit of rows takes whole entries, at least one; limits of files and bytes do not apply.
    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        let from: u64 = start.parse()?;
        self.position.store(from, Ordering::Release);
        let length = self.shared.length.load(Ordering::Acquire);
        if from > length {
            return Err(gone(from, length));
        }
        let end = match upto {
            Some(upto) => length.min(upto.parse()?),
            None => length,
        };
        match limit {
            ReadLimit::MaxRows(most) => {
                let range = OffsetRange::new(start.clone(), Offset::from(end.max(from)));
                let (first, last) = self.bounds(&range)?;
                let taken = admit(&self.shared.entries.read()[first..last], *most);
                Ok(Offset::from(from + taken))
            }
            _ => Ok(Offset::from(end.max(from))),
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let (first, last) = self.bounds(&request.range)?;
        let entries = self.shared.entries.read()[first..last].to_vec();
        let size = request.task.session_config().batch_size();
        let batches = gather(&self.shared.schema, entries, size)?;
        let projection = request.projection;
        let schema = project(&self.shared.schema, projection.as_deref())?;
        let projected = batches.into_iter().map(move |batch| match &projection {
            None => Ok(batch),
            Some(columns) => Ok(batch.project(columns)?),
        });
        Ok(vec![stream_of(schema, projected)])
    }

    async fn for_query(&self, _context: SourceContext) -> Result<Option<Arc<dyn Source>>> {
        Ok(Some(Arc::new(Self::reader(Arc::clone(&self.shared)))))
    }

    /// Comes back once there is an entry after the position where the reader last asked.
    async fn changed(&self) {
        loop {
            // Registered before the look, so that an entry added between the two wakes us.
            let grown = self.shared.grown.notified();
            let length = self.shared.length.load(Ordering::Acquire);
            if length > self.position.load(Ordering::Acquire) {
                return;
            }
            grown.await;
        }
    }
}

fn gone(wanted: u64, there: u64) -> Error {
    Error::corrupt(format!(
        "a memory source has {there} entries, but entry {wanted} is asked for"
    ))
    .with_hint("the rows of a memory source end with its process: start over with a new checkpoint")
}
