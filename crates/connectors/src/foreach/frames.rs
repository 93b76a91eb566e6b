//! `foreach_batch`: each micro-batch as a DataFusion frame.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_core::{BatchId, BatchOutput, Guarantee, Result, Sink, SinkCommit};

use crate::batches::{collect, under};

type Call = Box<dyn Fn(DataFrame, BatchId) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Hands each micro-batch, also an empty one, to a function of the user's.
///
/// The frame is an ordinary, static one on the user's context. Its rows are held in memory, so that two
/// actions on it do not run the query twice.
pub struct ForeachBatchSink {
    context: SessionContext,
    call: Call,
}

impl ForeachBatchSink {
    /// A sink that calls `function` with frames of `context`.
    pub fn new<F, Fut>(context: SessionContext, function: F) -> Self
    where
        F: Fn(DataFrame, BatchId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        Self {
            context,
            call: Box::new(move |frame, id| function(frame, id).boxed()),
        }
    }
}

impl fmt::Debug for ForeachBatchSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeachBatchSink").finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for ForeachBatchSink {
    fn description(&self) -> String {
        "ForeachBatchSink".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    /// Rows are not counted: what becomes of them is the function's affair (Spark).
    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let (id, schema) = (output.id, Arc::clone(&output.schema));
        let rows = collect(output).await?.into_iter();
        let rows = rows.map(|batch| under(&schema, batch));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let table = MemTable::try_new(schema, vec![rows])?;
        let frame = self.context.read_table(Arc::new(table))?;
        (self.call)(frame, id).await?;
        Ok(SinkCommit::default())
    }
}
