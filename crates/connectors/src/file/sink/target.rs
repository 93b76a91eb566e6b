//! Where files go and how they are called.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use highwater_core::{Error, Result, RunId, stable_hash};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::folders::Folders;
use super::format::Format;
use super::options::SinkOptions;
use super::part::PartFile;
use crate::file::location::Location;
use crate::file::sink_log::SinkFile;

/// What all micro-batches of a sink share.
#[derive(Debug)]
pub(super) struct Target {
    /// The directory.
    pub(super) location: Location,
    /// The format of its files.
    pub(super) format: Format,
    /// What makes folders in it.
    pub(super) folders: Folders,
    /// What the user asked for.
    pub(super) options: SinkOptions,
    /// Files that were begun.
    serial: AtomicU64,
}

/// So many files are looked up at once.
const LOOKUPS: usize = 8;

impl Target {
    /// Files of `format` at `location`.
    pub(super) fn new(
        location: Location,
        format: Format,
        folders: Folders,
        options: SinkOptions,
    ) -> Self {
        Self {
            location,
            format,
            folders,
            options,
            serial: AtomicU64::new(0),
        }
    }

    /// The store of the directory.
    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.location.store
    }

    /// Begins a file in `folder`, the `number`th of a micro-batch there.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn begin(&self, run: RunId, folder: &str, number: u64) -> Result<PartFile> {
        let schema = Arc::clone(self.folders.file_schema());
        self.begin_with(run, folder, number, &schema).await
    }

    /// As [`begin`](Self::begin), with columns of its own.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn begin_with(
        &self,
        run: RunId,
        folder: &str,
        number: u64,
        schema: &SchemaRef,
    ) -> Result<PartFile> {
        let id = self.fresh_id(run);
        // Spark writes a dot before the number in folders, and a dash outside.
        let dash = if folder.is_empty() { '-' } else { '.' };
        let (codec, ending) = (self.format.codec(), self.format.ending());
        let name = format!("part-00000-{id}{dash}c{number:03}{codec}{ending}");
        let path = self.path(folder, &name)?;
        PartFile::begin(self.store(), path, &self.format, schema).await
    }

    /// An identity that no other file has, in the form of a UUID: the run's own, which is random, and a number.
    fn fresh_id(&self, run: RunId) -> String {
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        let half = |which: u8| {
            let mut bytes = run.0.as_bytes().to_vec();
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.push(which);
            stable_hash(&bytes)
        };
        let (a, b) = (half(0), half(1));
        format!(
            "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff
        )
    }

    fn path(&self, folder: &str, name: &str) -> Result<Path> {
        let base = self.location.base.as_ref();
        let parts = [base, folder, name].into_iter().filter(|p| !p.is_empty());
        let path = parts.collect::<Vec<_>>().join("/");
        Path::parse(&path)
            .map_err(|e| Error::invalid(format!("`{path}` is no path")).with_source(e))
    }

    /// The folder in the directory in which the file of this URL lies; `None` when it is not in it.
    pub(super) fn folder_of(&self, file: &SinkFile) -> Option<String> {
        let path = self.location.path_of(&file.path).ok()?;
        let parts: Vec<_> = path.prefix_match(&self.location.base)?.collect();
        let folders = parts.split_last()?.1.iter();
        let folders: Vec<&str> = folders.map(AsRef::as_ref).collect();
        Some(folders.join("/"))
    }

    /// The log's lines for files that were written.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn lines(&self, written: &[Path]) -> Result<Vec<SinkFile>> {
        let lookups = written.iter().map(|path| self.line(path.clone()).boxed());
        let lookups: Vec<_> = lookups.collect();
        stream::iter(lookups).buffered(LOOKUPS).try_collect().await
    }

    async fn line(&self, path: Path) -> Result<SinkFile> {
        let meta = self.store().head(&path).await;
        let meta = meta.map_err(|e| Error::from(e).context(format_args!("file `{path}`")))?;
        Ok(SinkFile::added(self.location.url_of(&path), &meta))
    }

    /// Deletes files that no log names. What cannot be deleted stays, and nobody reads it.
    pub(super) async fn discard(&self, written: Vec<Path>) {
        if written.is_empty() {
            return;
        }
        if let Err(error) = highwater_storage::object::remove(self.store(), written).await {
            tracing::warn!(%error, "files of a failed micro-batch stay in the directory, unread");
        }
    }
}
