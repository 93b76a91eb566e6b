//! The sink: one micro-batch at a time, data files first, then the log's entry that names them.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use highwater_core::{
    BatchId, BatchOutput, Clock, Error, Guarantee, OutputMode, Result, RunId, Sink, SinkCommit,
    SinkRun,
};
use tokio::sync::Mutex;

use super::batch::BatchFiles;
use super::ledger::{Ledger, is_taken};
use super::target::Target;
use crate::file::sink_log::{self, SinkFile};

/// Writes micro-batches as files of a directory, exactly once.
#[derive(Debug)]
pub(super) struct FileSink {
    target: Arc<Target>,
    clock: Arc<dyn Clock>,
    /// What is in the directory is flushed before the first micro-batch.
    settles: bool,
    /// What the log says; none before it is read, and after a failure that leaves open what it says.
    ledger: Mutex<Option<Ledger>>,
}

impl FileSink {
    /// A sink that writes to `target`.
    pub(super) fn new(target: Target, clock: Arc<dyn Clock>) -> Self {
        Self {
            target: Arc::new(target),
            clock,
            settles: false,
            ledger: Mutex::new(None),
        }
    }

    /// The same sink, which flushes what earlier runs wrote to the disk before it adds to it.
    pub(super) fn settled_first(mut self) -> Self {
        self.settles = true;
        self
    }

    /// Writes the rows into files; on failure there are none, as far as they can be deleted.
    async fn write_files(&self, output: BatchOutput) -> Result<(Vec<SinkFile>, u64)> {
        let mut files = BatchFiles::new(&self.target, output.run_id);
        match fill(&mut files, output).await {
            Ok(lines) => Ok((lines, files.rows())),
            Err(error) => {
                files.abandon().await;
                Err(error)
            }
        }
    }

    /// Makes the files visible.
    async fn commit(
        &self,
        ledger: &mut Ledger,
        run: RunId,
        id: BatchId,
        written: &[SinkFile],
    ) -> Result<()> {
        let target = &self.target;
        let committed = ledger.commit(target, run, &*self.clock, id, written).await;
        let Err(error) = committed else {
            return Ok(());
        };
        // Other failures leave open whether the entry is there, so the files must stay.
        if !is_taken(&error) {
            return Err(error);
        }
        if ledger.is_ours(target, id, written).await? {
            return Ok(());
        }
        let paths = written.iter().map(|f| target.location.path_of(&f.path));
        target.discard(paths.collect::<Result<_>>()?).await;
        Err(error)
    }
}

/// Pulls all rows into files and finishes them.
async fn fill(files: &mut BatchFiles<'_>, output: BatchOutput) -> Result<Vec<SinkFile>> {
    let mut rows = output.stream;
    while let Some(rows) = rows.try_next().await? {
        files.write(&rows).await?;
    }
    files.finish().await
}

/// Pulls the rows, so that the query runs, and counts them.
async fn drain(output: BatchOutput) -> Result<u64> {
    let mut stream = output.stream;
    let mut count = 0;
    while let Some(rows) = stream.try_next().await? {
        count += rows.num_rows() as u64;
    }
    Ok(count)
}

#[async_trait]
impl Sink for FileSink {
    fn description(&self) -> String {
        format!("FileSink[{}]", self.target.location.shown())
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn supports(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        let mut known = self.ledger.lock().await;
        if self.settles {
            self.target.location.settle(sink_log::FOLDER).await?;
        }
        let ledger = Ledger::load(&self.target).await?;
        // A micro-batch is logged before it is written here, so a log that is ahead is another query's.
        if let Some(latest) = ledger.latest()
            && run.last_logged.is_none_or(|logged| logged < latest)
        {
            let display = &self.target.location.display;
            return Err(Error::invalid(format!(
                "`{display}` has the results of another query, up to its micro-batch {latest}; \
                 micro-batches of this query up to that number would be taken for written and lost"
            ))
            .with_option("path")
            .with_hint(
                "give the query a directory of its own, or the checkpoint that belongs to this one",
            ));
        }
        *known = Some(ledger);
        Ok(())
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let (id, run) = (output.id, output.run_id);
        let mut known = self.ledger.lock().await;
        let mut ledger = match known.take() {
            Some(ledger) => ledger,
            None => Ledger::load(&self.target).await?,
        };
        if ledger.has(id) {
            *known = Some(ledger);
            return drain(output).await.map(SinkCommit::rows);
        }
        let (written, rows) = self.write_files(output).await?;
        self.commit(&mut ledger, run, id, &written).await?;
        *known = Some(ledger);
        Ok(SinkCommit::rows(rows))
    }
}
