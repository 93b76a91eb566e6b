//! A directory that a file sink wrote, as its readers see it: the files that its log names, in the order in which
//! they were committed, and nothing else (Spark's `MetadataLogFileIndex`).
//!
//! ```text
//!  the log says   +a   +b   +c   a and b became R   +d
//!  a batch reader sees                  c R d          what is there now
//!  a stream from the start   a   b   c          d      each row once, as it came
//!  a stream that begins here            c R  │  d      what was there then, and what came since
//! ```
//!
//! **The rule for streams.** A stream that has taken nothing yet takes the files that are there, the roll-ups among them, as
//! the files they replace may be gone; over several micro-batches if it has limits. It *adopts* those roll-ups, that is, it
//! remembers their names until it has taken them. From then on it takes every added file that holds new rows, also one
//! that was replaced meanwhile, as long as the sink tells its name; and no other roll-up. So no row comes twice. A file that
//! was deleted and not replaced was given up, and is not taken any more.
//!
//! A sink forgets files that were replaced: the log in the entry that names the roll-up, the list in
//! `_spark_metadata/replaced`, and the disk, one compact entry later. A stream that may have missed rows so must fail. A roll-up is as old as the newest
//! file that it replaces, and a sink writes one micro-batch after the other. So with every file it takes a stream writes
//! down the time `until` which it has taken all. A roll-up that is newer must be explained: by a list that has the file it has its time from,
//! or by lines of its own entry that delete files which are known.

use std::collections::HashSet;
use std::sync::Arc;

use highwater_core::{Error, Result};
use highwater_storage::object;
use highwater_storage::text::decode_json;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::listing::ListedFile;
use super::location::Location;
use super::sink_log::{Action, FOLDER, SinkFile, sink_log};

/// The folder, in the log's, of the lists of files that a compact entry replaced: one for each, of its number.
const REPLACED: &str = "replaced";
/// So often a log is read anew when it grows while it is read.
const ATTEMPTS: usize = 5;

/// How far a stream has come in the log of a sink; written down with each file it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The latest entry when the stream began: what was replaced by then is not for it.
    begun: u64,
    /// All files modified up to this time are taken; in milliseconds since 1970.
    pub(super) until: i64,
    /// Roll-ups that were there when the stream began, with the first files only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    adopts: Vec<PathText>,
}

/// A path in the store, as text.
type PathText = String;

impl Mark {
    /// The mark of a file that is read at once, by no stream.
    pub(super) fn of(file: &ListedFile) -> Option<Self> {
        file.of_sink.then(Self::default)
    }

    /// The mark for the other files of a micro-batch.
    pub(super) fn alone(self) -> Self {
        Self {
            adopts: vec![],
            ..self
        }
    }
}

/// A stream's place in the log of a sink.
#[derive(Clone, Debug)]
pub(super) struct Place {
    begun: u64,
    until: i64,
    adopted: HashSet<PathText>,
}

impl Place {
    /// The place of a stream that has taken files with these marks; none for a stream that has taken none.
    pub(super) fn restore<'a>(marks: impl Iterator<Item = &'a Mark>) -> Option<Self> {
        marks.fold(None, |place: Option<Self>, mark| {
            let mut place = place.unwrap_or_else(|| Self {
                begun: mark.begun,
                until: mark.until,
                adopted: HashSet::new(),
            });
            place.until = place.until.max(mark.until);
            place.adopted.extend(mark.adopts.iter().cloned());
            Some(place)
        })
    }

    /// All that the log tells is taken.
    pub(super) fn come_to(&mut self, log: &Committed) {
        self.until = self.until.max(log.newest());
    }

    /// The place after some files of `log` were taken and `waiting` is left, and its mark.
    pub(super) fn after<'a>(
        before: Option<&Self>,
        log: &Committed,
        waiting: impl Iterator<Item = &'a ListedFile>,
    ) -> (Self, Mark) {
        let oldest = waiting.map(|file| file.modified).min();
        let until = oldest.map_or(log.newest(), |oldest| oldest - 1);
        let mut mark = Mark {
            begun: log.latest.unwrap_or_default(),
            until,
            adopts: vec![],
        };
        if let Some(before) = before {
            mark.begun = before.begun;
            mark.until = before.until.max(until);
        } else {
            let roll_ups = log.roll_ups();
            mark.adopts = roll_ups.map(|file| file.path.to_string()).collect();
        }
        let adopted = match before {
            Some(before) => before.adopted.clone(),
            None => mark.adopts.iter().cloned().collect(),
        };
        let place = Self {
            begun: mark.begun,
            until: mark.until,
            adopted,
        };
        (place, mark)
    }
}

/// The log of a sink.
#[derive(Debug)]
pub(super) struct Committed {
    lines: Vec<Line>,
    /// What compact entries replaced and what is still there.
    replaced: Vec<Line>,
    latest: Option<u64>,
}

