//! Deleting what no restart needs: beside the loop, oldest first, so that a log never has a hole.
//!
//! At least the last `retain` micro-batches can be restored. Before the first of them only what a restore of it needs
//! is kept: the newest rotation that is whole as of it, and what changed since. A deletion that fails is a warning; what
//! is left over is deleted by the next run.

use std::collections::BTreeSet;
use std::sync::Arc;

use highwater_core::{BatchId, Result};
use highwater_storage::{LogEntry, NumberedLog, object};
use object_store::ObjectStore;

use crate::history::History;
use crate::{CommitEntry, Layout, OffsetsEntry};

/// What is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doomed {
    /// Entries of the offset log before this.
    pub(crate) offsets: BatchId,
    /// Entries of the commit log before this.
    pub(crate) commits: BatchId,
    /// State files and snapshots, relative to the checkpoint's folder.
    pub(crate) files: Vec<String>,
}

impl Doomed {
    /// What goes once micro-batch `last` is done and `retain` are to stay; the history forgets it.
    pub(crate) fn of(
        history: &mut History,
        last: BatchId,
        retain: u64,
        has_state: bool,
    ) -> Option<Self> {
        let oldest = BatchId((last.0 + 1).checked_sub(retain.max(1)).filter(|n| *n > 0)?);
        if !has_state {
            return Some(Self {
                offsets: oldest,
                commits: oldest,
                files: Vec::new(),
            });
        }
        let newest = history.rotations(oldest).into_iter().next();
        let (commits, files) = newest.map_or_else(Default::default, |rotation| {
            (rotation.first.next(), history.forget_before(&rotation))
        });
        Some(Self {
            offsets: oldest,
            commits,
            files,
        })
    }
}

/// The first entries of the logs that may still be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    offsets: BatchId,
    commits: BatchId,
}

/// Who deletes.
#[derive(Clone, Debug)]
pub(crate) struct Purge {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) layout: Layout,
    pub(crate) offsets: NumberedLog<OffsetsEntry>,
    pub(crate) commits: NumberedLog<CommitEntry>,
}

impl Purge {
    /// Deletes; where the logs begin then. Without `bounds` it looks where they begin.
    pub(crate) async fn run(self, doomed: Doomed, bounds: Option<Bounds>) -> Option<Bounds> {
        let result = self.delete(doomed, bounds).await;
        if let Err(error) = &result {
            tracing::warn!(%error, "old files of the checkpoint are left for the next run");
        }
        result.ok()
    }

    async fn delete(&self, doomed: Doomed, bounds: Option<Bounds>) -> Result<Bounds> {
        let bounds = match bounds {
            Some(bounds) => bounds,
            None => Bounds {
                offsets: first(&self.offsets).await?,
                commits: first(&self.commits).await?,
            },
        };
        self.cut(&self.offsets, bounds.offsets, doomed.offsets)
            .await?;
        // Entries before files: a file that no entry names is found by the next run.
        self.cut(&self.commits, bounds.commits, doomed.commits)
            .await?;
        for name in &doomed.files {
            let path = self.layout.state_file(name)?;
            object::remove(&*self.store, vec![path]).await?;
        }
        Ok(Bounds {
            offsets: bounds.offsets.max(doomed.offsets),
            commits: bounds.commits.max(doomed.commits),
        })
    }

    /// Deletes entries one after the other: whenever this ends, the rest of the log has no hole.
    async fn cut<T: LogEntry>(
        &self,
        log: &NumberedLog<T>,
        from: BatchId,
        before: BatchId,
    ) -> Result<()> {
        for id in from.0..before.0 {
            object::remove(&*self.store, vec![log.path(BatchId(id))]).await?;
        }
        Ok(())
    }

    /// Deletes the state files and snapshots of runs before `run` that are not `named` by a commit.
    ///
    /// Those runs can name nothing any more: `run` has committed.
    pub(crate) async fn orphans(&self, run: u64, named: &BTreeSet<String>) {
        if let Err(error) = self.delete_orphans(run, named).await {
            tracing::warn!(%error, "files of earlier runs are left for the next run");
        }
    }

    async fn delete_orphans(&self, run: u64, named: &BTreeSet<String>) -> Result<()> {
        let names = object::names(&*self.store, &self.layout.states()).await?;
        for name in names {
            let earlier = Layout::run_of(&name).is_some_and(|of| of < run);
            let name = format!("state/{name}");
            if earlier && !named.contains(&name) {
                let path = self.layout.state_file(&name)?;
                object::remove(&*self.store, vec![path]).await?;
            }
        }
        Ok(())
    }
}

async fn first<T: LogEntry>(log: &NumberedLog<T>) -> Result<BatchId> {
    let ids = log.ids().await?;
    Ok(ids.first().copied().unwrap_or_default())
}
