//! Tests of the compacting log.

use std::sync::Arc;

use highwater_core::{BatchId, ErrorKind};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use super::CompactingLog;
use crate::object;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    path: String,
}

fn seen(path: impl Into<String>) -> Seen {
    Seen { path: path.into() }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn log(store: &Arc<dyn ObjectStore>) -> CompactingLog<Seen> {
    CompactingLog::new(Arc::clone(store), Path::from("sources/0"))
}

/// Entry N has N mod 3 items.
fn items(n: u64) -> Vec<Seen> {
    (0..n % 3).map(|i| seen(format!("f{n}-{i}"))).collect()
}

async fn files(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let mut names = object::names(&**store, &Path::from("sources/0"))
        .await
        .expect("listed");
    names.sort();
    names
}

async fn text(store: &Arc<dyn ObjectStore>, path: &str) -> String {
    let bytes = object::read(&**store, &Path::from(path)).await;
    let bytes = bytes.expect("read").expect("there");
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn every_item_is_loaded_once(store: Arc<dyn ObjectStore>) {
    let log = log(&store);
    assert!(log.load_all().await.expect("empty").is_empty());
    for n in 0..33 {
        log.add(BatchId(n), &items(n)).await.expect("added");
        let loaded = log.load_all().await.expect("loaded");
        assert_eq!(loaded.last().map(|entry| entry.0), Some(BatchId(n)));
        let full: Vec<_> = loaded.into_iter().filter(|e| !e.1.is_empty()).collect();
        let expected = (0..=n).map(|n| (BatchId(n), items(n)));
        assert_eq!(
            full,
            expected.filter(|e| !e.1.is_empty()).collect::<Vec<_>>()
        );
        assert_eq!(log.latest_id().await.expect("listed"), Some(BatchId(n)));
    }
    assert_eq!(files(&store).await, ["29.compact", "30", "31", "32"]);
}

#[tokio::test]
async fn every_item_is_loaded_once_from_memory() {
    every_item_is_loaded_once(memory()).await;
}

#[tokio::test]
async fn every_item_is_loaded_once_from_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("store");
    every_item_is_loaded_once(Arc::new(store)).await;
}

#[tokio::test]
async fn the_files_are_spark_s() {
    let store = memory();
    let log = log(&store);
    for n in 0..10 {
        let one = if n < 2 {
            vec![seen(format!("f{n}"))]
        } else {
            vec![]
        };
        log.add(BatchId(n), &one).await.expect("added");
        if n == 0 {
            let entry = text(&store, "sources/0/0").await;
            assert_eq!(entry, "v1\n{\"batchId\":0,\"path\":\"f0\"}");
        }
    }
    assert_eq!(
        text(&store, "sources/0/9.compact").await,
        "v1\n{\"batchId\":0,\"path\":\"f0\"}\n{\"batchId\":1,\"path\":\"f1\"}"
    );
    // An entry of Spark's file sink does not say its number.
    let path = Path::from("sources/0/10");
    store
        .put(&path, "v1\n{\"path\":\"g\",\"size\":4}".into())
        .await
        .expect("put");
    let loaded = log.load_all().await.expect("loaded");
    assert_eq!(loaded.last(), Some(&(BatchId(10), vec![seen("g")])));
}

#[tokio::test]
async fn an_entry_that_is_taken_is_refused() {
    let store = memory();
    let log = log(&store);
    for n in 0..10 {
        log.add(BatchId(n), &[]).await.expect("added");
    }
    for (n, path) in [(9, "sources/0/9.compact")] {
        let error = log.add(BatchId(n), &[seen("x")]).await.expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.message().contains(path), "{error}");
    }
}

