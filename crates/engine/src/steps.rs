//! The steps of the loop, one method each, in the order in which it takes them.

use std::collections::BTreeMap;

use highwater_checkpoint::{CommitEntry, OffsetsEntry, OperatorChanges};
use highwater_core::{BatchOutput, MicroBatch, OutputMode, Result, SinkCommit, Trigger, Watermark};

use crate::manager::StartRequest;
use crate::output::Rest;
use crate::recover::Operators;
use crate::run::Run;
use crate::watermarks::WatermarkPolicy;

/// What a run was told once and for all.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) mode: OutputMode,
    /// A micro-batch without data runs when the watermark has something to release; not for `Once` (Spark).
    pub(crate) no_data_batches: bool,
    /// At the end of the run a final micro-batch closes all there is.
    pub(crate) flush: bool,
    /// The settings that a checkpoint pins.
    pub(crate) conf: BTreeMap<String, String>,
}

/// The setting of the watermark policy in `offsets/N`.
const WATERMARK_POLICY: &str = "multipleWatermarkPolicy";

impl Rules {
    /// The rules of a run; what the checkpoint has `pinned` overrides the settings, as in Spark.
    pub(crate) fn new(request: &StartRequest, pinned: BTreeMap<String, String>) -> Self {
        let settings = &request.settings;
        let asked = settings.watermark_policy.to_string();
        let mut conf = pinned;
        let used = conf
            .entry(WATERMARK_POLICY.to_owned())
            .or_insert_with(|| asked.clone());
        if *used != asked {
            tracing::warn!(used, asked, "the checkpoint pins {WATERMARK_POLICY}");
        }
        Self {
            mode: request.mode,
            no_data_batches: settings.no_data_batches && request.trigger != Trigger::Once,
            flush: request.options.flush_on_end,
            conf,
        }
    }

    /// How the watermarks of several inputs become one: as the checkpoint pins it.
    ///
    /// # Errors
    /// `Invalid` when the checkpoint pins a policy that is none.
    pub(crate) fn watermark_policy(&self) -> Result<WatermarkPolicy> {
        self.conf
            .get(WATERMARK_POLICY)
            .map_or(Ok(WatermarkPolicy::default()), |policy| policy.parse())
    }
}

impl Run {
    /// Logs what the micro-batch is. A temporary checkpoint remembers nothing, so nothing is made for it.
    pub(crate) async fn intend(&mut self, batch: &MicroBatch) -> Result<()> {
        tracing::debug!(batch = batch.id.0, "batch begins");
        if self.rerun.take() == Some(batch.id) {
            // Its intent stands already; only whether we still own the checkpoint is to be seen.
            self.checkpoint.check_claim().await?;
        } else if !self.checkpoint.is_temporary() {
            let entry = OffsetsEntry {
                batch_time: batch.time,
                watermark: self.ordinary_watermark(batch),
                late_watermark: batch.late_watermark,
                sources: batch.ranges.clone(),
                conf: self.rules.conf.clone(),
                is_final: batch.is_final(),
            };
            self.checkpoint.intend(batch.id, &entry).await?;
        }
        self.laps.intended = self.query.clock().now();
        Ok(())
    }

    /// The watermark of the micro-batch; the final one closes all there is, and is told with the query's.
    pub(crate) fn ordinary_watermark(&self, batch: &MicroBatch) -> Watermark {
        if batch.is_final() {
            self.watermarks.in_force(batch.time).closes
        } else {
            batch.watermark
        }
    }

    /// Runs the plan into the sink, to the last row.
    pub(crate) async fn write(&mut self, batch: &MicroBatch) -> Result<SinkCommit> {
        self.laps.opened = self.query.clock().now();
        let rest = Rest::new();
        let output = BatchOutput {
            id: batch.id,
            query_id: self.query.id(),
            run_id: self.query.run_id(),
            mode: self.rules.mode,
            schema: self.plan.schema(),
            keys: None,
            stream: rest.tap(self.plan.execute()?),
        };
        let written = self.sink.write(output).await?;
        rest.pull().await?;
        self.laps.written = self.query.clock().now();
        Ok(written)
    }

    /// Saves what the micro-batch changed in the state; names the file.
    pub(crate) async fn save_state(&mut self, batch: &MicroBatch) -> Result<Option<String>> {
        if self.checkpoint.is_temporary() || self.plan.operators().is_empty() {
            return Ok(None);
        }
        let operators = self.plan.operators().iter();
        let changes = operators.map(|operator| {
            Ok(OperatorChanges {
                operator: operator.name().to_owned(),
                records: operator.changes()?,
            })
        });
        let changes = changes.collect::<Result<Vec<_>>>()?;
        let records = changes.iter().flat_map(|change| &change.records);
        let records: usize = records.map(|records| records.num_rows()).sum();
        self.upkeep.changed(records as u64);
        self.checkpoint.write_state(batch.id, &changes).await
    }

    /// What `commits/N` says: the watermark has followed the rows, and is in force from the next micro-batch on.
    pub(crate) fn outcome(
        &mut self,
        batch: &MicroBatch,
        state: Option<String>,
        written: &SinkCommit,
    ) -> CommitEntry {
        let seen = self.plan.watermarks().iter().map(|input| input.seen());
        CommitEntry {
            next_watermark: self.watermarks.advance(batch, seen),
            state,
            snapshots: self.upkeep.finished(),
            operators: None,
            sink: written.clone(),
            is_final: batch.is_final(),
        }
    }

    /// Logs that the micro-batch is done; the next one begins where it ends.
    pub(crate) async fn done(&mut self, batch: &MicroBatch, entry: &CommitEntry) -> Result<()> {
        if !self.checkpoint.is_temporary() {
            self.checkpoint.done(batch.id, entry).await?;
        }
        self.position.pass(batch);
        self.query.set_watermark(self.watermarks.current());
        self.laps.committed = self.query.clock().now();
        Ok(())
    }

    /// Tells operators and sources that the micro-batch is done, and publishes what it did.
    pub(crate) async fn release(&mut self, batch: &MicroBatch, written: &SinkCommit) -> Result<()> {
        for operator in self.plan.operators() {
            operator.commit();
        }
        for (input, range) in self.inputs.iter().zip(batch.ranges.values()) {
            input.source.commit(&range.end).await?;
        }
        let progress = self.report(batch, written);
        self.query.progressed(progress);
        self.in_flight = None;
        Ok(())
    }

    /// Keeps the checkpoint small, and quick to restart from: snapshots of parts of the state, and what is old goes.
    pub(crate) fn maintain(&mut self, batch: &MicroBatch, done: &CommitEntry) -> Result<()> {
        self.upkeep
            .step(batch.id, done, &Operators(self.plan.operators()))
    }
}
