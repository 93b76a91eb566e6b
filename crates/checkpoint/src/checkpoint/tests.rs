//! Tests of the checkpoint: what a restart finds after every crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use highwater_core::testing::{Fault, FaultyStore};
use highwater_core::{
    BatchId, Clock, Error, ErrorKind, OffsetRange, QueryId, Result, RunId, SinkCommit, Timestamp,
    Watermark, stable_hash,
};
use highwater_storage::text::seal;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use uuid::Uuid;

use super::Checkpoint;
use crate::{CommitEntry, OffsetsEntry, OperatorChanges, OperatorIdentity, Resume};

type Store = Arc<dyn ObjectStore>;

fn memory() -> Store {
    Arc::new(InMemory::new())
}

async fn try_open(store: &Store, run: u128) -> Result<Checkpoint> {
    let (run, id) = (
        RunId(Uuid::from_u128(run)),
        QueryId(Uuid::from_u128(run + 100)),
    );
    Checkpoint::open(Arc::clone(store), Path::from("a b/ckpt"), run, id).await
}

async fn open(store: &Store, run: u128) -> Checkpoint {
    try_open(store, run).await.expect("opened")
}

fn offsets(n: u64) -> OffsetsEntry {
    let range = OffsetRange::new(n.into(), (n + 1).into());
    OffsetsEntry {
        batch_time: Timestamp::from_millis(1_000 * i64::try_from(n).expect("small")),
        sources: BTreeMap::from([("events".to_owned(), range)]),
        ..OffsetsEntry::default()
    }
}

fn commit(n: u64, state: Option<String>) -> CommitEntry {
    CommitEntry {
        next_watermark: Watermark(i64::try_from(n).expect("small")),
        state,
        operators: None,
        sink: SinkCommit::rows(n),
        ..CommitEntry::default()
    }
}

/// Micro-batch N puts the record N into the state.
fn changes(n: u64) -> Vec<OperatorChanges> {
    let values = Int64Array::from(vec![i64::try_from(n).expect("small")]);
    let records = RecordBatch::try_from_iter([("n", Arc::new(values) as ArrayRef)]);
    vec![OperatorChanges {
        operator: "aggregate".into(),
        records: vec![records.expect("records")],
    }]
}

/// One whole micro-batch.
async fn run_batch(checkpoint: &Checkpoint, n: u64) {
    let id = BatchId(n);
    checkpoint.intend(id, &offsets(n)).await.expect("intended");
    finish_batch(checkpoint, n).await;
}

async fn finish_batch(checkpoint: &Checkpoint, n: u64) {
    let id = BatchId(n);
    let state = checkpoint.write_state(id, &changes(n)).await;
    let entry = commit(n, state.expect("state written"));
    checkpoint.done(id, &entry).await.expect("done");
}

async fn restored(checkpoint: &Checkpoint, upto: u64) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    let mut apply = |operator: &str, records: RecordBatch| {
        assert_eq!(operator, "aggregate");
        let column = records.column(0).as_any().downcast_ref::<Int64Array>();
        found.extend(column.expect("numbers").values().iter().copied());
        Ok(())
    };
    checkpoint.restore_state(BatchId(upto), &mut apply).await?;
    Ok(found)
}

async fn put(store: &Store, path: &str, text: &[u8]) {
    let path = Path::from(format!("a b/ckpt/{path}"));
    store.put(&path, text.to_vec().into()).await.expect("put");
}

async fn delete(store: &Store, path: &str) {
    let path = Path::from(format!("a b/ckpt/{path}"));
    store.delete(&path).await.expect("deleted");
}

async fn get(store: &Store, path: &str) -> Vec<u8> {
    let path = Path::from(format!("a b/ckpt/{path}"));
    let found = store.get(&path).await.expect("there");
    found.bytes().await.expect("read").to_vec()
}

