//! Crashes and restarts: every row comes out once.

use std::sync::Arc;

use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::prelude::col;
use highwater_core::testing::{Fault, FaultyStore};
use highwater_core::{BatchId, ErrorKind, OutputMode};
use object_store::ObjectStore;

use super::support::{House, Numbers, Written, at, store};
use crate::StreamingQuery;

async fn start(
    house: &House,
    numbers: &Numbers,
    sink: &Arc<Written>,
    store: &Arc<dyn ObjectStore>,
) -> highwater_core::Result<StreamingQuery> {
    let mut request = house.request(numbers, sink);
    request.checkpoint = at(store);
    house.manager.start(request).await
}

#[tokio::test]
async fn a_failed_batch_runs_again_with_exactly_its_own_input() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    sink.fail(0);
    let query = start(&house, &numbers, &sink, &store).await.unwrap();
    numbers.add([1, 2]);
    let error = query.process_all_available().await.unwrap_err();
    assert_eq!(error.message(), "injected sink failure");
    let context = error.query().unwrap();
    assert_eq!(context.batch, Some(BatchId(0)));
    assert_eq!(context.offsets, "numbers: (0, 2]");
    assert_eq!(numbers.committed(), 0);

    numbers.add([3]);
    let again = start(&house, &numbers, &sink, &store).await.unwrap();
    again.process_all_available().await.unwrap();
    assert_eq!(sink.rows(), [vec![1, 2], vec![3]]);
    assert_eq!(*sink.given.lock(), [0, 0, 1]);
    assert_eq!(*sink.begun.lock(), [None, Some(BatchId(0))]);
    assert_eq!(numbers.committed(), 3);
    assert_eq!(again.id(), query.id());
    assert_ne!(again.run_id(), query.run_id());
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_after_the_last_commit() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    for n in 0..3 {
        let query = start(&house, &numbers, &sink, &store).await.unwrap();
        numbers.add([n]);
        query.process_all_available().await.unwrap();
        query.stop().await.unwrap();
    }
    assert_eq!(sink.rows(), [[0], [1], [2]]);
}

/// Dies at the nth operation of the store, for every n; then restarts and must get everything once.
#[tokio::test]
async fn a_crash_at_any_operation_of_the_checkpoint_loses_and_repeats_nothing() {
    for nth in 1.. {
        if crash_at(nth, |store| store.fail_from(nth)).await {
            break;
        }
    }
}

/// The nth operation is done, but its answer is lost.
#[tokio::test]
async fn a_lost_answer_of_the_checkpoint_loses_and_repeats_nothing() {
    for nth in 1.. {
        if crash_at(nth, |store| store.fail(nth, Fault::After)).await {
            break;
        }
    }
}

/// Runs, fails as the script says, restarts; true when the first run had no nth operation.
async fn crash_at(nth: u64, script: impl Fn(&FaultyStore)) -> bool {
    let (house, numbers, sink) = (House::new(), Numbers::limited(2), Written::new());
    let faulty = FaultyStore::new(store());
    let store = Arc::new(faulty.clone()) as Arc<dyn ObjectStore>;
    numbers.add([1, 2, 3]);
    script(&faulty);
    if let Ok(query) = start(&house, &numbers, &sink, &store).await {
        // It fails, or not: a lost answer is sometimes found out.
        let _ = query.process_all_available().await;
        query.abort().await.unwrap();
    }
    faulty.heal();
    let operations = faulty.operations().len();
    assert!(operations > 0, "nothing was written");
    let query = start(&house, &numbers, &sink, &store).await.unwrap();
    numbers.add([4]);
    query.process_all_available().await.unwrap();
    assert_eq!(
        sink.rows().concat(),
        [1, 2, 3, 4],
        "failed at operation {nth}"
    );
    query.stop().await.unwrap();
    nth > operations as u64
}

/// A sum over everything, over runs that end in each way.
#[tokio::test]
async fn state_is_what_the_last_commit_left() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let frame = house.frame("numbers", &numbers);
    let frame = frame.aggregate(vec![], vec![sum(col("n"))]).unwrap();
    let mut request = house.request_for(frame, &sink);
    request.mode = OutputMode::Update;
    request.checkpoint = at(&store);
    for (n, total) in [(1, 1), (2, 3), (3, 6), (4, 10)] {
        numbers.add([n]);
        if n % 2 == 0 {
            sink.fail(u64::try_from(n).unwrap() - 1);
            let query = house.manager.start(request.clone()).await.unwrap();
            query.await_termination().await.unwrap_err();
        }
        let query = house.manager.start(request.clone()).await.unwrap();
        query.process_all_available().await.unwrap();
        assert_eq!(sink.rows().last().unwrap(), &[total]);
        assert_eq!(query.last_progress().unwrap().state_operators.len(), 1);
        query.stop().await.unwrap();
    }
}

#[tokio::test]
async fn other_sources_than_the_checkpoints_are_refused_by_name() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let query = start(&house, &numbers, &sink, &store).await.unwrap();
    numbers.add([1]);
    query.process_all_available().await.unwrap();
    query.stop().await.unwrap();
    let mut request = house.request_for(house.frame("figures", &numbers), &sink);
    request.checkpoint = at(&store);
    let error = house.manager.start(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .message()
            .ends_with("new: `figures`, missing: `numbers`"),
        "{error}"
    );
}

#[tokio::test]
async fn the_same_checkpoint_started_twice_stops_the_first_run() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let first = start(&house, &numbers, &sink, &store).await.unwrap();
    let second = start(&house, &numbers, &sink, &store).await.unwrap();
    assert!(!first.is_active() && second.is_active());
    assert!(first.exception().is_none());
    assert_eq!(first.id(), second.id());

    let mut request = house.request(&numbers, &sink);
    request.checkpoint = at(&store);
    request.settings.stop_active_run_on_restart = false;
    let error = house.manager.start(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(second.is_active());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_run_that_another_session_took_over_writes_no_more() {
    let (numbers, sink, store) = (Numbers::new(), Written::new(), store());
    let (ours, theirs) = (House::new(), House::new());
    let old = start(&ours, &numbers, &sink, &store).await.unwrap();
    old.process_all_available().await.unwrap();
    let new = start(&theirs, &numbers, &sink, &store).await.unwrap();
    numbers.add([1]);
    let lost = old.await_termination().await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Fenced);
    new.process_all_available().await.unwrap();
    assert_eq!(*sink.given.lock(), [0]);
    new.stop().await.unwrap();
}
