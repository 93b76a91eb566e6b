//! Bringing the state back: the newest rotation of snapshots that is whole, and what changed since.
//!
//! Snapshots are put in at the micro-batch they are as of, between the state files around it, and all of them as plain
//! upserts. Nobody need know which key is in which part: of every key the last event wins. A record that was evicted
//! before its part was taken is not in the part, and its eviction is in a state file.
//!
//! All snapshots are checked before the first record is put back, so that an older rotation can be used instead. State
//! files are read ahead; decoding goes on beside the records being put back.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use highwater_core::{BatchId, Error, ErrorKind, Result};
use highwater_storage::{NumberedLog, object};
use object_store::{ObjectStore, path::Path};

use crate::checkpoint::{damaged, missing, required};
use crate::history::{History, Rotation};
use crate::recovery::check_unbroken;
use crate::snapshot::aside;
use crate::state_file::{self, Kind};
use crate::{CommitEntry, Layout, OperatorChanges, SnapshotEntry};

/// So many files are read at once, and so many are decoded ahead.
const READS: usize = 8;
/// So many entries of the commit log are read at once.
const ENTRIES: usize = 32;

/// Who takes records, with the names of their operators.
pub(crate) type Apply<'a> = &'a mut (dyn FnMut(&str, RecordBatch) -> Result<()> + Send);

/// What is committed in a checkpoint, to be read.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) layout: Layout,
    pub(crate) commits: NumberedLog<CommitEntry>,
}

/// What restoring has found, for the upkeep of the checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub(crate) history: History,
    /// For each micro-batch since the last part of the rotation that was used, the records it changed.
    pub(crate) changed: Vec<u64>,
}

/// A file whose records are put back; a snapshot was read already.
struct File {
    path: Path,
    batch: BatchId,
    kind: Kind,
    bytes: Option<Bytes>,
}

impl Committed {
    /// Gives the state after micro-batch `upto` to `apply`, oldest records first.
    pub(crate) async fn restore(&self, upto: BatchId, apply: Apply<'_>) -> Result<Restored> {
        let first = self.commits.ids().await?.first().copied();
        if first.is_some_and(|first| first > upto) {
            return Err(self.too_old(upto, first).await?);
        }
        let mut history = self.history(upto).await?;
        let (rotation, snapshots) = match self.choose(&mut history, upto).await? {
            Some((rotation, snapshots)) => (Some(rotation), snapshots),
            None => (None, Vec::new()),
        };
        let first = rotation.as_ref().map(|rotation| rotation.first);
        let last = rotation.as_ref().map(|rotation| rotation.last);
        let mut files = snapshots;
        for (batch, state) in history.states_after(first) {
            if let Some(name) = state {
                files.push(File {
                    path: self.layout.state_file(name)?,
                    batch: *batch,
                    kind: Kind::Changes,
                    bytes: None,
                });
            }
        }
        // What a micro-batch changed comes before a part that is as of it.
        files.sort_by_key(|file| (file.batch, file.kind == Kind::Snapshot));
        let since = last.map_or(0, |last| last.0 + 1);
        let mut changed = vec![0; usize::try_from((upto.0 + 1).saturating_sub(since)).unwrap_or(0)];
        let decoded = files.into_iter().map(|file| self.decode(file));
        let mut decoded = stream::iter(decoded).buffered(READS);
        while let Some((batch, kind, changes)) = decoded.try_next().await? {
            for OperatorChanges { operator, records } in changes {
                for records in records {
                    let at = batch.0.checked_sub(since).filter(|_| kind == Kind::Changes);
                    if let Some(count) =
                        at.and_then(|at| changed.get_mut(usize::try_from(at).ok()?))
                    {
                        *count += records.num_rows() as u64;
                    }
                    apply(&operator, records)?;
                }
            }
        }
        Ok(Restored { history, changed })
    }

    /// What micro-batch `id` changed, by the state file that its commit entry names.
    pub(crate) async fn changes_of(&self, id: BatchId) -> Result<Vec<OperatorChanges>> {
        let commit = required(&self.commits, Some(id)).await?;
        let Some(name) = commit.and_then(|commit| commit.state) else {
            return Ok(Vec::new());
        };
        let path = self.layout.state_file(&name)?;
        let bytes = self.read(&path).await?;
        state_file::decode(id, &bytes).map_err(|e| damaged(&path, &e))
    }

