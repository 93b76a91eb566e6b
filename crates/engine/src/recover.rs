//! Where a run stands before its first micro-batch: at the beginning, or where the checkpoint says.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_checkpoint::{
    Checkpoint, OperatorChanges, Recovery, Restored, Resume, StateParts, Upkeep,
};
use highwater_core::{BatchId, Error, MicroBatch, Result, Timestamp, Watermark};
use highwater_plan::{IncrementalPlan, Part, StatefulOperator};

use crate::construct::{Inputs, Position, after_the_flush};
use crate::manager::QuerySettings;
use crate::watermarks::InForce;

/// Where a run stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) position: Position,
    pub(crate) watermarks: InForce,
    /// The last micro-batch that earlier runs have logged.
    pub(crate) last_logged: Option<BatchId>,
    /// The last micro-batch that is done: the state is restored up to it.
    last_done: Option<BatchId>,
    /// The settings that the checkpoint pins.
    pub(crate) conf: BTreeMap<String, String>,
}

impl Standing {
    /// Where a run with this checkpoint stands.
    ///
    /// # Errors
    /// `Corrupt` when the checkpoint is damaged; `Invalid` when it is of a query with other sources.
    pub(crate) async fn of(checkpoint: &Checkpoint, inputs: &Inputs) -> Result<Self> {
        let recovery = checkpoint.recover().await?;
        if let Some(standing) = resumed(recovery, inputs)? {
            return Ok(standing);
        }
        Ok(Self {
            position: Position {
                next: BatchId(0),
                ends: inputs.initial().await?,
                time: Timestamp::default(),
                closed: false,
                pending: None,
            },
            watermarks: InForce::default(),
            last_logged: None,
            last_done: None,
            conf: BTreeMap::new(),
        })
    }

    /// After the final micro-batch of `flushOnEnd` there must be no new data.
    ///
    /// # Errors
    /// `Invalid`, naming the option, when there is.
    pub(crate) async fn refuse_after_flush(&self, inputs: &Inputs) -> Result<()> {
        let ends = &self.position.ends;
        if self.position.closed && inputs.everything(ends).await? != *ends {
            return Err(after_the_flush());
        }
        Ok(())
    }

    /// Puts the state back that the last micro-batch left; from there on the checkpoint is kept up.
    ///
    /// # Errors
    /// `Corrupt` when the state cannot be read, or is of an operator that the plan lacks.
    pub(crate) async fn restore(
        &self,
        checkpoint: &Checkpoint,
        plan: &IncrementalPlan,
        settings: &QuerySettings,
    ) -> Result<Upkeep> {
        let operators = plan.operators();
        let done = self.last_done.filter(|_| !operators.is_empty());
        let restored = match done {
            Some(done) => restored(checkpoint, operators, done).await?,
            None => Restored::default(),
        };
        let retain = settings.min_batches_to_retain;
        let mut upkeep = Upkeep::new(checkpoint, restored, settings.snapshots, retain);
        if let Some(done) = done {
            upkeep.catch_up(done, &Operators(operators)).await?;
        }
        Ok(upkeep)
    }
}

async fn restored(
    checkpoint: &Checkpoint,
    operators: &[Arc<dyn StatefulOperator>],
    done: BatchId,
) -> Result<Restored> {
    let mut apply = |name: &str, records| {
        let operator = operators.iter().find(|operator| operator.name() == name);
        let operator = operator.ok_or_else(|| {
            Error::corrupt("the checkpoint has state of an operator that the query lacks")
                .with_operator(name)
        })?;
        operator.restore(&records)
    };
    checkpoint.restore(done, &mut apply).await
}

/// The stateful operators of the plan, for snapshots of their state.
pub(crate) struct Operators<'a>(pub(crate) &'a [Arc<dyn StatefulOperator>]);

impl StateParts for Operators<'_> {
    fn sizes(&self) -> Vec<u64> {
        let operators = self.0.iter();
        operators
            .map(|operator| operator.metrics().rows_total)
            .collect()
    }

    fn part(&self, operator: usize, number: u32, of: u32) -> Result<OperatorChanges> {
        let operator = self.0.get(operator);
        let operator = operator.ok_or_else(|| Error::internal("a part of no operator"))?;
        Ok(OperatorChanges {
            operator: operator.name().to_owned(),
            records: operator.part(Part { number, of })?,
        })
    }
}

