//! `late_rows_to`: where rows go that came too late.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SessionState;
use highwater_connectors::memory::MemorySink;
use highwater_engine::{Durability, LateTarget};

use crate::{
    BatchOutput, Error, Guarantee, Options, OutputMode, Result, Sink, SinkCommit, SinkRun,
    SinkSpec, StreamSession,
};

/// Where late rows go: the name of a table in memory, a format with its options, or a sink of your own.
///
/// ```
/// use highwater::LateRows;
///
/// let table: LateRows = "late_readings".into();
/// let format: LateRows = ("console", [("numRows", 5)]).into();
/// # drop((table, format));
/// ```
#[derive(Clone, Debug)]
pub struct LateRows(Target);

#[derive(Clone, Debug)]
enum Target {
    Table(String),
    Format(String, Options),
    Sink(Arc<dyn Sink>),
}

impl From<&str> for LateRows {
    fn from(table: &str) -> Self {
        Self(Target::Table(table.to_owned()))
    }
}

impl From<String> for LateRows {
    fn from(table: String) -> Self {
        Self(Target::Table(table))
    }
}

impl<F: Into<String>, O: Into<Options>> From<(F, O)> for LateRows {
    fn from((format, options): (F, O)) -> Self {
        Self(Target::Format(format.into(), options.into()))
    }
}

impl From<Arc<dyn Sink>> for LateRows {
    fn from(sink: Arc<dyn Sink>) -> Self {
        Self(Target::Sink(sink))
    }
}

/// The option, as errors name it.
pub(super) const OPTION: &str = "lateRowsTo";

/// Opens the sink once the query is planned, as only then the columns are known.
#[derive(Debug)]
pub(super) struct Opener {
    rows: LateRows,
    session: StreamSession,
    state: Arc<SessionState>,
    query_name: Option<String>,
    durability: Durability,
}

impl Opener {
    /// An opener for the query of that name.
    ///
    /// # Errors
    /// `Invalid` for a table without a name, or with the query's.
    pub(super) fn new(
        rows: LateRows,
        session: StreamSession,
        state: SessionState,
        query_name: Option<&str>,
    ) -> Result<Self> {
        if let Target::Table(table) = &rows.0 {
            let wrong = if table.trim().is_empty() {
                Some("the table of the late rows has no name")
            } else if query_name.is_some_and(|name| name.eq_ignore_ascii_case(table)) {
                Some("the late rows and the result cannot go into one table")
            } else {
                None
            };
            if let Some(wrong) = wrong {
                return Err(Error::invalid(wrong)
                    .with_option(OPTION)
                    .with_hint("give the late rows a table of their own"));
            }
        }
        Ok(Self {
            rows,
            session,
            state: Arc::new(state),
            query_name: query_name.map(str::to_owned),
            durability: Durability::default(),
        })
    }

    /// The sink's files must be as durable as the query's.
    pub(super) fn durable(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    async fn open_format(
        &self,
        format: &str,
        options: &Options,
        schema: SchemaRef,
    ) -> Result<Arc<dyn Sink>> {
        if format.eq_ignore_ascii_case("memory") {
            return Err(Error::invalid("late rows in memory go into a table")
                .with_option(OPTION)
                .with_hint("name the table: `late_rows_to(\"late\")`"));
        }
        let provider = self.session.registry().sink(format)?;
        let (clock, state) = (Arc::clone(self.session.clock()), Arc::clone(&self.state));
        let mut spec = SinkSpec::new(format, schema, OutputMode::Append, clock, state);
        let mut options = options.clone();
        spec.path = options.take_str("path");
        spec.query_name.clone_from(&self.query_name);
        spec.options = options;
        spec.durable = self.durability == Durability::Fsync;
        let opened = provider.open(spec).await;
        opened.map_err(|e| e.context("the late rows"))
    }
}

#[async_trait]
impl LateTarget for Opener {
    async fn open(&self, schema: SchemaRef) -> Result<Arc<dyn Sink>> {
        match &self.rows.0 {
            Target::Table(name) => {
                let table = MemorySink::new(name, schema, OutputMode::Append);
                let table = table.registered_in(Arc::clone(&self.state));
                Ok(Arc::new(FreshTable(table)))
            }
            Target::Format(format, options) => self.open_format(format, options, schema).await,
            Target::Sink(sink) => Ok(Arc::clone(sink)),
        }
    }
}

/// A table in memory that begins empty with every run, also with one that goes on from a checkpoint: it shows what
/// came too late in this run.
#[derive(Debug)]
struct FreshTable(MemorySink);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Sink for FreshTable {
    fn description(&self) -> String {
        self.0.description()
    }

    fn guarantee(&self) -> Guarantee {
        self.0.guarantee()
    }

    fn supports(&self, mode: OutputMode) -> bool {
        self.0.supports(mode)
    }

    fn needs_checkpoint(&self) -> bool {
        self.0.needs_checkpoint()
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        let mut run = run.clone();
        run.last_logged = None;
        self.0.begin(&run).await
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        self.0.write(output).await
    }
}
