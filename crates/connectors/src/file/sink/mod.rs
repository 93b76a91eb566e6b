//! Files as a sink: `parquet`, `json`, `csv` and `text`, in append mode, exactly once.
//!
//! ```text
//!  rows ─► folders ─► batch: part files, whole        1. nobody names them yet
//!                       └─► ledger: log entry N       2. put if absent: now they are the result
//!                             └─► rollup              at compact entries: small files become bigger ones
//! ```
//!
//! The result is the files that the log in `_spark_metadata` names, and nothing else (Spark). So there is one commit
//! point a micro-batch, and a run that dies leaves at most files that nobody reads. A micro-batch that the log
//! has already is pulled and dropped. One without rows has an entry and no file (Spark writes an empty one).
//!
//! **What a failure leaves.** When writing files fails, they are deleted as far as that is possible. When the process
//! dies, or the store does not say whether the entry was written, they stay, unnamed. Nothing looks for them
//! later: in a folder that others may write to as well, a file that nobody names is not for us to delete.
//!
//! **Tiny files.** `maxRowsPerFile` cuts the files of a micro-batch. `compactEvery = n` rolls small files up into bigger
//! ones, up to `targetFileSize`, as part of every n-th micro-batch: at the first compact entry of the log then (every
//! tenth entry is one; with n below 10 every n-th). Only compact entries can do it: they say which files there are,
//! while a line `delete` in a plain entry is read by Spark, since 3.1, as a file that is there. The replaced files stay until the
//! next compact entry and are deleted then, so a reader may take as long as n micro-batches.
//! A line with `"replaces":true` tells streams that read the directory that its rows are not new.
//!
//! **Retention.** `retention` is Spark's: files that are older by their time of modification are not named by the next
//! compact entry any more, and stay on disk. A rolled-up file is as old as the newest of those it replaced.
//!
//! **Stores.** What fails for a moment is tried again, as the session's settings say. With `durability` = `fsync` files and
//! entries go through a [`DurableStore`](highwater_storage::DurableStore), and a run first flushes what is in the
//! directory: a micro-batch that an earlier run wrote without is not written again.
//!
//! Reading order: `file_sink`, `ledger`, `batch`, `folders`, `part`, `rollup`; then `format`, `rows`, `json`, `texts`.

mod batch;
mod file_sink;
mod folders;
mod format;
mod json;
mod ledger;
mod options;
mod part;
mod rollup;
mod rows;
mod target;
mod texts;

use std::sync::Arc;

use async_trait::async_trait;
use highwater_core::{Error, Result, Sink, SinkProvider, SinkSpec};
use highwater_storage::{RetryPolicy, RetryStore};

use super::location::Location;
use file_sink::FileSink;
use folders::Folders;
use format::Format;
use options::SinkOptions;
use target::Target;

macro_rules! providers {
    ($($provider:ident $format:literal $doc:literal)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $provider;

        #[async_trait]
        impl SinkProvider for $provider {
            fn format(&self) -> &str {
                $format
            }

            async fn open(&self, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
                open($format, spec)
            }
        }
    )*};
}
providers! {
    CsvSinkProvider "csv" "Writes CSV files."
    JsonSinkProvider "json" "Writes files with a JSON object a line."
    ParquetSinkProvider "parquet" "Writes Parquet files."
    TextSinkProvider "text" "Writes text files, a line a row."
}

/// Opens a file sink of format `name`.
fn open(name: &'static str, spec: SinkSpec) -> Result<Arc<dyn Sink>> {
    let mut options = spec.options;
    let path = options.take_str("path");
    let shared = SinkOptions::take(&mut options)?;
    let format = Format::take(name, &mut options)?;
    options.finish(&format!("sink `{name}`"))?;
    let path = spec.path.or(path).ok_or_else(|| {
        Error::invalid(format!(
            "sink `{name}` needs a path: 'path' is not specified"
        ))
        .with_option("path")
        .with_hint("call `path(…)` before `start`")
    })?;
    let mut location = Location::parse(&path, spec.session.runtime_env())?;
    if location.is_glob() {
        return Err(Error::invalid(format!(
            "`{path}` has wildcards, and files are written to one directory"
        ))
        .with_option("path"));
    }
    let folders = Folders::new(&spec.schema, &spec.partition_by)?;
    format.check(folders.file_schema())?;
    if spec.durable {
        location = location.durable()?;
    }
    let retries = RetryPolicy::of(spec.session.config());
    location.store = RetryStore::around(location.store, retries, Arc::clone(&spec.clock));
    let target = Target::new(location, format, folders, shared);
    let sink = FileSink::new(target, spec.clock);
    Ok(Arc::new(match spec.durable {
        true => sink.settled_first(),
        false => sink,
    }))
}

#[cfg(test)]
mod tests;
