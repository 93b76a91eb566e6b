//! The sink `memory`: each query's result is a table of the query's name.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use highwater_core::{
    BatchOutput, Error, Guarantee, OutputMode, Result, Sink, SinkCommit, SinkProvider, SinkRun,
    SinkSpec,
};

use super::MemoryTable;
use crate::batches::{collect, count, under};
use crate::refuse;

/// Keeps a query's result in memory, as a table.
///
/// In append and update mode rows accumulate (Spark: update rows too), in complete mode each
/// micro-batch replaces the one before. A micro-batch is visible whole or not at all, and a batch id
/// that was taken before is ignored.
pub struct MemorySink {
    name: String,
    mode: OutputMode,
    table: Arc<MemoryTable>,
    /// Where the table is registered when a run begins.
    session: Option<Arc<SessionState>>,
}

impl MemorySink {
    /// The sink of the query `name`; its table is to be had from [`table`](Self::table).
    #[must_use]
    pub fn new(name: impl Into<String>, schema: SchemaRef, mode: OutputMode) -> Self {
        Self {
            name: name.into(),
            mode,
            table: Arc::new(MemoryTable::new(schema)),
            session: None,
        }
    }

    /// Registers the table under the query's name when a run begins, in place of the one that an
    /// earlier query of that name left.
    #[must_use]
    pub fn registered_in(mut self, session: Arc<SessionState>) -> Self {
        self.session = Some(session);
        self
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> Arc<dyn TableProvider> {
        Arc::<MemoryTable>::clone(&self.table)
    }

    /// The rows, as they are now.
    #[must_use]
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.table.batches()
    }

    async fn register(&self) -> Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let place = Place::of(session, &self.name)?;
        place.must_be_free().await?;
        place.put(self.table())
    }
}

impl std::fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySink")
            .field("name", &self.name)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn description(&self) -> String {
        format!("MemorySink({})", self.name)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    /// Only in complete mode can a checkpoint be taken up again, as only then the state holds all the
    /// rows that the table has lost (Spark).
    async fn begin(&self, run: &SinkRun) -> Result<()> {
        if run.last_logged.is_some() && self.mode != OutputMode::Complete {
            return Err(Error::unsupported(format!(
                "sink `memory` in {} mode: This query does not support recovering from checkpoint location",
                self.mode
            ))
            .with_hint("delete `offsets` in the checkpoint location to start over, or use complete mode"));
        }
        self.register().await
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let id = output.id;
        let schema = TableProvider::schema(&*self.table);
        let mut rows = collect(output).await?;
        for batch in &mut rows {
            if !Arc::ptr_eq(&schema, batch.schema_ref()) {
                *batch = under(&schema, batch.clone())?;
            }
        }
        let commit = SinkCommit::rows(count(&rows));
        match self.mode {
            OutputMode::Complete => self.table.replace(id, rows),
            _ => self.table.append(id, rows),
        }
        Ok(commit)
    }
}

/// The format `memory`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryProvider;

#[async_trait]
impl SinkProvider for MemoryProvider {
    fn format(&self) -> &str {
        "memory"
    }

    async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
        refuse::sink_layout(&spec)?;
        spec.options.finish("sink `memory`")?;
        let Some(name) = spec.query_name else {
            return Err(Error::invalid(
                "sink `memory` needs the name of the query: its table has that name",
            )
            .with_option("queryName")
            .with_hint("call `query_name(\"…\")`"));
        };
        Place::of(&spec.session, &name)?.must_be_free().await?;
        let sink = MemorySink::new(name, spec.schema, spec.mode);
        Ok(Arc::new(sink.registered_in(spec.session)))
    }
}

/// A name in the session's catalog.
struct Place {
    schema: Arc<dyn SchemaProvider>,
    table: String,
}

impl Place {
    fn of(session: &SessionState, name: &str) -> Result<Self> {
        let reference = TableReference::from(name);
        let table = reference.table().to_owned();
        let schema = session.schema_for_ref(reference)?;
        Ok(Self { schema, table })
    }

    /// Nothing is there, or the table of an earlier query; another table is never replaced.
    ///
    /// # Errors
    /// `Invalid` when there is another table.
    async fn must_be_free(&self) -> Result<()> {
        let there = self.schema.table(&self.table).await?;
        match there {
            Some(there) if !is_ours(&*there) => Err(Error::invalid(format!(
                "there is a table `{}` already, and it is not of a memory sink",
                self.table
            ))
            .with_hint("give the query another name")),
            _ => Ok(()),
        }
    }

    fn put(&self, table: Arc<dyn TableProvider>) -> Result<()> {
        if self.schema.table_exist(&self.table) {
            self.schema.deregister_table(&self.table)?;
        }
        self.schema.register_table(self.table.clone(), table)?;
        Ok(())
    }
}

fn is_ours(table: &dyn TableProvider) -> bool {
    let table: &dyn Any = table;
    table.is::<MemoryTable>()
}
