//! One micro-batch of a session aggregation, pulled row batch by row batch.
//!
//! ```text
//!  Waiting ─► Reading ─► Folding ─┬─ update mode ────────────► Emitting ─► Done
//!               │                 └─ append, complete mode ──► Giving ───► Done
//!               └ any error ─► Done: the state is not given back
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use futures::{Stream, StreamExt};
use highwater_core::OutputMode;

use super::operator::SessionOperator;
use super::recipe::Recipe;
use super::sessions::Place;
use super::state::{SessionState, Work};

/// The stream of one execution. Nothing happens before it is polled.
pub(super) struct SessionStream {
    recipe: Arc<Recipe>,
    operator: Arc<SessionOperator>,
    context: Arc<TaskContext>,
    batch_size: usize,
    phase: Phase,
}

/// What exists only in one phase lives in it.
enum Phase {
    Waiting(SendableRecordBatchStream),
    Reading(SendableRecordBatchStream, Box<SessionState>),
    Folding(Folding),
    Emitting(VecDeque<RecordBatch>),
    Giving(Option<Box<SessionState>>, Giving),
    Done,
}

struct Folding {
    state: Box<SessionState>,
    work: Work,
    output: VecDeque<RecordBatch>,
}

/// What is given out of the state.
enum Giving {
    /// These sessions, which are closed.
    Closed(VecDeque<Place>),
    /// All sessions from here on.
    All(Place),
}

impl Giving {
    fn next(&mut self, state: &mut SessionState, rows: usize) -> Result<Option<RecordBatch>> {
        let places: Vec<Place> = match self {
            Self::Closed(places) => places.drain(..places.len().min(rows)).collect(),
            Self::All(from) => {
                let (places, next) = state.sessions.scan(*from, rows);
                *from = next;
                places
            }
        };
        match places.is_empty() {
            true => Ok(None),
            false => state.rows_at(&places).map(Some),
        }
    }
}

impl SessionStream {
    pub(super) fn new(
        recipe: Arc<Recipe>,
        operator: Arc<SessionOperator>,
        input: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Self {
        Self {
            recipe,
            operator,
            batch_size: context.session_config().batch_size().max(1),
            context,
            phase: Phase::Waiting(input),
        }
    }

    /// Does one step: a batch when there is one, `None` when only the phase changed.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<RecordBatch>>> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Waiting(input) => {
                let mut state = self.operator.take()?;
                state.begin(&self.context);
                self.phase = Phase::Reading(input, state);
            }
            Phase::Reading(input, state) => return self.read(input, state, cx).map_ok(|()| None),
            Phase::Folding(folding) => return self.fold(folding, cx).map_ok(|()| None),
            Phase::Emitting(mut output) => {
                let batch = output.pop_front();
                if batch.is_some() {
                    self.phase = Phase::Emitting(output);
                }
                return Poll::Ready(Ok(batch));
            }
            Phase::Giving(Some(mut state), mut giving) => {
                match giving.next(&mut state, self.batch_size)? {
                    Some(batch) => {
                        self.phase = Phase::Giving(Some(state), giving);
                        return Poll::Ready(Ok(Some(batch)));
                    }
                    None => self.operator.give_back(state),
                }
            }
            Phase::Giving(None, _) | Phase::Done => {}
        }
        Poll::Ready(Ok(None))
    }

    fn read(
        &mut self,
        mut input: SendableRecordBatchStream,
        mut state: Box<SessionState>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        match input.poll_next_unpin(cx) {
            Poll::Pending => {
                self.phase = Phase::Reading(input, state);
                return Poll::Pending;
            }
            Poll::Ready(Some(batch)) => {
                state.consume(&batch?)?;
                self.phase = Phase::Reading(input, state);
            }
            Poll::Ready(None) => {
                self.phase = Phase::Folding(Folding {
                    work: state.gather()?,
                    state,
                    output: VecDeque::new(),
                });
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Does some keys, then lets other tasks have their turn.
    fn fold(&mut self, mut folding: Folding, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Folding {
            state,
            work,
            output,
        } = &mut folding;
        if let Some(rows) = state.advance(work, self.batch_size)? {
            output.extend(pieces(&rows, self.batch_size));
        }
        if work.is_done() {
            state.reserve()?;
            self.phase = self.folded(folding);
            return Poll::Ready(Ok(()));
        }
        self.phase = Phase::Folding(folding);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Everything is in the state: what is left is output.
    fn folded(&self, Folding { state, output, .. }: Folding) -> Phase {
        match self.recipe.mode {
            OutputMode::Complete => Phase::Giving(Some(state), Giving::All((0, 0))),
            OutputMode::Append => {
                let due = state.due().into();
                Phase::Giving(Some(state), Giving::Closed(due))
            }
            _ => {
                self.operator.give_back(state);
                Phase::Emitting(output)
            }
        }
    }
}

/// `rows` in batches of at most `size`.
fn pieces(rows: &RecordBatch, size: usize) -> impl Iterator<Item = RecordBatch> + '_ {
    let total = rows.num_rows();
    (0..total)
        .step_by(size)
        .map(move |from| rows.slice(from, size.min(total - from)))
}

impl Drop for SessionStream {
    /// The reader may stop early; the state is whole by then.
    fn drop(&mut self) {
        if let Phase::Giving(state, _) = &mut self.phase
            && let Some(state) = state.take()
        {
            self.operator.give_back(state);
        }
    }
}

impl Stream for SessionStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.step(cx)) {
                Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                Ok(None) if matches!(self.phase, Phase::Done) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl RecordBatchStream for SessionStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.recipe.schema)
    }
}
