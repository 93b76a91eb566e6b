//! `write_stream()`: where results go, and when.

mod checkpoint;
mod insert;
mod late;
mod options;
mod table;
pub(crate) mod table_files;

use std::sync::Arc;

use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use highwater_connectors::foreach::{ForeachBatchSink, ForeachSink};
use highwater_engine::{Durability, StartRequest, StreamingQuery};
use tokio::runtime::Handle;

use crate::runtime::KeepsRuntime;
use crate::{
    BatchId, Error, ForeachWriter, OptionValue, Options, OutputMode, Result, Sink, SinkSpec,
    StreamFrame, StreamSession, Trigger,
};
pub use late::LateRows;
pub(crate) use table_files::OF_BOTH;

/// Describes a query to start, as Spark's `writeStream`; [`start`](Self::start) tells the first mistake.
///
/// ```
/// # use highwater::prelude::*;
/// # #[tokio::main] async fn main() -> highwater::Result<()> {
/// # let session = StreamSession::new();
/// let rows = MemoryStream::new(&session, "k STRING, v BIGINT")?;
/// rows.add_data([("a", 1), ("a", 2), ("b", 3)])?;
/// let query = rows.to_frame()
///     .group_by([col("k")]).count()?
///     .write_stream().output_mode(OutputMode::Complete)
///     .format("memory").query_name("counts")
///     .trigger(Trigger::AvailableNow)
///     .start().await?;
/// query.await_termination().await?;
/// assert_eq!(session.table("counts").await?.count().await?, 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is written until `start`"]
pub struct DataStreamWriter {
    frame: StreamFrame,
    mode: OutputMode,
    trigger: Trigger,
    query_name: Option<String>,
    partition_by: Vec<String>,
    options: Options,
    path: Option<String>,
    target: Option<Target>,
    late_rows: Option<LateRows>,
    mistake: Option<Error>,
}

#[derive(Debug)]
enum Target {
    Format(String),
    Sink(Arc<dyn Sink>),
}

impl DataStreamWriter {
    pub(crate) fn new(frame: StreamFrame) -> Self {
        Self {
            mode: frame.mode().unwrap_or_default(),
            frame,
            trigger: Trigger::default(),
            query_name: None,
            partition_by: Vec::new(),
            options: Options::new(),
            path: None,
            target: None,
            late_rows: None,
            mistake: None,
        }
    }

    /// What of the result table the sink gets; append by default.
    pub fn output_mode(mut self, mode: OutputMode) -> Self {
        self.mode = mode;
        self
    }

