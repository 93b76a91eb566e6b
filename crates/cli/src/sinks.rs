//! The sinks that print: of `console`, and of a streaming SELECT that stands alone.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use highwater::connectors::console::ConsoleSinkOptions;
use highwater::{
    BatchId, BatchOutput, Error, Guarantee, OutputMode, Result, Sink, SinkCommit, SinkProvider,
    SinkRun, SinkSpec, async_trait,
};
use parking_lot::Mutex;

use crate::errors::Paint;
use crate::output::{Format, Printer, Shown, counted};

/// The characters of a cell that `truncate` leaves (Spark).
const CELL: usize = 20;

/// Prints the micro-batches of a query.
///
/// As a table each micro-batch that has rows is printed at once, when all of them are there. As JSON and CSV rows are
/// printed as they come, all of them.
#[derive(Debug)]
pub(crate) struct ScreenSink {
    printer: Arc<Printer>,
    /// What stands before the rows of a micro-batch; `None` for a SELECT that stands alone.
    title: Option<String>,
    shown: Shown,
    /// True once the header of CSV is printed.
    begun: Mutex<bool>,
}

impl ScreenSink {
    /// The sink of a SELECT that stands alone.
    pub(crate) fn select(printer: Arc<Printer>) -> Self {
        Self {
            printer,
            title: None,
            shown: Shown::ALL,
            begun: Mutex::default(),
        }
    }

    async fn as_table(&self, output: BatchOutput) -> Result<SinkCommit> {
        let rows: Vec<RecordBatch> = output.stream.try_collect().await?;
        let count: u64 = rows.iter().map(|rows| rows.num_rows() as u64).sum();
        if count == 0 {
            return Ok(SinkCommit::rows(0));
        }
        let title = self
            .title
            .as_deref()
            .map(|title| banner(title, output.id, count));
        let table = crate::table::table(&output.schema, &rows, self.shown)?;
        let text = title.unwrap_or_default() + &table;
        self.printer.screen.print(text.as_bytes())?;
        Ok(SinkCommit::rows(count))
    }

    async fn as_lines(&self, mut output: BatchOutput) -> Result<SinkCommit> {
        let mut count: u64 = 0;
        while let Some(rows) = output.stream.try_next().await? {
            if rows.num_rows() > 0 {
                count += rows.num_rows() as u64;
                self.printer.rows(&rows)?;
            }
        }
        Ok(SinkCommit::rows(count))
    }
}

fn banner(title: &str, batch: BatchId, rows: u64) -> String {
    let coloured =
        std::io::IsTerminal::is_terminal(&std::io::stdout()) && crate::output::Screen::coloured();
    let text = format!("{title}, batch {batch}: {}", counted(rows, "row"));
    format!("{}\n", Paint(coloured).bold(&text))
}

#[async_trait]
impl Sink for ScreenSink {
    fn description(&self) -> String {
        let title = self.title.as_deref().unwrap_or("SELECT");
        format!("Screen[{title}]")
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn supports(&self, _mode: OutputMode) -> bool {
        true
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        let begun = std::mem::replace(&mut *self.begun.lock(), true);
        if begun || self.title.is_some() {
            return Ok(());
        }
        self.printer.begin(&run.schema)
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        match self.printer.format() {
            Format::Table => self.as_table(output).await,
            Format::Json | Format::Csv => self.as_lines(output).await,
        }
    }
}

/// The format `console` of the command.
#[derive(Debug)]
pub(crate) struct ScreenProvider(pub(crate) Arc<Printer>);

#[async_trait]
impl SinkProvider for ScreenProvider {
    fn format(&self) -> &str {
        "console"
    }

    async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
        let meaningless = |what: &str| {
            let error = Error::invalid(format!("`{what}` has no meaning for sink `console`"));
            Err(error.with_option(what).with_hint("leave it out"))
        };
        if spec.path.is_some() {
            return meaningless("path");
        }
        if !spec.partition_by.is_empty() {
            return meaningless("partitionBy");
        }
        let options = ConsoleSinkOptions::try_from(spec.options)?;
        Ok(Arc::new(ScreenSink {
            printer: Arc::clone(&self.0),
            title: Some(spec.query_name.unwrap_or_else(|| "console".to_owned())),
            shown: Shown {
                rows: options.num_rows,
                cell: options.truncate.then_some(CELL),
            },
            begun: Mutex::default(),
        }))
    }
}
