//! What goes to the standard output: rows, as a table, as lines of JSON or as CSV.
//!
//! ```text
//!  rows of a batch query ──┐
//!  micro-batches of a SELECT ├─► Printer ─► Screen ─► stdout, with the live lines of progress out of the way
//!  micro-batches to console ─┘
//! ```

use std::io::{self, IsTerminal, Write as _};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use clap::ValueEnum;
use highwater::{Error, Result};
use indicatif::{MultiProgress, ProgressDrawTarget};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

use crate::table;

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table with lines around the cells.
    #[default]
    Table,
    /// A line of JSON for each row.
    Json,
    /// Comma-separated values, with a header.
    Csv,
}

/// The two outputs of the process.
///
/// Progress is drawn on the standard error; what is printed waits until its lines are out of the way.
pub(crate) struct Screen {
    bars: MultiProgress,
    live: bool,
    /// True once nobody reads the standard output any more.
    gone: watch::Sender<bool>,
    /// Writes above the line that the user is typing.
    prompt: Mutex<Option<Prompt>>,
}

/// Writes a text above the line that the user is typing.
pub(crate) type Prompt = Box<dyn FnMut(String) + Send>;

impl Screen {
    /// A screen; `live` when there are lines of progress that move.
    pub(crate) fn new(live: bool) -> Self {
        let target = match live {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            live,
            gone: watch::Sender::new(false),
            prompt: Mutex::default(),
        }
    }

    /// Where lines of progress are drawn; `None` when they do not move.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        self.live.then_some(&self.bars)
    }

    /// Hides the lines of progress while the user types: what is printed stands above the prompt. `None` shows them
    /// again.
    pub(crate) fn set_prompt(&self, prompt: Option<Prompt>) {
        if self.live {
            self.bars.set_draw_target(match prompt {
                None => ProgressDrawTarget::stderr(),
                Some(_) => ProgressDrawTarget::hidden(),
            });
        }
        *self.prompt.lock() = prompt;
    }

    /// True when the text stands above the prompt now.
    fn above_the_prompt(&self, text: &[u8]) -> bool {
        let mut prompt = self.prompt.lock();
        let prompt = prompt.as_mut();
        prompt.is_some_and(|write| {
            write(String::from_utf8_lossy(text).into_owned());
            true
        })
    }

    /// Writes results.
    ///
    /// # Errors
    /// `Unavailable` when nobody reads them.
    pub(crate) fn print(&self, bytes: &[u8]) -> Result<()> {
        if self.above_the_prompt(bytes) {
            return Ok(());
        }
        let written = self.aside(|| {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        });
        written.map_err(|e| {
            if e.kind() == io::ErrorKind::BrokenPipe {
                self.gone.send_replace(true);
            }
            Error::from(e).context("the standard output")
        })
    }

    /// Writes what is no result.
    pub(crate) fn note(&self, text: &str) {
        if self.above_the_prompt(format!("{text}\n").as_bytes()) {
            return;
        }
        self.aside(|| {
            // Nobody can be told that the standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }

    /// True when what is no result may be in colour.
    pub(crate) fn coloured() -> bool {
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
    }

    /// Comes back when nobody reads the standard output any more.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        if gone.wait_for(|gone| *gone).await.is_err() {
            std::future::pending().await
        }
    }

    /// True when nobody reads the standard output any more.
    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.live {
            true => self.bars.suspend(write),
            false => write(),
        }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("live", &self.live)
            .field("gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

/// Prints rows in one format.
#[derive(Debug)]
pub(crate) struct Printer {
    pub(crate) screen: Arc<Screen>,
    format: Mutex<Format>,
    /// The columns of the CSV that was printed last: a header stands before others.
    header: Mutex<Option<SchemaRef>>,
}

/// What of many rows is shown in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// At most so many rows.
    pub(crate) rows: usize,
    /// Cells are cut to so many characters.
    pub(crate) cell: Option<usize>,
}

impl Shown {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        rows: usize::MAX,
        cell: None,
    };
}

