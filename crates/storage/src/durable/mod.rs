//! A folder of the local disk in which what is acknowledged survives the loss of power.
//!
//! ```text
//!  put, small:  record in the folder's journal ─► flush the journal ─► write name#1 ─► link or rename it to name
//!  put, large:  write name#1 ─► flush the file ─► link (create) or rename (overwrite) to name ─► flush the folder
//! ```
//!
//! The large put is what POSIX asks for: the bytes are on the disk before the name can be, and both before the answer.
//! It costs two flushes, and one more for each folder that it has to make. The small one costs one: whatever the loss
//! of power leaves of the file, the journal has it ([`journal`]). Without a folder of its own the store has no journal.
//! A file is never seen in part; [`LocalFileSystem`] does the same without the flushes.
//!
//! Deletions are not flushed: after a loss of power a file may be back.

mod disk;
mod journal;
mod records;

use std::fmt;
use std::ops::Range;
use std::path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};

use self::journal::{Journal, Put};

/// The local disk as an [`ObjectStore`] whose writes survive the loss of power once they are acknowledged.
///
/// It is as good as the disk: one that acknowledges a flush it has not done cannot be helped.
#[derive(Clone, Debug, Default)]
pub struct DurableStore {
    local: Arc<LocalFileSystem>,
    journal: Option<Arc<Journal>>,
}

/// Among the extensions of a put: it need not survive the loss of power before the next put does that has not this mark.
///
/// Only small puts heed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deferred;

impl DurableStore {
    /// The store; what lies on the disk already is left as it is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the store for what lies in `folder`; its paths begin at the root of the disk.
    ///
    /// What an earlier run acknowledged and a loss of power took is written again, from the journal. Temporary files
    /// that a run left when it died are deleted, and what lies in the folder is flushed, since it may have been
    /// written without.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn open(folder: path::PathBuf) -> Result<Self> {
        let journal = disk::blocking(move || Journal::open(folder)).await?;
        Ok(Self {
            local: Arc::default(),
            journal: Some(Arc::new(journal)),
        })
    }

    /// Opens the store for a folder that others may write to as well: it is flushed, nothing is deleted, and there is no
    /// journal.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn open_shared(folder: path::PathBuf) -> Result<Self> {
        disk::blocking(move || disk::settle_shared(&folder).map_err(|e| disk::failed(&folder, &e)))
            .await?;
        Ok(Self::default())
    }

    /// Ends the journal in `folder`, where there is one: a run that does not flush goes on there.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn release(folder: path::PathBuf) -> Result<()> {
        disk::blocking(move || Journal::end(&folder).map_err(|e| disk::failed(&folder, &e))).await
    }

    /// The journal of the folder in which all of `files` lie.
    fn journal_of<'a>(
        &self,
        mut files: impl Iterator<Item = &'a path::PathBuf>,
    ) -> Option<Arc<Journal>> {
        let journal = self.journal.as_ref()?;
        files
            .all(|file| journal.covers(file))
            .then(|| Arc::clone(journal))
    }

    /// Lets the journal forget what it has of objects that are changed without it next, once they are on the disk.
    async fn forget(&self, locations: &[&Path]) -> Result<()> {
        let files = locations.iter().map(|l| self.local.path_to_filesystem(l));
        let files = files.collect::<Result<Vec<_>>>()?;
        let Some(journal) = self.journal_of(files.iter()) else {
            return Ok(());
        };
        disk::blocking(move || {
            files
                .iter()
                .filter(|f| f.exists())
                .try_for_each(|f| disk::flush(f))?;
            journal.forget(&files)
        })
        .await
    }

    /// Makes the folder of `location`, so that it stays.
    async fn make_parent(&self, location: &Path) -> Result<()> {
        let file = self.local.path_to_filesystem(location)?;
        disk::blocking(move || disk::make_parent(&file)).await
    }

    /// Flushes the object at `location`, which was written without, and its folder.
    async fn flush(&self, location: &Path) -> Result<()> {
        let file = self.local.path_to_filesystem(location)?;
        disk::blocking(move || disk::flush(&file)).await
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableStore({})", self.local)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            // Not to be had on a local disk; the answer is its own.
            return self.local.put_opts(location, payload, opts).await;
        }
        let file = self.local.path_to_filesystem(location)?;
        let create = opts.mode == PutMode::Create;
        let defer = opts.extensions.get::<Deferred>().is_some();
        let journal = self.journal_of(std::iter::once(&file));
        if payload.content_length() > journal::LARGEST && !create {
            self.forget(&[location]).await?;
        }
        disk::blocking(move || match journal {
            Some(journal) if payload.content_length() <= journal::LARGEST => {
                match journal.put(&file, &payload, create, defer)? {
                    Put::Done => Ok(()),
                    Put::NoJournal => disk::put(&file, &payload, create),
                }
            }
            _ => disk::put(&file, &payload, create),
        })
        .await?;
        let head = GetOptions::new().with_head(true);
        let meta = self.local.get_opts(location, head).await?.meta;
        Ok(PutResult {
            e_tag: meta.e_tag,
            version: meta.version,
        })
    }

    /// The parts are written as they come; all is flushed when the upload is completed.
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.make_parent(location).await?;
        self.forget(&[location]).await?;
        Ok(Box::new(DurableUpload {
            inner: self.local.put_multipart_opts(location, opts).await?,
            store: self.clone(),
            location: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.local.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.local.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let Some(journal) = self.journal.clone() else {
            return self.local.delete_stream(locations);
        };
        let local = Arc::clone(&self.local);
        locations
            .try_ready_chunks(1_000)
            .map_err(|e| e.1)
            .and_then(move |chunk| {
                let (local, journal) = (Arc::clone(&local), Arc::clone(&journal));
                async move {
                    let files = chunk.iter().map(|l| local.path_to_filesystem(l));
                    let files = files.collect::<Result<Vec<_>>>()?;
                    disk::blocking(move || journal.forget(&files)).await?;
                    let chunk = stream::iter(chunk.into_iter().map(Ok)).boxed();
                    Ok(local.delete_stream(chunk))
                }
            })
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.make_parent(to).await?;
        self.forget(&[to]).await?;
        self.local.copy_opts(from, to, options).await?;
        self.flush(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.make_parent(to).await?;
        self.forget(&[from, to]).await?;
        self.local.rename_opts(from, to, options).await?;
        self.flush(to).await
    }
}

/// An upload in parts that is flushed before it is acknowledged.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    store: DurableStore,
    location: Path,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        self.store.flush(&self.location).await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests;
