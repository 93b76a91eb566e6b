//! The text of a log entry: a line that says the version, then lines of JSON.
//!
//! ```text
//! v1
//! {"path":"file:///in/a.csv","timestamp":1795267709137}
//! {"path":"file:///in/b.csv","timestamp":1795267709140}
//! ```
//!
//! There is no newline at the end, as in Spark: an entry that ends with one lost what came after it.
//!
//! JSON in which one bit has changed is often JSON still: another watermark, another offset. So the logs of a
//! checkpoint *seal* their entries: a last line has a checksum of the text and of the entry's name.
//! The name is in it so that an entry that was copied over another one is found, too.
//! The log of a file sink is not sealed: Spark reads it.

use highwater_core::{Error, Result, stable_hash};
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

/// What the last line of a sealed entry begins with.
const SEAL: &str = "xxh3=";

/// Seals `text`: adds a line with the checksum of it and of `name`, such as `offsets/3`.
#[must_use]
pub fn seal(name: &str, mut text: Vec<u8>) -> Vec<u8> {
    let line = format!("\n{SEAL}{:016x}", checksum(name, &text));
    text.extend_from_slice(line.as_bytes());
    text
}

/// The text that was sealed as `name`.
///
/// # Errors
/// `Corrupt` when the bytes are of another version, cut off, changed, or were sealed under another name.
pub fn unseal<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let first = bytes.split(|byte| *byte == b'\n').next();
    match first.unwrap_or_default() {
        b"" => return Err(Error::corrupt("it is empty")),
        first if first != VERSION.as_bytes() => {
            return Err(wrong_version(&String::from_utf8_lossy(first)));
        }
        _ => {}
    }
    let cut = || Error::corrupt("it ends in the middle: it has no checksum");
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    let (text, line) = bytes.split_at(end.ok_or_else(cut)?);
    let told = line[1..].strip_prefix(SEAL.as_bytes()).ok_or_else(cut)?;
    if told == format!("{:016x}", checksum(name, text)).as_bytes() {
        return Ok(text);
    }
    Err(Error::corrupt(format!(
        "its checksum is wrong: it was changed, cut off, or is not `{name}`"
    )))
}

fn checksum(name: &str, text: &[u8]) -> u64 {
    stable_hash(&[name.as_bytes(), b"\n", text].concat())
}

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
    fn a_sealed_entry_is_known_by_its_name_and_every_bit() {
        let sealed = seal("offsets/3", b"v1\n{\"a\":1}".to_vec());
        let text = std::str::from_utf8(&sealed).expect("text");
        assert!(text.starts_with("v1\n{\"a\":1}\nxxh3="), "{text}");
        assert_eq!(text.len(), "v1\n{\"a\":1}\nxxh3=".len() + 16);
        assert_eq!(
            unseal("offsets/3", &sealed).expect("whole"),
            b"v1\n{\"a\":1}"
        );
        assert!(unseal("offsets/2", &sealed).is_err());
        assert!(unseal("commits/3", &sealed).is_err());
        for length in 0..sealed.len() {
            assert!(unseal("offsets/3", &sealed[..length]).is_err(), "{length}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = unseal("offsets/3", &flipped).expect_err("flipped");
            assert_eq!(error.kind(), highwater_core::ErrorKind::Corrupt, "{bit}");
        }
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
