//! An object store that fails, tears, forgets and waits when a test says so.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

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
    /// Of what is put, only the first half arrives, under its name. Other operations are not done.
    Torn,
    /// Of what is put, only the first half arrives, beside its name: what a local disk keeps when a process dies
    /// before it renames the file. Other operations are not done.
    Staged,
}

/// A fault, and whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the operation fails.
    pub fault: Fault,
    /// True: the error is like that of a lost connection. False: like that of a missing right.
    pub transient: bool,
}

impl Fault {
    /// The fault with an error that no second try would heal.
    #[must_use]
    pub fn lasting(self) -> Failure {
        Failure {
            fault: self,
            transient: false,
        }
    }
}

impl From<Fault> for Failure {
    /// A fault is transient if nothing else is said.
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            transient: true,
        }
    }
}

#[derive(Debug, Default)]
struct Script {
    faults: BTreeMap<u64, Failure>,
    dead_from: Option<u64>,
    /// What is said of all faults, whatever each says of itself.
    transient: Option<bool>,
    gates: Vec<Gate>,
    done: Vec<String>,
    /// What was there before each write, oldest first; `None` while nobody wants to know.
    undo: Option<Vec<(Path, Option<Bytes>)>>,
}

/// Which operation is to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The next one that begins like this: `put_opts t/offsets/3`.
    Next(String),
    /// The one with this number.
    Nth(u64),
}

impl From<&str> for Which {
    fn from(operation: &str) -> Self {
        Self::Next(operation.to_owned())
    }
}

impl From<String> for Which {
    fn from(operation: String) -> Self {
        Self::Next(operation)
    }
}

impl From<u64> for Which {
    fn from(number: u64) -> Self {
        Self::Nth(number)
    }
}

/// Where an operation waits for the test.
#[derive(Debug)]
struct Gate {
    operation: Which,
    when: Fault,
    reached: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// An operation that waits, or will: see [`FaultyStore::hold`]. Dropping it lets the operation go on.
#[derive(Debug)]
pub struct Held {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Held {
    /// Comes back when the operation waits.
    pub async fn reached(&mut self) {
        // The store is gone when the sender is: then there is nothing to wait for.
        drop((&mut self.reached).await);
    }

    /// Lets the operation go on.
    pub fn release(self) {
        // An operation that was dropped meanwhile does not listen any more.
        let _ = self.release.send(());
    }
}

/// What happens to one operation.
#[derive(Debug, Default)]
struct Fate {
    failure: Option<Failure>,
    gate: Option<Gate>,
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
    pub fn fail(&self, nth: u64, failure: impl Into<Failure>) {
        self.script.lock().faults.insert(nth, failure.into());
    }

    /// The `nth` operation and all after it will fail, undone: as if the process had died there.
    pub fn fail_from(&self, nth: u64) {
        self.script.lock().dead_from = Some(nth);
    }

    /// The process dies in the `nth` operation, which is left as `fault` says; nothing after it is done.
    pub fn die(&self, nth: u64, fault: Fault) {
        let mut script = self.script.lock();
        script.faults.insert(nth, fault.lasting());
        script.dead_from = Some(nth + 1);
    }

    /// True when an operation has met the death that [`die`](Self::die) or [`fail_from`](Self::fail_from) set.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let script = self.script.lock();
        let reached = script.done.len() as u64;
        let dying = |from: u64| match script.faults.contains_key(&(from - 1)) {
            true => from - 1,
            false => from,
        };
        script.dead_from.is_some_and(|from| dying(from) <= reached)
    }

    /// Nothing will fail any more.
    pub fn heal(&self) {
        let mut script = self.script.lock();
        script.faults.clear();
        script.dead_from = None;
    }

    /// From now on errors are such as may pass by themselves, a time-out, or not any more.
    pub fn transient(&self, transient: bool) {
        self.script.lock().transient = Some(transient);
    }

    /// An operation that is to come waits for the test: before it is done, or after it is done and before it is
    /// answered. Lists and deletes by streams do not wait.
    #[must_use]
    pub fn hold(&self, operation: impl Into<Which>, when: Fault) -> Held {
        let (reaching, reached) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.script.lock().gates.push(Gate {
            operation: operation.into(),
            when,
            reached: reaching,
            released,
        });
        Held { reached, release }
    }

