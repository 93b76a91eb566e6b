//! `write_stream()`: where results go, and when.

mod checkpoint;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use highwater_connectors::foreach::{ForeachBatchSink, ForeachSink};
use highwater_engine::{StartRequest, StreamingQuery};
use tokio::runtime::Handle;

use crate::runtime::KeepsRuntime;
use crate::{
    BatchId, Error, ForeachWriter, OptionValue, Options, OutputMode, Result, Sink, SinkSpec,
    StreamFrame, StreamSession, Trigger,
};

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
            frame,
            mode: OutputMode::default(),
            trigger: Trigger::default(),
            query_name: None,
            partition_by: Vec::new(),
            options: Options::new(),
            path: None,
            target: None,
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

    /// The format of the sink: `memory`, `console`, `noop`, or one that was registered.
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

    /// Gives the rows of each micro-batch to a fresh writer of yours.
    pub fn foreach<W: ForeachWriter>(self, make: impl Fn() -> W + Send + Sync + 'static) -> Self {
        self.sink(Arc::new(ForeachSink::new(make)))
    }

    /// Gives each micro-batch to an async function of yours, as a static frame on your context.
    ///
    /// The frame is held in memory: two actions on it do not run the query twice. After a failure the same batch id
    /// comes again.
    pub fn foreach_batch<F, Fut>(self, f: F) -> Self
    where
        F: Fn(DataFrame, BatchId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let context = self.frame.session().context().clone();
        self.sink(Arc::new(ForeachBatchSink::new(context, f)))
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
        let (state, plan) = DataFrame::from(self.frame.clone()).into_parts();
        let asked = self.options.take_str("checkpointLocation");
        let asked = self.options.take_str("checkpoint").or(asked);
        refuse_later(&self.options)?;
        let name = self.query_name.clone();
        let (mode, trigger) = (self.mode, self.trigger);
        let sink = Box::pin(self.open_sink(&session, &state, &plan)).await?;
        let settings = session.settings();
        let checkpoint = checkpoint::locate(asked, &settings, name.as_deref(), &*sink, &state)?;
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
        };
        Box::pin(session.streams().start(request)).await
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
        let schema = result_schema(state, plan)?;
        let mut spec = SinkSpec::new(format, schema, self.mode, clock, Arc::new(state.clone()));
        let mut options = std::mem::take(&mut self.options);
        spec.path = match self.path.take() {
            Some(path) => Some(path),
            None => options.take_str("path"),
        };
        spec.query_name = self.query_name.clone();
        spec.partition_by = std::mem::take(&mut self.partition_by);
        spec.options = options;
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

/// The query's options that a later version takes.
fn refuse_later(options: &Options) -> Result<()> {
    const LATER: [&str; 6] = [
        "flushOnEnd",
        "stateTtl",
        "staticRefresh",
        "idleTimeout",
        "maxEventTimeSkew",
        "lateRowsTo",
    ];
    match LATER.iter().find(|name| options.get(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(format!("the option `{name}`"))
            .with_option(*name)
            .with_hint("this version does not have it yet: leave it out")),
    }
}

/// The columns of the result, as the sink gets them.
///
/// The analyzer may change types (Spark's semantics do), so it is asked first.
fn result_schema(state: &SessionState, plan: &LogicalPlan) -> Result<SchemaRef> {
    let options = state.config_options();
    let analyzed = state
        .analyzer()
        .execute_and_check(plan.clone(), options, |_, _| {})?;
    Ok(without_marks(analyzed.schema().as_arrow()))
}

/// The schema without what the planner notes in it, such as which column is an event time.
fn without_marks(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| !key.starts_with("highwater."));
        field.as_ref().clone().with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
