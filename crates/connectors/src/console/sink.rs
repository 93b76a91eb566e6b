//! The sink itself: a banner and a table for each micro-batch.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use highwater_core::{
    BatchId, BatchOutput, Guarantee, Result, Sink, SinkCommit, SinkProvider, SinkSpec,
};
use parking_lot::Mutex;

use super::ConsoleSinkOptions;
use super::table::table;
use crate::refuse;

/// Prints each micro-batch, also an empty one, once its rows are all there.
pub struct ConsoleSink {
    options: ConsoleSinkOptions,
    out: Mutex<Box<dyn Write + Send>>,
}

impl ConsoleSink {
    /// A sink that prints to the standard output.
    #[must_use]
    pub fn new(options: ConsoleSinkOptions) -> Self {
        Self::with_writer(options, Box::new(std::io::stdout()))
    }

    /// A sink that prints to `out`.
    #[must_use]
    pub fn with_writer(options: ConsoleSinkOptions, out: Box<dyn Write + Send>) -> Self {
        Self {
            options,
            out: Mutex::new(out),
        }
    }

    fn print(&self, id: BatchId, table: impl fmt::Display, more: bool) -> std::io::Result<()> {
        const LINE: &str = "-------------------------------------------";
        let mut out = self.out.lock();
        writeln!(out, "{LINE}\nBatch: {id}\n{LINE}\n{table}")?;
        if more {
            let shown = self.options.num_rows;
            let rows = if shown == 1 { "row" } else { "rows" };
            writeln!(out, "only showing top {shown} {rows}")?;
        }
        writeln!(out)?;
        out.flush()
    }
}

impl fmt::Debug for ConsoleSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSink")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for ConsoleSink {
    fn description(&self) -> String {
        format!(
            "ConsoleSink[numRows={}, truncate={}]",
            self.options.num_rows, self.options.truncate
        )
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let (shown, rows) = first_rows(output.stream, self.options.num_rows).await?;
        let table = table(&output.schema, &shown, self.options.truncate)?;
        self.print(output.id, table, rows > self.options.num_rows as u64)?;
        Ok(SinkCommit::rows(rows))
    }
}

/// The first `most` rows, and how many there are.
async fn first_rows(
    mut stream: SendableRecordBatchStream,
    most: usize,
) -> Result<(Vec<RecordBatch>, u64)> {
    let mut shown = Vec::new();
    let (mut left, mut rows) = (most, 0);
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows() as u64;
        let taken = left.min(batch.num_rows());
        if taken > 0 {
            shown.push(batch.slice(0, taken));
            left -= taken;
        }
    }
    Ok((shown, rows))
}

/// The format `console`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsoleProvider;

#[async_trait]
impl SinkProvider for ConsoleProvider {
    fn format(&self) -> &str {
        "console"
    }

    async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
        refuse::sink_layout(&spec)?;
        let options = ConsoleSinkOptions::try_from(spec.options)?;
        Ok(Arc::new(ConsoleSink::new(options)))
    }
}
