//! The sink `noop`: runs the query and keeps nothing, for benchmarks.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use highwater_core::{BatchOutput, Guarantee, Result, Sink, SinkCommit, SinkProvider, SinkSpec};

use crate::refuse;

/// Pulls every row and counts it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopSink;

impl NoopSink {
    /// A sink that keeps nothing.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Sink for NoopSink {
    fn description(&self) -> String {
        "NoopSink".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let mut stream = output.stream;
        let mut rows = 0;
        while let Some(batch) = stream.try_next().await? {
            rows += batch.num_rows() as u64;
        }
        Ok(SinkCommit::rows(rows))
    }
}

/// The format `noop`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopProvider;

#[async_trait]
impl SinkProvider for NoopProvider {
    fn format(&self) -> &str {
        "noop"
    }

    async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
        refuse::sink_layout(&spec)?;
        spec.options.finish("sink `noop`")?;
        Ok(Arc::new(NoopSink))
    }
}

#[cfg(test)]
mod tests {
    use highwater_core::testing::contract;

    use super::*;

    #[tokio::test]
    async fn it_keeps_the_contract() -> Result<()> {
        contract::sink::all(async |_| Ok(contract::sink::Subject::blind(Arc::new(NoopSink)))).await
    }
}
