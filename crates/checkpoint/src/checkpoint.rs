//! The checkpoint of one query, as the loop uses it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use highwater_core::{BatchId, Clock, Error, ErrorKind, QueryId, Result, RunId, SourceContext};
use highwater_storage::text::{seal, unseal};
use highwater_storage::{LogEntry, NumberedLog, object};
use object_store::memory::InMemory;
use object_store::{ObjectStore, path::Path};
use parking_lot::Mutex;

use crate::claim::Claim;
use crate::entries::Metadata;
use crate::operators::OperatorsEntry;
use crate::recovery::{Recovery, check_unbroken, resume};
use crate::restore::{Committed, Restored};
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
pub(crate) struct Durable {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) layout: Layout,
    pub(crate) offsets: NumberedLog<OffsetsEntry>,
    pub(crate) commits: NumberedLog<CommitEntry>,
    claim: Claim,
    /// The name of the description of the operators, where it is not `operators`.
    operators: Mutex<Option<String>>,
}

/// What the file of the operators is sealed as.
pub(crate) const OPERATORS: &str = "operators";

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
            None if offsets.ids().await?.is_empty() && commits.ids().await?.is_empty() => {
                begin(&*store, &layout, fresh_id).await?
            }
            // Another run may have begun the checkpoint between the two looks.
            None => match read_metadata(&*store, &layout).await? {
                Some(metadata) => metadata.id,
                None => return Err(missing(&layout.metadata())),
            },
        };
        let claim = Claim::take(Arc::clone(&store), &layout, run).await?;
        let durable = Durable {
            store,
            layout,
            offsets,
            commits,
            claim,
            operators: Mutex::default(),
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
        durable.offsets.add(id, entry).await?;
        // A later run may have claimed between the look and the entry, and have listed the log before the entry
        // was there. Then this look finds it, before anything is written to the sink. A run that claims after
        // this look finds the entry, and runs the very same micro-batch.
        durable.claim.check().await
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
        object::put_deferred(&*durable.store, &path, file).await?;
        Ok(Some(name))
    }

    /// Writes that micro-batch `id` is done: `commits/N`.
    ///
    /// # Errors
    /// `Fenced` when another run has written the entry.
    pub async fn done(&self, id: BatchId, entry: &CommitEntry) -> Result<()> {
        match &self.place {
            Place::Temporary(_) => Ok(()),
            Place::Durable(durable) => {
                let operators = durable.operators.lock().clone();
                let entry = CommitEntry {
                    operators,
                    ..entry.clone()
                };
                durable.commits.add(id, &entry).await
            }
        }
    }

    /// Gives records that make up the state after micro-batch `upto` to `apply`, in their order, with the names of
    /// their operators: the newest snapshots that are whole, and what changed since. Exactly the files that commit
    /// entries name are read.
    ///
    /// # Errors
    /// `Invalid` when the state after `upto` is no longer kept; `Corrupt`, naming the file, when a commit entry, a
    /// state file or a snapshot that is needed is missing or damaged; else what `apply` says.
    pub async fn restore_state(
        &self,
        upto: BatchId,
        apply: &mut (dyn FnMut(&str, RecordBatch) -> Result<()> + Send),
    ) -> Result<()> {
        self.restore(upto, apply).await.map(|_| ())
    }

    /// As [`restore_state`](Self::restore_state); what was found is for the upkeep of the checkpoint.
    ///
    /// # Errors
    /// Those of `restore_state`.
    pub async fn restore(
        &self,
        upto: BatchId,
        apply: &mut (dyn FnMut(&str, RecordBatch) -> Result<()> + Send),
    ) -> Result<Restored> {
        match &self.place {
            Place::Temporary(_) => Ok(Restored::default()),
            Place::Durable(durable) => durable.committed().restore(upto, apply).await,
        }
    }

    /// What micro-batch `id` changed in the state.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, when its commit entry or state file is missing or damaged.
    pub async fn changes_of(&self, id: BatchId) -> Result<Vec<OperatorChanges>> {
        match &self.place {
            Place::Temporary(_) => Ok(Vec::new()),
            Place::Durable(durable) => durable.committed().changes_of(id).await,
        }
    }

    /// The files and the number of the run; `None` when nothing is written.
    pub(crate) fn claimed(&self) -> Option<(&Arc<Durable>, u64)> {
        match &self.place {
            Place::Temporary(_) => None,
            Place::Durable(durable) => Some((durable, durable.claim.number())),
        }
    }

    /// Writes the stateful operators of the query the first time, and compares them every other time.
    ///
    /// While no micro-batch is done there is nothing that could not fit. With `evolve` value columns may be added.
    /// What is then to be described otherwise is written to a file of this run, which its commits name.
    ///
    /// # Errors
    /// `Invalid`, naming the operator, the column and both types, when the query does not fit the state.
    pub async fn check_operators(
        &self,
        operators: &[OperatorIdentity],
        evolve: bool,
    ) -> Result<()> {
        match &self.place {
            Place::Temporary(_) => Ok(()),
            Place::Durable(durable) => durable.check_operators(operators, evolve).await,
        }
    }
}

