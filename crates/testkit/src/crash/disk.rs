//! What survives a process, and the faulty store between it and the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use highwater::{Result, StreamSession};
use highwater_core::testing::FaultyStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// A store that outlives processes, and the way a process sees it.
///
/// Clones share the store and the way to it; [`beside`](Self::beside) is another process' way to the same store.
#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<dyn ObjectStore>,
    faulty: FaultyStore,
}

/// Files by their paths.
pub type Saved = BTreeMap<String, Bytes>;

/// Where a process finds the disk.
pub const URL: &str = "crash://t";
/// Where its checkpoint is on it.
pub const CHECKPOINT: &str = "ckpt";

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// A disk with what is in `inner`.
    #[must_use]
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        let faulty = FaultyStore::new(Arc::clone(&inner));
        Self { inner, faulty }
    }

    /// The same disk, as another process sees it: with operations and faults of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::over(Arc::clone(&self.inner))
    }

    /// The way of the process to the disk.
    #[must_use]
    pub fn faulty(&self) -> &FaultyStore {
        &self.faulty
    }

    /// How many operations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.faulty.operations().len() as u64
    }

    /// The disk under [`URL`] in `session`.
    ///
    /// # Errors
    /// Never: the URL is one.
    pub fn mount(&self, session: &StreamSession) -> Result<()> {
        let url = url::Url::parse(URL).map_err(|e| highwater::Error::internal(e.to_string()))?;
        let store = Arc::new(self.faulty.clone());
        session.context().register_object_store(&url, store);
        Ok(())
    }

    /// The checkpoint, as a process names it.
    #[must_use]
    pub fn checkpoint() -> String {
        format!("{URL}/{CHECKPOINT}")
    }

    /// Puts a file there, past the process; one that is there stays.
    ///
    /// # Errors
    /// The store's.
    pub async fn lay(&self, path: &str, text: &str) -> Result<()> {
        let options = PutOptions::from(PutMode::Create);
        let path = Path::from(path);
        let put = self.inner.put_opts(&path, text.to_owned().into(), options);
        match put.await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts or replaces a file, past the process; `None` takes it away.
    ///
    /// # Errors
    /// The store's.
    pub async fn replace(&self, path: &str, bytes: Option<Bytes>) -> Result<()> {
        let path = Path::parse(path).map_err(object_store::Error::from)?;
        match bytes {
            Some(bytes) => drop(self.inner.put(&path, bytes.into()).await?),
            None => self.inner.delete(&path).await?,
        }
        Ok(())
    }

    /// What is in a file; `None` when there is none.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, path: &str) -> Result<Option<Bytes>> {
        let path = Path::parse(path).map_err(object_store::Error::from)?;
        match self.inner.get(&path).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The paths below `folder`, in order.
    ///
    /// # Errors
    /// The store's.
    pub async fn files(&self, folder: &str) -> Result<Vec<String>> {
        let folder = Path::from(folder);
        let found: Vec<_> = self.inner.list(Some(&folder)).try_collect().await?;
        let mut paths: Vec<String> = found.iter().map(|f| f.location.to_string()).collect();
        paths.sort();
        Ok(paths)
    }

    /// The numbered files directly in `folder`, in order.
    ///
    /// # Errors
    /// The store's.
    pub async fn numbers(&self, folder: &str) -> Result<Vec<u64>> {
        let names = self.files(folder).await?;
        let names = names.iter().filter_map(|path| path.rsplit('/').next());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// What processes have written: all but what came from outside, whose times and tags must stay.
    ///
    /// # Errors
    /// The store's.
    pub async fn save(&self) -> Result<Saved> {
        let mut saved = Saved::new();
        for path in self.files("").await? {
            if !path.starts_with("in/") {
                let bytes = self.read(&path).await?;
                saved.insert(path, bytes.unwrap_or_default());
            }
        }
        Ok(saved)
    }

    /// Brings back what was saved.
    ///
    /// # Errors
    /// The store's.
    pub async fn restore(&self, saved: &Saved) -> Result<()> {
        for path in self.save().await?.keys() {
            if !saved.contains_key(path) {
                self.replace(path, None).await?;
            }
        }
        for (path, bytes) in saved {
            self.replace(path, Some(bytes.clone())).await?;
        }
        Ok(())
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}
