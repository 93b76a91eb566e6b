//! The micro-batch loop. Its order is the exactly-once protocol: kill the process between any two of its lines,
//! and a restart runs the same ranges with the same watermark and batch time into the same sink again.

use std::sync::Arc;

use highwater_checkpoint::{Checkpoint, Upkeep};
use highwater_core::{BatchId, MicroBatch, Result, Sink};
use highwater_plan::IncrementalPlan;

use crate::construct::{Goal, Inputs, Position};
use crate::late::LateSink;
use crate::manager::StartRequest;
use crate::query::QueryCore;
use crate::report::{Laps, Reporter};
use crate::steps::Rules;
use crate::ticker::Ticker;
use crate::watermarks::Watermarks;

/// One run of a query.
pub(crate) struct Run {
    /// What was asked for: a run that an older one was in the way of begins anew with it.
    pub(crate) request: Arc<StartRequest>,
    pub(crate) query: Arc<QueryCore>,
    pub(crate) ticker: Ticker,
    pub(crate) inputs: Inputs,
    pub(crate) plan: IncrementalPlan,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) late: Option<LateSink>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) upkeep: Upkeep,
    pub(crate) rules: Rules,
    pub(crate) position: Position,
    /// A micro-batch that an earlier run has logged: its intent stands already.
    pub(crate) rerun: Option<BatchId>,
    pub(crate) watermarks: Watermarks,
    pub(crate) goal: Option<Goal>,
    pub(crate) in_flight: Option<Arc<MicroBatch>>,
    pub(crate) laps: Laps,
    pub(crate) reporter: Reporter,
}

impl Run {
    /// Runs until the trigger has nothing more to do, or somebody stops the query.
    ///
    /// # Errors
    /// The first failure of a source, the plan, the sink or the checkpoint; it ends the run.
    pub(crate) async fn run(&mut self) -> Result<()> {
        while let Some(tick) = self.ticker.next().await {
            let Some(batch) = self.construct(tick).await? else {
                continue;
            };
            self.intend(&batch).await?; // offsets/N: from here on N is these ranges, for ever
            self.plan.refresh(self.query.clock().now()).await?; // static tables that have changed
            self.plan.open(&batch)?; // leaves get their ranges, the cell its watermarks and time
            let written = self.write(&batch).await?; // the rows flow, and become visible
            self.write_late(&batch).await?; // those that came too late go where they are wanted
            let state = self.save_state(&batch).await?; // state/N
            let done = self.outcome(&batch, state, &written); // the watermark moves
            self.done(&batch, &done).await?; // commits/N: N will never run again
            self.release(&batch, &written).await?; // sources and operators forget
            self.maintain(&batch, &done)?; // snapshots, purge
        }
        Ok(())
    }
}
