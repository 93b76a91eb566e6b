//! State that is changed, snapshotted, purged and restored at random, against a twin that was never restored.

mod model;
mod random;

use std::sync::Arc;

use highwater_core::{BatchId, ErrorKind};
use object_store::ObjectStoreExt;

use self::model::{Query, memory, path};
use crate::{Checkpoint, SnapshotPolicy};

/// A query of so many micro-batches in one run, each of which puts 20 keys in; all snapshots are waited for.
async fn settled(batches: u64, retain: u64) -> Query {
    let mut query = Query::start(memory(), SnapshotPolicy::of_at_least(8), retain).await;
    for _ in 0..batches {
        query.put_keys(20).await;
        query.upkeep.settle().await;
        query.upkeep.close().await;
    }
    query
}

async fn rotations(query: &Query) -> Vec<crate::history::Rotation> {
    let last = BatchId(query.next - 1);
    let mut found = query.rotations(last).await;
    found.sort_by_key(|rotation| rotation.number);
    found
}

#[tokio::test]
async fn snapshots_follow_the_changes() {
    let query = settled(60, 1_000).await;
    let rotations = rotations(&query).await;
    assert!(rotations.len() >= 3, "{} rotations", rotations.len());
    // 20 keys a micro-batch are paid for by 20 records of snapshots, or 8 for each part.
    let paid: u64 = rotations
        .iter()
        .flat_map(|r| &r.files)
        .map(|f| f.records)
        .sum();
    assert!(paid <= 60 * 20, "{paid} records");
    // What is to be replayed at the end, snapshots apart, is not more than two rotations.
    let replayed = query.next - rotations.last().expect("one").first.0;
    assert!(
        replayed * 20 <= 2 * query.size() + 10 * 20,
        "{replayed} micro-batches"
    );
    for pair in rotations.windows(2) {
        assert!(pair[0].last <= pair[1].first, "one after the other");
    }
}

#[tokio::test]
async fn purging_keeps_exactly_what_is_needed() {
    let query = settled(64, 4).await;
    let last = query.next - 1;
    // With so few to retain every micro-batch purges.
    let oldest = last + 1 - 4;
    let names = |folder: &'static str| query.names(folder);
    let expected: Vec<String> = (oldest..=last).map(|n| n.to_string()).collect();
    assert_eq!(names("offsets").await, expected);
    let needed = rotations(&query)
        .await
        .into_iter()
        .filter(|r| r.since.0 <= oldest);
    let needed = needed
        .max_by_key(|r| r.number)
        .expect("a rotation as of the oldest");
    let mut commits: Vec<u64> = names("commits")
        .await
        .iter()
        .map(|n| n.parse().unwrap())
        .collect();
    commits.sort_unstable();
    assert_eq!(commits, (needed.first.0 + 1..=last).collect::<Vec<_>>());
    let kept: Vec<String> = names("state").await;
    let changes: Vec<&String> = kept.iter().filter(|n| !n.ends_with(".snapshot")).collect();
    assert_eq!(changes.len() as u64, last - needed.first.0);
    for snapshot in kept.iter().filter(|n| n.ends_with(".snapshot")) {
        let (batch, _) = snapshot.split_once('-').unwrap();
        assert!(
            batch.parse::<u64>().unwrap() >= needed.first.0,
            "{snapshot}"
        );
    }
    query.check_every_retained().await;
}

#[tokio::test]
async fn a_damaged_snapshot_leads_to_an_older_one() {
    for damage in [None, Some(9), Some(30)] {
        let query = settled(60, 1_000).await;
        let rotations = rotations(&query).await;
        for rotation in rotations.iter().rev() {
            query.damage(&rotation.files[0].file, damage).await;
            query.check_every_retained().await;
        }
    }
}

#[tokio::test]
async fn a_damaged_snapshot_that_is_needed_is_named() {
    for damage in [None, Some(30)] {
        let query = settled(64, 1).await;
        let rotations = rotations(&query).await;
        for rotation in &rotations {
            query.damage(&rotation.files[0].file, damage).await;
        }
        let file = &rotations.last().expect("one").files[0].file;
        let error = query
            .restored(BatchId(query.next - 1))
            .await
            .expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(file.as_str()), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_state_file_is_named() {
    let query = settled(60, 1_000).await;
    let last = query.next - 1;
    let newest = rotations(&query).await.pop().expect("one");
    // What came before the rotation is not read.
    query
        .damage(&format!("state/{}-0", newest.first), Some(30))
        .await;
    query.restored(BatchId(last)).await.expect("restored");
    for damage in [Some(30), None] {
        let file = format!("state/{last}-0");
        query.damage(&file, damage).await;
        let error = query.restored(BatchId(last)).await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(&file), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said_so() {
    let query = settled(64, 4).await;
    let kept = query.readable().await;
    assert!(*kept.start() > BatchId(0) && kept.end().0 == query.next - 1);
    for batch in [0, kept.start().0 - 1] {
        let error = query.restored(BatchId(batch)).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("is no longer kept"), "{error}");
    }
    let error = query
        .restored(BatchId(query.next))
        .await
        .expect_err("not yet");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// Runs of one micro-batch each have no time to write a snapshot beside the loop; the state is snapshotted when they
/// begin, now and then.
#[tokio::test]
async fn short_runs_have_snapshots_too() {
    let store = memory();
    let policy = SnapshotPolicy::of_at_least(8);
    let mut query = Query::start(store, policy, 3).await;
    for _ in 0..120 {
        query.put_keys(5).await;
        query.upkeep.close().await;
        query.restart(policy, 3).await;
    }
    let kept = query.readable().await;
    assert!(kept.start().0 > 60, "{kept:?}");
    assert!(query.names("state").await.len() < 80);
    query.check_every_retained().await;
}

#[tokio::test]
async fn what_earlier_runs_left_behind_is_deleted() {
    let policy = SnapshotPolicy::of_at_least(1_000);
    let mut query = Query::start(memory(), policy, 100).await;
    query.put_keys(5).await;
    for name in ["1-0", "7-0", "0-0.0.snapshot", "strange", "1-0.tmp", "1-5"] {
        let path = path(&format!("state/{name}"));
        query.store.put(&path, "x".into()).await.expect("put");
    }
    query.restart(policy, 100).await;
    assert_eq!(
        query.names("state").await.len(),
        7,
        "before it has committed"
    );
    query.put_keys(5).await;
    query.upkeep.close().await;
    // Files of later runs and of others stay.
    let mut names = query.names("state").await;
    names.sort();
    assert_eq!(names, ["0-0", "1-0.tmp", "1-1", "1-5", "strange"]);
}

#[tokio::test]
async fn someone_who_only_looks_claims_nothing() {
    let query = settled(30, 4).await;
    let folder = path("");
    let looking = Checkpoint::read_only(Arc::clone(&query.store), folder.clone()).await;
    let looking = looking.expect("opened");
    assert_eq!(query.names("runs").await, ["0"]);
    let kept = looking.readable().await.expect("read").expect("some");
    for batch in kept.start().0..=kept.end().0 {
        let found = query.restored_by(&looking, BatchId(batch)).await;
        assert_eq!(found, query.twins[usize::try_from(batch).unwrap()]);
    }
    let error = Checkpoint::read_only(memory(), folder)
        .await
        .expect_err("none");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
