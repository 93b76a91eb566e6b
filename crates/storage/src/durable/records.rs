//! The records of a journal file.
//!
//! ```text
//!  record:  body's length (u32) │ XXH3 of the record's place and of the body (u64) │ body
//!  body:    kind (u8): 1 put, 2 forget │ path's length (u16) │ path │ the file's bytes
//! ```
//! Numbers are little-endian. The first record that does not fit ends the file: what is behind it was never flushed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use highwater_core::stable_hash;
use object_store::PutPayload;

const HEAD: usize = 12;
const PUT: u8 = 1;
const FORGET: u8 = 2;

/// A record that is to be written: its body.
#[derive(Debug)]
pub(super) struct Record(Vec<u8>);

impl Record {
    /// The file at `path` has these bytes.
    pub(super) fn put(path: &str, payload: &PutPayload) -> Self {
        let mut record = Self::begin(PUT, path);
        payload
            .iter()
            .for_each(|part| record.0.extend_from_slice(part));
        record
    }

    /// What was told of the file at `path` is of no account any more.
    pub(super) fn forget(path: &str) -> Self {
        Self::begin(FORGET, path)
    }

    fn begin(kind: u8, path: &str) -> Self {
        // No file system has a path of 64 KiB.
        let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
        let mut body = vec![kind];
        body.extend(length.to_le_bytes());
        body.extend_from_slice(path.as_bytes());
        Self(body)
    }
}

/// Writes a record at `end`, and moves it.
pub(super) fn write(file: &mut File, end: &mut u64, record: &Record) -> io::Result<()> {
    let length = u32::try_from(record.0.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEAD + record.0.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(sum(*end, &record.0).to_le_bytes());
    bytes.extend_from_slice(&record.0);
    file.seek(SeekFrom::Start(*end))?;
    file.write_all(&bytes)?;
    *end += bytes.len() as u64;
    Ok(())
}

/// Moves `end` behind the last record that is whole.
pub(super) fn skip(file: &mut File, end: &mut u64) -> io::Result<()> {
    loop {
        file.seek(SeekFrom::Start(*end))?;
        let mut head = [0; HEAD];
        let mut read = 0;
        while read < HEAD {
            match file.read(&mut head[read..])? {
                0 => return Ok(()),
                more => read += more,
            }
        }
        let length = length(&head);
        if length == 0 {
            return Ok(());
        }
        let mut body = Vec::new();
        Read::by_ref(file)
            .take(length as u64)
            .read_to_end(&mut body)?;
        if body.len() < length || head[4..] != sum(*end, &body).to_le_bytes() {
            return Ok(());
        }
        *end += (HEAD + length) as u64;
    }
}

/// The records of a journal file, in order: each path, with the bytes of the file, or `None` where it is forgotten.
pub(super) fn all(file: &[u8]) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let (head, rest) = file.get(at..)?.split_at_checked(HEAD)?;
        let body = rest.get(..length(head))?;
        if head.get(4..)? != sum(at as u64, body).to_le_bytes() {
            return None;
        }
        at += HEAD + body.len();
        read(body)
    })
}

fn length(head: &[u8]) -> usize {
    let length = head.first_chunk().copied().map_or(0, u32::from_le_bytes);
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn read(body: &[u8]) -> Option<(&str, Option<&[u8]>)> {
    let (kind, rest) = body.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (path, bytes) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let path = std::str::from_utf8(path).ok()?;
    match *kind {
        PUT => Some((path, Some(bytes))),
        FORGET => Some((path, None)),
        _ => None,
    }
}

/// The place is in it, so that no record fits at another one.
fn sum(at: u64, body: &[u8]) -> u64 {
    stable_hash(&[&at.to_le_bytes(), body].concat())
}