impl Printer {
    pub(crate) fn new(screen: Arc<Screen>, format: Format) -> Self {
        Self {
            screen,
            format: Mutex::new(format),
            header: Mutex::default(),
        }
    }

    pub(crate) fn format(&self) -> Format {
        *self.format.lock()
    }

    pub(crate) fn set_format(&self, format: Format) {
        *self.format.lock() = format;
    }

    /// Begins a result: its header of CSV is there also when no row comes.
    ///
    /// # Errors
    /// As for [`Screen::print`].
    pub(crate) fn begin(&self, schema: &SchemaRef) -> Result<()> {
        match self.format() {
            Format::Csv => {
                *self.header.lock() = None;
                self.rows(&RecordBatch::new_empty(Arc::clone(schema)))
            }
            _ => Ok(()),
        }
    }

    /// Prints some rows of a result as lines.
    ///
    /// # Errors
    /// As for [`Screen::print`].
    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<()> {
        let bytes = match self.format() {
            Format::Json => json_lines(rows)?,
            Format::Csv => {
                let mut last = self.header.lock();
                let header = last.as_ref() != Some(&rows.schema());
                *last = Some(rows.schema());
                csv_lines(rows, header)?
            }
            Format::Table => {
                return self.table(&rows.schema(), std::slice::from_ref(rows), Shown::ALL);
            }
        };
        self.screen.print(&bytes)
    }

    /// Prints a whole result as a table.
    ///
    /// # Errors
    /// As for [`Screen::print`].
    pub(crate) fn table(
        &self,
        schema: &SchemaRef,
        rows: &[RecordBatch],
        shown: Shown,
    ) -> Result<()> {
        let text = table::table(schema, rows, shown)?;
        self.screen.print(text.as_bytes())
    }
}

/// A line of JSON for each row.
pub(crate) fn json_lines(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(&mut lines);
    writer.write(rows)?;
    writer.finish()?;
    Ok(lines)
}

/// Rows as comma-separated values; lists and structs are JSON.
pub(crate) fn csv_lines(rows: &RecordBatch, header: bool) -> Result<Vec<u8>> {
    let flat = flat(rows)?;
    let mut lines = Vec::new();
    let builder = csv::WriterBuilder::new().with_header(header);
    builder.build(&mut lines).write(&flat)?;
    Ok(lines)
}

/// The rows with lists, structs and maps as texts of JSON, as CSV has no such values.
fn flat(rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = rows.schema();
    let pairs = schema.fields().iter().zip(rows.columns());
    let columns = pairs.map(|(field, column)| match column.data_type().is_nested() {
        true => {
            let field = field.as_ref().clone().with_data_type(DataType::Utf8);
            Ok((field, texts_of_json(column)?))
        }
        false => Ok((field.as_ref().clone(), Arc::clone(column))),
    });
    let columns = columns.collect::<Result<Vec<(Field, ArrayRef)>>>()?;
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

fn texts_of_json(column: &ArrayRef) -> Result<ArrayRef> {
    let rows = RecordBatch::try_from_iter_with_nullable([("v", Arc::clone(column), true)])?;
    let lines = json_lines(&rows)?;
    let lines = String::from_utf8_lossy(&lines);
    let texts = lines.lines().enumerate().map(|(row, line)| {
        let text = line
            .strip_prefix("{\"v\":")
            .and_then(|l| l.strip_suffix('}'));
        text.filter(|_| column.is_valid(row))
    });
    Ok(Arc::new(texts.collect::<StringArray>()))
}

/// The rows as JSON values.
pub(crate) fn values(
    rows: &[RecordBatch],
) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
    let mut values = Vec::new();
    for rows in rows {
        let lines = json_lines(rows)?;
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let value = serde_json::from_slice(line).map_err(|e| {
                Error::internal("a line of JSON of ours cannot be read").with_source(e)
            })?;
            values.push(value);
        }
    }
    Ok(values)
}

/// `1 row`, `2 rows`, `3 batches`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    let ending = match (count, what.ends_with("ch")) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {what}{ending}", grouped(count))
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}
