//! Faults before and after every operation, torn bodies, and what must not be tried again.

use std::io::{self, ErrorKind};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use highwater_core::testing::{Fault, FaultyStore, ManualClock};
use highwater_core::{BatchId, Timestamp};
use object_store::memory::InMemory;
use object_store::{GetResultPayload, ObjectStoreExt, WriteMultipart};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::text::{LogEntry, decode_json, encode_json};
use crate::{CompactingLog, NumberedLog};

/// A clock that jumps to wherever somebody wants to sleep to.
#[derive(Debug, Default)]
struct JumpClock(Mutex<Vec<Timestamp>>);

impl JumpClock {
    /// The lengths of all sleeps.
    fn pauses(&self) -> Vec<Duration> {
        let hours = self.0.lock();
        let mut before = Timestamp::default();
        let mut pauses = Vec::new();
        for hour in hours.iter() {
            pauses.push(hour.since(before));
            before = *hour;
        }
        pauses
    }
}

#[async_trait]
impl Clock for JumpClock {
    fn now(&self) -> Timestamp {
        self.0.lock().last().copied().unwrap_or_default()
    }

    async fn sleep_until(&self, until: Timestamp) {
        self.0.lock().push(until);
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy {
        seed: 7,
        ..RetryPolicy::default()
    }
}

/// A store whose faults may pass by themselves, and one that tries them again.
fn stores() -> (FaultyStore, Arc<dyn ObjectStore>, Arc<JumpClock>) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    faulty.transient(true);
    let clock = Arc::new(JumpClock::default());
    let inner: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
    let store = RetryStore::around(inner, policy(), Arc::clone(&clock) as Arc<dyn Clock>);
    (faulty, store, clock)
}

#[derive(Debug, PartialEq)]
struct Word(String);

impl LogEntry for Word {
    fn encode(&self) -> highwater_core::Result<Vec<u8>> {
        encode_json(&self.0)
    }

    fn decode(bytes: &[u8]) -> highwater_core::Result<Self> {
        decode_json(bytes).map(Self)
    }
}

/// The life of a log as a query leads it; what it reads is given back.
async fn life_of_a_log(store: Arc<dyn ObjectStore>) -> highwater_core::Result<Vec<String>> {
    let log = NumberedLog::new(Arc::clone(&store), Path::from("log"));
    for n in 0..4 {
        log.add(BatchId(n), &Word(format!("w{n}"))).await?;
    }
    log.purge(BatchId(2)).await?;
    let mut read: Vec<String> = log.ids().await?.iter().map(ToString::to_string).collect();
    read.extend(log.latest().await?.map(|(_, word)| word.0));
    let items = CompactingLog::<Value>::new(Arc::clone(&store), Path::from("items"));
    for n in 0..3 {
        items.add(BatchId(n), &[json!({ "item": n })]).await?;
    }
    let items = items.load_all().await?.into_iter();
    read.extend(
        items
            .flat_map(|(_, items)| items)
            .map(|item| item.to_string()),
    );
    let (from, to) = (Path::from("log/2"), Path::from("moved/2"));
    store.rename(&from, &to).await?;
    let mut upload = WriteMultipart::new(store.put_multipart(&Path::from("big")).await?);
    upload.write(&[b'x'; 100]);
    upload.finish().await?;
    let mut paths: Vec<String> = store
        .list(None)
        .map_ok(|object| format!("{} {}", object.location, object.size))
        .try_collect()
        .await?;
    paths.sort_unstable();
    read.extend(paths);
    Ok(read)
}

#[tokio::test]
async fn a_fault_at_any_operation_changes_nothing() {
    let (faulty, store, _) = stores();
    let expected = life_of_a_log(store).await.expect("without faults");
    let operations = faulty.operations();
    assert!(operations.len() > 15, "{operations:?}");
    let mut tried_again = 0;
    for (number, operation) in operations.iter().enumerate() {
        for fault in [Fault::Before, Fault::After] {
            let (faulty, store, clock) = stores();
            faulty.fail(number as u64 + 1, fault);
            let read = life_of_a_log(store).await;
            assert_eq!(
                read.expect(operation),
                expected,
                "{fault:?} {number} {operation}"
            );
            tried_again += clock.pauses().len();
        }
    }
    // An answer without items (a listing of nothing) has none that could be lost.
    assert!(
        tried_again >= 2 * operations.len() - 5,
        "{tried_again} {operations:?}"
    );
}

#[tokio::test]
async fn faults_in_a_row_are_outlasted() {
    let (faulty, store, clock) = stores();
    for n in 1..=4 {
        let fault = if n % 2 == 0 {
            Fault::Before
        } else {
            Fault::After
        };
        faulty.fail(n, fault);
    }
    let log = NumberedLog::new(store, Path::from("log"));
    log.add(BatchId(0), &Word("ours".into()))
        .await
        .expect("put");
    assert_eq!(
        log.get(BatchId(0)).await.expect("read"),
        Some(Word("ours".into()))
    );
    // The third try finds the object there, and so needs no fourth: the fault is that of reading it back.
    assert_eq!(clock.pauses().len(), 3);
}

