//! The handle of a query, and what its loop and its handles share.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures::future::{AbortHandle, Either, select};
use highwater_core::{
    Clock, Error, IntoInterval, QueryContext, QueryId, Result, RunId, Timestamp, Watermark,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::failure::Ending;
use crate::listen::Calls;
use crate::listener::{
    Bus, QueryEvent, QueryIdleEvent, QueryProgressEvent, QueryStartedEvent, QueryTerminatedEvent,
};
use crate::progress::StreamingQueryProgress;
use crate::status::{Stage, StageCell, StreamingQueryStatus};

/// A query that was started. Cloning is cheap; dropping every handle stops nothing.
#[derive(Clone)]
pub struct StreamingQuery(Arc<QueryCore>);

impl StreamingQuery {
    pub(crate) fn new(core: Arc<QueryCore>) -> Self {
        Self(core)
    }

    pub(crate) fn core(&self) -> &Arc<QueryCore> {
        &self.0
    }

    /// Its identity, which is kept in the checkpoint and survives restarts.
    #[must_use]
    pub fn id(&self) -> QueryId {
        self.0.id
    }

    /// The identity of this run.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.0.run_id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// True until the run has ended.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.ending.borrow().is_none()
    }

    /// What it is doing right now.
    #[must_use]
    pub fn status(&self) -> StreamingQueryStatus {
        let mut status = self.0.stage.status();
        if let Some(error) = self.exception() {
            status.message = format!("Terminated with exception: {}", error.message());
        }
        status
    }

    /// What the last micro-batch did; `None` before the first.
    #[must_use]
    pub fn last_progress(&self) -> Option<Arc<StreamingQueryProgress>> {
        self.0.progress.lock().back().map(Arc::clone)
    }

    /// What the last micro-batches did, the oldest first; as many as the session keeps.
    #[must_use]
    pub fn recent_progress(&self) -> Vec<Arc<StreamingQueryProgress>> {
        self.0.progress.lock().iter().map(Arc::clone).collect()
    }

    /// The watermark that the next micro-batch would run with: 1970-01-01 until it first moves; `None` for a query
    /// without a watermark.
    ///
    /// What `idleTimeout` will let pass is decided when a micro-batch is made, and not in it before.
    #[must_use]
    pub fn watermark(&self) -> Option<Timestamp> {
        self.0.watermark.lock().map(Watermark::as_timestamp)
    }

    /// Why the run failed; `None` while it is active, or when it ended well or was stopped.
    #[must_use]
    pub fn exception(&self) -> Option<Error> {
        let ending = self.0.ending.borrow();
        ending.as_ref().and_then(Ending::exception).cloned()
    }

    /// The incremental plan; for each stateful operator its key, and what bounds its state.
    #[must_use]
    pub fn explain(&self) -> String {
        self.0.explain.clone()
    }

    /// Waits until all that was there when this was called has been processed, and the micro-batches without
    /// data that it causes have run. A processing-time trigger does not wait for its next multiple meanwhile.
    ///
    /// # Errors
    /// The query's own failure; `Invalid` when somebody stopped it.
    pub async fn process_all_available(&self) -> Result<()> {
        if let Some(answer) = self.0.calls.ask()
            && answer.await.is_ok()
        {
            return Ok(());
        }
        match self.0.ended().await {
            Ending::Finished => Ok(()),
            Ending::Failed(error) => Err(error),
            Ending::Stopped => Err(Error::invalid("the query was stopped")
                .with_query(self.0.context())
                .with_hint("start it again: what it has not processed is still there")),
        }
    }

    /// Waits until the run ends.
    ///
    /// # Errors
    /// The query's own failure.
    pub async fn await_termination(&self) -> Result<()> {
        self.0.ended().await.result()
    }

    /// Waits until the run ends, but at most `limit`; true when it has ended.
    ///
    /// # Errors
    /// The query's own failure; `Invalid` when `limit` is no length of time.
    pub async fn await_termination_timeout(&self, limit: impl IntoInterval) -> Result<bool> {
        let limit = limit.into_interval()?.to_duration()?;
        let until = self.0.clock.now().plus(limit);
        let ended = pin!(self.0.ended());
        match select(ended, self.0.clock.sleep_until(until)).await {
            Either::Left((ending, _)) => ending.result().map(|()| true),
            Either::Right(_) => Ok(false),
        }
    }

    /// Lets the micro-batch in flight finish and ends the run. A query that has ended is left as it is.
    ///
    /// # Errors
    /// None today.
    pub async fn stop(&self) -> Result<()> {
        self.0.calls.stop();
        self.0.ended().await;
        Ok(())
    }

    /// Ends the run at once and drops the micro-batch in flight, as a crash would: a restart runs it again.
    ///
    /// # Errors
    /// None today.
    pub async fn abort(&self) -> Result<()> {
        self.0.calls.stop();
        self.0.abort.abort();
        self.0.ended().await;
        Ok(())
    }
}

