//! Files that cannot be read: set aside (`badFilesPath`), or passed over (`ignoreCorruptFiles`, `ignoreMissingFiles`).
//!
//! ```text
//!  decoded to its end? ── yes ──► its rows go on
//!        └── no ──► the decision is logged ──► a line in badFilesPath/bad_files/ ──► no row, named in the progress
//! ```
//!
//! A file that is set aside gives no row at all, so all of it is decoded, every column, before its first row goes on:
//! files must fit into memory, one for each decoder. Whether a file is bad does not depend on the columns that are
//! asked for. The decision is in the query's checkpoint before anything after the file goes on: a micro-batch that
//! runs again leaves the file out again, whatever has become of it.
//!
//! A store that does not answer is no bad file, and neither is a file that has changed since it was taken.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt};
use highwater_core::hash::stable_hash;
use highwater_core::{Error, ErrorKind, OffsetRange, Result, SourceContext};
use highwater_storage::object;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::location::Location;
use super::log::LoggedFile;
use super::options::FileSourceOptions;

/// What becomes of files that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct BadFiles {
    /// Where the lines about files that were set aside go.
    aside: Option<(Arc<dyn ObjectStore>, Path)>,
    ignore_corrupt: bool,
    ignore_missing: bool,
}

impl BadFiles {
    /// As the options say; `aside` is the place of `badFilesPath`.
    ///
    /// # Errors
    /// `Invalid` when that is no folder, or one that the source reads.
    pub(super) fn new(
        options: &FileSourceOptions,
        source: &Location,
        aside: Option<Location>,
    ) -> Result<Self> {
        let aside = match aside {
            Some(location) => {
                let wrong = |why: &str| {
                    let path = &location.display;
                    Error::invalid(format!("option `badFilesPath` is `{path}`: {why}"))
                        .with_option("badFilesPath")
                };
                if location.is_glob() {
                    return Err(wrong("it must not have wildcards"));
                }
                if location.url == source.url && source.overlaps(&location.base) {
                    return Err(wrong("the source would read what is written there")
                        .with_hint("choose a folder outside the source's path"));
                }
                Some((location.store, location.base.join("bad_files")))
            }
            None => None,
        };
        Ok(Self {
            aside,
            ignore_corrupt: options.ignore_corrupt_files,
            ignore_missing: options.ignore_missing_files,
        })
    }

    /// Bad files are set aside, so they are decoded to their end first.
    pub(super) fn set_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// What becomes of a file that was read until this error.
    fn judge(&self, error: &Error) -> Option<Fate> {
        if is_missing(error) {
            return self.ignore_missing.then_some(Fate::Missing);
        }
        if !is_bad(error) {
            return None;
        }
        if self.set_aside() {
            return Some(Fate::Aside);
        }
        // A malformed row under FAILFAST fails the query also then (Spark).
        let malformed = error.condition() == Some("MALFORMED_RECORD_IN_PARSING");
        (self.ignore_corrupt && !malformed).then_some(Fate::Corrupt)
    }
}

/// What has become of a file; the name it has in the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Aside,
    Corrupt,
    Missing,
}

impl Fate {
    fn metric(self) -> &'static str {
        match self {
            Self::Aside => "badFiles",
            Self::Corrupt => "ignoredCorruptFiles",
            Self::Missing => "ignoredMissingFiles",
        }
    }
}

/// The cause of an error about a file that is not the one that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnotherFile;

impl fmt::Display for AnotherFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is another file by now")
    }
}

impl StdError for AnotherFile {}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut cause = error.source();
    std::iter::from_fn(move || {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
}

fn is_missing(error: &Error) -> bool {
    causes(error).any(|cause| {
        let cause = cause.downcast_ref::<object_store::Error>();
        matches!(cause, Some(object_store::Error::NotFound { .. }))
    })
}

/// True when it is the file's fault, not the store's, and not that of the reader's memory.
fn is_bad(error: &Error) -> bool {
    let kind = error.kind();
    let of_file = [
        ErrorKind::Corrupt,
        ErrorKind::Invalid,
        ErrorKind::Unsupported,
    ];
    of_file.contains(&kind)
        && !causes(error)
            .any(|cause| cause.is::<object_store::Error>() || cause.is::<AnotherFile>())
}

/// The line about a file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    path: String,
    modification_time: i64,
    size: u64,
    reason: String,
}