    /// When micro-batches run; by default one after the other, as long as there is data.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = trigger;
        self
    }

    /// The query's name, unique among the active queries of the session.
    pub fn query_name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if name.trim().is_empty() {
            let error = Error::invalid("the query's name is empty").with_option("queryName");
            self.mistake.get_or_insert(error);
        }
        self.query_name = Some(name);
        self
    }

    /// The columns by which a file sink makes folders.
    pub fn partition_by(mut self, columns: &[&str]) -> Self {
        self.partition_by = columns.iter().map(ToString::to_string).collect();
        self
    }

    /// The folder the query keeps what it must remember in: a path, or a URL of a registered object store.
    pub fn checkpoint_location(self, url: impl Into<String>) -> Self {
        self.option("checkpointLocation", url.into())
    }

    /// An option of the query or the sink, by Spark's name; case and `_` do not count.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<OptionValue>) -> Self {
        self.options.set(key, value);
        self
    }

    /// Several options.
    pub fn options(mut self, options: impl Into<Options>) -> Self {
        self.options.extend(options.into());
        self
    }

    /// The format of the sink: `parquet`, `json`, `csv`, `text`, `memory`, `console`, `noop`, or one that was registered.
    pub fn format(self, name: impl Into<String>) -> Self {
        self.to(Target::Format(name.into()))
    }

    /// The path a sink writes to.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// A sink of your own, without registering a format for it.
    pub fn sink(self, sink: Arc<dyn Sink>) -> Self {
        self.to(Target::Sink(sink))
    }

    /// Gives the rows of each micro-batch to a fresh writer of yours: at least once (Spark).
    ///
    /// An error of the writer fails the query, after `close` was called with it. When the query is started again with its
    /// checkpoint, the same batch id comes again; a writer whose `open` then says false passes the rows over.
    /// See [`ForeachWriter`] for what is called when.
    pub fn foreach<W: ForeachWriter>(self, make: impl Fn() -> W + Send + Sync + 'static) -> Self {
        self.sink(Arc::new(ForeachSink::new(make)))
    }

    /// Gives each micro-batch to an async function of yours, as a static frame on your context.
    ///
    /// It is called for each micro-batch, also one without rows. The frame is held in memory: two actions on it do not run the query twice.
    ///
    /// The guarantee is at least once (Spark): after a failure, also one after the function was done, the same rows come again under the same
    /// batch id when the query is started again with its checkpoint. A store that keeps the id with the rows makes of it exactly once:
    ///
    /// ```
    /// # use highwater::prelude::*;
    /// # use std::{collections::BTreeMap, sync::{Arc, Mutex}};
    /// # #[tokio::main] async fn main() -> highwater::Result<()> {
    /// # let session = StreamSession::new();
    /// # let rows = MemoryStream::new(&session, "k STRING, v BIGINT")?;
    /// # rows.add_data([("a", 1), ("b", 2)])?;
    /// let store = Arc::new(Mutex::new(BTreeMap::new()));
    /// let writes = Arc::clone(&store);
    /// let query = rows.to_frame()
    ///     .write_stream()
    ///     .foreach_batch(move |rows, batch| {
    ///         let store = Arc::clone(&writes);
    ///         async move {
    ///             let rows = rows.collect().await?;
    ///             // The same id again replaces the same rows.
    ///             store.lock().expect("the lock").insert(batch, rows);
    ///             Ok(())
    ///         }
    ///     })
    ///     .start().await?;
    /// query.process_all_available().await?;
    /// assert_eq!(store.lock().expect("the lock").len(), 1);
    /// # query.stop().await }
    /// ```
    pub fn foreach_batch<F, Fut>(self, f: F) -> Self
    where
        F: Fn(DataFrame, BatchId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let context = self.frame.session().context().clone();
        self.sink(Arc::new(ForeachBatchSink::new(context, f)))
    }

    /// Delivers the rows that came too late to a second sink: the name of a table in memory, a format and its
    /// options, or a sink of your own. Without it they are only counted.
    ///
    /// They have the columns of the operator that put them aside, and `_operator`, `_watermark` (which judged late rows
    /// in that micro-batch) and `_batch_id`. Columns of several operators are united by name. They are written in append
    /// mode after the result, and under the same batch id again when a micro-batch is run again. A table in memory
    /// begins empty with every run.
    ///
    /// ```
    /// # use highwater::prelude::*;
    /// # #[tokio::main] async fn main() -> highwater::Result<()> {
    /// # let session = StreamSession::new();
    /// let rows = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING")?;
    /// let query = rows.to_frame()
    ///     .with_watermark("ts", "10 seconds")?
    ///     .group_by([window(col("ts"), "1 minute")]).count()?
    ///     .select_exprs(&["window.start AS minute", "count"])?
    ///     .write_stream().format("memory").query_name("counts")
    ///     .late_rows_to("late")
    ///     .start().await?;
    /// for ts in ["2024-05-01 00:05:00", "2024-05-01 00:00:03"] {
    ///     rows.add_data([(ts, "a")])?;
    ///     query.process_all_available().await?;
    /// }
    /// assert_eq!(session.table("late").await?.count().await?, 1);
    /// # query.stop().await
    /// # }
    /// ```
    pub fn late_rows_to(mut self, target: impl Into<LateRows>) -> Self {
        if self.late_rows.is_some() {
            let error = Error::invalid("the late rows have two targets").with_option(late::OPTION);
            self.mistake.get_or_insert(error);
        }
        self.late_rows = Some(target.into());
        self
    }

    /// Starts the query.
    ///
    /// What can be refused is refused here, so that a query that started can run. If this future is dropped before
    /// it is done, no query has started.
    ///
    /// # Errors
    /// The first mistake of the calls before; `Unsupported` for what the plan, the mode or the sink cannot do;
    /// `Invalid` for a name that is taken, an unknown option, a missing checkpoint, or outside a tokio runtime.
    pub async fn start(mut self) -> Result<StreamingQuery> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        self.must_stream()?;
        if Handle::try_current().is_err() {
            return Err(Error::invalid("start was called outside a tokio runtime")
                .with_hint("call it in async code that tokio runs, such as `#[tokio::main]`"));
        }
        let session = self.frame.session().clone();
        let (mut state, plan) = DataFrame::from(self.frame.clone()).into_parts();
        let settings = session.settings();
        settings.tell_stores(&mut state);
        let asked = self.options.take_str("checkpointLocation");
        let asked = self.options.take_str("checkpoint").or(asked);
        let mut beyond = options::take(&mut self.options)?;
        let name = self.query_name.clone();
        if let Some(rows) = self.late_rows()? {
            let opener = late::Opener::new(rows, session.clone(), state.clone(), name.as_deref())?
                .durable(beyond.durability);
            beyond.late_rows = Some(Arc::new(opener));
        }
        let (mode, trigger) = (self.mode, self.trigger);
        let durability = beyond.durability;
        let sink = Box::pin(self.open_sink(&session, &state, &plan, durability)).await?;
        let location = checkpoint::locate(asked, &settings, name.as_deref(), &*sink)?;
        let checkpoint = checkpoint::open(location, durability, &state, session.clock()).await?;
        let runtime = session.runtime()?;
        let request = StartRequest {
            name,
            plan,
            session: state,
            sink: Arc::new(KeepsRuntime::new(sink, runtime)),
            mode,
            trigger,
            checkpoint,
            settings: settings.for_query(),
            options: beyond,
        };
        Box::pin(session.streams().start(request)).await
    }

    /// The target of the late rows; as an option it is the name of a table.
    fn late_rows(&mut self) -> Result<Option<LateRows>> {
        let table = self.options.take_str(late::OPTION).map(LateRows::from);
        match (self.late_rows.take(), table) {
            (Some(_), Some(_)) => {
                Err(Error::invalid("the late rows have two targets").with_option(late::OPTION))
            }
            (target, table) => Ok(target.or(table)),
        }
    }

    /// Takes the target; a second one is a mistake.
    fn to(mut self, target: Target) -> Self {
        if self.target.is_some() {
            let error = Error::invalid("the query has two sinks")
                .with_option("format")
                .with_hint("clone the frame and start a query for each sink");
            self.mistake.get_or_insert(error);
        }
        self.target = Some(target);
        self
    }

    fn must_stream(&self) -> Result<()> {
        if self.frame.is_streaming() {
            return Ok(());
        }
        Err(
            Error::unsupported("`write_stream` can be called only on a streaming frame")
                .with_condition("WRITE_STREAM_NOT_ALLOWED")
                .with_hint("a batch frame is written with `write_parquet` and its like"),
        )
    }

    async fn open_sink(
        &mut self,
        session: &StreamSession,
        state: &SessionState,
        plan: &LogicalPlan,
        durability: Durability,
    ) -> Result<Arc<dyn Sink>> {
        let target = self.target.take().ok_or_else(|| {
            Error::invalid("the query has no sink")
                .with_option("format")
                .with_hint(
                    "say `format(\"memory\")`, `sink(…)`, `foreach(…)` or `foreach_batch(…)`",
                )
        })?;
        let format = match target {
            Target::Format(format) => format,
            Target::Sink(sink) => {
                self.nothing_beside_the_sink(&*sink)?;
                return Ok(sink);
            }
        };
        let provider = session.registry().sink(&format)?;
        let clock = Arc::clone(session.clock());
        let schema = highwater_plan::result_schema(plan, state, self.mode)?;
        let mut spec = SinkSpec::new(format, schema, self.mode, clock, Arc::new(state.clone()));
        let mut options = std::mem::take(&mut self.options);
        spec.path = match self.path.take() {
            Some(path) => Some(path),
            None => options.take_str("path"),
        };
        spec.query_name = self.query_name.clone();
        spec.partition_by = std::mem::take(&mut self.partition_by);
        spec.options = options;
        spec.durable = durability == Durability::Fsync;
        provider.open(spec).await
    }

    /// A sink that is given has its own path and options.
    fn nothing_beside_the_sink(&self, sink: &dyn Sink) -> Result<()> {
        let owner = format!("sink `{}`", sink.description());
        if self.path.is_some() {
            return Err(
                Error::invalid(format!("`path` has no meaning for {owner}")).with_option("path")
            );
        }
        if !self.partition_by.is_empty() {
            return Err(
                Error::invalid(format!("`partition_by` has no meaning for {owner}"))
                    .with_option("partitionBy"),
            );
        }
        self.options.finish(&owner)
    }
}
