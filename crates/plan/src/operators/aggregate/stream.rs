//! One micro-batch of a streaming aggregation, pulled row batch by row batch.
//!
//! ```text
//!  Waiting ─► Reading ─► Storing ─► Emitting ─► Done
//!               │           └ what comes from the whole table: ─► Giving ─► Done
//!               └ any error ─► Done: the state is not given back
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use futures::{Stream, StreamExt};

use super::operator::AggregateOperator;
use super::output::{Output, Step};
use super::recipe::Recipe;
use super::state::AggregateState;

/// Ranges that are stored before other tasks get their turn.
const RANGES_A_TURN: usize = 8;

/// The stream of one execution. Nothing happens before it is polled.
pub(super) struct AggregateStream {
    recipe: Arc<Recipe>,
    operator: Arc<AggregateOperator>,
    context: Arc<TaskContext>,
    batch_size: usize,
    phase: Phase,
}

/// What exists only in one phase lives in it.
enum Phase {
    Waiting(SendableRecordBatchStream),
    Reading(SendableRecordBatchStream, Box<AggregateState>),
    Storing(Storing),
    Emitting(VecDeque<RecordBatch>),
    Giving(Option<Box<AggregateState>>, Output),
    Done,
}

struct Storing {
    state: Box<AggregateState>,
    /// The new state of all touched keys.
    states: Vec<ArrayRef>,
    /// The first key that is not stored yet.
    from: usize,
    output: VecDeque<RecordBatch>,
}

impl AggregateStream {
    pub(super) fn new(
        recipe: Arc<Recipe>,
        operator: Arc<AggregateOperator>,
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
            Phase::Storing(storing) => return self.store(storing, cx).map_ok(|()| None),
            Phase::Emitting(mut output) => {
                let batch = output.pop_front();
                if batch.is_some() {
                    self.phase = Phase::Emitting(output);
                }
                return Poll::Ready(Ok(batch));
            }
            Phase::Giving(Some(state), output) => return self.give(state, output, cx),
            Phase::Giving(None, _) | Phase::Done => {}
        }
        Poll::Ready(Ok(None))
    }

    fn read(
        &mut self,
        mut input: SendableRecordBatchStream,
        mut state: Box<AggregateState>,
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
                self.phase = Phase::Storing(Storing {
                    states: state.finish()?,
                    state,
                    from: 0,
                    output: VecDeque::new(),
                });
            }
        }
        Poll::Ready(Ok(()))
    }

    fn store(&mut self, mut storing: Storing, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let total = storing.state.table().touched();
        for _ in 0..RANGES_A_TURN {
            if storing.from == total {
                storing.state.reserve()?;
                self.phase = self.stored(storing)?;
                return Poll::Ready(Ok(()));
            }
            let range = storing.from..total.min(storing.from + self.batch_size);
            storing.from = range.end;
            let batch = storing.state.store(&storing.states, range)?;
            storing.output.extend(batch);
        }
        self.phase = Phase::Storing(storing);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Everything is in the table: what is left is output.
    fn stored(&self, storing: Storing) -> Result<Phase> {
        if let Some(output) = storing.state.output()? {
            return Ok(Phase::Giving(Some(storing.state), output));
        }
        self.operator.give_back(storing.state);
        Ok(Phase::Emitting(storing.output))
    }

    fn give(
        &mut self,
        mut state: Box<AggregateState>,
        mut output: Output,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>>> {
        match output.step(&mut state, self.batch_size)? {
            Step::Rows(batch) => {
                self.phase = Phase::Giving(Some(state), output);
                Poll::Ready(Ok(Some(batch)))
            }
            Step::More => {
                self.phase = Phase::Giving(Some(state), output);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Done => {
                self.operator.give_back(state);
                Poll::Ready(Ok(None))
            }
        }
    }
}

impl Drop for AggregateStream {
    /// The reader may stop early; the state is whole by then.
    fn drop(&mut self) {
        if let Phase::Giving(state, _) = &mut self.phase
            && let Some(state) = state.take()
        {
            self.operator.give_back(state);
        }
    }
}

impl Stream for AggregateStream {
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

impl RecordBatchStream for AggregateStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.recipe.schema)
    }
}
