//! Starting, stopping, waiting: what a handle and the manager promise.

use std::sync::Arc;

use futures::executor::block_on;
use futures::future::join;
use highwater_core::{ErrorKind, OutputMode, Trigger};

use super::support::{House, Numbers, Written, at, store};
use crate::{CheckpointLocation, StreamingQueryManager};

#[tokio::test]
async fn stop_lets_the_batch_in_flight_finish() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    sink.close();
    numbers.add([1]);
    sink.waits().await;
    let opening = async {
        tokio::task::yield_now().await;
        assert!(query.is_active() && query.status().is_trigger_active);
        numbers.add([2]);
        sink.open();
    };
    join(query.stop(), opening).await.0.unwrap();
    assert_eq!(sink.rows(), [[1]]);
    assert!(!query.is_active() && query.exception().is_none());
    assert_eq!(query.status().message, "Stopped");
    query.await_termination().await.unwrap();
    query.stop().await.unwrap();
    let error = query.process_all_available().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn abort_drops_the_batch_in_flight_and_a_restart_runs_it_again() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let mut request = house.request(&numbers, &sink);
    request.checkpoint = at(&store);
    let query = house.manager.start(request.clone()).await.unwrap();
    sink.close();
    numbers.add([1]);
    sink.waits().await;
    query.abort().await.unwrap();
    assert!(!query.is_active() && query.exception().is_none());
    sink.open();
    assert!(sink.rows().is_empty());
    let query = house.manager.start(request).await.unwrap();
    query.process_all_available().await.unwrap();
    assert_eq!(
        (sink.rows(), sink.given.lock().clone()),
        (vec![vec![1]], vec![0, 0])
    );
    query.abort().await.unwrap();
}

#[tokio::test]
async fn a_busy_query_lets_others_run_and_can_be_aborted() {
    let (house, numbers, sink) = (House::new(), Numbers::limited(1), Written::new());
    numbers.add(0..10_000);
    let query = house.start(&numbers, &sink).await;
    while sink.rows().is_empty() {
        tokio::task::yield_now().await;
    }
    query.abort().await.unwrap();
    assert!(sink.rows().len() < 1_000);
}

#[tokio::test]
async fn dropping_handles_stops_nothing() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let mut request = house.request(&numbers, &sink);
    request.name = Some("kept".into());
    drop(house.manager.start(request).await.unwrap());
    let query = house.manager.by_name("kept").unwrap();
    numbers.add([1]);
    query.process_all_available().await.unwrap();
    assert_eq!(
        house.manager.get(query.id()).unwrap().run_id(),
        query.run_id()
    );
    house.manager.stop_all().await.unwrap();
    assert!(house.manager.active().is_empty() && house.manager.by_name("kept").is_none());
}

#[tokio::test]
async fn process_all_available_with_nothing_there_comes_back_and_runs_nothing() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    for _ in 0..3 {
        query.process_all_available().await.unwrap();
    }
    assert!(sink.given.lock().is_empty() && query.last_progress().is_none());
    query.stop().await.unwrap();
}

#[tokio::test]
async fn process_all_available_covers_all_that_was_there_under_the_limits() {
    let (house, numbers, sink) = (House::new(), Numbers::limited(2), Written::new());
    let query = house.start(&numbers, &sink).await;
    numbers.add([1, 2, 3, 4, 5]);
    let (first, second) = join(query.process_all_available(), query.process_all_available()).await;
    first.and(second).unwrap();
    assert_eq!(sink.rows(), [vec![1, 2], vec![3, 4], vec![5]]);
    query.stop().await.unwrap();
}

#[tokio::test]
async fn what_comes_while_somebody_waits_is_processed_too() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    sink.close();
    numbers.add([1]);
    sink.waits().await;
    let late = async {
        numbers.add([2]);
        sink.open();
    };
    join(query.process_all_available(), late).await.0.unwrap();
    numbers.add([3]);
    while sink.rows().concat() != [1, 2, 3] {
        tokio::task::yield_now().await;
    }
    query.stop().await.unwrap();
}

#[tokio::test]
async fn a_name_is_taken_while_its_query_is_active() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let mut request = house.request(&numbers, &sink);
    request.name = Some("q".into());
    let (first, second) = join(
        house.manager.start(request.clone()),
        house.manager.start(request.clone()),
    )
    .await;
    let error = second.unwrap_err();
    assert_eq!(
        (error.kind(), error.option()),
        (ErrorKind::Invalid, Some("queryName"))
    );
    first.unwrap().stop().await.unwrap();
    house
        .manager
        .start(request)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_sink_cannot_do_is_refused_at_start() {
    let (house, numbers) = (House::new(), Numbers::new());
    let mut request = house.request(&numbers, &Written::new());
    request.mode = OutputMode::Complete;
    let error = house.manager.start(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let request = house.request(&numbers, &Written::with(true));
    let error = house.manager.start(request).await.unwrap_err();
    assert_eq!(error.option(), Some("checkpointLocation"));
    assert!(house.manager.active().is_empty());
}

#[test]
fn outside_a_runtime_start_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let house = runtime.block_on(async { House::new() });
    let (numbers, sink) = (Numbers::new(), Written::new());
    let started = block_on(house.manager.start(house.request(&numbers, &sink)));
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_end_of_the_runtime_is_told_to_those_who_wait() {
    let house = House::new();
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let clock = Arc::new(house.clock.clone());
    let manager = StreamingQueryManager::new(clock, other.handle().clone());
    let (numbers, sink) = (Numbers::new(), Written::new());
    let query = manager.start(house.request(&numbers, &sink)).await.unwrap();
    numbers.add([1]);
    query.process_all_available().await.unwrap();
    other.shutdown_background();
    let error = query.await_termination().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn any_termination_tells_which_query_ended() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let stays = house.start(&numbers, &sink).await;
    let mut request = house.request(&numbers, &sink);
    request.trigger = Trigger::Once;
    let ends = house.manager.start(request).await.unwrap();
    let ended = house.manager.await_any_termination().await.unwrap();
    assert_eq!(ended.run_id(), ends.run_id());
    house.manager.reset_terminated();
    let (waited, ()) = join(
        house.manager.await_any_termination_timeout("1 second"),
        async { house.clock.advance("1 second").unwrap() },
    )
    .await;
    assert!(waited.unwrap().is_none());
    let waited = join(stays.await_termination_timeout("1 s"), async {
        house.clock.advance("1 s").unwrap();
    });
    assert!(!waited.await.0.unwrap());
    stays.stop().await.unwrap();
    assert!(stays.await_termination_timeout("1 s").await.unwrap());
}

#[tokio::test]
async fn a_temporary_checkpoint_begins_anew() {
    let (house, numbers) = (House::new(), Numbers::new());
    numbers.add([1]);
    for _ in 0..2 {
        let sink = Written::new();
        let request = house.request(&numbers, &sink);
        assert!(matches!(request.checkpoint, CheckpointLocation::Temporary));
        let query = house.manager.start(request).await.unwrap();
        query.process_all_available().await.unwrap();
        assert_eq!(sink.rows(), [[1]]);
        query.stop().await.unwrap();
    }
}
