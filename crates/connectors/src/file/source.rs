//! The file source: finds new files, writes down which it takes, and reads them in that order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{
    Clock, Error, Offset, OffsetRange, ReadLimit, ReadRequest, Result, Source, SourceContext,
    SourceTraits, Timestamp,
};
use tokio::sync::Mutex;

use super::admission::admit;
use super::bad::{BadFiles, Ledger, Watched};
use super::clean::Cleaner;
use super::committed::{Committed, Mark, Place};
use super::format::Format;
use super::layout::Layout;
use super::listing::{Found, ListedFile, Lister};
use super::location::Location;
use super::log::{FileLog, FileOffset, LoggedFile};
use super::options::FileSourceOptions;
use super::partitions;
use super::rows::FileRead;
use super::seen::SeenFiles;
use object_store::path::Path;

/// What all queries over one file source share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) format: Format,
    pub(super) options: FileSourceOptions,
    pub(super) lister: Lister,
    pub(super) layout: Layout,
    pub(super) cleaner: Cleaner,
    pub(super) bad_files: Arc<BadFiles>,
    /// Partition columns are looked for below it.
    pub(super) base_path: Option<Path>,
    pub(super) description: String,
}

impl Shared {
    /// The streams of `files`, in their order; what is wrong with files is noted in `ledger`.
    pub(super) fn streams(
        &self,
        files: Vec<LoggedFile>,
        request: &ReadRequest,
        ledger: &Arc<Ledger>,
    ) -> Result<Vec<SendableRecordBatchStream>> {
        let whole = self.bad_files.set_aside();
        let mut decoded = request.clone();
        if whole {
            (decoded.projection, decoded.filters) = (None, Vec::new());
        }
        let mut plan = self.layout.plan(decoded.projection.as_deref())?;
        plan.utf8_only = whole;
        let plan = Arc::new(plan);
        ledger.begin(&request.range);
        let watched: Vec<Watched> = files
            .iter()
            .map(|file| Watched {
                file: file.clone(),
                bad: Arc::clone(&self.bad_files),
                ledger: Arc::clone(ledger),
                projection: request.projection.clone().filter(|_| whole),
            })
            .collect();
        let reads = files.into_iter().map(|file| {
            let path = self.lister.location().path_of(&file.path)?;
            let folders = if self.options.recursive_file_lookup {
                vec![]
            } else {
                self.lister.folders(&path, self.base_path.as_ref())
            };
            let values = partitions::values(&folders, &self.layout.partitions, &file.path)?;
            Ok(FileRead {
                constants: plan.constants(&file, values)?,
                file,
            })
        });
        let reads = reads.collect::<Result<Vec<_>>>()?;
        let location = self.lister.location();
        let streams = self
            .format
            .streams(reads, location, &self.layout, &plan, &decoded)?;
        let streams = watched.into_iter().zip(streams);
        streams
            .map(|(watched, rows)| watched.rows(rows, &request.task))
            .collect()
    }
}

/// The file source of one query; the one a session opened keeps its log in memory only.
#[derive(Debug)]
pub(super) struct FileStreamSource {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: SeenFiles,
    log: FileLog,
    /// Found by a listing and not taken yet, in the order in which they will be.
    waiting: VecDeque<ListedFile>,
    listed: Option<Timestamp>,
    /// How far the query has come in the log of the sink that wrote the directory, if one did.
    place: Option<Place>,
    /// That log when it was last read.
    committed: Option<Committed>,
    /// The query has come so far: entries after it are still to be read.
    reached: i64,
    /// Files of entries up to here were read by an earlier run, or are cleaned up.
    cleaned: Option<i64>,
}

impl FileStreamSource {
    /// A source with no query.
    pub(super) fn new(shared: Arc<Shared>, clock: Arc<dyn Clock>) -> Self {
        Self::with_log(shared, clock, FileLog::in_memory(), Ledger::default())
    }

