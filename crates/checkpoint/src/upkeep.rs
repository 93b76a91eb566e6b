//! What a run does for its checkpoint between two micro-batches: snapshots are taken, old files are deleted.
//!
//! ```text
//!  commits/N ─► step(N): parts are taken, and written beside the loop ─► … ─► finished(): commits/M names the file
//! ```
//! At most one snapshot is being written. A run that ends meanwhile leaves a file that no commit names; the next run
//! deletes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::{BatchId, Result};
use highwater_storage::object;

use crate::checkpoint::Durable;
use crate::entries::SnapshotEntry;
use crate::history::History;
use crate::purge::{Bounds, Doomed, Purge};
use crate::restore::Restored;
use crate::snapshot::{Pass, SnapshotPolicy, StateParts, Taken, Task, aside};
use crate::{Checkpoint, CommitEntry, Layout, OperatorChanges, state_file};

/// The upkeep of one run's checkpoint; of a temporary one there is none.
#[derive(Debug, Default)]
pub struct Upkeep(Option<Work>);

#[derive(Debug)]
struct Work {
    durable: Arc<Durable>,
    run: u64,
    policy: SnapshotPolicy,
    retain: u64,
    history: History,
    /// What was earned and not paid out, in records.
    credit: u64,
    /// What the running trigger changed.
    changed: u64,
    pass: Option<Pass>,
    /// The number of the next pass.
    next_pass: u64,
    writing: Option<Writing>,
    /// Snapshots that are whole, and that no commit names yet.
    whole: Vec<SnapshotEntry>,
    deleting: Option<Task<Option<Bounds>>>,
    /// Where the logs begin, once that is known.
    bounds: Option<Bounds>,
    /// Files of earlier runs were looked for.
    swept: bool,
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Writing {
    task: Task<Result<()>>,
    entry: SnapshotEntry,
}

impl Upkeep {
    /// The upkeep of a run that has `restored` its state, with at least `retain` micro-batches to stay.
    #[must_use]
    pub fn new(
        checkpoint: &Checkpoint,
        restored: Restored,
        policy: SnapshotPolicy,
        retain: u64,
    ) -> Self {
        let Some((durable, run)) = checkpoint.claimed() else {
            return Self(None);
        };
        let earned = restored
            .changed
            .iter()
            .map(|n| (*n).max(policy.least_earned));
        Self(Some(Work {
            durable: Arc::clone(durable),
            run,
            policy,
            retain,
            credit: earned.sum(),
            changed: restored.changed.last().copied().unwrap_or(0),
            pass: None,
            next_pass: restored.history.next_rotation(),
            history: restored.history,
            writing: None,
            whole: Vec::new(),
            deleting: None,
            bounds: None,
            // Before the first run there was none.
            swept: run == 0,
        }))
    }

    /// Where short runs have left two rotations unpaid, the whole state as of `done` is taken before the first
    /// micro-batch; else nothing.
    ///
    /// # Errors
    /// `Internal` when the state cannot be read.
    pub async fn catch_up(&mut self, done: BatchId, state: &dyn StateParts) -> Result<()> {
        match &mut self.0 {
            Some(work) => work.catch_up(done, state).await,
            None => Ok(()),
        }
    }

    /// The running trigger has changed so many records.
    pub fn changed(&mut self, records: u64) {
        if let Some(work) = &mut self.0 {
            work.changed = records;
        }
    }

    /// The snapshots that became whole: the next commit names them.
    pub fn finished(&mut self) -> Vec<SnapshotEntry> {
        let Some(work) = &mut self.0 else {
            return Vec::new();
        };
        if let Some(result) = work.writing.as_mut().and_then(|w| w.task.finished())
            && let Some(writing) = work.writing.take()
        {
            work.written(writing.entry, result.and_then(|written| written));
        }
        std::mem::take(&mut work.whole)
    }

    /// Micro-batch `id` is done, as `commit` says, and operators have forgotten it: pays for parts of the state that it
    /// takes, and deletes what is old.
    ///
    /// # Errors
    /// `Internal` when the state cannot be read.
    pub fn step(
        &mut self,
        id: BatchId,
        commit: &CommitEntry,
        state: &dyn StateParts,
    ) -> Result<()> {
        let Some(work) = &mut self.0 else {
            return Ok(());
        };
        let sizes = state.sizes();
        let has_state = !sizes.is_empty();
        if has_state {
            work.history.push(id, commit);
            work.earn(&sizes);
            if work.writing.is_none()
                && let Some(taken) = work.take(state, &sizes, false)?
                && let Some(entry) = work.entry(id, &taken)
            {
                let write = write(Arc::clone(&work.durable), entry.clone(), taken.records);
                let task = Task::spawn(write);
                work.writing = Some(Writing { task, entry });
            }
        }
        work.delete(id, has_state);
        Ok(())
    }

    /// Waits until what is being deleted is gone: the run ends in good order.
    pub async fn close(&mut self) {
        if let Some(work) = &mut self.0
            && let Some(mut task) = work.deleting.take()
        {
            work.bounds = task.wait().await.ok().flatten();
        }
    }

    /// Waits for the snapshot that is being written.
    #[doc(hidden)]
    pub async fn settle(&mut self) {
        if let Some(work) = &mut self.0 {
            work.settle().await;
        }
    }
}

impl Work {
    /// The running pass, or a new one. Its parts are fixed when the first one is taken.
    fn pass(&mut self, sizes: &[u64]) -> &mut Pass {
        let policy = self.policy;
        let begun = |pass: &Pass| pass.next > 0 && !pass.is_outgrown(sizes, &policy);
        if !self.pass.as_ref().is_some_and(begun) {
            self.pass = None;
        }
        let number = &mut self.next_pass;
        self.pass.get_or_insert_with(|| {
            *number += 1;
            Pass::new(*number - 1, sizes, &policy)
        })
    }

