//! The journal: one flush makes a small put durable, whatever the file system does with its name.
//!
//! ```text
//!  <folder>/journal/lock    who holds it may write below the folder
//!  <folder>/journal/7       records, one after the other, in a file whose blocks are on the disk already
//!  <folder>/journal/8       the next, once 7 is full; when all it tells of is on the disk, 7 goes
//!
//!  put:   lock ─► is the name free? ─► record ─► flush the journal ─► write and name the file ─► unlock
//!  open:  lock ─► what the records tell and the disk has not is written ─► flush everything ─► no records any more
//! ```
//!
//! A file written so has its name only after the record is on the disk, so a file that the loss of power left torn or
//! took away is in the journal, whole. That is a redo log, as databases keep one. The blocks of a journal file are
//! written before it is used, so that a record's flush has nothing but its bytes to bring to the disk.
//!
//! All runs that flush share the one journal, in the order of its lock. A run that does not flush ends it
//! ([`Journal::end`]): runs that still hold it find their lock gone, and flush each file again.
//!
//! **Architecture invariant:** who changes a file below the folder otherwise first has the journal forget it
//! ([`Journal::forget`]).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use object_store::{Error, PutPayload, Result};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::disk;
use super::records::{self, Record};

/// The name of the journal's folder.
pub(super) const FOLDER: &str = "journal";

/// A put of more bytes is flushed by itself: then its bytes cost more than the flushes.
pub(super) const LARGEST: usize = 256 << 10;

/// The bytes of a journal file, but for the record that fills it.
const FILE_BYTES: u64 = 4 << 20;

/// The journal of one folder.
#[derive(Debug)]
pub(super) struct Journal {
    root: PathBuf,
    file_bytes: u64,
    /// Where full files are settled beside the loop; without it they are settled at once.
    runtime: Option<Handle>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    lock: File,
    current: Option<Current>,
    /// A flush has failed, and nobody knows what of the journal is on the disk.
    broken: bool,
}

/// The journal file that is written to.
#[derive(Debug)]
struct Current {
    number: u64,
    file: File,
    /// Where the next record goes, in bytes.
    end: u64,
}

/// What became of a put.
#[derive(Debug)]
pub(super) enum Put {
    Done,
    /// The journal is no more: the file has to be flushed by itself.
    NoJournal,
}

impl Journal {
    /// Opens the journal of the folder `root`: what an earlier run acknowledged is on the disk afterwards, and what
    /// it left half-written is gone.
    pub(super) fn open(root: PathBuf) -> Result<Self> {
        Self::with_files_of(root, FILE_BYTES, Handle::try_current().ok())
    }

    fn with_files_of(root: PathBuf, file_bytes: u64, runtime: Option<Handle>) -> Result<Self> {
        let open = || {
            let folder = root.join(FOLDER);
            disk::make_folder(&folder)?;
            loop {
                let lock = OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(folder.join("lock"))?;
                lock.lock()?;
                if !is_named(&lock)? {
                    continue;
                }
                let settled = settle(&root);
                lock.unlock()?;
                return settled.map(|()| lock);
            }
        };
        let lock = open().map_err(|e| disk::failed(&root, &e))?;
        Ok(Self {
            file_bytes,
            runtime,
            held: Mutex::new(Held {
                lock,
                current: None,
                broken: false,
            }),
            root,
        })
    }

    /// Ends the journal of the folder `root`, where there is one, as a run must that does not flush.
    pub(super) fn end(root: &Path) -> io::Result<()> {
        let folder = root.join(FOLDER);
        let path = folder.join("lock");
        let lock = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            lock => lock?,
        };
        lock.lock()?;
        if is_named(&lock)? {
            settle(root)?;
            fs::remove_file(&path)?;
        }
        lock.unlock()?;
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether `file` lies below the folder.
    pub(super) fn covers(&self, file: &Path) -> bool {
        self.relative(file).is_some()
    }

    /// Writes `payload` to `file`, which must not be there yet with `create`.
    ///
    /// With `defer` nothing is flushed: the put is as durable as the next one that does flush.
    pub(super) fn put(
        &self,
        file: &Path,
        payload: &PutPayload,
        create: bool,
        defer: bool,
    ) -> Result<Put> {
        let path = self.relative(file).unwrap_or_default();
        self.locked(file, |journal| {
            if create && fs::symlink_metadata(file).is_ok() {
                return Err(disk::already_there(file, ErrorKind::AlreadyExists.into()));
            }
            let record = Record::put(&path, payload);
            self.append(journal, &record, !defer)
                .map_err(|e| disk::failed(file, &e))?;
            let placed = disk::place(file, payload, create);
            if matches!(placed, Err(Error::AlreadyExists { .. })) {
                // A run that does not flush, and so does not ask for the lock, was first.
                self.append(journal, &Record::forget(&path), true)
                    .map_err(|e| disk::failed(file, &e))?;
            }
            placed
        })
    }

