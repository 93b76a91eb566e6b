//! The source's own log: which files each of its offsets stands for.
//!
//! Entry n holds the files of offset `{"logOffset": n}`. It is written when the offset is computed, before
//! the query logs the offset, so that a micro-batch that is run again reads the same files (Spark).

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_core::{BatchId, Error, Offset, Result, SourceContext};
use highwater_storage::CompactingLog;
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::bad::AnotherFile;
use super::committed::Mark;
use super::listing::ListedFile;
use super::location::Location;

/// A file, as it was when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LoggedFile {
    /// Its URL.
    pub(super) path: String,
    /// When it was last modified, in milliseconds since 1970.
    pub(super) timestamp: i64,
    /// Its size in bytes.
    pub(super) size: u64,
    /// What the store called its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// How far the source has come in the log of the sink that wrote the file; none for other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sink: Option<Mark>,
}

impl LoggedFile {
    /// The record of a file that a look found; `sink` for one that the log of a sink names.
    pub(super) fn new(file: ListedFile, location: &Location, sink: Option<Mark>) -> Self {
        Self {
            path: location.url_of(&file.path),
            timestamp: file.modified,
            size: file.size,
            etag: file.etag,
            sink,
        }
    }

    /// Compares the file as it is now with its record.
    ///
    /// On the local disk an etag changes when a folder is copied, so size and time decide there;
    /// elsewhere size and etag, or the time where a store gives no etags. The files of a sink are never
    /// written again, and its log knows no etags: there the size decides.
    ///
    /// # Errors
    /// `Corrupt`, naming the file and what differs.
    pub(super) fn check(&self, now: &ObjectMeta, location: &Location) -> Result<()> {
        let modified = now.last_modified.timestamp_millis();
        let difference = if now.size != self.size {
            format!("it had {} bytes and has {}", self.size, now.size)
        } else {
            match (&self.etag, &now.e_tag) {
                _ if self.sink.is_some() => return Ok(()),
                (Some(then), Some(now)) if !location.is_local() && then != now => {
                    format!("its etag was {then} and is {now}")
                }
                (Some(_), Some(_)) if !location.is_local() => return Ok(()),
                _ if modified != self.timestamp => format!(
                    "it was modified at {} and now at {modified} (ms since 1970)",
                    self.timestamp
                ),
                _ => return Ok(()),
            }
        };
        Err(Error::corrupt(format!(
            "file {} has changed since it was taken: {difference}",
            self.path
        ))
        .with_hint("write new files under new names; a file is read once and never again")
        .with_source(AnotherFile))
    }

    /// The error for a file that is gone.
    pub(super) fn gone(&self, cause: object_store::Error) -> Error {
        match cause {
            object_store::Error::NotFound { .. } => {
                let hint = match self.sink {
                    Some(_) => {
                        "the sink has rolled it up or given it up: let its files live longer than its \
                         readers fall behind, or read the directory afresh with a new checkpoint"
                    }
                    None => "files must stay until the micro-batch that reads them is committed",
                };
                Error::corrupt(format!("file {} is gone since it was taken", self.path))
                    .with_hint(hint)
                    .with_source(cause)
            }
            other => Error::from(other).context(format_args!("file {}", self.path)),
        }
    }
}

/// The position of a file source: all files of the log's entries up to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileOffset {
    /// The number of the entry; −1 before the first.
    #[serde(rename = "logOffset")]
    pub(super) entry: i64,
}

impl FileOffset {
    /// The offset of log entry `entry`.
    pub(super) fn at(entry: i64) -> Result<Offset> {
        Offset::new(&Self { entry })
    }

    /// The number of the log entry that `offset` stands for.
    pub(super) fn entry_of(offset: &Offset) -> Result<i64> {
        offset.parse::<Self>().map(|offset| offset.entry)
    }
}

/// The entries that are still needed, and the log behind them.
#[derive(Debug)]
pub(super) struct FileLog {
    /// None for a source outside a query, which remembers nothing.
    log: Option<CompactingLog<LoggedFile>>,
    entries: BTreeMap<i64, Arc<[LoggedFile]>>,
    last: i64,
}

impl FileLog {
    /// A log that is written nowhere.
    pub(super) fn in_memory() -> Self {
        Self {
            log: None,
            entries: BTreeMap::new(),
            last: -1,
        }
    }

    /// The log in a query's checkpoint, with what earlier runs wrote.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be read.
    pub(super) async fn open(context: &SourceContext) -> Result<Self> {
        let log = CompactingLog::new(Arc::clone(&context.store), context.folder.clone());
        let log = log.sealed();
        let loaded = log.load_all().await?;
        let entries: BTreeMap<i64, Arc<[LoggedFile]>> = loaded
            .into_iter()
            .map(|(id, files)| (number(id), files.into()))
            .collect();
        // Files of an entry that is gone would be found, and read, once more.
        if let Some((missing, _)) = (0..).zip(entries.keys()).find(|(n, entry)| n != *entry) {
            return Err(Error::corrupt(format!(
                "entry `{}/{missing}` of the file source's log is missing, and later entries are there",
                context.folder
            ))
            .with_hint(INCOMPLETE));
        }
        Ok(Self {
            last: entries.keys().next_back().copied().unwrap_or(-1),
            entries,
            log: Some(log),
        })
    }

    /// The number of the last entry; −1 when there is none.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// All files in entries that are still kept.
    pub(super) fn files(&self) -> impl Iterator<Item = &LoggedFile> {
        self.entries.values().flat_map(|files| files.iter())
    }

    /// Writes the next entry and gives its number.
    ///
    /// # Errors
    /// `Fenced` when another run of the query has written it.
    pub(super) async fn add(&mut self, files: Vec<LoggedFile>) -> Result<i64> {
        let entry = self.last + 1;
        if let Some(log) = &self.log {
            log.add(BatchId(entry.unsigned_abs()), &files).await?;
        }
        self.entries.insert(entry, files.into());
        self.last = entry;
        Ok(entry)
    }

    /// Refuses a log that ends before `end`, where the query has come to.
    ///
    /// # Errors
    /// `Corrupt`, naming the entry that is missing.
    pub(super) fn reaches(&self, end: i64) -> Result<()> {
        if end <= self.last {
            return Ok(());
        }
        let folder = self.log.as_ref().map_or("sources", CompactingLog::folder);
        Err(Error::corrupt(format!(
            "entry `{folder}/{}` is missing: the file source's log ends at {}, but the query has read up to {end}",
            self.last + 1,
            self.last
        ))
        .with_hint(INCOMPLETE))
    }

    /// The files of the entries after `start` up to `end`, in order.
    ///
    /// # Errors
    /// `Corrupt` when the log ends before `end`.
    pub(super) fn range(&self, start: i64, end: i64) -> Result<Vec<LoggedFile>> {
        self.reaches(end)?;
        if end <= start {
            return Ok(Vec::new());
        }
        let entries = self.entries.range(start.saturating_add(1)..=end);
        Ok(entries
            .flat_map(|(_, files)| files.iter().cloned())
            .collect())
    }

    /// Takes out the entries up to `end`; those after `start` are given back.
    pub(super) fn release(&mut self, start: i64, end: i64) -> Vec<LoggedFile> {
        let kept = self.entries.split_off(&end.saturating_add(1));
        let released = std::mem::replace(&mut self.entries, kept);
        released
            .into_iter()
            .filter(|(entry, _)| *entry > start)
            .flat_map(|(_, files)| files.to_vec())
            .collect()
    }
}

const INCOMPLETE: &str = "the checkpoint's folder `sources` is incomplete; restore it";

fn number(id: BatchId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}
