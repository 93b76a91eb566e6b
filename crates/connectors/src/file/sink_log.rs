//! The log of a file sink, as Spark keeps it: which files of a directory are its result.
//!
//! `OUT/_spark_metadata/N` has a line of JSON for each file of micro-batch N. A directory with that folder *is* the
//! files its log names and nothing else: what a run that died left there does not count. Every tenth entry
//! (with `compactEvery` below 10: every such entry) names all files so far, see [`CompactingLog`].
//!
//! Files leave the result only by a compact entry that does not name them any more. Our sink never writes
//! the line `"action":"delete"` into the log: Spark took it into account once, but since 3.1 it reads it as one more file.

use std::sync::Arc;

use highwater_storage::CompactingLog;
use object_store::{ObjectMeta, ObjectStore, path::Path};
use serde::{Deserialize, Serialize};

/// The folder of the log in a sink's directory.
pub(super) const FOLDER: &str = "_spark_metadata";

/// A file of the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SinkFile {
    /// Its URL: `file:///data/out/k=b/part-00000-….parquet`, `s3://bucket/…`.
    pub(super) path: String,
    /// Bytes.
    pub(super) size: u64,
    is_dir: bool,
    /// In milliseconds since 1970.
    pub(super) modification_time: i64,
    block_replication: u32,
    block_size: u64,
    /// `add`; readers also honour `delete`, which old versions of Spark knew.
    pub(super) action: Action,
    /// An added file that holds the rows of files which are named no more from this entry on. Ours: Spark ignores it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) replaces: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What an entry says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// It belongs to the result.
    Add,
    /// It does no longer.
    Delete,
}

/// Spark's block size on a local disk; no reader uses it.
const BLOCK_SIZE: u64 = 32 * 1024 * 1024;

impl SinkFile {
    /// The entry of a file that was written, under its URL.
    pub(super) fn added(url: String, written: &ObjectMeta) -> Self {
        Self {
            path: url,
            size: written.size,
            is_dir: false,
            modification_time: written.last_modified.timestamp_millis(),
            block_replication: 1,
            block_size: BLOCK_SIZE,
            action: Action::Add,
            replaces: false,
        }
    }

    /// The line that says that the file has left the result.
    pub(super) fn deleted(&self) -> Self {
        Self {
            action: Action::Delete,
            ..self.clone()
        }
    }
}

/// The log in a sink's directory.
pub(super) fn sink_log(store: Arc<dyn ObjectStore>, directory: &Path) -> CompactingLog<SinkFile> {
    CompactingLog::new(store, directory.clone().join(FOLDER)).untagged()
}
