//! The contract of a source: where rows come from.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::Expr;
use object_store::{ObjectStore, path::Path};

use crate::{Clock, Offset, OffsetRange, Options, Result, Timestamp};

/// A place rows come from: an input table that only grows.
///
/// For those who write a source. The promise: a replayable source gives the same rows in the same
/// order for the same range `(start, end]`, always. Triggers, retries and progress are the engine's.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// How the source shows in progress and errors: `FileStreamSource[file:/data/in]`.
    fn description(&self) -> String;

    /// The columns; a source makes every column nullable (Spark).
    fn schema(&self) -> SchemaRef;

    /// What can be relied on.
    fn traits(&self) -> SourceTraits;

    /// The position before the first row.
    async fn initial_offset(&self) -> Result<Offset>;

    /// The farthest position that a micro-batch which starts at `start` may read to under `limit`;
    /// never beyond `upto`, which pins the end of an available-now run.
    ///
    /// It equals `start` when there is nothing new.
    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset>;

    /// The rows of a range: streams that are concatenated in the order given.
    ///
    /// The streams have the columns of the projection, in its order. Filters are hints: a row that
    /// fails one may come all the same, and is dropped later.
    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>>;

    /// The admission limit that the source's own options ask for, such as `maxFilesPerTrigger`.
    fn read_limit(&self) -> ReadLimit {
        ReadLimit::All
    }

    /// A source that keeps something for each query (which files it has seen, when it began) gives
    /// here the instance for one query; `None`: one instance serves all queries.
    ///
    /// # Errors
    /// `Corrupt` when what an earlier run kept cannot be read.
    async fn for_query(&self, _context: SourceContext) -> Result<Option<Arc<dyn Source>>> {
        Ok(None)
    }

    /// Figures of the micro-batch that read `range`, for its progress: files that were left out, and the like.
    ///
    /// It is asked once the micro-batch is committed.
    fn metrics(&self, _range: &OffsetRange) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Everything up to `end` is committed and may be forgotten.
    async fn commit(&self, _end: &Offset) -> Result<()> {
        Ok(())
    }

    /// Comes back when there may be data; an idle query sleeps on it.
    ///
    /// The engine keeps the future, not polled, while it calls the other methods: it must not wait
    /// for a lock that they take.
    async fn changed(&self);
}

/// What the engine can rely on in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceTraits {
    /// The same range can be read again after a restart.
    pub replayable: bool,
    /// The source will end by itself.
    pub bounded: bool,
}

/// How much one micro-batch may take from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadLimit {
    /// All there is.
    All,
    /// At most so many rows.
    MaxRows(u64),
    /// At most so many files.
    MaxFiles(u64),
    /// Files of at most so many bytes together, but at least one file.
    MaxBytes(u64),
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The rows after `start` up to `end`.
    pub range: OffsetRange,
    /// The columns wanted, by their number in the schema; `None`: all.
    pub projection: Option<Vec<usize>>,
    /// Predicates that the query applies anyway; a source may use them to read less.
    pub filters: Vec<Expr>,
    /// The batch time.
    pub batch_time: Timestamp,
    /// Memory pool, object stores, batch size.
    pub task: Arc<TaskContext>,
}

/// Where a source may keep what it must remember for one query.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The store of the query's checkpoint; in memory when the checkpoint is temporary.
    pub store: Arc<dyn ObjectStore>,
    /// The source's own folder in it.
    pub folder: Path,
    /// The query's clock.
    pub clock: Arc<dyn Clock>,
}

/// What `format("x")` resolves to on the reading side.
#[async_trait]
pub trait SourceProvider: Debug + Send + Sync {
    /// The name of the format: `csv`, `rate`.
    fn format(&self) -> &str;

    /// Opens a source; every option must be taken, what is left is an error.
    async fn open(&self, spec: SourceSpec) -> Result<Arc<dyn Source>>;
}

/// What the user asked for with `read_stream()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceSpec {
    /// The format, as it was asked for.
    pub format: String,
    /// The path of `load(path)`.
    pub path: Option<String>,
    /// The schema the user gave, all columns made nullable.
    pub schema: Option<SchemaRef>,
    /// The options.
    pub options: Options,
    /// The session's clock.
    pub clock: Arc<dyn Clock>,
    /// The user's DataFusion session: object stores, settings.
    pub session: Arc<SessionState>,
}

impl SourceSpec {
    /// A request for `format` with nothing else said.
    pub fn new(
        format: impl Into<String>,
        clock: Arc<dyn Clock>,
        session: Arc<SessionState>,
    ) -> Self {
        Self {
            format: format.into(),
            path: None,
            schema: None,
            options: Options::new(),
            clock,
            session,
        }
    }
}
