//! One micro-batch of a join, pulled row batch by row batch.
//!
//! ```text
//!  Waiting ─► Aging left, right ─► Reading left ⇄ Probing ─► Reading right ⇄ Probing ─► Evicting left ─► Evicting right ─► Done
//!                 └ any error ─► Done: the state is not given back
//! ```
//! A step looks at one batch of candidates at most; after some without a result other tasks get their turn.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use futures::{Stream, StreamExt};

use super::operator::JoinOperator;
use super::probe::{Probe, Step};
use super::recipe::{Recipe, Side};
use super::state::JoinState;

/// Steps without a result before other tasks get their turn.
const STEPS_A_TURN: usize = 8;

/// The stream of one execution. Nothing happens before it is polled.
pub(super) struct JoinStream {
    recipe: Arc<Recipe>,
    operator: Arc<JoinOperator>,
    context: Arc<TaskContext>,
    left: SendableRecordBatchStream,
    right: SendableRecordBatchStream,
    batch_size: usize,
    phase: Phase,
}

/// What exists only in one phase lives in it.
enum Phase {
    Waiting,
    /// Rows that are too old leave before others can meet them.
    Aging(Side, Box<JoinState>),
    Reading(Side, Box<JoinState>),
    Probing(Side, Box<JoinState>, Box<Probe>),
    Evicting(Side, Box<JoinState>),
    Done,
}

impl JoinStream {
    pub(super) fn new(
        recipe: Arc<Recipe>,
        operator: Arc<JoinOperator>,
        left: SendableRecordBatchStream,
        right: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Self {
        Self {
            recipe,
            operator,
            left,
            right,
            batch_size: context.session_config().batch_size().max(1),
            context,
            phase: Phase::Waiting,
        }
    }

    /// Does one step: a batch when there is one, `None` when only the phase changed.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<RecordBatch>>> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Waiting => {
                let mut state = self.operator.take()?;
                state.begin(&self.recipe, &self.context)?;
                self.phase = Phase::Aging(Side::Left, state);
            }
            Phase::Aging(side, state) => return Poll::Ready(self.age(side, state).map(|()| None)),
            Phase::Reading(side, state) => return self.read(side, state, cx),
            Phase::Probing(side, state, probe) => {
                return Poll::Ready(self.probe(side, state, probe));
            }
            Phase::Evicting(side, state) => return Poll::Ready(self.evict(side, state)),
            Phase::Done => {}
        }
        Poll::Ready(Ok(None))
    }

    fn age(&mut self, side: Side, mut state: Box<JoinState>) -> Result<()> {
        let bound = self.recipe.side(side).bound.as_ref();
        let by_age = bound.is_some_and(|bound| bound.age_us.is_some());
        if by_age && state.evict(&self.recipe, side, self.batch_size)?.is_some() {
            self.phase = Phase::Aging(side, state);
            return Ok(());
        }
        self.phase = match side {
            Side::Left => Phase::Aging(Side::Right, state),
            Side::Right => Phase::Reading(Side::Left, state),
        };
        Ok(())
    }

    fn read(
        &mut self,
        side: Side,
        mut state: Box<JoinState>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>>> {
        let input = match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        };
        let mut output = None;
        self.phase = match (input.poll_next_unpin(cx), side) {
            (Poll::Pending, _) => {
                self.phase = Phase::Reading(side, state);
                return Poll::Pending;
            }
            (Poll::Ready(Some(batch)), _) => {
                let entered = state.enter(&self.recipe, side, &batch?)?;
                output = entered.output;
                match entered.probe {
                    Some(probe) => Phase::Probing(side, state, Box::new(probe)),
                    None => Phase::Reading(side, state),
                }
            }
            (Poll::Ready(None), Side::Left) => Phase::Reading(Side::Right, state),
            (Poll::Ready(None), Side::Right) => Phase::Evicting(Side::Left, state),
        };
        Poll::Ready(Ok(output))
    }

    fn probe(
        &mut self,
        side: Side,
        mut state: Box<JoinState>,
        mut probe: Box<Probe>,
    ) -> Result<Option<RecordBatch>> {
        let other = state.side_mut(side.other());
        let output = match probe.step(&self.recipe, other, self.batch_size)? {
            Step::Rows(rows) => Some(rows),
            Step::More => None,
            Step::Done => {
                let numbers = state.numbers;
                let output = probe.finish(&self.recipe, state.side_mut(side), &numbers)?;
                state.reserve(&self.recipe)?;
                self.phase = Phase::Reading(side, state);
                return Ok(output);
            }
        };
        self.phase = Phase::Probing(side, state, probe);
        Ok(output)
    }

    fn evict(&mut self, side: Side, mut state: Box<JoinState>) -> Result<Option<RecordBatch>> {
        if let Some(output) = state.evict(&self.recipe, side, self.batch_size)? {
            self.phase = Phase::Evicting(side, state);
            return Ok(output);
        }
        match side {
            Side::Left => self.phase = Phase::Evicting(Side::Right, state),
            Side::Right => {
                state.compact()?;
                state.reserve(&self.recipe)?;
                self.operator.give_back(state);
            }
        }
        Ok(None)
    }
}

impl Stream for JoinStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        for _ in 0..STEPS_A_TURN {
            match ready!(self.step(cx)) {
                Ok(Some(batch)) => return Poll::Ready(Some(Ok(batch))),
                Ok(None) if matches!(self.phase, Phase::Done) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl RecordBatchStream for JoinStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.recipe.schema)
    }
}
