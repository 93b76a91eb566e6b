//! What the log says, and how a micro-batch gets into it.
//!
//! ```text
//!  plain entry      the files of the micro-batch                                put if absent: the one commit point
//!  compact entry    all files so far − rolled up − older than `retention`
//!                   + bigger files + the files of the micro-batch               the same
//!  then             files that an earlier compact entry replaced are deleted
//! ```
//!
//! Which files a compact entry replaced is written to `_spark_metadata/replaced/N` before the entry, so that a run
//! that comes later finds them. They stay until the next compact entry, for readers that have read the log before.
//! A file that the log names is never deleted, whatever such a list says: the entry may not have come about.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_core::{BatchId, Clock, Error, ErrorKind, Result, RunId};
use highwater_storage::text::{decode_json, encode_json};
use highwater_storage::{CompactingLog, object};
use object_store::path::Path;

use super::rollup::{self, RolledUp};
use super::target::Target;
use crate::file::sink_log::{self, Action, SinkFile};

/// The folder of the lists of replaced files, in the log's.
const REPLACED: &str = "replaced";

/// The result as the log has it.
#[derive(Debug)]
pub(super) struct Ledger {
    log: CompactingLog<SinkFile>,
    /// The latest entry.
    latest: Option<BatchId>,
    /// The files of the result, in the order of the log.
    files: Vec<SinkFile>,
    /// Files that compact entries have replaced and that are still there.
    replaced: Vec<(BatchId, Vec<SinkFile>)>,
}

impl Ledger {
    /// Reads the log.
    ///
    /// # Errors
    /// `Corrupt`, naming the entry that is damaged.
    pub(super) async fn load(target: &Target) -> Result<Self> {
        let location = &target.location;
        let log = sink_log::sink_log(Arc::clone(target.store()), &location.base);
        let log = match target.options.compact_every {
            Some(every) => log.compact_every(every),
            None => log,
        };
        let mut ledger = Self {
            log,
            latest: None,
            files: Vec::new(),
            replaced: replaced(target).await?,
        };
        let mut left: HashSet<String> = HashSet::new();
        for (id, lines) in ledger.log.load_all().await? {
            ledger.latest = Some(id);
            for line in lines {
                match line.action {
                    Action::Add => ledger.files.push(line),
                    Action::Delete => drop(left.insert(line.path)),
                }
            }
        }
        ledger.files.retain(|file| !left.contains(&file.path));
        Ok(ledger)
    }

    /// The latest micro-batch in the log.
    pub(super) fn latest(&self) -> Option<BatchId> {
        self.latest
    }

    /// True when the log has micro-batch `id`, perhaps as part of a compact entry.
    pub(super) fn has(&self, id: BatchId) -> bool {
        self.latest.is_some_and(|latest| id <= latest)
    }

    /// Makes `written` visible as micro-batch `id`.
    ///
    /// # Errors
    /// `Fenced` when another run wrote that entry: then nothing of `written` is in the log. After any other error
    /// the log must be read again, as the entry may be there or not.
    pub(super) async fn commit(
        &mut self,
        target: &Target,
        run: RunId,
        clock: &dyn Clock,
        id: BatchId,
        written: &[SinkFile],
    ) -> Result<()> {
        if !self.log.is_compact(id) {
            self.log.add(id, written).await?;
            self.files.extend_from_slice(written);
            self.latest = Some(id);
            return Ok(());
        }
        self.expire(target, clock);
        let rolled = self.roll_up(target, run, id).await;
        if !rolled.replaced.is_empty() {
            let path = list_path(target, id);
            object::put(&**target.store(), &path, encode_json(&rolled.replaced)?).await?;
        }
        let gone: HashSet<&str> = rolled.replaced.iter().map(|f| f.path.as_str()).collect();
        self.files.retain(|file| !gone.contains(file.path.as_str()));
        let kept: HashSet<&str> = self.files.iter().map(|f| f.path.as_str()).collect();
        let added = [&rolled.added, written].concat();
        let kept =
            |file: &SinkFile| file.action == Action::Add && kept.contains(file.path.as_str());
        self.log.add_keeping(id, &added, kept).await?;
        self.files.extend(added);
        self.latest = Some(id);
        self.delete_replaced(target).await;
        if !rolled.replaced.is_empty() {
            self.replaced.push((id, rolled.replaced));
        }
        Ok(())
    }

