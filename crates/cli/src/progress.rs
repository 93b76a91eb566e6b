//! What the queries of a session are doing: a live line for each, or a line of JSON for each micro-batch.
//!
//! ```text
//!  listener ─► Board ─┬─ on a terminal: a line that moves, and one that stays when the query has ended   live.rs
//!                     ├─ else: Spark's JSON, a line for each micro-batch
//!                     └─ which queries run, which have failed: what `run` waits for
//! ```

use std::sync::Arc;

use highwater::{
    Error, QueryIdleEvent, QueryProgressEvent, QueryStartedEvent, QueryTerminatedEvent, RunId,
    StreamSession, StreamingQueryListener,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::live::Line;
use crate::output::Screen;

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A line for each query that moves.
    Live,
    /// A line of JSON for each micro-batch.
    Json,
    /// Not at all.
    Silent,
}

/// The queries that the command has started.
#[derive(Debug)]
pub(crate) struct Board {
    screen: Arc<Screen>,
    mode: Mode,
    state: Mutex<State>,
    /// Counts the changes of the state.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// The statement that runs, counted from 0.
    statement: usize,
    running: Vec<Line>,
    failed: Vec<Failed>,
}

/// A query that has failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    /// Why.
    pub(crate) error: Error,
    /// The statement that has started it, counted from 0.
    pub(crate) statement: usize,
}

impl Board {
    /// A board that is told of all queries of `session`.
    pub(crate) fn watch(session: &StreamSession, screen: &Arc<Screen>, mode: Mode) -> Arc<Self> {
        let board = Arc::new(Self {
            screen: Arc::clone(screen),
            mode,
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        session.streams().add_listener(Watcher(Arc::clone(&board)));
        board
    }

    /// Queries that start from now on belong to this statement.
    pub(crate) fn begin(&self, statement: usize) {
        self.state.lock().statement = statement;
    }

    /// The statement that runs, counted from 0.
    pub(crate) fn statement(&self) -> usize {
        self.state.lock().statement
    }

    /// The queries that have failed since this was asked before.
    pub(crate) fn take_failed(&self) -> Vec<Failed> {
        std::mem::take(&mut self.state.lock().failed)
    }

    /// Comes back when no query runs, or when one has failed.
    pub(crate) async fn ended_or_failed(&self) {
        self.until(|state| state.running.is_empty() || !state.failed.is_empty())
            .await;
    }

    /// Comes back when no query runs.
    pub(crate) async fn ended(&self) {
        self.until(|state| state.running.is_empty()).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        // The lock is taken in the closure, so that no change between looking and waiting is missed.
        let waited = changes.wait_for(|_| reached(&self.state.lock())).await;
        debug_assert!(waited.is_ok(), "the sender lives in `self`");
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn with(&self, run: RunId, change: impl FnOnce(&mut Line)) {
        let mut state = self.state.lock();
        if let Some(line) = state.running.iter_mut().find(|line| line.run == run) {
            change(line);
        }
    }
}

/// The listener; a board is shared with those who wait.
#[derive(Debug)]
struct Watcher(Arc<Board>);

impl StreamingQueryListener for Watcher {
    fn on_query_started(&self, event: &QueryStartedEvent) {
        let bars = self.0.screen.bars();
        self.0.change(|state| {
            let line = Line::new(event, state.statement, bars);
            state.running.push(line);
        });
    }

    fn on_query_progress(&self, event: &QueryProgressEvent) {
        let progress = &event.progress;
        self.0.with(progress.run_id, |line| line.progress(progress));
        if self.0.mode == Mode::Json {
            self.0.screen.note(&progress.json());
        }
    }

    fn on_query_idle(&self, event: &QueryIdleEvent) {
        self.0.with(event.run_id, Line::idle);
    }

    fn on_query_terminated(&self, event: &QueryTerminatedEvent) {
        let mut ended = None;
        self.0.change(|state| {
            let at = state
                .running
                .iter()
                .position(|line| line.run == event.run_id);
            ended = at.map(|at| state.running.remove(at));
            if let (Some(line), Some(error)) = (&ended, &event.exception) {
                state.failed.push(Failed {
                    error: error.clone(),
                    statement: line.statement,
                });
            }
        });
        if let (Some(line), Mode::Live) = (ended, self.0.mode) {
            let last = line.end(event.exception.is_some());
            self.0.screen.note(&last);
        }
    }
}