impl Record {
    fn new(file: &LoggedFile, error: &Error) -> Self {
        let mut reason = error.message().to_owned();
        if let Some(cause) = causes(error).last().map(ToString::to_string)
            && !reason.contains(&cause)
        {
            reason = format!("{reason}: {cause}");
        }
        Self {
            path: file.path.clone(),
            modification_time: file.timestamp,
            size: file.size,
            reason,
        }
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)
            .map_err(|e| Error::internal("a bad file cannot be told").with_source(e))?;
        line.push(b'\n');
        Ok(line)
    }
}

/// The name of the record of a file: the same whenever and by whomever this file is set aside.
fn name_of(file: &LoggedFile) -> String {
    let identity = format!("{}\n{}\n{}", file.path, file.timestamp, file.size);
    format!("{:016x}.json", stable_hash(identity.as_bytes()))
}

/// What one query knows of its bad files.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The folder of the decisions in the query's checkpoint.
    log: Option<(Arc<dyn ObjectStore>, Path)>,
    state: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// What was decided, by the names of the records.
    aside: BTreeMap<String, Record>,
    /// The range that was read last, and what became of files in it.
    range: Option<OffsetRange>,
    fates: BTreeMap<Fate, BTreeMap<String, String>>,
}

impl Ledger {
    /// The decisions of earlier runs of the query.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, when one cannot be read.
    pub(super) async fn open(context: &SourceContext) -> Result<Self> {
        let (store, folder) = (
            Arc::clone(&context.store),
            context.folder.clone().join("bad"),
        );
        let mut aside = BTreeMap::new();
        for name in object::names(&*store, &folder).await? {
            let path = folder.clone().join(name.as_str());
            let Some(bytes) = object::read(&*store, &path).await? else {
                continue;
            };
            let record = serde_json::from_slice(&bytes).map_err(|e| {
                Error::corrupt(format!("checkpoint file `{path}` is damaged")).with_source(e)
            })?;
            aside.insert(name, record);
        }
        let state = Told {
            aside,
            ..Told::default()
        };
        Ok(Self {
            log: Some((store, folder)),
            state: Mutex::new(state),
        })
    }

    /// The query reads `range`; what was told of another one is over.
    pub(super) fn begin(&self, range: &OffsetRange) {
        let mut state = self.state.lock();
        if state.range.as_ref() != Some(range) {
            state.range = Some(range.clone());
            state.fates.clear();
        }
    }

    /// The files of `range` that were not read, for the progress: lists of URLs in JSON.
    pub(super) fn metrics(&self, range: &OffsetRange) -> BTreeMap<String, String> {
        let state = self.state.lock();
        if state.range.as_ref() != Some(range) {
            return BTreeMap::new();
        }
        let fates = state.fates.iter().map(|(fate, files)| {
            let files: Vec<&String> = files.keys().collect();
            let files = serde_json::to_string(&files).unwrap_or_default();
            (fate.metric().to_owned(), files)
        });
        fates.collect()
    }

    fn decided(&self, name: &str) -> Option<Record> {
        self.state.lock().aside.get(name).cloned()
    }

    /// Logs that a file is set aside; of two readers that find it bad, the first one's reason stays.
    async fn decide(&self, name: &str, record: Record) -> Result<Record> {
        if let Some(decided) = self.decided(name) {
            return Ok(decided);
        }
        if let Some((store, folder)) = &self.log {
            let path = folder.clone().join(name);
            object::put(&**store, &path, record.encode()?).await?;
        }
        let mut state = self.state.lock();
        Ok(state.aside.entry(name.to_owned()).or_insert(record).clone())
    }