/// A query is killed at every step of every micro-batch, and goes on where it was.
async fn killed_at_every_step(store: Store) {
    let mut run = 0;
    let mut next_run = async || {
        run += 1;
        let checkpoint = open(&store, run).await;
        assert_eq!(checkpoint.query_id(), QueryId(Uuid::from_u128(101)));
        let recovery = checkpoint.recover().await.expect("recovered");
        (checkpoint, recovery)
    };
    for n in 0..4 {
        let batch = BatchId(n);
        let (checkpoint, found) = next_run().await;
        let before = batch.previous();
        let expected = before.map_or(Resume::Fresh, |batch| Resume::After { batch });
        assert_eq!(found.resume, expected);
        assert_eq!(found.offsets, before.map(|b| offsets(b.0)));
        checkpoint
            .intend(batch, &offsets(n))
            .await
            .expect("intended");

        let (checkpoint, found) = next_run().await;
        assert_eq!(found.resume, Resume::Rerun { batch });
        assert_eq!(found.offsets, Some(offsets(n)));
        assert_eq!(found.previous, before.map(|b| offsets(b.0)));
        let last = found.commit.map(|c| c.next_watermark.0);
        assert_eq!(last, before.map(|b| i64::try_from(b.0).expect("small")));
        let lost = checkpoint.write_state(batch, &changes(77)).await;
        lost.expect("written, but never committed");

        let (checkpoint, found) = next_run().await;
        assert_eq!(found.resume, Resume::Rerun { batch });
        if let Some(before) = before {
            let state = restored(&checkpoint, before.0).await.expect("restored");
            assert_eq!(
                state,
                (0..).take(n.try_into().expect("small")).collect::<Vec<_>>()
            );
        }
        finish_batch(&checkpoint, n).await;
    }
    let (checkpoint, found) = next_run().await;
    assert_eq!(found.resume, Resume::After { batch: BatchId(3) });
    assert_eq!(found.commit, Some(commit(3, Some("state/3-11".into()))));
    assert_eq!(
        restored(&checkpoint, 3).await.expect("restored"),
        [0, 1, 2, 3]
    );
}

#[tokio::test]
async fn killed_at_every_step_in_memory() {
    killed_at_every_step(memory()).await;
}

#[tokio::test]
async fn killed_at_every_step_on_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("store");
    killed_at_every_step(Arc::new(store)).await;
}

#[tokio::test]
async fn the_files_are_the_documented_ones() {
    let store = memory();
    let checkpoint = open(&store, 1).await;
    checkpoint
        .check_operators(&[], false)
        .await
        .expect("written");
    run_batch(&checkpoint, 0).await;
    let id = "00000000-0000-0000-0000-000000000065";
    let process = std::process::id();
    let run = "00000000-0000-0000-0000-000000000001";
    let checksum = format!(
        "{:016x}",
        stable_hash(format!("metadata 1 {id}").as_bytes())
    );
    for (path, text) in [
        (
            "metadata",
            format!("{{\"version\":1,\"id\":\"{id}\",\"checksum\":\"{checksum}\"}}"),
        ),
        ("operators", "v1\n{\"operators\":[]}".to_owned()),
        (
            "runs/0",
            format!("v1\n{{\"runId\":\"{run}\",\"process\":{process}}}"),
        ),
        (
            "commits/0",
            "v1\n{\"nextBatchWatermarkMs\":0,\"state\":\"state/0-0\",\"sink\":{\"rows\":0}}"
                .to_owned(),
        ),
    ] {
        let found = String::from_utf8(get(&store, path).await).expect("text");
        let text = match path {
            "metadata" => text,
            _ => String::from_utf8(seal(path, text.into_bytes())).expect("text"),
        };
        assert_eq!(found, text, "{path}");
    }
    assert!(
        get(&store, "state/0-0")
            .await
            .starts_with(b"HWST\x01\0\0\0")
    );
}

#[tokio::test]
async fn a_run_that_lost_the_checkpoint_writes_nothing_more() {
    let store = memory();
    let old = open(&store, 1).await;
    run_batch(&old, 0).await;
    old.intend(BatchId(1), &offsets(1)).await.expect("intended");
    let new = open(&store, 2).await;
    let error = old.check_claim().await.expect_err("fenced");
    assert!(
        error
            .message()
            .starts_with("run 00000000-0000-0000-0000-000000000002 "),
        "{error}"
    );
    finish_batch(&new, 1).await;

    let entry = commit(1, None);
    for error in [
        old.done(BatchId(1), &entry).await.expect_err("taken"),
        old.intend(BatchId(2), &offsets(2))
            .await
            .expect_err("fenced"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.hint().is_some());
    }
    let found = new.recover().await.expect("recovered");
    assert_eq!(found.resume, Resume::After { batch: BatchId(1) });
    let written_by_new = Some("state/1-1".to_owned());
    assert_eq!(found.commit.and_then(|commit| commit.state), written_by_new);
}

/// The new run lists the log, the old one writes its entry, and then looks: it finds that it lost the checkpoint
/// before it writes to a sink.
#[tokio::test]
async fn a_run_that_intends_after_it_was_listed_is_fenced() {
    let inner = memory();
    let faulty = FaultyStore::new(Arc::clone(&inner));
    let old = open(&(Arc::new(faulty.clone()) as Store), 1).await;
    run_batch(&old, 0).await;
    let mut held = faulty.hold("put_opts a b/ckpt/offsets/1", Fault::Before);
    let entry = offsets(1);
    let intending = old.intend(BatchId(1), &entry);
    let fight = async {
        held.reached().await;
        let new = open(&inner, 2).await;
        let found = new.recover().await.expect("recovered");
        assert_eq!(found.resume, Resume::After { batch: BatchId(0) });
        held.release();
        new
    };
    let (lost, new) = futures::join!(intending, fight);
    assert_eq!(lost.expect_err("fenced").kind(), ErrorKind::Fenced);
    new.check_claim().await.expect("the new run owns it");
    let found = new.recover().await.expect("recovered");
    assert_eq!(found.resume, Resume::Rerun { batch: BatchId(1) });
}