#[tokio::test]
async fn the_last_error_says_how_often_it_was_tried() {
    let (faulty, store, clock) = stores();
    faulty.fail_from(1);
    let error = store.head(&Path::from("a")).await.expect_err("dead");
    assert_eq!(
        error.to_string(),
        "Generic FaultyStore error: tried 5 times: Generic FaultyStore error: a fault was injected"
    );
    assert_eq!(faulty.operations().len(), 5);
    // Random, but within 100, 200, 400 and 800 ms.
    let pauses = clock.pauses();
    assert_eq!(pauses.len(), 4);
    for (n, pause) in pauses.iter().enumerate() {
        assert!(
            *pause <= Duration::from_millis(100 << n),
            "pause {n}: {pause:?}"
        );
    }
    // A second wrapper does not multiply the tries.
    assert!(!is_transient(&error));
}

#[tokio::test]
async fn no_retry_is_begun_after_the_time_is_up() {
    let (faulty, _, clock) = stores();
    faulty.fail_from(1);
    let policy = RetryPolicy {
        attempts: 1_000,
        give_up_after: Duration::from_secs(30),
        ..policy()
    };
    let inner: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
    let store = RetryStore::around(inner, policy, Arc::clone(&clock) as Arc<dyn Clock>);
    assert!(store.head(&Path::from("a")).await.is_err());
    assert!(clock.now() <= Timestamp::from_millis(30_000));
    assert!((5..40).contains(&faulty.operations().len()));
}

#[tokio::test]
async fn it_waits_by_the_clock() {
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    faulty.transient(true);
    faulty.fail(1, Fault::Before);
    let inner: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
    let store = RetryStore::around(inner, policy(), Arc::new(clock.clone()));
    let path = Path::from("a");
    let mut put = Box::pin(store.put(&path, "1".into()));
    assert!(put.as_mut().now_or_never().is_none());
    assert_eq!((clock.sleepers(), faulty.operations().len()), (1, 1));
    clock.advance("100 ms").expect("an interval");
    put.await.expect("put");
}

#[tokio::test]
async fn what_does_not_pass_is_told_at_once() {
    let (faulty, store, clock) = stores();
    faulty.transient(false);
    faulty.fail(1, Fault::Before);
    let path = Path::from("a");
    assert!(store.put(&path, "1".into()).await.is_err());
    assert!(matches!(
        store.get(&path).await,
        Err(Error::NotFound { .. })
    ));
    store.put(&path, "1".into()).await.expect("put");
    let again = store
        .put_opts(&path, "1".into(), PutMode::Create.into())
        .await;
    // The same bytes, but no try of ours has failed: they are another writer's.
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    assert!(clock.pauses().is_empty());
    let none = RetryPolicy {
        attempts: 0,
        ..policy()
    };
    let off = RetryStore::around(Arc::new(InMemory::new()), none, clock);
    assert_eq!(off.to_string(), "InMemory");
}

#[tokio::test]
async fn of_put_if_absent_with_a_lost_answer_the_bytes_tell_whose_it_is() {
    for (there, ours) in [
        (None, true),
        (Some("theirs"), false),
        (Some("ours but longer"), false),
    ] {
        let (faulty, store, _) = stores();
        let path = Path::from("runs/0");
        let fault = match there {
            None => Fault::After,
            Some(other) => {
                faulty.put(&path, other.into()).await.expect("their put");
                Fault::Before
            }
        };
        faulty.fail(faulty.operations().len() as u64 + 1, fault);
        let put = store
            .put_opts(&path, "ours".into(), PutMode::Create.into())
            .await;
        match put {
            Ok(_) => assert!(ours, "{there:?}"),
            Err(Error::AlreadyExists { .. }) => assert!(!ours, "{there:?}"),
            Err(other) => panic!("{there:?}: {other}"),
        }
        let kept = store.get(&path).await.expect("there").bytes().await;
        assert_eq!(kept.expect("read"), there.unwrap_or("ours"));
    }
}

#[tokio::test]
async fn deleting_again_finds_nothing_and_that_is_well() {
    let (faulty, store, _) = stores();
    let path = Path::from("a");
    store.put(&path, "1".into()).await.expect("put");
    faulty.fail(2, Fault::After);
    store.delete(&path).await.expect("deleted");
    assert!(store.head(&path).await.is_err());
}

/// A store whose answers break off in the middle.
#[derive(Debug)]
struct Torn {
    inner: FaultyStore,
    /// So many bodies break.
    breaks: AtomicUsize,
    /// A broken body ends, as if it were complete.
    silent: bool,
    /// It tells no etags.
    nameless: bool,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Torn")
    }
}

