//! What every file sink is told, whatever the format; Spark's names, and what is only ours says so.

use std::time::Duration;

use highwater_core::{Error, Options, Result};

use crate::file::options::duration;

/// The options that all formats share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SinkOptions {
    /// `maxRowsPerFile` (also Spark's `maxRecordsPerFile`): a file that has so many rows is closed.
    pub(super) max_rows_per_file: Option<u64>,
    /// `compactEvery`: after so many micro-batches small files are rolled up into bigger ones. Ours.
    pub(super) compact_every: Option<u64>,
    /// `targetFileSize`: a file of so many bytes is not small, and rolling up makes none that is much bigger. Ours.
    pub(super) target_file_size: u64,
    /// `retention`: files that are older leave the log, at a compact entry.
    pub(super) retention: Option<Duration>,
}

/// 128 MB.
const TARGET_FILE_SIZE: u64 = 128 * 1024 * 1024;

impl SinkOptions {
    /// Takes the shared options out of `options`.
    ///
    /// # Errors
    /// `Invalid`, naming the option, for a value that is wrong or would have no effect.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        let alias = options.take_positive("maxRecordsPerFile")?;
        let max_rows_per_file = options.take_positive("maxRowsPerFile")?.or(alias);
        let compact_every = options.take_positive("compactEvery")?;
        let target = bytes(options, "targetFileSize")?;
        if target.is_some() && compact_every.is_none() {
            return Err(Error::invalid(
                "option `targetFileSize` says how far files are rolled up, and `compactEvery` is not set",
            )
            .with_option("targetFileSize")
            .with_hint("set `compactEvery`, or cut files with `maxRowsPerFile`"));
        }
        Ok(Self {
            max_rows_per_file,
            compact_every,
            target_file_size: target.unwrap_or(TARGET_FILE_SIZE),
            retention: duration(options, "retention")?,
        })
    }
}

/// A number of bytes: `1000000`, `64 MB`, `1g`; units are powers of 1024 (Spark).
fn bytes(options: &mut Options, name: &'static str) -> Result<Option<u64>> {
    let Some(text) = options.take_str(name) else {
        return Ok(None);
    };
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match lower[digits.len()..].trim() {
        "" | "b" => Some(0),
        "k" | "kb" => Some(10),
        "m" | "mb" => Some(20),
        "g" | "gb" => Some(30),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(shift);
    match size.and_then(|(n, shift)| n.checked_mul(1 << shift)) {
        Some(size) if size > 0 => Ok(Some(size)),
        _ => Err(Error::invalid(format!(
            "option `{name}` is `{text}`: it must be a number of bytes such as `64 MB`"
        ))
        .with_option(name)),
    }
}
