//! The text of a log entry: a line that says the version, then lines of JSON.
//!
//! ```text
//! v1
//! {"path":"file:///in/a.csv","timestamp":1795267709137}
//! {"path":"file:///in/b.csv","timestamp":1795267709140}
//! ```
//!
//! There is no newline at the end, as in Spark: an entry that ends with one lost what came after it.

use highwater_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something that is an entry of a log.
///
/// An entry that is one JSON value is `encode_json` and `decode_json`.
pub trait LogEntry: Sized + Send + Sync {
    /// The bytes of the entry; the first line is `v1`.
    ///
    /// # Errors
    /// `Internal` when the entry cannot be written as text.
    fn encode(&self) -> Result<Vec<u8>>;

    /// The entry that the bytes stand for.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are of another version, cut off, or no such entry.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

/// The first line of every entry.
const VERSION: &str = "v1";

/// An entry with one line: `value` as JSON.
///
/// # Errors
/// `Internal` when `value` cannot be written as JSON.
pub fn encode_json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(encode_lines(&[to_json(value)?]))
}

/// The value of an entry with one line.
///
/// # Errors
/// `Corrupt` when the entry is of another version, cut off, or no such value.
pub fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match decode_lines(bytes)?.as_slice() {
        [line] => from_json(line),
        [] => Err(Error::corrupt("it ends after its first line")),
        _ => Err(Error::corrupt(
            "it has more than the two lines it should have",
        )),
    }
}

/// An entry with these lines after the first.
pub(crate) fn encode_lines(lines: &[impl AsRef<str>]) -> Vec<u8> {
    let length = lines
        .iter()
        .map(|line| line.as_ref().len() + 1)
        .sum::<usize>();
    let mut text = String::with_capacity(VERSION.len() + length);
    text.push_str(VERSION);
    for line in lines {
        text.push('\n');
        text.push_str(line.as_ref());
    }
    text.into_bytes()
}

/// The lines after the first.
pub(crate) fn decode_lines(bytes: &[u8]) -> Result<Vec<&str>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::corrupt("it is no UTF-8 text").with_source(e))?;
    let mut lines = text.split('\n');
    match lines.next() {
        Some(VERSION) => {}
        None | Some("") => return Err(Error::corrupt("it is empty")),
        Some(first) => return Err(wrong_version(first)),
    }
    let lines: Vec<&str> = lines.collect();
    match lines.last() {
        Some(&"") => Err(Error::corrupt("it ends in the middle")),
        _ => Ok(lines),
    }
}

/// One line of JSON.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::internal("a log entry cannot be written as JSON").with_source(e))
}

/// What one line of JSON stands for.
pub(crate) fn from_json<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).map_err(|e| {
        let what = if e.is_eof() {
            "it ends in the middle"
        } else {
            "a line of it is not what was expected"
        };
        Error::corrupt(what).with_source(e)
    })
}

fn wrong_version(first: &str) -> Error {
    let shown: String = first.chars().take(20).collect();
    let error = Error::corrupt(format!("its first line is `{shown}`, not `{VERSION}`"));
    let version = first.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
    match version {
        Some(n) if n > 1 => error.with_hint("read it with the newer version that wrote it"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = encode_json(&vec![1, 2]).expect("encoded");
        assert_eq!(bytes, b"v1\n[1,2]");
        assert_eq!(decode_json::<Vec<i32>>(&bytes).expect("decoded"), [1, 2]);
        assert!(decode_lines(b"v1").expect("no lines").is_empty());
    }

    #[test]
    fn every_cut_and_every_other_version_is_found() {
        let whole = encode_json(&vec![1, 2]).expect("encoded");
        for length in 0..whole.len() {
            let error = decode_json::<Vec<i32>>(&whole[..length]).expect_err("cut");
            assert_eq!(error.kind(), highwater_core::ErrorKind::Corrupt, "{length}");
        }
        for (bytes, message) in [
            (&b"v2\n[1]"[..], "its first line is `v2`, not `v1`"),
            (b"{}", "its first line is `{}`, not `v1`"),
            (b"", "it is empty"),
            (b"v1", "it ends after its first line"),
            (
                b"v1\n[1]\n[2]",
                "it has more than the two lines it should have",
            ),
            (b"v1\n{\"a\":1}", "a line of it is not what was expected"),
            (b"v1\n[1", "it ends in the middle"),
            (b"v1\n[1]\n", "it ends in the middle"),
            (b"v1\n\xff", "it is no UTF-8 text"),
        ] {
            let error = decode_json::<Vec<i32>>(bytes).expect_err("refused");
            assert_eq!(error.message(), message);
        }
    }
}
