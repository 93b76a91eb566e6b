//! All queries of a session: starting them, finding them, waiting for them, watching them.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use futures::FutureExt;
use highwater_checkpoint::SnapshotPolicy;
use highwater_core::{
    Clock, Error, IntoInterval, OutputMode, QueryId, Result, RunId, Sink, Trigger,
};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use crate::failure::{Ending, panicked};
use crate::listener::{Bus, ListenerId, QueryEvents, StreamingQueryListener};
use crate::options::QueryOptions;
use crate::query::StreamingQuery;
use crate::start;
use crate::watermarks::WatermarkPolicy;

/// A query to start.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// Its name, unique among the active queries of the session.
    pub name: Option<String>,
    /// What it computes.
    pub plan: LogicalPlan,
    /// The user's session; the query is planned on a private copy.
    pub session: SessionState,
    /// Where results go.
    pub sink: Arc<dyn Sink>,
    /// What of the result table goes there.
    pub mode: OutputMode,
    /// When micro-batches run.
    pub trigger: Trigger,
    /// Where the query keeps what it must remember.
    pub checkpoint: CheckpointLocation,
    /// The settings.
    pub settings: QuerySettings,
    /// What it was told beyond Spark.
    pub options: QueryOptions,
}

/// Where a query keeps what it must remember.
#[derive(Clone, Debug)]
pub enum CheckpointLocation {
    /// Nowhere: a restart begins anew.
    Temporary,
    /// In a folder of a store.
    At {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// The folder.
        folder: Path,
        /// The location as the user wrote it.
        display: String,
    },
}

impl CheckpointLocation {
    /// The location as the user wrote it; `None` for a temporary one.
    pub(crate) fn display(&self) -> Option<String> {
        match self {
            Self::Temporary => None,
            Self::At { display, .. } => Some(display.clone()),
        }
    }
}

/// The settings of a query; the defaults are Spark's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// Micro-batches without data run when the watermark has something to release.
    pub no_data_batches: bool,
    /// How the watermarks of several inputs become one.
    pub watermark_policy: WatermarkPolicy,
    /// The pause after wake-ups of a source that brought nothing.
    pub polling: Duration,
    /// So many committed micro-batches can be restored from the checkpoint at least.
    pub min_batches_to_retain: u64,
    /// When parts of the state are written as snapshots.
    pub snapshots: SnapshotPolicy,
    /// So many progresses are kept in memory.
    pub recent_progress: usize,
    /// A query that is started while a run of it is active stops that run; else it is refused.
    pub stop_active_run_on_restart: bool,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            no_data_batches: true,
            watermark_policy: WatermarkPolicy::Min,
            polling: Duration::from_millis(10),
            min_batches_to_retain: 100,
            snapshots: SnapshotPolicy::default(),
            recent_progress: 100,
            stop_active_run_on_restart: true,
        }
    }
}

/// All queries of a session. Cloning is cheap.
#[derive(Clone)]
pub struct StreamingQueryManager(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Handle,
    pub(crate) bus: Arc<Bus>,
    queries: Mutex<Queries>,
    /// The query that ended since the last reset; one that failed before one that ended well.
    terminated: watch::Sender<Option<StreamingQuery>>,
}

#[derive(Default)]
struct Queries {
    active: Vec<StreamingQuery>,
    /// Names of queries that are about to start.
    reserved: Vec<String>,
}

