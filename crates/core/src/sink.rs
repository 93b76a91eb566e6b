//! The contract of a sink: where results go.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use serde::{Deserialize, Serialize};

use crate::{BatchId, Clock, Options, OutputMode, QueryId, Result, RunId};

/// A place results go to.
///
/// For those who write a sink. The promise: an exactly-once sink makes a batch id visible once or
/// not at all, however often it is given; an at-least-once sink may show the same id again. A sink
/// that fails, or whose stream fails, must leave nothing of that batch visible if it is exactly-once.
#[async_trait]
pub trait Sink: Debug + Send + Sync {
    /// How the sink shows in progress and errors: `MemorySink(counts)`.
    fn description(&self) -> String;

    /// What happens when a micro-batch is written twice.
    fn guarantee(&self) -> Guarantee;

    /// True when the sink can take this output mode.
    fn supports(&self, _mode: OutputMode) -> bool {
        true
    }

    /// True when a query into this sink must have a checkpoint of its own; false where a temporary
    /// one will do, as for Spark's console, memory, noop, foreach and foreachBatch.
    fn needs_checkpoint(&self) -> bool {
        true
    }

    /// Called once for each run, before its first micro-batch.
    ///
    /// # Errors
    /// `Unsupported` when the sink cannot take up where `run.last_commit` left off.
    async fn begin(&self, _run: &SinkRun) -> Result<()> {
        Ok(())
    }

    /// Takes the result of one micro-batch and makes it visible.
    async fn write(&self, output: BatchOutput) -> Result<SinkCommit>;
}

/// What happens when the same micro-batch is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// It is visible once.
    ExactlyOnce,
    /// It is visible again.
    AtLeastOnce,
}

/// The run a sink is about to serve.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SinkRun {
    /// The query.
    pub query_id: QueryId,
    /// The run.
    pub run_id: RunId,
    /// The output mode.
    pub mode: OutputMode,
    /// The columns of the result.
    pub schema: SchemaRef,
    /// The last micro-batch that earlier runs have logged (intended or committed); `None` for a fresh checkpoint.
    pub last_logged: Option<BatchId>,
}

impl SinkRun {
    /// A run with a fresh checkpoint.
    #[must_use]
    pub fn new(query_id: QueryId, run_id: RunId, mode: OutputMode, schema: SchemaRef) -> Self {
        Self {
            query_id,
            run_id,
            mode,
            schema,
            last_logged: None,
        }
    }
}

/// The result of one micro-batch.
pub struct BatchOutput {
    /// The micro-batch.
    pub id: BatchId,
    /// The query.
    pub query_id: QueryId,
    /// The run.
    pub run_id: RunId,
    /// The output mode.
    pub mode: OutputMode,
    /// The columns.
    pub schema: SchemaRef,
    /// The columns that identify a row of the result table, by number, where the plan has them.
    pub keys: Option<Vec<usize>>,
    /// The rows; pulling them is what runs the query.
    pub stream: SendableRecordBatchStream,
}

impl Debug for BatchOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchOutput")
            .field("id", &self.id)
            .field("query_id", &self.query_id)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// What a sink reports once a micro-batch is visible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SinkCommit {
    /// Rows written; `None` where the sink does not count (Spark writes −1).
    pub rows: Option<u64>,
}

impl SinkCommit {
    /// `rows` rows are visible.
    #[must_use]
    pub fn rows(rows: u64) -> Self {
        Self { rows: Some(rows) }
    }
}

/// What `format("x")` resolves to on the writing side.
#[async_trait]
pub trait SinkProvider: Debug + Send + Sync {
    /// The name of the format: `console`, `noop`.
    fn format(&self) -> &str;

    /// Opens a sink; every option must be taken, what is left is an error.
    async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>>;
}

/// What the user asked for with `write_stream()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SinkSpec {
    /// The format, as it was asked for.
    pub format: String,
    /// The path of `start(path)`.
    pub path: Option<String>,
    /// The query's name.
    pub query_name: Option<String>,
    /// The columns of `partition_by`.
    pub partition_by: Vec<String>,
    /// The columns of the result.
    pub schema: SchemaRef,
    /// The output mode.
    pub mode: OutputMode,
    /// The options that the query did not take for itself.
    pub options: Options,
    /// The session's clock.
    pub clock: Arc<dyn Clock>,
    /// The user's DataFusion session: object stores, settings.
    pub session: Arc<SessionState>,
    /// What is acknowledged must outlive the loss of power, not only the death of the process: the query's option
    /// `durability` is `fsync`.
    pub durable: bool,
}

impl SinkSpec {
    /// A request for `format` with nothing else said.
    pub fn new(
        format: impl Into<String>,
        schema: SchemaRef,
        mode: OutputMode,
        clock: Arc<dyn Clock>,
        session: Arc<SessionState>,
    ) -> Self {
        Self {
            format: format.into(),
            path: None,
            query_name: None,
            partition_by: Vec::new(),
            schema,
            mode,
            options: Options::new(),
            clock,
            session,
            durable: false,
        }
    }
}
