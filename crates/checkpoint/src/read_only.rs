//! A checkpoint as someone sees it who only looks: nothing is claimed and nothing is written.
//!
//! It may be that of a query that runs. What is committed does not change any more, so all that is read here is of
//! one micro-batch and stays so; only what is purged meanwhile is missing then, and the error names the file.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use highwater_core::{BatchId, Error, QueryId, Result};
use highwater_storage::text::unseal;
use highwater_storage::{LogEntry, NumberedLog, object};
use object_store::{ObjectStore, path::Path};

use crate::checkpoint::{OPERATORS, damaged, missing, read_metadata, required};
use crate::operators::OperatorsEntry;
use crate::restore::Committed;
use crate::{Checkpoint, CommitEntry, Layout, OffsetsEntry, OperatorChanges, OperatorIdentity};

/// The committed micro-batches of a checkpoint.
#[derive(Clone, Debug)]
pub struct ReadOnly {
    id: QueryId,
    committed: Committed,
    offsets: NumberedLog<OffsetsEntry>,
}

impl Checkpoint {
    /// Looks into the checkpoint in `folder`.
    ///
    /// # Errors
    /// `Invalid` when there is none; else what [`open`](Self::open) says.
    pub async fn read_only(store: Arc<dyn ObjectStore>, folder: Path) -> Result<ReadOnly> {
        let layout = Layout::new(folder);
        let Some(metadata) = read_metadata(&*store, &layout).await? else {
            let at = layout.root();
            return Err(Error::invalid(format!("there is no checkpoint in `{at}`"))
                .with_hint("give the folder that is the query's checkpointLocation"));
        };
        let offsets = NumberedLog::new(Arc::clone(&store), layout.offsets());
        let commits = NumberedLog::new(Arc::clone(&store), layout.commits());
        Ok(ReadOnly {
            id: metadata.id,
            offsets,
            committed: Committed {
                store,
                layout,
                commits,
            },
        })
    }
}

impl ReadOnly {
    /// The identity of the query.
    #[must_use]
    pub fn query_id(&self) -> QueryId {
        self.id
    }

    /// The micro-batches whose state can be read; `None` when none is done yet.
    ///
    /// # Errors
    /// `Corrupt` when a commit entry is missing.
    pub async fn readable(&self) -> Result<Option<RangeInclusive<BatchId>>> {
        self.committed.readable().await
    }

    /// The micro-batches that the logs tell of, in order: intended or done, and not yet deleted.
    ///
    /// # Errors
    /// The store's error, naming the folder.
    pub async fn logged(&self) -> Result<Vec<BatchId>> {
        let mut ids = self.offsets.ids().await?;
        ids.extend(self.committed.commits.ids().await?);
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Micro-batch `id` as it was intended, and as it was done; `None` where that is not logged, or deleted.
    ///
    /// # Errors
    /// `Corrupt`, naming the entry, for one that is damaged.
    pub async fn entries(
        &self,
        id: BatchId,
    ) -> Result<(Option<OffsetsEntry>, Option<CommitEntry>)> {
        let intended = self.offsets.get(id).await?;
        Ok((intended, self.committed.commits.get(id).await?))
    }

    /// The stateful operators, as the query that ran micro-batch `id` has described them.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, when one is missing or damaged.
    pub async fn operators(&self, id: BatchId) -> Result<Vec<OperatorIdentity>> {
        let Committed {
            store,
            layout,
            commits,
        } = &self.committed;
        let named = required(commits, Some(id)).await?;
        let named = named.and_then(|commit| commit.operators);
        let path = match &named {
            Some(name) => layout.state_file(name)?,
            None => layout.operators(),
        };
        let bytes = object::read(&**store, &path).await?;
        let bytes = bytes.ok_or_else(|| missing(&path))?;
        let entry = unseal(named.as_deref().unwrap_or(OPERATORS), &bytes);
        let entry = entry.and_then(OperatorsEntry::decode);
        let operators = entry.and_then(|entry| entry.identities());
        operators.map_err(|e| damaged(&path, &e))
    }

    /// What micro-batch `id` changed, by the state file that its commit entry names.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, when one is missing or damaged.
    pub async fn changes_of(&self, id: BatchId) -> Result<Vec<OperatorChanges>> {
        self.committed.changes_of(id).await
    }

    /// Gives records that make up the state after micro-batch `upto` to `apply`, in their order, with the names of
    /// their operators.
    ///
    /// # Errors
    /// `Invalid` when the state after `upto` is no longer kept; `Corrupt`, naming the file, when one is missing or
    /// damaged; else what `apply` says.
    pub async fn restore_state(
        &self,
        upto: BatchId,
        apply: &mut (dyn FnMut(&str, RecordBatch) -> Result<()> + Send),
    ) -> Result<()> {
        self.committed.restore(upto, apply).await.map(|_| ())
    }
}