    /// Lets the journal forget files, which are deleted next, or written otherwise.
    pub(super) fn forget(&self, files: &[PathBuf]) -> Result<()> {
        let paths: Vec<String> = files.iter().filter_map(|f| self.relative(f)).collect();
        let Some((last, before)) = paths.split_last() else {
            return Ok(());
        };
        let forgotten = self.locked(&self.root, |journal| {
            let all = before.iter().map(|path| (path, false));
            for (path, flush) in all.chain([(last, true)]) {
                self.append(journal, &Record::forget(path), flush)
                    .map_err(|e| disk::failed(&self.root, &e))?;
            }
            Ok(())
        });
        forgotten.map(|_| ())
    }

    /// Does `work` while nobody else writes to the journal.
    fn locked(&self, file: &Path, work: impl FnOnce(&mut Held) -> Result<()>) -> Result<Put> {
        let mut held = self.held.lock();
        let named = held.lock.lock().and_then(|()| is_named(&held.lock));
        let done = match named {
            Ok(true) => work(&mut held).map(|()| Put::Done),
            Ok(false) => Ok(Put::NoJournal),
            Err(error) => Err(disk::failed(file, &error)),
        };
        held.lock.unlock().map_err(|e| disk::failed(file, &e))?;
        done
    }

    fn append(&self, held: &mut Held, record: &Record, flush: bool) -> io::Result<()> {
        if held.broken {
            return Err(io::Error::other("an earlier flush of the journal failed"));
        }
        let mut current = match held.current.take() {
            Some(current) if is_named(&current.file)? => current,
            _ => self.newest()?,
        };
        // Another run of this folder may have written since.
        records::skip(&mut current.file, &mut current.end)?;
        if current.end >= self.file_bytes {
            let next = self.begin(current.number + 1)?;
            self.retire(&current);
            current = next;
        }
        records::write(&mut current.file, &mut current.end, record)?;
        if flush {
            held.broken = true;
            current.file.sync_data()?;
            held.broken = false;
        }
        held.current = Some(current);
        Ok(())
    }

    /// The journal file with the highest number, or the first.
    fn newest(&self) -> io::Result<Current> {
        let folder = self.root.join(FOLDER);
        match numbers(&folder)?.pop() {
            Some(number) => Ok(Current {
                number,
                file: open_file(&folder, number)?,
                end: 0,
            }),
            None => self.begin(0),
        }
    }

    /// Makes a journal file; its blocks are on the disk.
    fn begin(&self, number: u64) -> io::Result<Current> {
        let folder = self.root.join(FOLDER);
        disk::write_zeros(&folder.join(number.to_string()), self.file_bytes)?;
        Ok(Current {
            number,
            file: open_file(&folder, number)?,
            end: 0,
        })
    }

    /// Deletes a journal file beside the loop, once all it tells of is on the disk; when that fails it stays, and the
    /// next run does it.
    fn retire(&self, full: &Current) {
        let root = self.root.clone();
        let path = root.join(FOLDER).join(full.number.to_string());
        let work = move || match disk::flush_all(&root).and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, journal = %path.display(), "a full journal stays for now");
            }
            _ => {}
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn_blocking(work)),
            None => work(),
        }
    }

    /// The path of `file` from the folder on; `None` outside of it.
    fn relative(&self, file: &Path) -> Option<String> {
        let path = file.strip_prefix(&self.root).ok()?;
        path.to_str().map(str::to_owned)
    }
}

/// Whether an open file still has a name.
#[cfg(unix)]
fn is_named(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() > 0)
}

#[cfg(not(unix))]
fn is_named(_: &File) -> io::Result<bool> {
    Ok(true)
}

fn open_file(folder: &Path, number: u64) -> io::Result<File> {
    let path = folder.join(number.to_string());
    OpenOptions::new().read(true).write(true).open(path)
}

/// The numbers of the journal files in `folder`, in order.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Writes what the records tell and the disk has not, flushes everything, and deletes the records.
fn settle(root: &Path) -> io::Result<()> {
    let folder = root.join(FOLDER);
    let numbers = numbers(&folder)?;
    for (path, bytes) in told(&folder, &numbers)? {
        let (Some(bytes), Some(file)) = (bytes, below(root, &path)) else {
            continue;
        };
        if fs::read(&file).ok().as_deref() != Some(&bytes) {
            tracing::info!(file = %file.display(), "written again, from the journal");
            disk::put(&file, &bytes.into(), false).map_err(io::Error::other)?;
        }
    }
    disk::settle(root)?;
    for number in numbers {
        match fs::remove_file(folder.join(number.to_string())) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    disk::flush_folder(&folder)
}

/// What the journal files tell of each path, the last word of each: its bytes, or that it is forgotten.
fn told(folder: &Path, numbers: &[u64]) -> io::Result<BTreeMap<String, Option<Vec<u8>>>> {
    let mut told = BTreeMap::new();
    for number in numbers {
        let mut bytes = Vec::new();
        match open_file(folder, *number) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?.read_to_end(&mut bytes)?,
        };
        for (path, bytes) in records::all(&bytes) {
            told.insert(path.to_owned(), bytes.map(<[u8]>::to_vec));
        }
    }
    Ok(told)
}

/// The file at `path` below `root`; `None` for a path that leads out of it.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let mut components = path.components();
    components
        .all(|c| matches!(c, Component::Normal(_)))
        .then(|| root.join(path))
}

#[cfg(test)]
mod tests;