impl StreamingQueryManager {
    /// A manager whose queries run on `runtime` by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, runtime: Handle) -> Self {
        Self(Arc::new(Shared {
            clock,
            runtime,
            bus: Arc::new(Bus::new()),
            queries: Mutex::default(),
            terminated: watch::Sender::new(None),
        }))
    }

    /// Plans and starts a query. Whatever can be refused is refused here; if this future is dropped before it is
    /// done, no query has started.
    ///
    /// # Errors
    /// `Unsupported` for what the plan, the mode or the sink cannot do; `Invalid` for a name that is taken, a missing
    /// checkpoint location, a checkpoint of another query, or when there is no tokio runtime; and what the
    /// checkpoint, the sources and the sink answer.
    pub async fn start(&self, request: StartRequest) -> Result<StreamingQuery> {
        Handle::try_current().map_err(|e| {
            Error::invalid("a query can only be started inside a tokio runtime").with_source(e)
        })?;
        let reserved = self.0.reserve(request.name.as_deref())?;
        let started = AssertUnwindSafe(Box::pin(start::start(&self.0, request)));
        let started = started.catch_unwind().await;
        drop(reserved);
        started.unwrap_or_else(|payload| Err(panicked(payload.as_ref())))
    }

    /// The active queries, in the order they were started.
    #[must_use]
    pub fn active(&self) -> Vec<StreamingQuery> {
        self.0.queries.lock().active.clone()
    }

    /// The active query with this id.
    #[must_use]
    pub fn get(&self, id: QueryId) -> Option<StreamingQuery> {
        self.0.find(|query| query.id() == id)
    }

    /// The active query with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<StreamingQuery> {
        self.0.find(|query| query.name() == Some(name))
    }

    /// Waits for any query to end, or tells at once of one that has ended since the session began or
    /// [`reset_terminated`](Self::reset_terminated) was called.
    ///
    /// # Errors
    /// The failure of that query.
    pub async fn await_any_termination(&self) -> Result<StreamingQuery> {
        let mut terminated = self.0.terminated.subscribe();
        let found = terminated.wait_for(Option::is_some).await;
        let query = found.ok().and_then(|query| query.clone());
        let query = query.ok_or_else(|| Error::internal("the manager of queries is gone"))?;
        query.exception().map_or(Ok(query), Err)
    }

    /// As [`await_any_termination`](Self::await_any_termination), but at most `limit`; `None`: none has ended.
    ///
    /// # Errors
    /// The failure of the query that ended; `Invalid` when `limit` is no length of time.
    pub async fn await_any_termination_timeout(
        &self,
        limit: impl IntoInterval,
    ) -> Result<Option<StreamingQuery>> {
        let limit = limit.into_interval()?.to_duration()?;
        let until = self.0.clock.now().plus(limit);
        let sleep = self.0.clock.sleep_until(until);
        match futures::future::select(Box::pin(self.await_any_termination()), sleep).await {
            futures::future::Either::Left((query, _)) => query.map(Some),
            futures::future::Either::Right(_) => Ok(None),
        }
    }

    /// Forgets which queries have ended, so that the next wait is for one that ends later.
    pub fn reset_terminated(&self) {
        self.0.terminated.send_replace(None);
    }

    /// Stops every active query; all finish the micro-batch in flight.
    ///
    /// # Errors
    /// None today.
    pub async fn stop_all(&self) -> Result<()> {
        let stops = self.active();
        let stops = stops.iter().map(StreamingQuery::stop);
        futures::future::try_join_all(stops).await.map(drop)
    }

    /// Adds a listener. It is called by a task on the caller's runtime, or on the queries' where there is none.
    pub fn add_listener(&self, listener: impl StreamingQueryListener) -> ListenerId {
        let runtime = Handle::try_current().unwrap_or_else(|_| self.0.runtime.clone());
        self.0.bus.add(Arc::new(listener), &runtime)
    }

    /// Removes a listener; false when there is none with this id.
    pub fn remove_listener(&self, id: ListenerId) -> bool {
        self.0.bus.remove(id)
    }

    /// The events of all queries from now on. A reader that is too slow gets
    /// [`QueryEvent::Missed`](crate::QueryEvent::Missed).
    #[must_use]
    pub fn events(&self) -> QueryEvents {
        self.0.bus.events()
    }
}

impl fmt::Debug for StreamingQueryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingQueryManager")
            .field("active", &self.active())
            .finish_non_exhaustive()
    }
}

/// Keeps a name for a query that is about to start.
struct Reserved<'a>(&'a Shared, Option<String>);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0
            .queries
            .lock()
            .reserved
            .retain(|name| Some(name) != self.1.as_ref());
    }
}

impl Shared {
    fn reserve(&self, name: Option<&str>) -> Result<Reserved<'_>> {
        let mut queries = self.queries.lock();
        if let Some(name) = name {
            let active = queries
                .active
                .iter()
                .any(|query| query.name() == Some(name));
            if active || queries.reserved.iter().any(|other| other == name) {
                return Err(Error::invalid(format!(
                    "Cannot start query with name {name} as a query with that name is already active in this session"
                ))
                .with_option("queryName")
                .with_hint("stop that query first, or choose another name"));
            }
            queries.reserved.push(name.to_owned());
        }
        Ok(Reserved(self, name.map(str::to_owned)))
    }

    pub(crate) fn find(&self, wanted: impl Fn(&StreamingQuery) -> bool) -> Option<StreamingQuery> {
        let queries = self.queries.lock();
        queries.active.iter().find(|query| wanted(query)).cloned()
    }

    /// Takes `query` among the active ones.
    ///
    /// # Errors
    /// `Fenced` when a run of the same query became active meanwhile.
    pub(crate) fn register(&self, query: &StreamingQuery) -> Result<()> {
        let mut queries = self.queries.lock();
        if queries.active.iter().any(|other| other.id() == query.id()) {
            return Err(already_active(query.id()));
        }
        queries.active.push(query.clone());
        Ok(())
    }

    /// `query` has ended: it is active no more, then whoever waits for it is told.
    pub(crate) fn ended(&self, query: &StreamingQuery, ending: &Ending) {
        let run_id = query.run_id();
        self.queries
            .lock()
            .active
            .retain(|other| other.run_id() != run_id);
        query.core().end(ending);
        self.terminated.send_if_modified(|last| {
            let news = last.is_none() || ending.exception().is_some();
            if news {
                *last = Some(query.clone());
            }
            news
        });
    }
}

/// A run of the same query is active, and the session does not stop it by itself.
pub(crate) fn already_active(id: QueryId) -> Error {
    Error::fenced(format!("a run of the query {id} is active in this session"))
        .with_option("stopActiveRunOnRestart")
        .with_hint("stop it first, or give this query another checkpoint location")
}

#[expect(clippy::disallowed_methods, reason = "the one home of identities")]
pub(crate) fn new_run_id() -> RunId {
    RunId(Uuid::new_v4())
}

#[expect(clippy::disallowed_methods, reason = "the one home of identities")]
pub(crate) fn new_query_id() -> QueryId {
    QueryId(Uuid::new_v4())
}