#[async_trait]
impl ObjectStore for Torn {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(to, bytes, how).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, how).await
    }

    async fn get_opts(&self, from: &Path, mut how: GetOptions) -> Result<GetResult> {
        if self.nameless {
            how.if_match = None;
        }
        let mut result = self.inner.get_opts(from, how).await?;
        if self.nameless {
            result.meta.e_tag = None;
        }
        if self.breaks.load(Ordering::Relaxed) == 0 {
            return Ok(result);
        }
        self.breaks.fetch_sub(1, Ordering::Relaxed);
        let (meta, range, attributes) = (
            result.meta.clone(),
            result.range.clone(),
            result.attributes.clone(),
        );
        let bytes = result.bytes().await?;
        let some = Ok(bytes.slice(..bytes.len() / 3));
        let error = Err(Error::Generic {
            store: "Torn",
            source: io::Error::from(ErrorKind::ConnectionReset).into(),
        });
        let chunks = if self.silent {
            vec![some]
        } else {
            vec![some, error]
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter(chunks).boxed()),
            meta,
            range,
            attributes,
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

fn torn(breaks: usize, silent: bool, nameless: bool) -> (FaultyStore, Arc<dyn ObjectStore>) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    faulty.transient(true);
    let torn = Torn {
        inner: faulty.clone(),
        breaks: breaks.into(),
        silent,
        nameless,
    };
    let clock = Arc::new(JumpClock::default());
    (
        faulty,
        RetryStore::around(Arc::new(torn), policy(), clock as Arc<dyn Clock>),
    )
}

#[tokio::test]
async fn a_body_that_breaks_is_read_on_from_there() {
    let path = Path::from("a");
    let bytes: Vec<u8> = (0..=255).collect();
    for (silent, nameless) in [(false, false), (true, false), (false, true), (true, true)] {
        for breaks in 0..6 {
            let (faulty, store) = torn(breaks, silent, nameless);
            store.put(&path, bytes.clone().into()).await.expect("put");
            // The first get after a break fails as well.
            faulty.fail(3, Fault::Before);
            let read = store.get(&path).await.expect("got").bytes().await;
            assert_eq!(
                read.expect("read"),
                bytes,
                "{breaks} breaks, silent {silent}"
            );
            let range = GetOptions::new().with_range(Some(10..200_u64));
            let part = store.get_opts(&path, range).await.expect("got");
            assert_eq!(part.bytes().await.expect("read"), bytes[10..200]);
        }
    }
}

#[tokio::test]
async fn the_rest_of_another_object_is_not_read() {
    let path = Path::from("a");
    for nameless in [false, true] {
        let (_, store) = torn(1, false, nameless);
        store.put(&path, "the old one".into()).await.expect("put");
        let old = store.get(&path).await.expect("got");
        store.put(&path, "the new one!".into()).await.expect("put");
        let error = old.bytes().await.expect_err("changed");
        assert!(matches!(error, Error::Precondition { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_upload_is_begun_anew_when_a_part_fails() {
    let path = Path::from("big");
    let parts = ["one", "two", "three"];
    // Begin, three parts, completion.
    for nth in 1..=5 {
        for fault in [Fault::Before, Fault::After] {
            let (faulty, store, _) = stores();
            faulty.fail(nth, fault);
            let mut upload = store.put_multipart(&path).await.expect("begun");
            for part in parts {
                upload.put_part(part.into()).await.expect("part");
            }
            upload.complete().await.expect("complete");
            let read = store.get(&path).await.expect("there").bytes().await;
            assert_eq!(read.expect("read"), "onetwothree", "{fault:?} at {nth}");
        }
    }
}

#[test]
fn only_some_errors_pass_by_themselves() {
    let io = |kind: ErrorKind| Error::Generic {
        store: "S",
        source: io::Error::from(kind).into(),
    };
    let said = |text: &str| Error::Generic {
        store: "S",
        source: text.into(),
    };
    for (error, passes) in [
        (io(ErrorKind::TimedOut), true),
        (io(ErrorKind::ConnectionReset), true),
        (io(ErrorKind::UnexpectedEof), true),
        (io(ErrorKind::Interrupted), true),
        (io(ErrorKind::PermissionDenied), false),
        (io(ErrorKind::StorageFull), false),
        (io(ErrorKind::InvalidData), false),
        (
            said("Server returned non-2xx status code: 503 Service Unavailable: "),
            true,
        ),
        (
            said("Server returned non-2xx status code: 429 Too Many Requests: "),
            true,
        ),
        (
            said("Server returned non-2xx status code: 400 Bad Request: "),
            false,
        ),
        (said("HTTP error: error sending request"), true),
        (said("no such bucket"), false),
        (
            Error::NotFound {
                path: "a".into(),
                source: io::Error::from(ErrorKind::TimedOut).into(),
            },
            false,
        ),
        (
            Error::PermissionDenied {
                path: "a".into(),
                source: "no".into(),
            },
            false,
        ),
    ] {
        assert_eq!(is_transient(&error), passes, "{error}");
    }
}
