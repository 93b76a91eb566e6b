//! The threads that queries run on.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::{BatchOutput, Error, Guarantee, OutputMode, Result, Sink, SinkCommit, SinkRun};

/// A runtime of the session's own, or one that the user gave.
#[derive(Clone, Debug)]
pub(crate) enum CpuRuntime {
    /// Threads of ours.
    Own(Arc<OwnRuntime>),
    /// The user's.
    Given(Handle),
}

impl CpuRuntime {
    /// Threads named `highwater-cpu`, one for each core.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no threads.
    pub(crate) fn new() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("highwater-cpu")
            .enable_all()
            .build()
            .map_err(|e| Error::from(e).context("the threads that queries run on"))?;
        Ok(Self::Own(Arc::new(OwnRuntime(Some(runtime)))))
    }

    /// Where to spawn.
    pub(crate) fn handle(&self) -> Option<Handle> {
        match self {
            Self::Own(own) => own.0.as_ref().map(|runtime| runtime.handle().clone()),
            Self::Given(handle) => Some(handle.clone()),
        }
    }
}

/// A runtime that may be dropped anywhere, also inside async code.
#[derive(Debug)]
pub(crate) struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A query's sink that keeps the threads of its query: a query lives on when the session's handles are gone.
#[derive(Debug)]
pub(crate) struct KeepsRuntime {
    sink: Arc<dyn Sink>,
    _runtime: CpuRuntime,
}

impl KeepsRuntime {
    /// `sink` with `runtime` held as long as it is.
    pub(crate) fn new(sink: Arc<dyn Sink>, runtime: CpuRuntime) -> Self {
        Self {
            sink,
            _runtime: runtime,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Sink for KeepsRuntime {
    fn description(&self) -> String {
        self.sink.description()
    }

    fn guarantee(&self) -> Guarantee {
        self.sink.guarantee()
    }

    fn supports(&self, mode: OutputMode) -> bool {
        self.sink.supports(mode)
    }

    fn needs_checkpoint(&self) -> bool {
        self.sink.needs_checkpoint()
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        self.sink.begin(run).await
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        self.sink.write(output).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_may_be_dropped_in_async_code_and_by_its_own_task() {
        drop(CpuRuntime::new().expect("made"));
        let runtime = CpuRuntime::new().expect("made");
        let handle = runtime.handle().expect("own");
        let (tell, told) = tokio::sync::oneshot::channel();
        handle.spawn(async move {
            drop(runtime);
            let _ = tell.send(());
        });
        // The task may be cancelled by the drop; either way nothing panics or hangs.
        let _ = told.await;
    }
}