#[tokio::test]
async fn a_crash_before_the_purge_changes_nothing() {
    let store = memory();
    let log = log(&store);
    for n in 0..9 {
        log.add(BatchId(n), &items(n)).await.expect("added");
    }
    let mut old = Vec::new();
    for n in 0..9 {
        old.push((n, text(&store, &format!("sources/0/{n}")).await));
    }
    log.add(BatchId(9), &items(9)).await.expect("added");
    let loaded = log.load_all().await.expect("loaded");
    for (n, entry) in old {
        let path = Path::from(format!("sources/0/{n}"));
        store.put(&path, entry.into()).await.expect("put");
    }
    assert_eq!(log.load_all().await.expect("loaded"), loaded);
    for n in 10..20 {
        log.add(BatchId(n), &[]).await.expect("added");
    }
    assert_eq!(files(&store).await, ["19.compact"]);
}

#[tokio::test]
async fn a_damaged_entry_is_named_and_never_compacted() {
    let store = memory();
    let log = log(&store);
    for n in 0..9 {
        log.add(BatchId(n), &[seen("f")]).await.expect("added");
    }
    for damage in [
        "",
        "v2\n{}",
        "v1\n{\"path\":\"f",
        "v1\n{\"path\":\"f\"}\n",
        "v1\n{}",
        "v1\n[]",
    ] {
        let path = Path::from("sources/0/4");
        store.put(&path, damage.into()).await.expect("put");
        for error in [
            log.load_all().await.expect_err("damaged"),
            log.add(BatchId(9), &[]).await.expect_err("damaged"),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
            assert!(
                error
                    .message()
                    .starts_with("log entry `sources/0/4` is damaged: "),
                "{error}"
            );
        }
        assert_eq!(files(&store).await.len(), 9);
    }
}

#[tokio::test]
async fn an_item_that_is_no_object_is_refused() {
    let log = CompactingLog::new(memory(), Path::from("log"));
    let error = log.add(BatchId(0), &[7]).await.expect_err("no object");
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn only_a_compact_entry_drops_items_and_at_once_with_what_it_adds() {
    let store = memory();
    let log = log(&store).untagged().compact_every(3);
    let not_f0 = |item: &Seen| item.path != "f0";
    for n in 0..3 {
        let one = [seen(format!("f{n}"))];
        log.add_keeping(BatchId(n), &one, not_f0)
            .await
            .expect("added");
        if n == 1 {
            let plain = text(&store, "sources/0/1").await;
            assert_eq!(plain, "v1\n{\"path\":\"f1\"}");
            assert_eq!(log.load_all().await.expect("loaded").len(), 2);
        }
    }
    assert_eq!(files(&store).await, ["2.compact"]);
    let entry = text(&store, "sources/0/2.compact").await;
    assert_eq!(entry, "v1\n{\"path\":\"f1\"}\n{\"path\":\"f2\"}");
    let loaded = log.load_all().await.expect("loaded");
    assert_eq!(loaded, [(BatchId(2), vec![seen("f1"), seen("f2")])]);
}

/// One flipped bit, and an entry in the place of another: a sealed log finds both, in plain and compact entries.
#[tokio::test]
async fn a_sealed_log_finds_every_change() {
    let store = memory();
    let log = log(&store).sealed();
    for n in 0..12 {
        log.add(BatchId(n), &[seen(format!("f{n}"))])
            .await
            .expect("added");
    }
    assert_eq!(log.load_all().await.expect("loaded").len(), 12);
    for name in ["9.compact", "10", "11"] {
        let path = Path::from(format!("sources/0/{name}"));
        let whole = object::read(&*store, &path).await.expect("read");
        let whole = whole.expect("there");
        for bit in (0..whole.len() * 8).step_by(7) {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            store.put(&path, flipped.into()).await.expect("put");
            let error = log.load_all().await.expect_err("flipped");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}, bit {bit}");
            assert!(error.message().contains(path.as_ref()), "{error}");
        }
        store.put(&path, whole.into()).await.expect("put");
    }
    let other = object::read(&*store, &Path::from("sources/0/10")).await;
    let other = other.expect("read").expect("there");
    let path = Path::from("sources/0/11");
    store.put(&path, other.into()).await.expect("put");
    assert!(log.load_all().await.is_err());
}
