//! The checkpoint of one query, as the loop uses it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::stream::{self, StreamExt, TryStreamExt};
use highwater_core::{BatchId, Clock, Error, QueryId, Result, RunId, SourceContext};
use highwater_storage::{LogEntry, NumberedLog, object};
use object_store::memory::InMemory;
use object_store::{ObjectStore, path::Path};

use crate::claim::Claim;
use crate::entries::Metadata;
use crate::operators::OperatorsEntry;
use crate::recovery::{Recovery, check_unbroken, resume};
use crate::{CommitEntry, Layout, OffsetsEntry, OperatorChanges, OperatorIdentity, state_file};

/// Where one run of a query reads what earlier runs did, and writes what it does.
///
/// Either durable, in a folder of an object store, or temporary: then nothing is written, nothing is
/// remembered, and every call returns at once. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    id: QueryId,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The store is for what the sources keep.
    Temporary(Arc<dyn ObjectStore>),
    Durable(Arc<Durable>),
}

#[derive(Debug)]
struct Durable {
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    offsets: NumberedLog<OffsetsEntry>,
    commits: NumberedLog<CommitEntry>,
    claim: Claim,
}

/// So many state files are read at once.
const READS: usize = 8;

impl Checkpoint {
    /// Opens the checkpoint in `folder`, or begins it, and claims it for `run`.
    ///
    /// The identity of the query is the one that is there; a new checkpoint gets `fresh_id`.
    ///
    /// # Errors
    /// `Corrupt` when there are logs without an identity; `Unsupported` when the folder is a
    /// checkpoint of Spark or of a newer version; else the store's error.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        folder: Path,
        run: RunId,
        fresh_id: QueryId,
    ) -> Result<Self> {
        let layout = Layout::new(folder);
        let offsets = NumberedLog::new(Arc::clone(&store), layout.offsets());
        let commits = NumberedLog::new(Arc::clone(&store), layout.commits());
        let id = match read_metadata(&*store, &layout).await? {
            Some(metadata) => metadata.id,
            None => {
                refuse_logs(&layout, &offsets.ids().await?, &commits.ids().await?)?;
                begin(&*store, &layout, fresh_id).await?
            }
        };
        let claim = Claim::take(Arc::clone(&store), &layout, run).await?;
        let durable = Durable {
            store,
            layout,
            offsets,
            commits,
            claim,
        };
        let place = Place::Durable(Arc::new(durable));
        Ok(Self { id, place })
    }

    /// A checkpoint that remembers nothing, for a run that begins anew every time.
    #[must_use]
    pub fn temporary(_run: RunId, id: QueryId) -> Self {
        let place = Place::Temporary(Arc::new(InMemory::new()));
        Self { id, place }
    }

    /// The identity of the query.
    #[must_use]
    pub fn query_id(&self) -> QueryId {
        self.id
    }

    /// True when nothing is written: then the changes of operators need not be gathered either.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.place, Place::Temporary(_))
    }

    /// Where the source named `source` may keep what it must remember.
    #[must_use]
    pub fn source_context(&self, source: &str, clock: Arc<dyn Clock>) -> SourceContext {
        let (store, folder) = match &self.place {
            Place::Temporary(store) => (store, Layout::new(Path::default()).source(source)),
            Place::Durable(durable) => (&durable.store, durable.layout.source(source)),
        };
        SourceContext {
            store: Arc::clone(store),
            folder,
            clock,
        }
    }

    /// Reads the logs and says where to go on.
    ///
    /// # Errors
    /// `Corrupt`, naming the entry, when the logs contradict each other or an entry is damaged.
    pub async fn recover(&self) -> Result<Recovery> {
        match &self.place {
            Place::Temporary(_) => Ok(Recovery {
                resume: resume(None, None)?,
                offsets: None,
                commit: None,
                previous: None,
            }),
            Place::Durable(durable) => durable.recover().await,
        }
    }

    /// Returns when this run still owns the checkpoint.
    ///
    /// [`intend`](Self::intend) does this, too; a micro-batch that is run again is not intended again,
    /// and needs the call before it writes to the sink.
    ///
    /// # Errors
    /// `Fenced`, saying which run owns it now.
    pub async fn check_claim(&self) -> Result<()> {
        match &self.place {
            Place::Temporary(_) => Ok(()),
            Place::Durable(durable) => durable.claim.check().await,
        }
    }

    /// Writes that micro-batch `id` is intended: `offsets/N`.
    ///
    /// # Errors
    /// `Fenced` when a later run owns the checkpoint, or another run has written the entry.
    pub async fn intend(&self, id: BatchId, entry: &OffsetsEntry) -> Result<()> {
        let Place::Durable(durable) = &self.place else {
            return Ok(());
        };
        durable.claim.check().await?;
        durable.offsets.add(id, entry).await
    }

    /// Writes what micro-batch `id` changed in the state: `state/N-S`.
    ///
    /// Gives the name for the commit entry; `None` when there is nothing to write. The file counts
    /// only once a commit entry names it.
    ///
    /// # Errors
    /// `Internal` when the records cannot be written; else the store's error.
    pub async fn write_state(
        &self,
        id: BatchId,
        changes: &[OperatorChanges],
    ) -> Result<Option<String>> {
        let Place::Durable(durable) = &self.place else {
            return Ok(None);
        };
        let Some(file) = state_file::encode(id, changes)? else {
            return Ok(None);
        };
        let name = Layout::state_name(id, durable.claim.number());
        let path = durable.layout.state_file(&name)?;
        object::put(&*durable.store, &path, file).await?;
        Ok(Some(name))
    }

    /// Writes that micro-batch `id` is done: `commits/N`.
    ///
    /// # Errors
    /// `Fenced` when another run has written the entry.
    pub async fn done(&self, id: BatchId, entry: &CommitEntry) -> Result<()> {
        match &self.place {
            Place::Temporary(_) => Ok(()),
            Place::Durable(durable) => durable.commits.add(id, entry).await,
        }
    }

    /// Gives the records of all micro-batches up to `upto` to `apply`, oldest first, with the names of
    /// their operators. Exactly the state files that commit entries name are read.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, when a commit entry or a state file is missing or damaged; else
    /// what `apply` says.
    pub async fn restore_state(
        &self,
        upto: BatchId,
        apply: &mut (dyn FnMut(&str, RecordBatch) -> Result<()> + Send),
    ) -> Result<()> {
        let Place::Durable(durable) = &self.place else {
            return Ok(());
        };
        let read = |id| read_state(Arc::clone(durable), BatchId(id));
        let mut files = stream::iter((0..=upto.0).map(read)).buffered(READS);
        while let Some(changes) = files.try_next().await? {
            for OperatorChanges { operator, records } in changes {
                for records in records {
                    apply(&operator, records)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the stateful operators of the query the first time, and compares them every other time.
    ///
    /// While no micro-batch is intended there is nothing that could not fit: then what an earlier run
    /// wrote is replaced.
    ///
    /// # Errors
    /// `Invalid`, naming the operator, the column and both types, when the query does not fit the state.
    pub async fn check_operators(&self, operators: &[OperatorIdentity]) -> Result<()> {
        match &self.place {
            Place::Temporary(_) => Ok(()),
            Place::Durable(durable) => durable.check_operators(operators).await,
        }
    }
}

impl Durable {
    async fn recover(&self) -> Result<Recovery> {
        let (offsets, commits) = (self.offsets.ids().await?, self.commits.ids().await?);
        check_unbroken("offsets", &offsets)?;
        check_unbroken("commits", &commits)?;
        let resume = resume(offsets.last().copied(), commits.last().copied())?;
        let last = resume.last_logged();
        Ok(Recovery {
            resume,
            offsets: required(&self.offsets, last).await?,
            commit: required(&self.commits, resume.last_done()).await?,
            previous: match last.and_then(BatchId::previous) {
                Some(id) => self.offsets.get(id).await?,
                None => None,
            },
        })
    }

    async fn check_operators(&self, operators: &[OperatorIdentity]) -> Result<()> {
        let path = self.layout.operators();
        let ours = OperatorsEntry::new(operators);
        let Some(bytes) = object::read(&*self.store, &path).await? else {
            return object::put_new(&*self.store, &path, ours.encode()?).await;
        };
        let stored = OperatorsEntry::decode(&bytes).map_err(|e| damaged(&path, &e))?;
        match stored.check(operators) {
            Err(_) if self.offsets.ids().await?.is_empty() => {
                object::put(&*self.store, &path, ours.encode()?).await
            }
            checked => checked,
        }
    }
}

/// What micro-batch `id` changed, by the state file that its commit entry names.
async fn read_state(durable: Arc<Durable>, id: BatchId) -> Result<Vec<OperatorChanges>> {
    let commit = required(&durable.commits, Some(id)).await?;
    let Some(name) = commit.and_then(|commit| commit.state) else {
        return Ok(Vec::new());
    };
    let path = durable.layout.state_file(&name)?;
    match object::read(&*durable.store, &path).await? {
        Some(file) => state_file::decode(id, &file).map_err(|e| damaged(&path, &e)),
        None => Err(missing(&path)),
    }
}

/// An entry that must be there, when one is asked for.
async fn required<T: LogEntry>(log: &NumberedLog<T>, id: Option<BatchId>) -> Result<Option<T>> {
    let Some(id) = id else {
        return Ok(None);
    };
    match log.get(id).await? {
        Some(entry) => Ok(Some(entry)),
        None => Err(missing(&log.path(id))),
    }
}

async fn read_metadata(store: &dyn ObjectStore, layout: &Layout) -> Result<Option<Metadata>> {
    let path = layout.metadata();
    match object::read(store, &path).await? {
        Some(bytes) => Metadata::decode(&bytes)
            .map(Some)
            .map_err(|e| e.context(format_args!("checkpoint file `{path}`"))),
        None => Ok(None),
    }
}

/// Writes the identity of a new query; when another run does it first, its identity counts.
async fn begin(store: &dyn ObjectStore, layout: &Layout, id: QueryId) -> Result<QueryId> {
    let bytes = Metadata::new(id).encode()?;
    match object::put_new(store, &layout.metadata(), bytes).await {
        Ok(()) => Ok(id),
        Err(taken) => match read_metadata(store, layout).await? {
            Some(metadata) => Ok(metadata.id),
            None => Err(taken),
        },
    }
}

/// A checkpoint that has logs but no identity lost a file.
fn refuse_logs(layout: &Layout, offsets: &[BatchId], commits: &[BatchId]) -> Result<()> {
    if offsets.is_empty() && commits.is_empty() {
        return Ok(());
    }
    Err(missing(&layout.metadata()))
}

fn missing(path: &Path) -> Error {
    Error::corrupt(format!("checkpoint file `{path}` is missing")).with_hint(WAY_OUT)
}

fn damaged(path: &Path, why: &Error) -> Error {
    why.clone()
        .context(format_args!("checkpoint file `{path}` is damaged"))
        .with_hint(WAY_OUT)
}

const WAY_OUT: &str =
    "restore the checkpoint from a copy, or start the query with a new checkpoint location";

#[cfg(test)]
mod tests;
