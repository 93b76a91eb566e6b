//! What a waiting query listens to: changes of its sources, and calls of its handles.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_core::Source;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// The `changed()` futures of all sources, kept from one trigger to the next.
///
/// A source tells of a change to those who wait for it. So the loop [arms](Self::arm) first and asks for the
/// latest offsets then: what comes between the question and the wait is not missed.
pub(crate) struct Changes(Vec<Change>);

struct Change {
    source: Arc<dyn Source>,
    waiting: Option<BoxFuture<'static, ()>>,
}

impl Changes {
    pub(crate) fn new(sources: impl IntoIterator<Item = Arc<dyn Source>>) -> Self {
        let changes = sources.into_iter().map(|source| Change {
            source,
            waiting: None,
        });
        Self(changes.collect())
    }

    /// Begins to listen anew; what changed until now is forgotten.
    pub(crate) async fn arm(&mut self) {
        poll_fn(|cx| {
            for change in &mut self.0 {
                if change.poll(cx).is_ready() {
                    let _ = change.poll(cx);
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Ready when a source has changed since [`arm`](Self::arm).
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut changed = Poll::Pending;
        for change in &mut self.0 {
            if change.poll(cx).is_ready() {
                changed = Poll::Ready(());
            }
        }
        changed
    }
}

impl Change {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let source = &self.source;
        let waiting = self.waiting.get_or_insert_with(|| {
            let source = Arc::clone(source);
            // Without a budget: a future that is put off with a lock in its hand would stop the loop.
            tokio::task::unconstrained(async move { source.changed().await }).boxed()
        });
        let polled = waiting.poll_unpin(cx);
        if polled.is_ready() {
            self.waiting = None;
        }
        polled
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|change| &change.source))
            .finish()
    }
}

/// The calls of a query's handles that its loop must hear.
#[derive(Debug)]
pub(crate) struct Calls {
    stop: AtomicBool,
    asked: AtomicBool,
    /// Those who wait for all that is there to be processed; `None` once the run has ended.
    waiters: Mutex<Option<Vec<Waiter>>>,
    bell: Notify,
}

/// One `process_all_available()`: told when it is done, dropped when the run ends before.
pub(crate) type Waiter = oneshot::Sender<()>;

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            waiters: Mutex::new(Some(Vec::new())),
            bell: Notify::new(),
        }
    }

    /// Asks the loop to end after the micro-batch in flight.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Asks for all that is there; `None` when the run has ended.
    pub(crate) fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let (waiter, answer) = oneshot::channel();
        self.waiters.lock().as_mut()?.push(waiter);
        self.asked.store(true, Ordering::Release);
        self.bell.notify_one();
        Some(answer)
    }

    /// True when somebody has asked and was not taken yet.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Takes those who have asked.
    pub(crate) fn take(&self) -> Vec<Waiter> {
        if !self.asked.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        self.waiters
            .lock()
            .as_mut()
            .map_or_else(Vec::new, std::mem::take)
    }

    /// Those who were taken have asked again.
    pub(crate) fn give_back(&self, given: Vec<Waiter>) {
        if let Some(waiters) = self.waiters.lock().as_mut() {
            waiters.extend(given);
            self.asked.store(true, Ordering::Release);
        }
    }

    /// The run has ended: drops those who wait, and lets nobody wait any more.
    pub(crate) fn close(&self) {
        self.waiters.lock().take();
    }

    /// Comes back at the next call, or at once when there was one since the last time.
    pub(crate) async fn heard(&self) {
        self.bell.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::tests::support::Numbers;

    #[tokio::test]
    async fn what_comes_after_arming_is_not_missed() {
        let numbers = Numbers::new();
        let mut changes = Changes::new([Arc::new(numbers.clone()) as Arc<dyn Source>]);
        for _ in 0..3 {
            changes.arm().await;
            let asleep = poll_fn(|cx| Poll::Ready(changes.poll(cx).is_pending())).await;
            assert!(asleep);
            numbers.add([1]);
            poll_fn(|cx| changes.poll(cx)).await;
            numbers.add([2]);
        }
    }

    #[tokio::test]
    async fn whoever_asks_is_taken_once_and_nobody_after_the_end() {
        let calls = Calls::new();
        let answer = calls.ask().unwrap();
        calls.heard().await;
        assert!(calls.is_asked());
        assert_eq!(calls.take().len(), 1);
        assert!(!calls.is_asked() && calls.take().is_empty());
        assert!(answer.await.is_err(), "dropped without an answer");
        calls.close();
        assert!(calls.ask().is_none());
    }
}
