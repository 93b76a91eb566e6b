//! `foreach`: a writer of the user's that opens, processes and closes.

use std::fmt;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use highwater_core::{BatchId, BatchOutput, Error, Guarantee, Result, Sink, SinkCommit};

/// The user's code for the rows of one micro-batch; write its methods as `async fn`.
///
/// For each micro-batch, also an empty one, a fresh writer is made. `open` is called first; then
/// `process` for each batch of rows, unless `open` said false; then `close`, whenever `open` came back
/// without an error (Spark). When a run is dropped in the middle, as by a crash, nothing more is called.
pub trait ForeachWriter: Send + 'static {
    /// Gets ready; false: the rows of this micro-batch are not wanted.
    ///
    /// The same `partition` and `batch` come again after a failure. There is one partition, number 0.
    fn open(
        &mut self,
        partition: u64,
        batch: BatchId,
    ) -> impl Future<Output = Result<bool>> + Send {
        let _ = (partition, batch);
        std::future::ready(Ok(true))
    }

    /// Takes some rows, never none.
    fn process(&mut self, rows: RecordBatch) -> impl Future<Output = Result<()>> + Send;

    /// Ends the micro-batch; `error` is what it failed with, in the query or in `process`.
    fn close(&mut self, error: Option<&Error>) -> impl Future<Output = Result<()>> + Send {
        let _ = error;
        std::future::ready(Ok(()))
    }
}

/// Gives each micro-batch to a fresh writer of the user's.
pub struct ForeachSink<W> {
    make: Box<dyn Fn() -> W + Send + Sync>,
}

impl<W: ForeachWriter> ForeachSink<W> {
    /// A sink whose writers come from `make`.
    pub fn new(make: impl Fn() -> W + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
        }
    }
}

impl<W> fmt::Debug for ForeachSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeachSink").finish_non_exhaustive()
    }
}

#[async_trait]
impl<W: ForeachWriter> Sink for ForeachSink<W> {
    fn description(&self) -> String {
        "ForeachSink".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let mut writer = (self.make)();
        let wanted = writer.open(0, output.id).await?;
        let processed = process_all(&mut writer, wanted, output.stream).await;
        let closed = writer.close(processed.as_ref().err()).await;
        // The first failure is the one to tell.
        let rows = processed?;
        closed?;
        Ok(SinkCommit::rows(rows))
    }
}

/// Pulls the stream to its end, as that is what runs the query, and gives the rows to the writer if wanted.
async fn process_all(
    writer: &mut impl ForeachWriter,
    wanted: bool,
    mut stream: SendableRecordBatchStream,
) -> Result<u64> {
    let mut rows = 0;
    while let Some(batch) = stream.try_next().await? {
        if wanted && batch.num_rows() > 0 {
            rows += batch.num_rows() as u64;
            writer.process(batch).await?;
        }
    }
    Ok(rows)
}