/// Where the checkpoint says the run stands; `None` when nothing was ever intended.
fn resumed(recovery: Recovery, inputs: &Inputs) -> Result<Option<Standing>> {
    let last_logged = recovery.resume.last_logged();
    let (Some(id), Some(offsets)) = (last_logged, recovery.offsets) else {
        return Ok(None);
    };
    check_sources(offsets.sources.keys(), inputs)?;
    let rerun = matches!(recovery.resume, Resume::Rerun { .. });
    let watermarks = match &recovery.commit {
        Some(commit) if !rerun => InForce {
            closes: commit.next_watermark.max(offsets.watermark),
            late: offsets.watermark,
        },
        _ => InForce {
            closes: offsets.watermark,
            late: offsets.late_watermark,
        },
    };
    let batch = MicroBatch {
        id,
        ranges: offsets.sources,
        time: offsets.batch_time,
        watermark: match offsets.is_final {
            true => Watermark::END,
            false => offsets.watermark,
        },
        late_watermark: offsets.late_watermark,
    };
    Ok(Some(Standing {
        position: Position {
            next: id.next(),
            ends: batch
                .ranges
                .values()
                .map(|range| range.end.clone())
                .collect(),
            time: batch.time,
            closed: batch.is_final() && !rerun,
            pending: rerun.then_some(batch),
        },
        watermarks,
        last_logged,
        last_done: recovery.resume.last_done(),
        conf: offsets.conf,
    }))
}

/// The sources are those of the checkpoint: one that came or went would change what the state means.
fn check_sources<'a>(
    logged: impl Iterator<Item = &'a String> + Clone,
    inputs: &Inputs,
) -> Result<()> {
    let now = || inputs.iter().map(|input| &input.name);
    let added = now().filter(|name| !logged.clone().any(|other| other == *name));
    let gone = logged
        .clone()
        .filter(|name| !now().any(|other| other == *name));
    let (added, gone) = (quoted(added), quoted(gone));
    if added.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let mut changes = Vec::new();
    if !added.is_empty() {
        changes.push(format!("new: {added}"));
    }
    if !gone.is_empty() {
        changes.push(format!("missing: {gone}"));
    }
    Err(Error::invalid(format!(
        "There are [{}] sources in the checkpoint offsets and now there are [{}] sources requested by \
         the query; {}",
        logged.count(),
        now().count(),
        changes.join(", ")
    ))
    .with_hint("sources are known by their names: give a renamed one its old name, or start with a new checkpoint location"))
}

fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use highwater_checkpoint::{CommitEntry, OffsetsEntry, resume};
    use highwater_core::{Offset, OffsetRange, ReadLimit};

    use super::*;
    use crate::construct::Input;
    use crate::tests::support::Numbers;

    fn inputs(names: &[&str]) -> Inputs {
        let inputs = names.iter().map(|name| Input {
            name: (*name).to_owned(),
            source: Arc::new(Numbers::new()),
            limit: ReadLimit::All,
            pin: None,
        });
        Inputs::new(inputs.collect())
    }

    fn recovery(offsets: u64, commit: Option<u64>, next_watermark: i64) -> Recovery {
        let range = OffsetRange::new(3.into(), 5.into());
        Recovery {
            resume: resume(Some(BatchId(offsets)), commit.map(BatchId)).unwrap(),
            offsets: Some(OffsetsEntry {
                batch_time: Timestamp::from_millis(9),
                watermark: Watermark(20),
                late_watermark: Watermark(10),
                sources: BTreeMap::from([("a".to_owned(), range)]),
                conf: BTreeMap::new(),
                is_final: false,
            }),
            commit: commit.map(|_| CommitEntry {
                next_watermark: Watermark(next_watermark),
                ..CommitEntry::default()
            }),
            previous: None,
        }
    }

    #[test]
    fn an_uncommitted_batch_runs_again_as_it_was() {
        let standing = resumed(recovery(4, Some(3), 20), &inputs(&["a"]))
            .unwrap()
            .unwrap();
        let pending = standing.position.pending.as_ref().unwrap();
        assert_eq!((pending.id, pending.time.as_millis()), (BatchId(4), 9));
        assert_eq!((pending.watermark.0, pending.late_watermark.0), (20, 10));
        assert_eq!(pending.ranges["a"], OffsetRange::new(3.into(), 5.into()));
        assert_eq!(standing.position.ends, [Offset::from(5)]);
        assert_eq!(
            (standing.last_done, standing.last_logged),
            (Some(BatchId(3)), Some(BatchId(4)))
        );
    }

    #[test]
    fn after_a_commit_the_greater_watermark_counts() {
        for (next, current) in [(30, 30), (20, 20), (0, 20)] {
            let standing = resumed(recovery(4, Some(4), next), &inputs(&["a"]))
                .unwrap()
                .unwrap();
            assert_eq!(standing.position.pending, None);
            assert_eq!(standing.position.next, BatchId(5));
            let marks = standing.watermarks;
            assert_eq!((marks.closes.0, marks.late.0), (current, 20));
        }
    }

    #[test]
    fn other_sources_are_named() {
        for (now, said) in [
            (&["a", "b"][..], "new: `b`"),
            (&[], "missing: `a`"),
            (&["b"], "new: `b`, missing: `a`"),
        ] {
            let error = resumed(recovery(4, Some(4), 0), &inputs(now)).unwrap_err();
            assert!(error.message().ends_with(said), "{error}");
        }
    }
}
