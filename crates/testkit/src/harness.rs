//! One query under test: it can be run step by step, fail, stop, and start again from its checkpoint.

use std::fmt;
use std::sync::Arc;

use highwater::prelude::*;
use highwater::{DataStreamWriter, Result, Trigger};
use tempfile::TempDir;

use crate::sink::{CollectingSink, Written};
use crate::value::{self, Row};

/// A streaming frame, its checkpoint, and what came out of it so far.
///
/// The query starts with the first [`process`](Self::process), and again with the first one after
/// a stop, a crash or a failure, always from the same checkpoint.
#[derive(Debug)]
pub struct Harness {
    frame: StreamFrame,
    mode: OutputMode,
    trigger: Trigger,
    settings: Settings,
    sink: Arc<CollectingSink>,
    checkpoint: TempDir,
    query: Option<StreamingQuery>,
    late: LateRows,
}

/// What is said to the writer at every start beside mode, trigger, checkpoint and sink.
#[derive(Default)]
struct Settings(Vec<Setting>);

type Setting = Box<dyn Fn(DataStreamWriter) -> DataStreamWriter + Send + Sync>;

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} settings", self.0.len())
    }
}

/// Late rows, as the progress tells them.
#[derive(Debug, Default)]
struct LateRows {
    /// The last micro-batch that was counted.
    counted: Option<BatchId>,
    /// Counted and not yet asked for.
    rows: u64,
}

impl Harness {
    /// A query over `frame` with a new checkpoint.
    ///
    /// # Errors
    /// When the checkpoint's directory cannot be made.
    pub fn new(frame: StreamFrame, mode: OutputMode) -> Result<Self> {
        Ok(Self {
            frame,
            mode,
            trigger: Trigger::default(),
            settings: Settings::default(),
            sink: CollectingSink::new(),
            checkpoint: tempfile::tempdir()?,
            query: None,
            late: LateRows::default(),
        })
    }

    /// Runs the query under another trigger.
    #[must_use]
    pub fn with_trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// Says something to the writer at every start: `|w| w.option("flushOnEnd", true)`.
    #[must_use]
    pub fn with_writer(
        mut self,
        setting: impl Fn(DataStreamWriter) -> DataStreamWriter + Send + Sync + 'static,
    ) -> Self {
        self.settings.0.push(Box::new(setting));
        self
    }

    /// What collects the rows.
    #[must_use]
    pub fn sink(&self) -> &Arc<CollectingSink> {
        &self.sink
    }

    /// The query, while it is started.
    #[must_use]
    pub fn query(&self) -> Option<&StreamingQuery> {
        self.query.as_ref()
    }

    /// Starts the query if it is not started.
    ///
    /// # Errors
    /// When the query is refused.
    pub async fn start(&mut self) -> Result<&StreamingQuery> {
        if self.query.is_none() {
            let started = self.writer().start().await?;
            return Ok(self.query.insert(started));
        }
        self.query
            .as_ref()
            .ok_or_else(|| Error::internal("the query was just started"))
    }

    fn writer(&self) -> DataStreamWriter {
        let writer = self
            .frame
            .clone()
            .write_stream()
            .output_mode(self.mode)
            .trigger(self.trigger)
            .checkpoint_location(self.checkpoint.path().to_string_lossy())
            .sink(Arc::clone(&self.sink) as Arc<dyn highwater::Sink>);
        let settings = self.settings.0.iter();
        settings.fold(writer, |writer, setting| setting(writer))
    }

    /// Starts the query if need be and runs it until all that was added has been processed.
    ///
    /// # Errors
    /// When the query is refused, or fails.
    pub async fn process(&mut self) -> Result<()> {
        self.start().await?.process_all_available().await
    }

    /// Starts the query if need be and waits until it has ended by itself.
    ///
    /// # Errors
    /// When the query is refused, or fails.
    pub async fn finish(&mut self) -> Result<()> {
        let query = self.start().await?.clone();
        query.await_termination().await?;
        self.stop().await
    }

    /// Late rows of all operators, as the progress tells them, since this was last asked.
    pub fn take_late(&mut self) -> u64 {
        self.count_late();
        std::mem::take(&mut self.late.rows)
    }

    fn count_late(&mut self) {
        let progress = self.query.as_ref().map(StreamingQuery::recent_progress);
        for progress in progress.unwrap_or_default() {
            if self.late.counted.is_none_or(|at| at < progress.batch_id) {
                let operators = progress.state_operators.iter();
                self.late.rows += operators.map(|o| o.num_late_rows).sum::<u64>();
                self.late.counted = Some(progress.batch_id);
            }
        }
    }

    /// Stops the query; a query that has failed is stopped already.
    ///
    /// # Errors
    /// When stopping fails.
    pub async fn stop(&mut self) -> Result<()> {
        self.count_late();
        match self.query.take() {
            Some(query) if query.is_active() => query.stop().await,
            _ => Ok(()),
        }
    }

    /// Drops the query as a crash would.
    ///
    /// # Errors
    /// When aborting fails.
    pub async fn abort(&mut self) -> Result<()> {
        self.count_late();
        match self.query.take() {
            Some(query) if query.is_active() => query.abort().await,
            _ => Ok(()),
        }
    }

    /// The rows written since this was last asked, by micro-batch.
    ///
    /// # Errors
    /// When a value has no scalar form.
    pub fn take_new(&self) -> Result<Vec<Vec<Row>>> {
        self.sink.take_new().iter().map(rows).collect()
    }

    /// The rows of the last micro-batch; none before the first.
    ///
    /// # Errors
    /// When a value has no scalar form.
    pub fn last(&self) -> Result<Vec<Row>> {
        self.sink.last().as_ref().map_or(Ok(Vec::new()), rows)
    }
}

fn rows(written: &Written) -> Result<Vec<Row>> {
    value::rows(&written.rows)
}
