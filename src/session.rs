//! The session: a DataFusion context that also knows streams.

use std::fmt;
use std::sync::{Arc, OnceLock};

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionContext;
use highwater_engine::{StreamingQueryManager, SystemClock};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::registry::Registry;
use crate::runtime::CpuRuntime;
use crate::settings::Settings;
use crate::{
    Clock, DataFrameReader, DataStreamReader, Error, RecordBatch, Result, SinkProvider,
    SourceProvider, SqlSemantics, StreamFrame, StreamSessionBuilder, builder, sql,
};

/// Where everything starts: tables, SQL, readers and the running queries.
///
/// It wraps a DataFusion [`SessionContext`], which stays usable as it is: batch queries keep all cores and
/// settings, as streaming queries are planned on a private copy. Cloning is cheap; queries go on when the
/// last clone is dropped.
///
/// ```
/// # use highwater::prelude::*;
/// # #[tokio::main] async fn main() -> highwater::Result<()> {
/// let session = StreamSession::new();
/// let frame = session.sql("SELECT 1 + 1 AS two").await?;
/// assert!(!frame.is_streaming());
/// assert_eq!(frame.count().await?, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct StreamSession(Arc<Inner>);

struct Inner {
    context: SessionContext,
    clock: Arc<dyn Clock>,
    registry: Registry,
    runtime: Mutex<Option<CpuRuntime>>,
    manager: OnceLock<StreamingQueryManager>,
    /// The queries that SQL has started.
    started: sql::Started,
}

impl StreamSession {
    /// A session with a context of its own and DataFusion's meaning of SQL.
    #[must_use]
    pub fn new() -> Self {
        // Nothing that `build` could refuse has been asked for; a context without our functions is the worst case.
        let context = builder::new_context();
        if let Err(error) = builder::prepare(&context, SqlSemantics::DataFusion) {
            tracing::error!(%error, "the streaming functions could not be registered");
        }
        Self::assemble(context, Arc::new(SystemClock), None)
    }

    /// A builder: settings, clock, threads, meaning of SQL.
    pub fn builder() -> StreamSessionBuilder {
        StreamSessionBuilder::new()
    }

    /// A session that shares the tables, functions and object stores of `context`.
    ///
    /// It adds our functions and planners to the context and changes no setting.
    ///
    /// # Errors
    /// When DataFusion cannot take a function of ours.
    pub fn from_context(context: SessionContext) -> Result<Self> {
        Self::builder().context(context).build()
    }

    pub(crate) fn assemble(
        context: SessionContext,
        clock: Arc<dyn Clock>,
        runtime: Option<Handle>,
    ) -> Self {
        Self(Arc::new(Inner {
            context,
            clock,
            registry: Registry::new(),
            runtime: Mutex::new(runtime.map(CpuRuntime::Given)),
            manager: OnceLock::new(),
            started: sql::Started::default(),
        }))
    }

    /// All of DataFusion: catalogs, object stores, functions, batch readers.
    #[must_use]
    pub fn context(&self) -> &SessionContext {
        &self.0.context
    }

    /// Runs one SQL statement; the frame streams when one of its tables does.
    ///
    /// Beside DataFusion's SQL there are `FROM STREAM t WATERMARK ts DELAY OF INTERVAL 10 SECONDS`,
    /// `window(ts, '10 seconds')` with `window.start` and `window.end` (Spark), `TUMBLE(TABLE t, …)` (Flink), and
    /// statements: `CREATE UNBOUNDED EXTERNAL TABLE`, `CREATE STREAMING TABLE`, `AWAIT STREAMING QUERY` and more, all in `docs/sql.md`.
    ///
    /// A statement that acts has done so when this comes back. One that starts, stops or awaits a query gives a frame of
    /// one row: `name`, `id`, `run_id`.
    ///
    /// # Errors
    /// `Invalid` for text that is no SQL or names what is not there, `Unsupported` for what this version does not run; each with
    /// its position in the text.
    pub async fn sql(&self, sql: &str) -> Result<StreamFrame> {
        Box::pin(sql::run(self, sql)).await
    }