#[tokio::test]
async fn runs_that_start_together_agree_on_the_operators() {
    let inner = memory();
    let faulty = FaultyStore::new(Arc::clone(&inner));
    let first = open(&(Arc::new(faulty.clone()) as Store), 1).await;
    let second = open(&inner, 2).await;
    let mut held = faulty.hold("put_opts a b/ckpt/operators", Fault::Before);
    let fight = async {
        held.reached().await;
        second.check_operators(&[], false).await.expect("written");
        held.release();
    };
    let (checked, ()) = futures::join!(first.check_operators(&[], false), fight);
    checked.expect("the same operators");
}

#[tokio::test]
async fn a_damaged_log_is_named() {
    for (path, text, named) in [
        (
            "offsets/2",
            Some(&b"v1\n{"[..]),
            "log entry `a b/ckpt/offsets/2` is damaged: it ends in the middle: it has no checksum",
        ),
        (
            "offsets/2",
            Some(b"v9\n{}"),
            "log entry `a b/ckpt/offsets/2` is damaged: its first line is `v9`, not `v1`",
        ),
        (
            "offsets/1",
            Some(b""),
            "log entry `a b/ckpt/offsets/1` is damaged: it is empty",
        ),
        (
            "commits/2",
            Some(b"v1\n{}\nxxh3=0123456789abcdef"),
            "log entry `a b/ckpt/commits/2` is damaged: its checksum is wrong: it was changed, cut off, or is not \
             `commits/2`",
        ),
        (
            "offsets/1",
            None,
            "the checkpoint contradicts itself: `offsets/1` is missing, and later entries are there",
        ),
        (
            "commits/1",
            None,
            "the checkpoint contradicts itself: `commits/1` is missing, and later entries are there",
        ),
        (
            "offsets/2",
            None,
            "the checkpoint contradicts itself: `commits/2` is there, but `offsets/2` is not: the last entry is 1",
        ),
        (
            "commits/9",
            Some(b"v1\n{}"),
            "the checkpoint contradicts itself: `commits/3` is missing, and later entries are there",
        ),
    ] {
        let store = memory();
        let checkpoint = open(&store, 1).await;
        for n in 0..3 {
            run_batch(&checkpoint, n).await;
        }
        match text {
            Some(text) => put(&store, path, text).await,
            None => delete(&store, path).await,
        }
        let error = checkpoint.recover().await.expect_err(named);
        assert_eq!((error.kind(), error.message()), (ErrorKind::Corrupt, named));
    }
}

#[tokio::test]
async fn a_damaged_state_is_named() {
    for (path, text, named) in [
        (
            "state/1-0",
            Some(&b"HWST"[..]),
            "checkpoint file `a b/ckpt/state/1-0` is damaged: it ends in the middle",
        ),
        (
            "state/1-0",
            None,
            "checkpoint file `a b/ckpt/state/1-0` is missing",
        ),
        (
            "commits/0",
            None,
            "checkpoint file `a b/ckpt/commits/0` is missing",
        ),
        (
            "commits/0",
            Some(b"v1"),
            "log entry `a b/ckpt/commits/0` is damaged: it ends in the middle: it has no checksum",
        ),
    ] {
        let store = memory();
        let checkpoint = open(&store, 1).await;
        for n in 0..3 {
            run_batch(&checkpoint, n).await;
        }
        match text {
            Some(text) => put(&store, path, text).await,
            None => delete(&store, path).await,
        }
        let error = restored(&checkpoint, 2).await.expect_err(named);
        assert_eq!((error.kind(), error.message()), (ErrorKind::Corrupt, named));
    }
    let store = memory();
    let checkpoint = open(&store, 1).await;
    run_batch(&checkpoint, 0).await;
    run_batch(&checkpoint, 1).await;
    put(&store, "state/1-0", &get(&store, "state/0-0").await).await;
    let error = restored(&checkpoint, 1).await.expect_err("swapped");
    assert!(
        error.message().ends_with("it is of micro-batch 0"),
        "{error}"
    );
}