    fn with_log(shared: Arc<Shared>, clock: Arc<dyn Clock>, log: FileLog, ledger: Ledger) -> Self {
        let options = &shared.options;
        let mut seen = SeenFiles::new(options.age_limit_ms(), options.file_name_only);
        for file in log.files() {
            seen.add(&file.path, file.timestamp);
        }
        let place = Place::restore(log.files().filter_map(|file| file.sink.as_ref()));
        if place.is_none() {
            seen.purge();
        }
        let state = State {
            seen,
            log,
            waiting: VecDeque::new(),
            listed: None,
            place,
            committed: None,
            reached: -1,
            cleaned: None,
        };
        Self {
            shared,
            clock,
            ledger: Arc::new(ledger),
            state: Mutex::new(state),
        }
    }
}

impl State {
    /// The query begins a micro-batch at `start`.
    fn came_to(&mut self, start: i64) {
        self.cleaned.get_or_insert(start);
        self.reached = self.reached.max(start);
    }

    /// True when all that was found is read.
    fn is_read_up(&self) -> bool {
        self.waiting.is_empty() && self.log.last() <= self.reached
    }

    /// Lists the path when no file waits, or those that do may not be all any more.
    async fn look(&mut self, shared: &Shared, now: Timestamp) -> Result<()> {
        let fresh = self
            .listed
            .is_some_and(|listed| now < listed.plus(shared.options.poll_interval));
        if fresh && !self.waiting.is_empty() && !shared.options.latest_first {
            return Ok(());
        }
        let location = shared.lister.location();
        let known = self.committed.as_ref().and_then(Committed::latest);
        let mut found = match shared.lister.look(known).await? {
            Found::Files(_) if self.place.is_some() => return Err(log_is_gone(shared)),
            Found::Files(files) => files,
            Found::Log(log) => self.follow(log, location)?,
            Found::SameLog => {
                self.listed = Some(now);
                return Ok(());
            }
        };
        self.listed = Some(now);
        found.retain(|file| {
            self.seen
                .is_new(&location.url_of(&file.path), file.modified)
        });
        if let (true, Some(place), Some(log)) = (found.is_empty(), &mut self.place, &self.committed)
        {
            place.come_to(log);
        }
        if shared.options.latest_first {
            found.reverse();
        }
        self.waiting = found.into();
        if shared.options.file_name_only {
            self.drop_namesakes();
        }
        Ok(())
    }

    /// All files that the query takes of what a sink's log names, taken or not.
    fn follow(&mut self, log: Committed, location: &Location) -> Result<Vec<ListedFile>> {
        self.seen.forget_none();
        let files = match &self.place {
            None => log.current(),
            Some(place) => {
                let taken = |path: &Path| !self.seen.is_new(&location.url_of(path), 0);
                log.check(place, taken)?;
                log.since(place, taken)
            }
        };
        self.committed = Some(log);
        Ok(files)
    }

    /// Of waiting files with the same name only the first stays.
    fn drop_namesakes(&mut self) {
        let mut names = std::collections::HashSet::new();
        self.waiting
            .retain(|file| names.insert(file.path.filename().unwrap_or_default().to_owned()));
    }

    /// Takes the next files and writes them down; false when there are none.
    async fn take(&mut self, shared: &Shared, limit: &ReadLimit) -> Result<bool> {
        let admitted = admit(&mut self.waiting, limit)?;
        if admitted.is_empty() {
            return Ok(false);
        }
        let location = shared.lister.location();
        let (place, mut mark) = match &self.committed {
            None => (None, None),
            Some(log) => {
                let (place, mark) = Place::after(self.place.as_ref(), log, self.waiting.iter());
                (Some(place), Some(mark))
            }
        };
        let mut files: Vec<LoggedFile> = admitted
            .into_iter()
            .map(|file| LoggedFile::new(file, location, None))
            .collect();
        for file in &mut files {
            file.sink.clone_from(&mark);
            mark = mark.map(Mark::alone);
        }
        for file in &files {
            self.seen.add(&file.path, file.timestamp);
        }
        self.seen.purge();
        if let Err(error) = self.log.add(files).await {
            // What was taken is not written down: the next listing must find it again.
            self.listed = None;
            self.committed = None;
            return Err(error);
        }
        self.place = place;
        Ok(true)
    }
}

