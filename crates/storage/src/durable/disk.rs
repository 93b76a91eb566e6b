//! What is done with the disk, step by step; all of it blocks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
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
    name(file, payload, create, true)?;
    flush_folder(parent(file)).map_err(|e| failed(file, &e))
}

/// As [`put`], without a flush of anything but new folders.
pub(super) fn place(file: &Path, payload: &PutPayload, create: bool) -> Result<()> {
    name(file, payload, create, false)
}

/// Writes a temporary file, and gives it the name `file`.
fn name(file: &Path, payload: &PutPayload, create: bool, flush: bool) -> Result<()> {
    let mut staging = 0;
    loop {
        let temporary = stage(file, payload, flush).map_err(|e| failed(file, &e))?;
        let named = if create {
            fs::hard_link(&temporary, file)
        } else {
            fs::rename(&temporary, file)
        };
        if create || named.is_err() {
            drop(fs::remove_file(&temporary));
        }
        match named {
            Ok(()) => return Ok(()),
            Err(error) if create && error.kind() == ErrorKind::AlreadyExists => {
                return Err(already_there(file, error));
            }
            // Another run opened the folder and took our file for one that a dead run left.
            Err(error) if error.kind() == ErrorKind::NotFound && staging < STAGINGS => staging += 1,
            Err(error) => return Err(failed(file, &error)),
        }
    }
}

pub(super) fn already_there(file: &Path, error: io::Error) -> Error {
    Error::AlreadyExists {
        path: file.to_string_lossy().into_owned(),
        source: error.into(),
    }
}

/// Writes a temporary file beside `file`, and flushes it if asked to.
fn stage(file: &Path, payload: &PutPayload, flush: bool) -> io::Result<PathBuf> {
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
        let written = match flush {
            true => written.and_then(|()| opened.sync_all()),
            false => written,
        };
        if let Err(error) = written {
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
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
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

pub(super) fn flush_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file of so many zeros, and flushes it and its folder: what is written into it later needs no new blocks.
pub(super) fn write_zeros(file: &Path, bytes: u64) -> io::Result<()> {
    let mut zeros = File::create(file)?;
    io::copy(&mut io::repeat(0).take(bytes), &mut zeros)?;
    zeros.sync_all()?;
    flush_folder(parent(file))
}

/// Deletes what dead runs left in `folder` and below, and flushes the rest, up to the root of the disk.
pub(super) fn settle(folder: &Path) -> io::Result<()> {
    remove_temporary(folder)?;
    settle_shared(folder)
}

/// Flushes what lies in `folder`, up to the root of the disk; others may write there, too.
pub(super) fn settle_shared(folder: &Path) -> io::Result<()> {
    make_folder(folder)?;
    flush_all(folder)?;
    flush_above(folder)
}

/// Flushes all that lies in `folder` and below.
#[cfg(target_os = "linux")]
pub(super) fn flush_all(folder: &Path) -> io::Result<()> {
    // One flush of the file system costs less than one for each file.
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn flush_all(folder: &Path) -> io::Result<()> {
    each_below(folder, &|path, kind| match kind.is_file() {
        true => File::open(path)?.sync_all(),
        false => flush_folder(path),
    })?;
    flush_folder(folder)
}

/// Deletes the temporary files that dead runs left in `folder` and below.
fn remove_temporary(folder: &Path) -> io::Result<()> {
    each_below(folder, &|path, kind| match kind.is_file()
        && path.file_name().is_some_and(is_temporary)
    {
        true => fs::remove_file(path),
        false => Ok(()),
    })
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

/// Does `work` with each file and folder below `folder`; what another run deletes meanwhile is passed over.
fn each_below(folder: &Path, work: &dyn Fn(&Path, FileType) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let below = match kind.is_dir() {
            true => each_below(&path, work),
            false => Ok(()),
        };
        match below.and_then(|()| work(&path, kind)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // What we may not read is not what we wrote.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

pub(super) fn failed(file: &Path, error: &io::Error) -> Error {
    let why = format!("{}: {error}", file.display());
    Error::Generic {
        store: "DurableStore",
        source: io::Error::new(error.kind(), why).into(),
    }
}
