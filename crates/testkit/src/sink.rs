//! A sink that keeps what it is given, and fails when it is told to.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use highwater::{BatchId, BatchOutput, Error, Guarantee, Result, Sink, SinkCommit, SinkRun};
use parking_lot::Mutex;

/// The message of the failure that [`CollectingSink::fail_at`] injects.
pub const INJECTED: &str = "injected sink failure";

/// Keeps every micro-batch in memory; exactly once, whatever is run again.
///
/// The same sink serves all runs of a query, so that a test sees what came out before and after a
/// restart.
#[derive(Debug, Default)]
pub struct CollectingSink {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    schema: Option<SchemaRef>,
    batches: Vec<Written>,
    /// How many of `batches` were taken.
    taken: usize,
    /// Which of the coming writes fails, counted from 1.
    fail_at: Option<u64>,
}

/// What one micro-batch wrote.
#[derive(Clone, Debug)]
pub struct Written {
    /// The micro-batch.
    pub id: BatchId,
    /// Its rows.
    pub rows: Vec<RecordBatch>,
}

impl CollectingSink {
    /// An empty sink.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets the `nth` write from now on fail, counted from 1, once, after the rows were computed.
    pub fn fail_at(&self, nth: u64) {
        self.kept.lock().fail_at = Some(nth);
    }

    /// Takes a failure back that has not happened.
    pub fn do_not_fail(&self) {
        self.kept.lock().fail_at = None;
    }

    /// The micro-batches written since this was last asked, in order.
    #[must_use]
    pub fn take_new(&self) -> Vec<Written> {
        let mut kept = self.kept.lock();
        let new = kept.batches[kept.taken..].to_vec();
        kept.taken = kept.batches.len();
        new
    }

    /// What the last micro-batch wrote; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<Written> {
        self.kept.lock().batches.last().cloned()
    }

    /// The columns of the result, known once a query has started.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        self.kept.lock().schema.clone()
    }
}

#[async_trait]
impl Sink for CollectingSink {
    fn description(&self) -> String {
        "CollectingSink".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        self.kept.lock().schema = Some(Arc::clone(&run.schema));
        Ok(())
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let id = output.id;
        let rows: Vec<RecordBatch> = output.stream.try_collect().await?;
        let count = rows.iter().map(|rows| rows.num_rows() as u64).sum();
        self.kept.lock().keep(Written { id, rows })?;
        Ok(SinkCommit::rows(count))
    }
}

impl Kept {
    fn keep(&mut self, written: Written) -> Result<()> {
        match self.fail_at {
            Some(1) => {
                self.fail_at = None;
                return Err(Error::user(INJECTED));
            }
            Some(nth) => self.fail_at = Some(nth - 1),
            None => {}
        }
        if self.batches.last().is_none_or(|last| last.id < written.id) {
            self.batches.push(written);
        }
        Ok(())
    }
}
