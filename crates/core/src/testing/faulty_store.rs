//! An object store that fails when a test says so.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use parking_lot::Mutex;

/// An [`ObjectStore`] around another one whose operations fail where a test wants them to.
///
/// Operations are counted from 1, across clones. A stream (`list`, `delete_stream`) is one operation,
/// each part of a multipart upload is one, its completion is one.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and says so.
    Before,
    /// It is done, but the answer is lost.
    After,
}

#[derive(Debug, Default)]
struct Script {
    faults: BTreeMap<u64, Fault>,
    dead_from: Option<u64>,
    done: Vec<String>,
}

impl FaultyStore {
    /// A store that fails nothing yet.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            script: Arc::default(),
        }
    }

    /// The `nth` operation, counted from 1 since the store was made, will fail.
    pub fn fail(&self, nth: u64, fault: Fault) {
        self.script.lock().faults.insert(nth, fault);
    }

    /// The `nth` operation and all after it will fail, undone: as if the process had died there.
    pub fn fail_from(&self, nth: u64) {
        self.script.lock().dead_from = Some(nth);
    }

    /// Nothing will fail any more.
    pub fn heal(&self) {
        let mut script = self.script.lock();
        script.faults.clear();
        script.dead_from = None;
    }

    /// The operations so far, failed ones too: `put_opts a/b`.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.script.lock().done.clone()
    }

    fn next(&self, operation: &str, path: impl fmt::Display) -> Option<Fault> {
        next(&self.script, operation, path)
    }

    /// Does `work` unless the script says otherwise.
    async fn run<T>(
        &self,
        operation: &str,
        path: &Path,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        run(self.next(operation, path), work).await
    }
}

/// Counts one operation; what must happen to it.
fn next(script: &Mutex<Script>, operation: &str, path: impl fmt::Display) -> Option<Fault> {
    let mut script = script.lock();
    script.done.push(format!("{operation} {path}"));
    let number = script.done.len() as u64;
    if script.dead_from.is_some_and(|from| number >= from) {
        return Some(Fault::Before);
    }
    script.faults.get(&number).copied()
}

async fn run<T>(fault: Option<Fault>, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match fault {
        None => work.await,
        Some(Fault::Before) => Err(injected()),
        Some(Fault::After) => {
            work.await?;
            Err(injected())
        }
    }
}

fn run_stream<T: Send + 'static>(
    fault: Option<Fault>,
    work: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    match fault {
        None => work,
        Some(Fault::Before) => stream::iter([Err(injected())]).boxed(),
        Some(Fault::After) => work.map(|_| Err(injected())).boxed(),
    }
}

fn injected() -> object_store::Error {
    object_store::Error::Generic {
        store: "FaultyStore",
        source: "a fault was injected".into(),
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let work = self.inner.put_opts(location, payload, opts);
        self.run("put_opts", location, work).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let work = self.inner.put_multipart_opts(location, opts);
        let inner = self.run("put_multipart_opts", location, work).await?;
        Ok(Box::new(FaultyUpload {
            inner,
            location: location.clone(),
            script: Arc::clone(&self.script),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let work = self.inner.get_opts(location, options);
        self.run("get_opts", location, work).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<bytes::Bytes>> {
        let work = self.inner.get_ranges(location, ranges);
        self.run("get_ranges", location, work).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let fault = self.next("delete_stream", "");
        run_stream(fault, self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.next("list", prefix.cloned().unwrap_or_default());
        run_stream(fault, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.next("list_with_offset", prefix.cloned().unwrap_or_default());
        run_stream(fault, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let work = self.inner.list_with_delimiter(prefix);
        let folder = prefix.cloned().unwrap_or_default();
        self.run("list_with_delimiter", &folder, work).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let work = self.inner.copy_opts(from, to, options);
        self.run("copy_opts", to, work).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let work = self.inner.rename_opts(from, to, options);
        self.run("rename_opts", to, work).await
    }
}

/// A multipart upload whose parts and completion are operations of their own.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    location: Path,
    script: Arc<Mutex<Script>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = next(&self.script, "put_part", &self.location);
        run(fault, self.inner.put_part(data)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = next(&self.script, "complete", &self.location);
        run(fault, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = next(&self.script, "abort", &self.location);
        run(fault, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn the_nth_operation_fails_before_or_after_its_effect() {
        for (fault, there) in [(Fault::Before, false), (Fault::After, true)] {
            let store = FaultyStore::new(Arc::new(InMemory::new()));
            store.fail(2, fault);
            let (a, b) = (Path::from("a"), Path::from("b"));
            assert!(store.put(&a, "1".into()).await.is_ok());
            assert!(store.put(&b, "2".into()).await.is_err());
            assert_eq!(store.head(&b).await.is_ok(), there, "{fault:?}");
            assert_eq!(store.operations()[..2], ["put_opts a", "put_opts b"]);
        }
    }

    #[tokio::test]
    async fn a_dead_store_stays_dead_until_it_is_healed() {
        let store = FaultyStore::new(Arc::new(InMemory::new()));
        let path = Path::from("a");
        store.fail_from(1);
        assert!(store.put(&path, "1".into()).await.is_err());
        assert!(store.delete(&path).await.is_err());
        store.heal();
        assert!(store.put(&path, "1".into()).await.is_ok());
    }
}