/// What an entry says of a file.
#[derive(Debug)]
struct Line {
    entry: u64,
    file: ListedFile,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// New rows.
    Data,
    /// Rows of other files.
    RollUp,
    /// It belongs to the result no longer.
    Delete,
}

impl Committed {
    /// Reads the log of the sink that writes to `location`.
    ///
    /// # Errors
    /// `Corrupt`, naming the entry or the file, when an entry is damaged or names a file outside the directory.
    pub(super) async fn read(location: &Location) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let log = Self::read_once(location).await?;
            // What a roll-up replaced is told until the next one: did that come in between?
            if log.replaced.is_empty() && log.roll_ups().next().is_none()
                || Self::latest_in(location).await? == log.latest
            {
                return Ok(log);
            }
        }
        Err(Error::unavailable(format!(
            "the log of the sink in `{}` grows faster than it can be read",
            location.display
        )))
    }

    async fn read_once(location: &Location) -> Result<Self> {
        let log = sink_log(Arc::clone(&location.store), &location.base);
        let entries = log
            .load_all()
            .await
            .map_err(|e| e.context("the log of the sink"))?;
        let latest = entries.last().map(|(id, _)| id.0);
        let mut read = Self {
            lines: vec![],
            replaced: vec![],
            latest,
        };
        for (id, files) in entries {
            for file in files {
                read.lines
                    .push(Line::new(id.0, &file, file.action, location)?);
            }
        }
        if read.lines.iter().any(|line| line.kind == Kind::RollUp) {
            read.replaced = read_replaced(location).await?;
            // A list is written before its entry.
            read.replaced
                .retain(|line| latest.is_some_and(|latest| line.entry <= latest));
        }
        Ok(read)
    }

    /// The number of the latest entry of the log in `location`; none in a log without entries.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn latest_in(location: &Location) -> Result<Option<u64>> {
        let log = sink_log(Arc::clone(&location.store), &location.base);
        Ok(log.latest_id().await?.map(|id| id.0))
    }

    /// The number of the latest entry; none in a log without entries.
    pub(super) fn latest(&self) -> Option<u64> {
        self.latest
    }

    /// Keeps what is said of the files that `counts` likes.
    pub(super) fn retain(&mut self, counts: impl Fn(&Path) -> bool) {
        self.lines.retain(|line| counts(&line.file.path));
        self.replaced.retain(|line| counts(&line.file.path));
    }

    /// The files that are the result now.
    pub(super) fn current(&self) -> Vec<ListedFile> {
        self.alive().map(|line| line.file.clone()).collect()
    }

    /// All files of the log that a stream at `place` takes or has taken.
    pub(super) fn since(&self, place: &Place, taken: impl Fn(&Path) -> bool) -> Vec<ListedFile> {
        let out = self.left_out(place.begun);
        let takes = |line: &&Line| match line.kind {
            Kind::Data => !out.contains(&line.file.path),
            Kind::RollUp => place.adopted.contains(line.file.path.as_ref()),
            Kind::Delete => false,
        };
        let named: HashSet<&Path> = self.lines.iter().map(|line| &line.file.path).collect();
        let missed = self.replaced_since(place.begun).filter(takes);
        let missed =
            missed.filter(|line| !named.contains(&line.file.path) && !taken(&line.file.path));
        let missed: Vec<ListedFile> = missed.map(|line| line.file.clone()).collect();
        let lines = self
            .lines
            .iter()
            .filter(takes)
            .map(|line| line.file.clone());
        let in_order = missed.is_empty();
        let mut files: Vec<ListedFile> = missed.into_iter().chain(lines).collect();
        if !in_order {
            files.sort_by_key(|file| file.modified);
        }
        files
    }

    /// Makes sure that no file was forgotten that a stream at `place` has not `taken`.
    ///
    /// # Errors
    /// `Corrupt`, naming the file: a roll-up of which nothing says what it replaced, or an adopted one that is gone.
    pub(super) fn check(&self, place: &Place, taken: impl Fn(&Path) -> bool) -> Result<()> {
        let all = || self.lines.iter().chain(self.replaced_since(place.begun));
        let named: HashSet<&str> = all()
            .filter(|line| line.kind != Kind::Delete)
            .map(|line| line.file.path.as_ref())
            .collect();
        let lost = |path: &&PathText| {
            !named.contains(path.as_str()) && Path::parse(path).is_ok_and(|path| !taken(&path))
        };
        if let Some(path) = place.adopted.iter().find(lost) {
            return Err(fell_behind(&format!(
                "file {path} is to be read, and the sink has replaced and forgotten it"
            )));
        }
        let known = |path: &Path| named.contains(path.as_ref()) || taken(path);
        let doubtful = all().find(|line| {
            line.kind == Kind::RollUp
                && line.file.modified > place.until
                && !place.adopted.contains(line.file.path.as_ref())
                && !self.is_explained(line, known)
        });
        match doubtful {
            None => Ok(()),
            Some(line) => Err(fell_behind(&format!(
                "file {} has the rows of files that the stream may not have read, and that the sink has forgotten",
                line.file.path
            ))),
        }
    }

    /// True when it is told, and `known`, which files `roll_up` replaced.
    fn is_explained(&self, roll_up: &Line, known: impl Fn(&Path) -> bool) -> bool {
        let folder = |path: &Path| {
            path.as_ref()
                .rsplit_once('/')
                .map(|(folder, _)| folder.to_owned())
        };
        let listed = self.replaced.iter().any(|line| {
            line.file.path != roll_up.file.path
                && line.file.modified == roll_up.file.modified
                && folder(&line.file.path) == folder(&roll_up.file.path)
        });
        let deleted = self
            .lines
            .iter()
            .filter(|line| line.entry == roll_up.entry && line.kind == Kind::Delete);
        let mut deleted = deleted.peekable();
        listed || (deleted.peek().is_some() && deleted.all(|line| known(&line.file.path)))
    }

    /// The newest file of all, in milliseconds since 1970.
    fn newest(&self) -> i64 {
        let all = self.lines.iter().chain(&self.replaced);
        all.map(|line| line.file.modified).max().unwrap_or(i64::MIN)
    }

    /// The roll-ups of now.
    fn roll_ups(&self) -> impl Iterator<Item = &ListedFile> {
        let alive = self.alive().filter(|line| line.kind == Kind::RollUp);
        alive.map(|line| &line.file)
    }

    /// The added files that are not deleted later.
    fn alive(&self) -> impl Iterator<Item = &Line> {
        let mut gone: HashSet<&Path> = HashSet::new();
        let mut alive: Vec<&Line> = Vec::new();
        for line in self.lines.iter().rev() {
            // The last that is said of a file counts; a file that is named twice is one file.
            if gone.insert(&line.file.path) && line.kind != Kind::Delete {
                alive.push(line);
            }
        }
        alive.into_iter().rev()
    }

    /// What compact entries after `begun` replaced.
    fn replaced_since(&self, begun: u64) -> impl Iterator<Item = &Line> {
        self.replaced.iter().filter(move |line| line.entry > begun)
    }

    /// The files that a stream which began at entry `begun` does not take: deleted by then, or later without a
    /// roll-up beside.
    fn left_out(&self, begun: u64) -> HashSet<&Path> {
        let rolled_up = self.lines.iter().filter(|line| line.kind == Kind::RollUp);
        let rolled_up: HashSet<u64> = rolled_up.map(|line| line.entry).collect();
        let deleted = self.lines.iter().filter(|line| {
            line.kind == Kind::Delete && (line.entry <= begun || !rolled_up.contains(&line.entry))
        });
        deleted.map(|line| &line.file.path).collect()
    }
}

