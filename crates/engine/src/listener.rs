//! Those who watch queries: listeners that are called, and a stream of events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::{Stream, stream};
use highwater_core::{Error, QueryId, RunId, Timestamp};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};

use crate::progress::StreamingQueryProgress;

/// Watches all queries of a session. Every method has an empty default.
///
/// `on_query_started` is called before `start()` returns; all else comes from a task of the listener's own, in
/// order, so that a slow listener delays no query. For async work send into a channel. A panic is logged and
/// forgotten.
pub trait StreamingQueryListener: Send + Sync + 'static {
    /// A query has started.
    fn on_query_started(&self, _event: &QueryStartedEvent) {}
    /// A micro-batch is committed.
    fn on_query_progress(&self, _event: &QueryProgressEvent) {}
    /// Nothing has run for ten seconds, or ten more.
    fn on_query_idle(&self, _event: &QueryIdleEvent) {}
    /// A run has ended.
    fn on_query_terminated(&self, _event: &QueryTerminatedEvent) {}
}

/// The identity of a listener that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// A query has started.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryStartedEvent {
    /// The query.
    pub id: QueryId,
    /// The run.
    pub run_id: RunId,
    /// The query's name.
    pub name: Option<String>,
    /// When.
    pub timestamp: Timestamp,
}

/// A micro-batch is committed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryProgressEvent {
    /// What it did.
    pub progress: Arc<StreamingQueryProgress>,
}

/// Nothing has run for a while.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryIdleEvent {
    /// The query.
    pub id: QueryId,
    /// The run.
    pub run_id: RunId,
    /// When.
    pub timestamp: Timestamp,
}

/// A run has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryTerminatedEvent {
    /// The query.
    pub id: QueryId,
    /// The run.
    pub run_id: RunId,
    /// Why it failed; `None` when it ended well or was stopped.
    pub exception: Option<Error>,
}

/// Something happened to a query.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QueryEvent {
    /// It has started.
    Started(QueryStartedEvent),
    /// It committed a micro-batch.
    Progress(QueryProgressEvent),
    /// It runs nothing.
    Idle(QueryIdleEvent),
    /// Its run has ended.
    Terminated(QueryTerminatedEvent),
    /// The reader was too slow: so many events are lost.
    Missed(u64),
}

/// The events of all queries from the moment it was asked for, as a stream that ends with the manager.
pub struct QueryEvents(Pin<Box<dyn Stream<Item = QueryEvent> + Send + Sync>>);

impl Stream for QueryEvents {
    type Item = QueryEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<QueryEvent>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for QueryEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEvents").finish_non_exhaustive()
    }
}

/// Events a reader of the stream may lag behind before it loses some.
const EVENTS_KEPT: usize = 1_024;

/// Carries events from the queries to those who watch.
pub(crate) struct Bus {
    listeners: RwLock<Vec<Registered>>,
    next: AtomicU64,
    events: broadcast::Sender<QueryEvent>,
}

struct Registered {
    id: ListenerId,
    listener: Arc<dyn StreamingQueryListener>,
    removed: Arc<AtomicBool>,
    mailbox: mpsc::UnboundedSender<QueryEvent>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self {
            listeners: RwLock::default(),
            next: AtomicU64::new(0),
            events: broadcast::channel(EVENTS_KEPT).0,
        }
    }

    /// Adds `listener`, called by a task on `runtime`.
    pub(crate) fn add(
        &self,
        listener: Arc<dyn StreamingQueryListener>,
        runtime: &Handle,
    ) -> ListenerId {
        let id = ListenerId(self.next.fetch_add(1, Ordering::Relaxed));
        let (mailbox, mut mail) = mpsc::unbounded_channel::<QueryEvent>();
        let removed = Arc::new(AtomicBool::new(false));
        let (called, gone) = (Arc::clone(&listener), Arc::clone(&removed));
        runtime.spawn(async move {
            while let Some(event) = mail.recv().await {
                if gone.load(Ordering::Acquire) {
                    return;
                }
                call(called.as_ref(), &event);
            }
        });
        self.listeners.write().push(Registered {
            id,
            listener,
            removed,
            mailbox,
        });
        id
    }

    /// Removes a listener; it gets no event that it has not begun to look at. False when there is none.
    pub(crate) fn remove(&self, id: ListenerId) -> bool {
        let mut listeners = self.listeners.write();
        let Some(at) = listeners.iter().position(|listener| listener.id == id) else {
            return false;
        };
        listeners.remove(at).removed.store(true, Ordering::Release);
        true
    }

    /// The events from now on.
    pub(crate) fn events(&self) -> QueryEvents {
        let receiver = self.events.subscribe();
        QueryEvents(Box::pin(stream::unfold(receiver, |mut receiver| async {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(broadcast::error::RecvError::Lagged(n)) => {
                    Some((QueryEvent::Missed(n), receiver))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })))
    }

    /// Tells of a start, at once and on this thread; no lock is held while listeners run.
    pub(crate) fn started(&self, event: QueryStartedEvent) {
        let listeners = self.listeners.read();
        let called = listeners
            .iter()
            .map(|l| Arc::clone(&l.listener))
            .collect::<Vec<_>>();
        drop(listeners);
        let event = QueryEvent::Started(event);
        for listener in called {
            call(listener.as_ref(), &event);
        }
        let _ = self.events.send(event);
    }

    /// Tells of all else, from the listeners' own tasks; `event` is not made when nobody watches.
    pub(crate) fn publish(&self, event: impl FnOnce() -> QueryEvent) {
        let listeners = self.listeners.read();
        if listeners.is_empty() && self.events.receiver_count() == 0 {
            return;
        }
        let event = event();
        for listener in listeners.iter() {
            let _ = listener.mailbox.send(event.clone());
        }
        drop(listeners);
        let _ = self.events.send(event);
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("listeners", &self.listeners.read().len())
            .finish_non_exhaustive()
    }
}

/// Calls `listener`; its panic is its own affair.
fn call(listener: &dyn StreamingQueryListener, event: &QueryEvent) {
    let called = catch_unwind(AssertUnwindSafe(|| match event {
        QueryEvent::Started(event) => listener.on_query_started(event),
        QueryEvent::Progress(event) => listener.on_query_progress(event),
        QueryEvent::Idle(event) => listener.on_query_idle(event),
        QueryEvent::Terminated(event) => listener.on_query_terminated(event),
        QueryEvent::Missed(_) => {}
    }));
    if called.is_err() {
        tracing::error!("a query listener panicked");
    }
}
