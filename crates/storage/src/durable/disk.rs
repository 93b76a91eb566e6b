//! What is done with the disk, step by step; all of it blocks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use object_store::{Error, PutPayload, Result};

/// How often a put is begun anew when its temporary file has vanished.
const STAGINGS: usize = 8;

/// Does `work` where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

/// Writes `payload` to `file`, which must not be there yet with `create`, and flushes both file and folder.
///
/// When this fails after the name is there, the file may be there, and may be gone after a loss of power.
pub(super) fn put(file: &Path, payload: &PutPayload, create: bool) -> Result<()> {
    let folder = parent(file);
    let mut staging = 0;
    loop {
        let temporary = stage(file, payload).map_err(|e| failed(file, &e))?;
        let named = if create {
            fs::hard_link(&temporary, file)
        } else {
            fs::rename(&temporary, file)
        };
        if create || named.is_err() {
            drop(fs::remove_file(&temporary));
        }
        match named {
            Ok(()) => return flush_folder(folder).map_err(|e| failed(file, &e)),
            Err(error) if create && error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyExists {
                    path: file.to_string_lossy().into_owned(),
                    source: error.into(),
                });
            }
            // Another run opened the folder and took our file for one that a dead run left.
            Err(error) if error.kind() == ErrorKind::NotFound && staging < STAGINGS => staging += 1,
            Err(error) => return Err(failed(file, &error)),
        }
    }
}

/// Writes and flushes a temporary file beside `file`.
fn stage(file: &Path, payload: &PutPayload) -> io::Result<PathBuf> {
    let mut number = 1_u64;
    loop {
        let temporary = temporary_name(file, number);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary);
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                number += 1;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_folder(parent(file))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let written = payload.iter().try_for_each(|part| opened.write_all(part));
        if let Err(error) = written.and_then(|()| opened.sync_all()) {
            drop(fs::remove_file(&temporary));
            return Err(error);
        }
        return Ok(temporary);
    }
}

/// `name#1`: listings leave such names out, and no log has one.
fn temporary_name(file: &Path, number: u64) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(format!("#{number}"));
    name.into()
}

fn is_temporary(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let number = name.split_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Makes the folder of `file`.
pub(super) fn make_parent(file: &Path) -> Result<()> {
    make_folder(parent(file)).map_err(|e| failed(file, &e))
}

/// Makes a folder, and those above it that are missing; each is flushed into the one above.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder);
    make_folder(above)?;
    match fs::create_dir(folder) {
        // Who made it at the same time may not have flushed it yet.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => flush_folder(above),
    }
}

/// Flushes a file and its folder.
pub(super) fn flush(file: &Path) -> Result<()> {
    let flushed = File::open(file).and_then(|opened| opened.sync_all());
    flushed
        .and_then(|()| flush_folder(parent(file)))
        .map_err(|e| failed(file, &e))
}

fn flush_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Deletes what dead runs left in `folder` and below, and flushes the rest, up to the root of the disk.
pub(super) fn settle(folder: &Path) -> Result<()> {
    let settled = make_folder(folder).and_then(|()| settle_below(folder));
    settled
        .and_then(|()| flush_above(folder))
        .map_err(|e| failed(folder, &e))
}

fn flush_above(folder: &Path) -> io::Result<()> {
    for above in folder.ancestors().skip(1) {
        match flush_folder(above) {
            // A folder that we may not open is not one that we made.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => break,
            flushed => flushed?,
        }
    }
    Ok(())
}

fn settle_below(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (name, path, kind) = {
            let entry = entry?;
            (entry.file_name(), entry.path(), entry.file_type()?)
        };
        let settled = if kind.is_dir() {
            settle_below(&path)
        } else if !kind.is_file() {
            Ok(())
        } else if is_temporary(&name) {
            fs::remove_file(&path)
        } else {
            File::open(&path).and_then(|file| file.sync_all())
        };
        match settled {
            // Another run deletes old entries.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            settled => settled?,
        }
    }
    flush_folder(folder)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn failed(file: &Path, error: &io::Error) -> Error {
    let why = format!("{}: {error}", file.display());
    Error::Generic {
        store: "DurableStore",
        source: io::Error::new(error.kind(), why).into(),
    }
}