/// What the lists of replaced files say.
async fn read_replaced(location: &Location) -> Result<Vec<Line>> {
    let lists = location.base.clone().join(FOLDER).join(REPLACED);
    let mut lines = Vec::new();
    for name in object::names(&*location.store, &lists).await? {
        let Ok(entry) = name.parse::<u64>() else {
            continue;
        };
        let Some(bytes) = object::read(&*location.store, &lists.clone().join(name)).await? else {
            continue;
        };
        // It is written anew when it is damaged; without it a stream may have to fail, but never errs.
        let Ok(files) = decode_json::<Vec<SinkFile>>(&bytes) else {
            continue;
        };
        for file in files {
            lines.push(Line::new(entry, &file, Action::Add, location)?);
        }
    }
    Ok(lines)
}

fn fell_behind(what: &str) -> Error {
    Error::corrupt(what).with_hint(
        "the stream fell too far behind the sink: let the sink roll files up less often, or read the directory afresh with a new \
         checkpoint",
    )
}

impl Line {
    fn new(entry: u64, file: &SinkFile, action: Action, location: &Location) -> Result<Self> {
        let path = location
            .path_of(&file.path)
            .map_err(|e| e.context("the log of the sink"))?;
        if !path.prefix_matches(&location.base) {
            return Err(Error::corrupt(format!(
                "the log of the sink in `{}` names file {}, which is not in that directory",
                location.display, file.path
            ))
            .with_hint(
                "a directory that was moved is read where it was: its log holds full paths",
            ));
        }
        Ok(Self {
            entry,
            file: ListedFile {
                path,
                size: file.size,
                modified: file.modification_time,
                etag: None,
                of_sink: true,
            },
            kind: match action {
                Action::Delete => Kind::Delete,
                Action::Add if file.replaces => Kind::RollUp,
                Action::Add => Kind::Data,
            },
        })
    }
}
