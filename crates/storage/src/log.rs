//! A log whose entries have numbers and are written once.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use highwater_core::{BatchId, Result};
use object_store::{ObjectStore, path::Path};

use crate::object;
use crate::text::{LogEntry, seal, unseal};

/// A folder of entries named by their numbers: `0`, `1`, `2`, …
///
/// An entry is never written twice: whoever puts it first owns its number. Its last line is a checksum of it and of
/// its name, see [`seal`]. Cloning is cheap.
pub struct NumberedLog<T> {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    entry: PhantomData<fn() -> T>,
}

impl<T: LogEntry> NumberedLog<T> {
    /// The log in `folder`, which need not exist yet.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Self {
            store,
            folder,
            entry: PhantomData,
        }
    }

    /// Writes entry `id`, which must not be there yet.
    ///
    /// # Errors
    /// `Fenced`, naming the path, when another run has written it.
    pub async fn add(&self, id: BatchId, entry: &T) -> Result<()> {
        let sealed = seal(&self.name(id), entry.encode()?);
        object::put_new(&*self.store, &self.path(id), sealed).await
    }

    /// Entry `id`; `None` when there is none.
    ///
    /// # Errors
    /// `Corrupt`, naming the path, when it cannot be read.
    pub async fn get(&self, id: BatchId) -> Result<Option<T>> {
        let path = self.path(id);
        match object::read(&*self.store, &path).await? {
            Some(bytes) => unseal(&self.name(id), &bytes)
                .and_then(T::decode)
                .map(Some)
                .map_err(|e| e.context(format_args!("log entry `{path}` is damaged"))),
            None => Ok(None),
        }
    }

    /// The entry with the highest number; `None` when the log is empty.
    ///
    /// # Errors
    /// `Corrupt`, naming the path, when it cannot be read.
    pub async fn latest(&self) -> Result<Option<(BatchId, T)>> {
        let Some(id) = self.ids().await?.pop() else {
            return Ok(None);
        };
        Ok(self.get(id).await?.map(|entry| (id, entry)))
    }

    /// The numbers of all entries, in order.
    ///
    /// # Errors
    /// The store's error, naming the folder.
    pub async fn ids(&self) -> Result<Vec<BatchId>> {
        let names = object::names(&*self.store, &self.folder).await?;
        let mut ids: Vec<BatchId> = names.iter().filter_map(|name| number(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Deletes the entries before `before`.
    ///
    /// # Errors
    /// The store's error; what was deleted until then stays deleted.
    pub async fn purge(&self, before: BatchId) -> Result<()> {
        let ids = self.ids().await?.into_iter();
        let old = ids.take_while(|id| *id < before).map(|id| self.path(id));
        object::remove(&*self.store, old.collect()).await
    }

    /// What entry `id` is sealed as: it stays the same when the whole checkpoint is copied elsewhere.
    fn name(&self, id: BatchId) -> String {
        format!("{}/{id}", self.folder.filename().unwrap_or_default())
    }

    /// Where entry `id` is.
    #[must_use]
    pub fn path(&self, id: BatchId) -> Path {
        self.folder.clone().join(id.to_string())
    }
}

/// The number a name stands for; `None` for `007`, `+1`, `1.crc` and all else that no log writes.
pub(crate) fn number(name: &str) -> Option<BatchId> {
    let number: u64 = name.parse().ok()?;
    (number.to_string() == name).then_some(BatchId(number))
}

impl<T> Clone for NumberedLog<T> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            folder: self.folder.clone(),
            entry: PhantomData,
        }
    }
}

impl<T> fmt::Debug for NumberedLog<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NumberedLog")
            .field("store", &self.store)
            .field("folder", &self.folder.as_ref())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use highwater_core::{BatchId, ErrorKind, Result};
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt, path::Path};

    use super::{NumberedLog, number};
    use crate::text::{LogEntry, decode_json, encode_json};

    struct Word(String);

    impl LogEntry for Word {
        fn encode(&self) -> Result<Vec<u8>> {
            encode_json(&self.0)
        }

        fn decode(bytes: &[u8]) -> Result<Self> {
            decode_json(bytes).map(Self)
        }
    }

    fn word(text: &str) -> Word {
        Word(text.into())
    }

    async fn life_of_a_log(store: Arc<dyn ObjectStore>) {
        let log = NumberedLog::new(Arc::clone(&store), Path::from("a b/offsets"));
        assert!(
            log.ids()
                .await
                .expect("no folder is an empty log")
                .is_empty()
        );
        assert!(log.latest().await.expect("empty").is_none());
        for n in [0, 1, 2, 9, 10] {
            log.add(BatchId(n), &word(&format!("w{n}")))
                .await
                .expect("added");
        }
        for stranger in ["3.tmp", "04", "_x", ".5.crc"] {
            let path = Path::from(format!("a b/offsets/{stranger}"));
            store.put(&path, "v1".into()).await.expect("put");
        }
        assert_eq!(log.ids().await.expect("ids"), [0, 1, 2, 9, 10].map(BatchId));
        let (id, entry) = log.latest().await.expect("read").expect("there");
        assert_eq!((id, entry.0.as_str()), (BatchId(10), "w10"));
        assert!(log.get(BatchId(3)).await.expect("read").is_none());

        let error = log
            .add(BatchId(9), &word("again"))
            .await
            .expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.message().contains("a b/offsets/9"), "{error}");
        let kept = log.get(BatchId(9)).await.expect("read").expect("there");
        assert_eq!(kept.0, "w9");

        log.purge(BatchId(9)).await.expect("purged");
        assert_eq!(log.ids().await.expect("ids"), [9, 10].map(BatchId));
    }

    #[tokio::test]
    async fn an_entry_is_written_once_in_memory() {
        life_of_a_log(Arc::new(InMemory::new())).await;
    }

    #[tokio::test]
    async fn an_entry_is_written_once_on_disk() {
        let folder = tempfile::tempdir().expect("folder");
        let store = LocalFileSystem::new_with_prefix(folder.path()).expect("store");
        life_of_a_log(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn an_entry_is_written_once_on_a_disk_that_is_flushed() {
        let folder = tempfile::tempdir().expect("folder");
        let store = crate::DurableStore::open(folder.path().to_owned())
            .await
            .expect("store");
        let folder = Path::from_absolute_path(folder.path()).expect("path");
        let store = object_store::prefix::PrefixStore::new(store, folder);
        life_of_a_log(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn of_two_writers_one_wins() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let log = NumberedLog::new(store, Path::from("log"));
        let (ours, theirs) = (word("ours"), word("theirs"));
        let (a, b) = futures::join!(log.add(BatchId(0), &ours), log.add(BatchId(0), &theirs));
        assert!(a.is_ok() != b.is_ok());
    }

    #[tokio::test]
    async fn a_damaged_entry_is_named() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("log/3");
        store.put(&path, "v1\n\"w".into()).await.expect("put");
        let log = NumberedLog::<Word>::new(store, Path::from("log"));
        let error = log.get(BatchId(3)).await.err().expect("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            error.message(),
            "log entry `log/3` is damaged: it ends in the middle: it has no checksum"
        );
    }

    #[test]
    fn only_plain_numbers_are_entries() {
        for (name, id) in [
            ("0", Some(0)),
            ("19", Some(19)),
            ("01", None),
            ("+1", None),
            ("9.compact", None),
            ("", None),
        ] {
            assert_eq!(number(name), id.map(BatchId), "{name}");
        }
    }
}
