//! What is built on a store: logs whose entries have one owner, and the claim on a checkpoint.

use std::sync::Arc;

use highwater::object_store::path::Path;
use highwater::object_store::{ObjectStore, ObjectStoreExt};
use highwater::{BatchId, ErrorKind, QueryId, Result, RunId};
use highwater_checkpoint::Checkpoint;
use highwater_storage::text::{decode_json, encode_json};
use highwater_storage::{CompactingLog, LogEntry, NumberedLog};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Debug, PartialEq)]
struct Word(String);

impl LogEntry for Word {
    fn encode(&self) -> Result<Vec<u8>> {
        encode_json(&self.0)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        decode_json(bytes).map(Self)
    }
}

fn word(n: u64) -> Word {
    Word(format!("word {n}"))
}

pub(super) async fn all(store: &Arc<dyn ObjectStore>, folder: &Path) -> Result<()> {
    a_log(store, folder.clone().join("log")).await?;
    a_log_that_is_compacted(store, folder.clone().join("compacted")).await?;
    a_claim(store, folder.clone().join("claimed")).await
}

async fn a_log(store: &Arc<dyn ObjectStore>, folder: Path) -> Result<()> {
    let log = NumberedLog::new(Arc::clone(store), folder.clone());
    assert!(log.latest().await?.is_none());
    for n in [0, 1, 2, 9, 10] {
        log.add(BatchId(n), &word(n)).await?;
    }
    assert_eq!(log.ids().await?, [0, 1, 2, 9, 10].map(BatchId));
    assert_eq!(log.latest().await?, Some((BatchId(10), word(10))));
    assert!(log.get(BatchId(3)).await?.is_none());
    // One owner for each number: also when somebody writes the same.
    for again in [word(9), word(99)] {
        let error = log.add(BatchId(9), &again).await.expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }
    assert_eq!(log.get(BatchId(9)).await?, Some(word(9)));
    log.purge(BatchId(9)).await?;
    assert_eq!(log.ids().await?, [9, 10].map(BatchId));
    // An entry that was changed is found.
    let path = folder.join("10");
    let mut bytes = store.get(&path).await?.bytes().await?.to_vec();
    bytes[5] ^= 1;
    store.put(&path, bytes.into()).await?;
    let error = log.get(BatchId(10)).await.expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    Ok(())
}

async fn a_log_that_is_compacted(store: &Arc<dyn ObjectStore>, folder: Path) -> Result<()> {
    let log: CompactingLog<Value> = CompactingLog::new(Arc::clone(store), folder);
    for n in 0..25 {
        log.add(BatchId(n), &[json!({ "n": n })]).await?;
    }
    let others = log.clone().compact_every(10);
    for taken in [24, 19] {
        let error = others.add(BatchId(taken), &[]).await.expect_err("taken");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }
    let all = log.load_all().await?;
    let numbers = all.iter().flat_map(|(_, items)| items);
    let numbers: Vec<_> = numbers.filter_map(|item| item["n"].as_u64()).collect();
    assert_eq!(numbers, (0..25).collect::<Vec<_>>());
    assert_eq!(log.latest_id().await?, Some(BatchId(24)));
    Ok(())
}

/// Who claims last owns the checkpoint, and the query keeps its identity.
async fn a_claim(store: &Arc<dyn ObjectStore>, folder: Path) -> Result<()> {
    let open = async |run: u128| {
        let (run, id) = (RunId(Uuid::from_u128(run)), QueryId(Uuid::from_u128(run)));
        Checkpoint::open(Arc::clone(store), folder.clone(), run, id).await
    };
    let first = open(1).await?;
    first.check_claim().await?;
    let second = open(2).await?;
    second.check_claim().await?;
    let error = first.check_claim().await.expect_err("fenced");
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(first.query_id(), second.query_id());
    Ok(())
}