impl fmt::Debug for StreamingQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingQuery")
            .field("id", &self.0.id)
            .field("run_id", &self.0.run_id)
            .field("name", &self.0.name)
            .field("active", &self.is_active())
            .finish_non_exhaustive()
    }
}

/// What the loop of a query and its handles share.
pub(crate) struct QueryCore {
    id: QueryId,
    run_id: RunId,
    name: Option<String>,
    /// The checkpoint location, as the user wrote it; `None` for a temporary one.
    location: Option<String>,
    explain: String,
    clock: Arc<dyn Clock>,
    calls: Calls,
    stage: StageCell,
    progress: Mutex<VecDeque<Arc<StreamingQueryProgress>>>,
    /// What the next micro-batch runs with.
    watermark: Mutex<Option<Watermark>>,
    /// How many progresses are kept.
    keep: usize,
    ending: watch::Sender<Option<Ending>>,
    abort: AbortHandle,
    bus: Arc<Bus>,
}

/// What a query is made of that its handles can tell.
pub(crate) struct Identity {
    pub(crate) id: QueryId,
    pub(crate) run_id: RunId,
    pub(crate) name: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) explain: String,
    pub(crate) keep: usize,
    pub(crate) watermark: Option<Watermark>,
}

impl QueryCore {
    pub(crate) fn new(
        identity: Identity,
        clock: Arc<dyn Clock>,
        abort: AbortHandle,
        bus: Arc<Bus>,
    ) -> Self {
        Self {
            id: identity.id,
            run_id: identity.run_id,
            name: identity.name,
            location: identity.location,
            explain: identity.explain,
            clock,
            calls: Calls::new(),
            stage: StageCell::new(),
            progress: Mutex::default(),
            watermark: Mutex::new(identity.watermark),
            keep: identity.keep.max(1),
            ending: watch::Sender::new(None),
            abort,
            bus,
        }
    }

    pub(crate) fn id(&self) -> QueryId {
        self.id
    }

    pub(crate) fn run_id(&self) -> RunId {
        self.run_id
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn stage(&self) -> &StageCell {
        &self.stage
    }

    /// Which query it is, for errors.
    pub(crate) fn context(&self) -> QueryContext {
        QueryContext::new(self.id, self.run_id, self.name.clone())
    }

    /// Comes back when the run has ended.
    pub(crate) async fn ended(&self) -> Ending {
        let mut ending = self.ending.subscribe();
        let ended = ending.wait_for(Option::is_some).await;
        // The sender lives in `self`, so there is an ending.
        ended
            .ok()
            .and_then(|ending| ending.clone())
            .unwrap_or(Ending::Stopped)
    }

    /// Tells the listeners that the query has started.
    pub(crate) fn started(&self) {
        tracing::info!(id = %self.id, run_id = %self.run_id, name = self.name, "query started");
        self.bus.started(QueryStartedEvent {
            id: self.id,
            run_id: self.run_id,
            name: self.name.clone(),
            timestamp: self.clock.now(),
        });
    }

    /// The watermark that the next micro-batch runs with.
    pub(crate) fn set_watermark(&self, watermark: Option<Watermark>) {
        *self.watermark.lock() = watermark;
    }

    /// A micro-batch is committed.
    pub(crate) fn progressed(&self, progress: StreamingQueryProgress) {
        let progress = Arc::new(progress);
        let mut recent = self.progress.lock();
        if recent.len() == self.keep {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&progress));
        drop(recent);
        self.bus
            .publish(|| QueryEvent::Progress(QueryProgressEvent { progress }));
    }

    /// Nothing has run for a while.
    pub(crate) fn idle(&self, now: Timestamp) {
        self.bus.publish(|| {
            QueryEvent::Idle(QueryIdleEvent {
                id: self.id,
                run_id: self.run_id,
                timestamp: now,
            })
        });
    }

    /// The run has ended: whoever waits is told, then the listeners.
    pub(crate) fn end(&self, ending: &Ending) {
        match ending.exception() {
            Some(error) => {
                tracing::error!(id = %self.id, run_id = %self.run_id, ?error, "query failed")
            }
            None => tracing::info!(id = %self.id, run_id = %self.run_id, "query ended"),
        }
        self.stage.set(Stage::Ended);
        self.ending.send_replace(Some(ending.clone()));
        self.calls.close();
        self.bus.publish(|| {
            QueryEvent::Terminated(QueryTerminatedEvent {
                id: self.id,
                run_id: self.run_id,
                exception: ending.exception().cloned(),
            })
        });
    }
}

impl fmt::Debug for QueryCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryCore")
            .field("id", &self.id)
            .field("run_id", &self.run_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