impl Durable {
    fn committed(&self) -> Committed {
        Committed {
            store: Arc::clone(&self.store),
            layout: self.layout.clone(),
            commits: self.commits.clone(),
        }
    }

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

    async fn check_operators(&self, operators: &[OperatorIdentity], evolve: bool) -> Result<()> {
        let ours = OperatorsEntry::new(operators);
        let last = self.commits.ids().await?.pop();
        let named = required(&self.commits, last).await?;
        let named = named.and_then(|commit| commit.operators);
        let path = match &named {
            Some(name) => self.layout.state_file(name)?,
            None => self.layout.operators(),
        };
        let seal_name = named.as_deref().unwrap_or(OPERATORS);
        let bytes = match (object::read(&*self.store, &path).await?, last) {
            (Some(bytes), _) => bytes,
            (None, Some(_)) => return Err(missing(&path)),
            (None, None) => {
                let sealed = seal(OPERATORS, ours.encode()?);
                match object::put_new(&*self.store, &path, sealed).await {
                    // Another run that starts at the same time was faster.
                    Err(taken) if taken.kind() == ErrorKind::Fenced => {
                        let theirs = object::read(&*self.store, &path).await?;
                        theirs.ok_or(taken)?
                    }
                    written => return written,
                }
            }
        };
        let stored = unseal(seal_name, &bytes).and_then(OperatorsEntry::decode);
        let stored = stored.map_err(|e| damaged(&path, &e))?;
        let next = match last {
            None => (stored != ours).then_some(ours),
            Some(_) => stored.check(operators, evolve)?,
        };
        let name = match next {
            None => named,
            Some(next) => {
                let name = Layout::operators_name(self.claim.number());
                let path = self.layout.state_file(&name)?;
                object::put(&*self.store, &path, seal(&name, next.encode()?)).await?;
                Some(name)
            }
        };
        *self.operators.lock() = name;
        Ok(())
    }
}

/// An entry that must be there, when one is asked for.
pub(crate) async fn required<T: LogEntry>(
    log: &NumberedLog<T>,
    id: Option<BatchId>,
) -> Result<Option<T>> {
    let Some(id) = id else {
        return Ok(None);
    };
    match log.get(id).await? {
        Some(entry) => Ok(Some(entry)),
        None => Err(missing(&log.path(id))),
    }
}

pub(crate) async fn read_metadata(
    store: &dyn ObjectStore,
    layout: &Layout,
) -> Result<Option<Metadata>> {
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

pub(crate) fn missing(path: &Path) -> Error {
    Error::corrupt(format!("checkpoint file `{path}` is missing")).with_hint(WAY_OUT)
}

pub(crate) fn damaged(path: &Path, why: &Error) -> Error {
    why.clone()
        .context(format_args!("checkpoint file `{path}` is damaged"))
        .with_hint(WAY_OUT)
}

const WAY_OUT: &str =
    "restore the checkpoint from a copy, or start the query with a new checkpoint location";

#[cfg(test)]
mod tests;