#[tokio::test]
async fn what_the_state_table_says_comes_out() {
    let checkpoint = open(&memory(), 1).await;
    run_batch(&checkpoint, 0).await;
    let mut refuse = |operator: &str, _: RecordBatch| Err(Error::corrupt(operator));
    let error = checkpoint.restore_state(BatchId(0), &mut refuse).await;
    assert_eq!(error.expect_err("refused").message(), "aggregate");
}

#[tokio::test]
async fn a_folder_that_is_no_checkpoint_of_ours_is_refused_untouched() {
    let id = "00000000-0000-0000-0000-000000000001";
    for (path, text, kind) in [
        (
            "metadata",
            format!("{{\"id\":\"{id}\"}}"),
            ErrorKind::Unsupported,
        ),
        (
            "metadata",
            format!("{{\"version\":7,\"id\":\"{id}\"}}"),
            ErrorKind::Unsupported,
        ),
        ("metadata", "{".to_owned(), ErrorKind::Corrupt),
        ("offsets/0", "v1\n{}".to_owned(), ErrorKind::Corrupt),
        ("commits/0", "v1\n{}".to_owned(), ErrorKind::Corrupt),
    ] {
        let store = memory();
        put(&store, path, text.as_bytes()).await;
        let error = try_open(&store, 1).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains("a b/ckpt/metadata"), "{error}");
        let listed = store
            .list_with_delimiter(Some(&Path::from("a b/ckpt/runs")))
            .await;
        assert!(listed.expect("listed").objects.is_empty());
    }
}

#[tokio::test]
async fn the_operators_are_compared_once_there_is_a_batch() {
    let operator = |name: &str, key: DataType| OperatorIdentity {
        name: name.into(),
        kind: "stateStoreSave".into(),
        keys: Arc::new(Schema::new(vec![Field::new("pump", key, true)])),
        values: Arc::new(Schema::empty()),
        pane: None,
        sources: Vec::new(),
        takes_new_values: false,
    };
    let store = memory();
    let checkpoint = open(&store, 1).await;
    let first = [operator("aggregate", DataType::Utf8View)];
    let other = [operator("aggregate", DataType::Int64)];
    checkpoint
        .check_operators(&first, false)
        .await
        .expect("written");
    checkpoint
        .check_operators(&first, false)
        .await
        .expect("the same");
    checkpoint
        .check_operators(&other, false)
        .await
        .expect("nothing is stored yet");
    run_batch(&checkpoint, 0).await;
    checkpoint
        .check_operators(&other, false)
        .await
        .expect("the same");
    let error = checkpoint
        .check_operators(&first, false)
        .await
        .expect_err("differs");
    assert_eq!(
        (error.operator(), error.column()),
        (Some("aggregate"), Some("pump"))
    );
    assert!(error.message().contains("Int64") && error.message().contains("Utf8View"));

    put(&store, "operators-0", b"v1\n{\"operators\":").await;
    let error = checkpoint
        .check_operators(&other, false)
        .await
        .expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("a b/ckpt/operators-0"), "{error}");
}

#[derive(Debug)]
struct StoppedClock;

#[async_trait]
impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    async fn sleep_until(&self, _until: Timestamp) {}
}

#[tokio::test]
async fn a_source_has_a_folder_of_its_own() {
    let store = memory();
    let durable = open(&store, 1).await;
    let temporary = Checkpoint::temporary(RunId(Uuid::nil()), QueryId(Uuid::nil()));
    for (checkpoint, folder) in [
        (durable, "a b/ckpt/sources/pumps"),
        (temporary, "sources/pumps"),
    ] {
        let context = checkpoint.source_context("pumps", Arc::new(StoppedClock));
        assert_eq!(context.folder.as_ref(), folder);
        let entry = context.folder.clone().join("0");
        context.store.put(&entry, "v1".into()).await.expect("put");
        let again = checkpoint.source_context("pumps", Arc::new(StoppedClock));
        again.store.head(&entry).await.expect("kept for the run");
    }
}

#[tokio::test]
async fn a_temporary_checkpoint_remembers_nothing() {
    let id = QueryId(Uuid::from_u128(9));
    let checkpoint = Checkpoint::temporary(RunId(Uuid::nil()), id);
    assert!(checkpoint.is_temporary());
    assert_eq!(checkpoint.query_id(), id);
    checkpoint.check_claim().await.expect("nobody else");
    checkpoint
        .check_operators(&[], false)
        .await
        .expect("nothing to compare");
    for n in [0, 1, 1, 0] {
        run_batch(&checkpoint, n).await;
        let state = checkpoint.write_state(BatchId(n), &changes(n)).await;
        assert_eq!(state.expect("nothing to write"), None);
    }
    let found = checkpoint.recover().await.expect("recovered");
    assert_eq!(found.resume, Resume::Fresh);
    assert!(restored(&checkpoint, 1).await.expect("read").is_empty());
}