fn log_is_gone(shared: &Shared) -> Error {
    let display = &shared.lister.location().display;
    Error::corrupt(format!(
        "`{display}` was the directory of a file sink, and its folder `_spark_metadata` is gone"
    ))
    .with_hint("restore the folder, or read the directory afresh with a new checkpoint")
}

#[async_trait]
impl Source for FileStreamSource {
    fn description(&self) -> String {
        self.shared.description.clone()
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shared.layout.schema)
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: true,
            bounded: false,
        }
    }

    async fn initial_offset(&self) -> Result<Offset> {
        FileOffset::at(-1)
    }

    /// Under `All`, everything there is becomes log entries of the size that the options ask for. So an
    /// available-now run that pins the last of them can still read them one trigger after another, and
    /// a run that is started again finds them.
    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        let start = FileOffset::entry_of(start)?;
        let mut state = self.state.lock().await;
        // Else the next entry would get the number of one that was read, and would never be.
        state.log.reaches(start)?;
        state.came_to(start);
        if let Some(upto) = upto {
            let upto = FileOffset::entry_of(upto)?.min(state.log.last());
            let next = if *limit == ReadLimit::All {
                upto
            } else {
                start + 1
            };
            return FileOffset::at(next.min(upto).max(start));
        }
        if *limit != ReadLimit::All {
            if state.log.last() <= start {
                state.look(&self.shared, self.clock.now()).await?;
                state.take(&self.shared, limit).await?;
            }
            return FileOffset::at((start + 1).min(state.log.last()).max(start));
        }
        state.look(&self.shared, self.clock.now()).await?;
        let own = self.shared.options.read_limit();
        while state.take(&self.shared, &own).await? {}
        FileOffset::at(state.log.last().max(start))
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let start = FileOffset::entry_of(&request.range.start)?;
        let end = FileOffset::entry_of(&request.range.end)?;
        let files = {
            let mut state = self.state.lock().await;
            state.came_to(start);
            let files = state.log.range(start, end)?;
            state.reached = state.reached.max(end);
            files
        };
        self.shared.streams(files, &request, &self.ledger)
    }

    fn read_limit(&self) -> ReadLimit {
        self.shared.options.read_limit()
    }

    async fn for_query(&self, context: SourceContext) -> Result<Option<Arc<dyn Source>>> {
        let log = FileLog::open(&context).await?;
        let ledger = Ledger::open(&context).await?;
        let source = Self::with_log(Arc::clone(&self.shared), context.clock, log, ledger);
        Ok(Some(Arc::new(source)))
    }

    fn metrics(&self, range: &OffsetRange) -> BTreeMap<String, String> {
        self.ledger.metrics(range)
    }

    async fn commit(&self, end: &Offset) -> Result<()> {
        let end = FileOffset::entry_of(end)?;
        let released = {
            let mut state = self.state.lock().await;
            let cleaned = state.cleaned.unwrap_or(end);
            state.cleaned = Some(cleaned.max(end));
            state.log.release(cleaned, end)
        };
        self.shared
            .cleaner
            .clean(&released, self.shared.lister.location())
            .await;
        Ok(())
    }

    /// Never waits for the state: the engine keeps this future unpolled while it asks for offsets, and
    /// a place in the queue for a lock would then stop that for ever.
    async fn changed(&self) {
        let due = match self.state.try_lock() {
            Ok(state) if state.is_read_up() => state.listed,
            // Who holds the state is about to list, or to read what was found.
            _ => None,
        };
        if let Some(listed) = due {
            let due = listed.plus(self.shared.options.poll_interval);
            self.clock.sleep_until(due).await;
        }
    }
}