    /// The table or view `name`; the frame streams when the table does.
    ///
    /// # Errors
    /// `Invalid` when there is no such table.
    pub async fn table(&self, name: impl Into<TableReference>) -> Result<StreamFrame> {
        let name = name.into();
        let missing = format!("the table or view `{name}` cannot be found");
        match self.0.context.table_provider(name.clone()).await {
            Ok(_) => Ok(self.frame(self.0.context.table(name).await?)),
            Err(error) => Err(Error::invalid(missing)
                .with_condition("TABLE_OR_VIEW_NOT_FOUND")
                .with_source(error)),
        }
    }

    /// A DataFusion frame as a frame of this session.
    #[must_use]
    pub fn frame(&self, frame: DataFrame) -> StreamFrame {
        StreamFrame::new(self.clone(), frame)
    }

    /// Reads files once.
    pub fn read(&self) -> DataFrameReader {
        DataFrameReader::new(self.clone())
    }

    /// Reads a stream.
    pub fn read_stream(&self) -> DataStreamReader {
        DataStreamReader::new(self.clone())
    }

    /// The session's queries: those that run, and waiting for them.
    #[must_use]
    pub fn streams(&self) -> StreamingQueryManager {
        let manager = self.0.manager.get_or_init(|| {
            let runtime = self.runtime().ok().and_then(|r| r.handle());
            let runtime = runtime.unwrap_or_else(idle_runtime);
            StreamingQueryManager::new(Arc::clone(&self.0.clock), runtime)
        });
        manager.clone()
    }

    /// Makes a scalar function known to SQL.
    pub fn register_udf(&self, function: ScalarUDF) {
        self.0.context.register_udf(function);
    }

    /// Makes an aggregate function known to SQL.
    pub fn register_udaf(&self, function: AggregateUDF) {
        self.0.context.register_udaf(function);
    }

    /// Makes a table known.
    ///
    /// # Errors
    /// `Invalid` when there is a table of that name.
    pub fn register_table(
        &self,
        name: impl Into<TableReference>,
        table: Arc<dyn TableProvider>,
    ) -> Result<()> {
        self.0.context.register_table(name, table)?;
        Ok(())
    }

    /// Makes some rows known as a table.
    ///
    /// # Errors
    /// `Invalid` when there is a table of that name.
    pub fn register_batch(&self, name: impl Into<TableReference>, rows: RecordBatch) -> Result<()> {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        self.register_table(name, Arc::new(table))
    }

    /// Makes a source known as a format of [`read_stream`](Self::read_stream).
    ///
    /// # Errors
    /// `Invalid` when the format has a source already.
    pub fn register_source(&self, provider: Arc<dyn SourceProvider>) -> Result<()> {
        self.0.registry.add_source(provider)
    }

    /// Makes a sink known as a format of [`write_stream`](StreamFrame::write_stream).
    ///
    /// # Errors
    /// `Invalid` when the format has a sink already.
    pub fn register_sink(&self, provider: Arc<dyn SinkProvider>) -> Result<()> {
        self.0.registry.add_sink(provider)
    }

    pub(crate) fn started(&self) -> &sql::Started {
        &self.0.started
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The user's state as it is now.
    pub(crate) fn state(&self) -> SessionState {
        self.0.context.state()
    }

    /// The user's state as it is now, for who opens files with it: it says how stores that fail for a moment are treated.
    pub(crate) fn state_for_files(&self) -> Arc<SessionState> {
        let mut state = self.state();
        Settings::of(&state).tell_stores(&mut state);
        Arc::new(state)
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::of(&self.0.context.state_ref().read())
    }

    /// The threads of queries, made when they are first needed.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no threads.
    pub(crate) fn runtime(&self) -> Result<CpuRuntime> {
        let mut runtime = self.0.runtime.lock();
        if let Some(runtime) = runtime.as_ref() {
            return Ok(runtime.clone());
        }
        let made = CpuRuntime::new()?;
        *runtime = Some(made.clone());
        Ok(made)
    }
}

/// Stands in where the system gives no threads; `start` tells that error before anything would run here.
fn idle_runtime() -> Handle {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map(|runtime| {
            let handle = runtime.handle().clone();
            runtime.shutdown_background();
            handle
        })
        .expect("a runtime without threads, timers and I/O asks nothing of the system")
}

impl Default for StreamSession {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StreamSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSession")
            .field("id", &self.0.context.session_id())
            .field("registry", &self.0.registry)
            .finish_non_exhaustive()
    }
}