    fn tell(&self, fate: Fate, file: &str, reason: &str) {
        let what = match fate {
            Fate::Aside => "a bad file is set aside: none of its rows is read",
            Fate::Corrupt => "the rest of a corrupt file is ignored",
            Fate::Missing => "a missing file is ignored",
        };
        let mut state = self.state.lock();
        let files = state.fates.entry(fate).or_default();
        if files.insert(file.to_owned(), reason.to_owned()).is_none() {
            tracing::warn!(file, reason, "{what}");
        }
    }
}

/// A file that is read under watch.
pub(super) struct Watched {
    pub(super) file: LoggedFile,
    pub(super) bad: Arc<BadFiles>,
    pub(super) ledger: Arc<Ledger>,
    /// The columns that are handed on, of those that are decoded; `None`: all.
    pub(super) projection: Option<Vec<usize>>,
}

impl Watched {
    /// The rows of the file, as far as they are to be had.
    pub(super) fn rows(
        self,
        rows: SendableRecordBatchStream,
        task: &TaskContext,
    ) -> Result<SendableRecordBatchStream> {
        let schema = match &self.projection {
            Some(columns) => Arc::new(rows.schema().project(columns)?),
            None => rows.schema(),
        };
        let batches = if self.bad.set_aside() {
            let name = format!("BadFiles[{}]", self.file.path);
            let memory = MemoryConsumer::new(name).register(task.memory_pool());
            let whole = async move {
                let batches = self.whole(rows, &memory).await;
                let batches = batches.unwrap_or_else(|e| vec![Err(e)]);
                // The memory is held until the last batch is handed on.
                stream::iter(batches).inspect(move |_| _ = &memory)
            };
            stream::once(whole).flatten().boxed()
        } else {
            self.until_it_breaks(rows).boxed()
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// All rows of a good file, none of a bad one.
    async fn whole(
        &self,
        mut rows: SendableRecordBatchStream,
        memory: &MemoryReservation,
    ) -> Result<Vec<Batch>, DataFusionError> {
        let name = name_of(&self.file);
        if let Some(decided) = self.ledger.decided(&name) {
            self.put_aside(&name, decided).await?;
            return Ok(Vec::new());
        }
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await {
            let error = match batch {
                Ok(batch) => {
                    memory.try_grow(batch.get_array_memory_size())?;
                    batches.push(self.projected(&batch));
                    continue;
                }
                Err(error) => Error::from(error),
            };
            match self.bad.judge(&error) {
                None => return Err(error.into()),
                Some(Fate::Aside) => {
                    let record = Record::new(&self.file, &error);
                    self.put_aside(&name, record).await?;
                }
                Some(fate) => self.ledger.tell(fate, &self.file.path, error.message()),
            }
            memory.free();
            return Ok(Vec::new());
        }
        Ok(batches)
    }

    /// The decision goes before the line: a line without one would be about a file whose rows came all the same.
    async fn put_aside(&self, name: &str, record: Record) -> Result<()> {
        let record = self.ledger.decide(name, record).await?;
        if let Some((store, folder)) = &self.bad.aside {
            let path = folder.clone().join(name);
            let put = object::put(&**store, &path, record.encode()?).await;
            put.map_err(|e| e.with_option("badFilesPath"))?;
        }
        self.ledger
            .tell(Fate::Aside, &self.file.path, &record.reason);
        Ok(())
    }

    fn projected(&self, batch: &RecordBatch) -> Batch {
        match &self.projection {
            Some(columns) => Ok(batch.project(columns)?),
            None => Ok(batch.clone()),
        }
    }

    /// The rows before the first error that is to be passed over (Spark).
    fn until_it_breaks(
        self,
        rows: SendableRecordBatchStream,
    ) -> impl stream::Stream<Item = Batch> + Send {
        stream::unfold(Some((self, rows)), |state| async move {
            let (watched, mut rows) = state?;
            let error = match rows.next().await? {
                Ok(batch) => return Some((Ok(batch), Some((watched, rows)))),
                Err(error) => Error::from(error),
            };
            let Some(fate) = watched.bad.judge(&error) else {
                return Some((Err(error.into()), None));
            };
            watched
                .ledger
                .tell(fate, &watched.file.path, error.message());
            None
        })
    }
}

type Batch = datafusion::error::Result<RecordBatch>;