    /// No more is saved than one rotation costs.
    fn earn(&mut self, sizes: &[u64]) {
        let policy = self.policy;
        let most = self.pass(sizes).price(sizes, &policy);
        let earned = self.changed.max(policy.least_earned);
        self.credit = self.credit.saturating_add(earned).min(most);
    }

    /// Takes the parts that can be paid; with `free`, as many as are taken at once.
    fn take(&mut self, state: &dyn StateParts, sizes: &[u64], free: bool) -> Result<Option<Taken>> {
        let (policy, mut credit) = (self.policy, self.credit);
        let most = policy.at_once.max(self.changed);
        let pass = self.pass(sizes);
        let from = pass.next;
        let mut taken = Taken {
            parts: from..from,
            records: Vec::new(),
            count: 0,
        };
        while let Some((operator, number, of)) = pass.place() {
            let expected = sizes[operator] / u64::from(of);
            let paid = free || credit >= expected.max(policy.least_price);
            if !paid || (pass.next > from && taken.count + expected > most) {
                break;
            }
            let part = state.part(operator, number, of)?;
            let rows: usize = part.records.iter().map(|records| records.num_rows()).sum();
            credit = credit.saturating_sub((rows as u64).max(policy.least_price));
            taken.count += rows as u64;
            taken.records.push(part);
            pass.next += 1;
        }
        taken.parts.end = pass.next;
        self.credit = credit;
        Ok((taken.parts.end > from).then_some(taken))
    }

    /// What a commit will say of the parts that were taken.
    fn entry(&self, batch: BatchId, taken: &Taken) -> Option<SnapshotEntry> {
        let pass = self.pass.as_ref()?;
        Some(SnapshotEntry {
            file: Layout::snapshot_name(batch, self.run, taken.parts.start),
            batch,
            rotation: pass.number,
            from: taken.parts.start,
            to: taken.parts.end,
            of: pass.of(),
            records: taken.count,
        })
    }

    /// The snapshot is there, or is not: then its parts are taken again.
    fn written(&mut self, entry: SnapshotEntry, result: Result<()>) {
        let pass = self.pass.as_mut().filter(|p| p.number == entry.rotation);
        match (result, pass) {
            (Ok(()), pass) => {
                if pass.is_some_and(|pass| pass.is_taken()) {
                    self.pass = None;
                }
                self.whole.push(entry);
            }
            (Err(error), pass) => {
                tracing::warn!(%error, file = entry.file, "a snapshot of the state could not be written");
                if let Some(pass) = pass {
                    pass.next = entry.from;
                }
            }
        }
    }

    async fn settle(&mut self) {
        if let Some(mut writing) = self.writing.take() {
            let result = writing.task.wait().await;
            self.written(writing.entry, result.and_then(|written| written));
        }
    }

    async fn catch_up(&mut self, done: BatchId, state: &dyn StateParts) -> Result<()> {
        let (sizes, policy) = (state.sizes(), self.policy);
        if sizes.is_empty() {
            return Ok(());
        }
        let pass = self.pass(&sizes);
        let (number, price) = (pass.number, pass.price(&sizes, &policy));
        if self.credit < price.saturating_mul(2) {
            return Ok(());
        }
        while self.pass.as_ref().is_some_and(|pass| pass.number == number) {
            let Some(taken) = self.take(state, &sizes, true)? else {
                break;
            };
            let Some(entry) = self.entry(done, &taken) else {
                break;
            };
            let whole = self.whole.len();
            let write = write(Arc::clone(&self.durable), entry.clone(), taken.records);
            let result = write.await;
            self.written(entry, result);
            if self.whole.len() == whole {
                break; // It could not be written.
            }
        }
        self.credit = 0;
        Ok(())
    }

    /// Deletes what is old, now and then; once, what earlier runs left.
    fn delete(&mut self, last: BatchId, has_state: bool) {
        if let Some(task) = &mut self.deleting {
            match task.finished() {
                Some(bounds) => self.bounds = bounds.ok().flatten(),
                None => return,
            }
            self.deleting = None;
        }
        let cadence = (self.retain / 4).clamp(1, 16);
        let first = self.bounds.is_none() && !self.swept;
        if !first && !last.0.is_multiple_of(cadence) {
            return;
        }
        let doomed = Doomed::of(&mut self.history, last, self.retain, has_state);
        let named: Option<BTreeSet<String>> = (!self.swept).then(|| self.history.named());
        if doomed.is_none() && named.is_none() {
            return;
        }
        self.swept = true;
        let purge = Purge {
            store: Arc::clone(&self.durable.store),
            layout: self.durable.layout.clone(),
            offsets: self.durable.offsets.clone(),
            commits: self.durable.commits.clone(),
        };
        let (run, bounds) = (self.run, self.bounds);
        self.deleting = Some(Task::spawn(async move {
            if let Some(named) = named {
                purge.orphans(run, &named).await;
            }
            match doomed {
                Some(doomed) => purge.run(doomed, bounds).await,
                None => bounds,
            }
        }));
    }
}

/// Writes a snapshot.
async fn write(
    durable: Arc<Durable>,
    entry: SnapshotEntry,
    parts: Vec<OperatorChanges>,
) -> Result<()> {
    let path = durable.layout.state_file(&entry.file)?;
    let file = aside(move || state_file::encode_snapshot(entry.batch, &parts)).await?;
    object::put(&*durable.store, &path, file).await
}

#[cfg(test)]
mod tests;