    /// The micro-batches whose state can be restored; `None` when none is done yet.
    pub(crate) async fn readable(&self) -> Result<Option<RangeInclusive<BatchId>>> {
        let ids = self.commits.ids().await?;
        check_unbroken("commits", &ids)?;
        let Some(last) = ids.last() else {
            return Ok(None);
        };
        let history = self.history(*last).await?;
        let first = match history.first() {
            Some(BatchId(0)) => Some(BatchId(0)),
            first if history.is_stateless() => first,
            first => {
                let usable = usable(&history, *last, first);
                usable.map(|rotation| rotation.since).min()
            }
        };
        match first {
            Some(first) => Ok(Some(first..=*last)),
            None => Err(missing(&self.commits.path(BatchId(0)))),
        }
    }

    /// What the commits up to `upto` name.
    async fn history(&self, upto: BatchId) -> Result<History> {
        let mut ids = self.commits.ids().await?;
        check_unbroken("commits", &ids)?;
        ids.retain(|id| *id <= upto);
        if ids.last() != Some(&upto) {
            return Err(missing(&self.commits.path(upto)));
        }
        let read = ids.into_iter().map(|id| self.entry(id));
        let mut entries = stream::iter(read).buffered(ENTRIES);
        let mut history = History::default();
        while let Some((id, entry)) = entries.try_next().await? {
            match entry {
                Some(entry) => history.push(id, &entry),
                // The first ones may be purged while they are read.
                None if history.first().is_none() => {}
                None => return Err(missing(&self.commits.path(id))),
            }
        }
        Ok(history)
    }

    async fn entry(&self, id: BatchId) -> Result<(BatchId, Option<CommitEntry>)> {
        Ok((id, self.commits.get(id).await?))
    }

    /// The newest rotation that can be read, and its files; `None` for the beginning of all.
    async fn choose(
        &self,
        history: &mut History,
        upto: BatchId,
    ) -> Result<Option<(Rotation, Vec<File>)>> {
        let first = history.first();
        let mut refused = None;
        let candidates: Vec<Rotation> = usable(history, upto, first).collect();
        for rotation in candidates {
            match self.snapshots(&rotation).await {
                Ok(files) => return Ok(Some((rotation, files))),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(%error, "an older snapshot of the state is used instead");
                    history.set_damaged(rotation.number);
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match (first, refused) {
            (Some(BatchId(0)), _) => Ok(None),
            (_, Some(error)) => Err(error),
            (first, None) => Err(self.too_old(upto, first).await?),
        }
    }

    /// The files of a rotation, read and checked.
    async fn snapshots(&self, rotation: &Rotation) -> Result<Vec<File>> {
        let files: Vec<_> = rotation
            .files
            .iter()
            .map(|entry| self.snapshot(entry))
            .collect();
        stream::iter(files).buffered(READS).try_collect().await
    }

    async fn snapshot(&self, entry: &SnapshotEntry) -> Result<File> {
        let path = self.layout.state_file(&entry.file)?;
        let (bytes, batch) = (self.read(&path).await?, entry.batch);
        let whole = bytes.clone();
        aside(move || state_file::check_snapshot(batch, &whole))
            .await
            .map_err(|e| damaged(&path, &e))?;
        Ok(File {
            path,
            batch,
            kind: Kind::Snapshot,
            bytes: Some(bytes),
        })
    }

    async fn decode(&self, file: File) -> Result<(BatchId, Kind, Vec<OperatorChanges>)> {
        let File {
            path,
            batch,
            kind,
            bytes,
        } = file;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => self.read(&path).await?,
        };
        let decoded = aside(move || state_file::decode_as(kind, batch, &bytes)).await;
        let changes = decoded.map_err(|e| damaged(&path, &e))?;
        Ok((batch, kind, changes))
    }

    async fn read(&self, path: &Path) -> Result<Bytes> {
        let bytes = object::read(&*self.store, path).await?;
        bytes.ok_or_else(|| missing(path))
    }

    /// Why nothing leads to micro-batch `upto`: it is no longer kept, or a commit entry is gone.
    async fn too_old(&self, upto: BatchId, first: Option<BatchId>) -> Result<Error> {
        if let Some(kept) = self.readable().await?.filter(|kept| !kept.contains(&upto)) {
            let (first, last) = kept.into_inner();
            return Ok(Error::invalid(format!(
                "the state after micro-batch {upto} is no longer kept: the checkpoint has that after micro-batches \
                 {first} to {last}"
            ))
            .with_hint("to keep more, raise `highwater.min_batches_to_retain`"));
        }
        let gone = first.and_then(BatchId::previous).unwrap_or_default();
        Ok(missing(&self.commits.path(gone)))
    }
}

/// The rotations from which micro-batch `upto` can be reached with the commits from `first` on.
fn usable(
    history: &History,
    upto: BatchId,
    first: Option<BatchId>,
) -> impl Iterator<Item = Rotation> {
    let rotations = history.rotations(upto).into_iter();
    rotations.filter(move |rotation| first.is_some_and(|first| first <= rotation.first.next()))
}