    /// Forgets files that are older than `retention` (Spark).
    fn expire(&mut self, target: &Target, clock: &dyn Clock) {
        let Some(retention) = target.options.retention else {
            return;
        };
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let oldest = clock.now().as_millis().saturating_sub(retention);
        self.files.retain(|file| file.modification_time >= oldest);
    }

    /// Rolls small files up, when it is time. One that fails is tried again at the next compact entry.
    async fn roll_up(&self, target: &Target, run: RunId, id: BatchId) -> RolledUp {
        let Some(every) = target.options.compact_every else {
            return RolledUp::default();
        };
        if !rollup::is_due(id, every, self.log.interval()) {
            return RolledUp::default();
        }
        match rollup::roll_up(target, run, &self.files).await {
            Ok(rolled) => rolled,
            Err(error) => {
                tracing::warn!(%error, batch = id.0, "small files were not rolled up");
                RolledUp::default()
            }
        }
    }

    /// Deletes what earlier compact entries replaced; what cannot be deleted now is, after the next one.
    async fn delete_replaced(&mut self, target: &Target) {
        let named: HashSet<&str> = self.files.iter().map(|f| f.path.as_str()).collect();
        let mut later = Vec::new();
        for (id, files) in std::mem::take(&mut self.replaced) {
            let unnamed = files.iter().filter(|f| !named.contains(f.path.as_str()));
            let paths = unnamed.filter_map(|f| target.location.path_of(&f.path).ok());
            let paths: Vec<Path> = paths.collect();
            if let Err(error) = delete(target, id, paths).await {
                tracing::warn!(%error, "files that were rolled up into others are still there");
                later.push((id, files));
            }
        }
        self.replaced = later;
    }

    /// After another run was found to have written entry `id`: true when it is ours nevertheless, because the
    /// store did what we asked for and lost the answer.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) async fn is_ours(
        &mut self,
        target: &Target,
        id: BatchId,
        written: &[SinkFile],
    ) -> Result<bool> {
        *self = Self::load(target).await?;
        let named: HashSet<&str> = self.files.iter().map(|f| f.path.as_str()).collect();
        let all = written
            .iter()
            .all(|file| named.contains(file.path.as_str()));
        Ok(self.has(id) && !written.is_empty() && all)
    }
}

/// True for the error that says that another run wrote the entry.
pub(super) fn is_taken(error: &Error) -> bool {
    error.kind() == ErrorKind::Fenced
}

fn lists(target: &Target) -> Path {
    let base = target.location.base.clone();
    base.join(sink_log::FOLDER).join(REPLACED)
}

fn list_path(target: &Target, id: BatchId) -> Path {
    lists(target).join(id.to_string())
}

/// The files to be deleted, then the list of them.
async fn delete(target: &Target, id: BatchId, files: Vec<Path>) -> Result<()> {
    object::remove(&**target.store(), files).await?;
    object::remove(&**target.store(), vec![list_path(target, id)]).await
}

/// The lists that earlier runs left.
async fn replaced(target: &Target) -> Result<Vec<(BatchId, Vec<SinkFile>)>> {
    let mut found = Vec::new();
    for name in object::names(&**target.store(), &lists(target)).await? {
        let Ok(id) = name.parse().map(BatchId) else {
            continue;
        };
        if let Some(bytes) = object::read(&**target.store(), &list_path(target, id)).await? {
            match decode_json::<Vec<SinkFile>>(&bytes) {
                Ok(files) => found.push((id, files)),
                Err(error) => {
                    tracing::warn!(%error, list = id.0, "a list of replaced files is damaged")
                }
            }
        }
    }
    found.sort_by_key(|(id, _)| *id);
    Ok(found)
}