    /// From now on writes are remembered, so that [`lose_power`](Self::lose_power) can take them back.
    pub fn remember_writes(&self) {
        self.script.lock().undo = Some(Vec::new());
    }

    /// The last `writes` puts that were acknowledged are gone: they had not reached the disk when the power failed.
    ///
    /// # Errors
    /// The inner store's.
    pub async fn lose_power(&self, writes: usize) -> Result<()> {
        for _ in 0..writes {
            let last = self.script.lock().undo.as_mut().and_then(Vec::pop);
            match last {
                Some((path, Some(bytes))) => drop(self.inner.put(&path, bytes.into()).await?),
                Some((path, None)) => self.inner.delete(&path).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// The operations so far, failed ones too: `put_opts a/b`.
    #[must_use]
    pub fn operations(&self) -> Vec<String> {
        self.script.lock().done.clone()
    }

    fn next(&self, operation: &str, path: impl fmt::Display) -> Fate {
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

    /// Puts, or tears what is put.
    async fn put_or_tear(
        &self,
        fate: Fate,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let failure = fate.failure.map(|failure| failure.fault);
        let place = match failure {
            Some(Fault::Torn) => location.clone(),
            Some(Fault::Staged) => Path::from(format!("{location}#1")),
            _ => return run(fate, self.inner.put_opts(location, payload, opts)).await,
        };
        let bytes = Bytes::from(payload);
        let half = bytes.slice(..bytes.len() / 2);
        self.inner.put_opts(&place, half.into(), opts).await?;
        run(fate, async { Err(injected(false)) }).await
    }

    /// Before a write: what it will replace.
    async fn remember(&self, location: &Path) {
        if self.script.lock().undo.is_none() {
            return;
        }
        let before = match self.inner.get(location).await {
            Ok(found) => found.bytes().await.ok(),
            Err(_) => None,
        };
        if let Some(undo) = &mut self.script.lock().undo {
            undo.push((location.clone(), before));
        }
    }

    /// After a write that was refused or failed: nothing was replaced.
    fn forget(&self) {
        if let Some(undo) = &mut self.script.lock().undo {
            undo.pop();
        }
    }
}

/// Counts one operation; what must happen to it.
fn next(script: &Mutex<Script>, operation: &str, path: impl fmt::Display) -> Fate {
    let mut script = script.lock();
    let operation = format!("{operation} {path}");
    let number = script.done.len() as u64 + 1;
    let held = |gate: &Gate| match &gate.operation {
        Which::Next(begins) => operation.starts_with(begins),
        Which::Nth(nth) => number == *nth,
    };
    let gate = script.gates.iter().position(held);
    let gate = gate.map(|at| script.gates.remove(at));
    script.done.push(operation);
    let dead = script.dead_from.is_some_and(|from| number >= from);
    let failure = match dead {
        true => Some(Fault::Before.lasting()),
        false => script.faults.get(&number).copied(),
    };
    let transient = script.transient;
    let failure = failure.map(|failure| Failure {
        transient: transient.unwrap_or(failure.transient),
        ..failure
    });
    Fate { failure, gate }
}

async fn run<T>(fate: Fate, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let Fate { failure, mut gate } = fate;
    if let Some(gate) = gate.take_if(|gate| gate.when != Fault::After) {
        gate.wait().await;
    }
    let answer = match failure.map(|failure| failure.fault) {
        None | Some(Fault::After) => Some(work.await),
        Some(_) => None,
    };
    if let Some(gate) = gate {
        gate.wait().await;
    }
    match (failure, answer) {
        (None, Some(answer)) => answer,
        (Some(_), Some(Err(error))) => Err(error),
        (failure, _) => Err(injected(failure.is_none_or(|failure| failure.transient))),
    }
}

impl Gate {
    async fn wait(self) {
        // The test does not look, or does not care any more: then nobody waits.
        let _ = self.reached.send(());
        drop(self.released.await);
    }
}

fn run_stream<T: Send + 'static>(
    fate: &Fate,
    work: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let Some(Failure { fault, transient }) = fate.failure else {
        return work;
    };
    match fault {
        Fault::After => work.map(move |_| Err(injected(transient))).boxed(),
        _ => stream::iter([Err(injected(transient))]).boxed(),
    }
}

fn injected(transient: bool) -> object_store::Error {
    if transient {
        return object_store::Error::Generic {
            store: "FaultyStore",
            source: Box::new(std::io::Error::new(
                std::io::ErrorKind::ConnectionReset,
                INJECTED,
            )),
        };
    }
    object_store::Error::PermissionDenied {
        path: "FaultyStore".into(),
        source: INJECTED.into(),
    }
}

const INJECTED: &str = "a fault was injected";

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
        let fate = self.next("put_opts", location);
        self.remember(location).await;
        let put = self.put_or_tear(fate, location, payload, opts).await;
        if put.is_err() {
            self.forget();
        }
        put
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

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let work = self.inner.get_ranges(location, ranges);
        self.run("get_ranges", location, work).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let fate = self.next("delete_stream", "");
        run_stream(&fate, self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fate = self.next("list", prefix.cloned().unwrap_or_default());
        run_stream(&fate, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let fate = self.next("list_with_offset", prefix.cloned().unwrap_or_default());
        run_stream(&fate, self.inner.list_with_offset(prefix, offset))
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
        let fate = next(&self.script, "put_part", &self.location);
        run(fate, self.inner.put_part(data)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fate = next(&self.script, "complete", &self.location);
        run(fate, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fate = next(&self.script, "abort", &self.location);
        run(fate, self.inner.abort()).await
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

    async fn text(store: &dyn ObjectStore, path: &str) -> Option<Bytes> {
        let found = store.get(&Path::from(path)).await.ok()?;
        found.bytes().await.ok()
    }

    #[tokio::test]
    async fn a_torn_put_leaves_half_of_it_and_a_staged_one_leaves_it_beside() {
        for (fault, torn) in [(Fault::Torn, "a"), (Fault::Staged, "a#1")] {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let store = FaultyStore::new(Arc::clone(&inner));
            store.die(2, fault);
            assert!(text(&store, "a").await.is_none() && !store.is_dead());
            let error = store.put(&Path::from("a"), "12345".into()).await;
            let error = error.expect_err("torn");
            assert!(matches!(
                error,
                object_store::Error::PermissionDenied { .. }
            ));
            assert!(store.is_dead());
            assert_eq!(text(&*inner, torn).await.expect("there"), "12");
            assert_eq!(text(&*inner, "a").await.is_some(), torn == "a");
            assert!(store.put(&Path::from("b"), "1".into()).await.is_err());
        }
    }

    #[tokio::test]
    async fn the_last_writes_go_with_the_power() {
        let store = FaultyStore::new(Arc::new(InMemory::new()));
        let (a, b) = (Path::from("a"), Path::from("b"));
        store.put(&a, "0".into()).await.expect("put");
        store.remember_writes();
        store.put(&a, "1".into()).await.expect("put");
        let taken = PutOptions::from(object_store::PutMode::Create);
        assert!(store.put_opts(&a, "2".into(), taken).await.is_err());
        store.put(&b, "3".into()).await.expect("put");
        store.lose_power(1).await.expect("lost");
        assert!(text(&store, "b").await.is_none());
        assert_eq!(text(&store, "a").await.expect("there"), "1");
        store.lose_power(9).await.expect("lost");
        assert_eq!(text(&store, "a").await.expect("there"), "0");
    }

    #[tokio::test]
    async fn a_held_operation_waits_for_the_test() {
        for (when, there) in [(Fault::Before, false), (Fault::After, true)] {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let store = FaultyStore::new(Arc::clone(&inner));
            let mut held = store.hold("put_opts b", when);
            let a = Path::from("a");
            store.put(&a, "1".into()).await.expect("not held");
            let put = async {
                let b = Path::from("b");
                store.put(&b, "2".into()).await
            };
            let test = async {
                held.reached().await;
                assert_eq!(text(&*inner, "b").await.is_some(), there);
                held.release();
            };
            let (put, ()) = futures::join!(put, test);
            assert!(put.is_ok() && text(&*inner, "b").await.is_some());
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
