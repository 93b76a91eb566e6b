//! When micro-batches run, with a clock that the test moves.

use std::time::Duration;

use highwater_core::Trigger;

use super::support::{House, Numbers, Written, at, settle, store};

#[tokio::test]
async fn processing_time_runs_at_multiples_and_once_for_a_late_one() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let mut request = house.request(&numbers, &sink);
    request.trigger = Trigger::ProcessingTime(Duration::from_secs(10));
    numbers.add([1]);
    let query = house.manager.start(request).await.unwrap();
    settle().await;
    assert_eq!(sink.rows(), [[1]], "the first at once");
    numbers.add([2]);
    house.clock.advance("8999 ms").unwrap();
    settle().await;
    assert_eq!(sink.rows().len(), 1, "not before the multiple");
    assert_eq!(query.status().message, "Waiting for next trigger");
    house.clock.advance("1 ms").unwrap();
    settle().await;
    assert_eq!(sink.rows().len(), 2);
    let progress = query.last_progress().unwrap();
    assert_eq!(progress.timestamp.as_millis(), 10_000);
    assert_eq!(progress.input_rows_per_second, Some(1.0 / 9.0));
    numbers.add([3]);
    house.clock.advance("35 s").unwrap();
    settle().await;
    assert_eq!(query.last_progress().unwrap().timestamp.as_millis(), 45_000);
    numbers.add([4]);
    query.process_all_available().await.unwrap();
    assert_eq!(
        sink.rows().concat(),
        [1, 2, 3, 4],
        "whoever asks does not wait"
    );
    query.stop().await.unwrap();
}

#[tokio::test]
async fn available_now_takes_what_was_there_under_the_limits_and_ends() {
    let (house, numbers, sink) = (House::new(), Numbers::limited(2), Written::new());
    let mut request = house.request(&numbers, &sink);
    request.trigger = Trigger::AvailableNow;
    numbers.add([1, 2, 3]);
    let query = house.manager.start(request.clone()).await.unwrap();
    numbers.add([4]);
    query.process_all_available().await.unwrap();
    query.await_termination().await.unwrap();
    assert_eq!(sink.rows(), [vec![1, 2], vec![3]]);
    assert!(!query.is_active() && query.exception().is_none());
}

#[tokio::test]
async fn once_takes_all_in_one_batch_or_only_the_uncommitted_one() {
    let (house, numbers, sink, store) =
        (House::new(), Numbers::limited(1), Written::new(), store());
    let mut request = house.request(&numbers, &sink);
    request.trigger = Trigger::Once;
    request.checkpoint = at(&store);
    numbers.add([1, 2, 3]);
    sink.fail(0);
    let query = house.manager.start(request.clone()).await.unwrap();
    query.await_termination().await.unwrap_err();
    numbers.add([4, 5]);
    for expected in [vec![vec![1, 2, 3]], vec![vec![1, 2, 3], vec![4, 5]]] {
        let query = house.manager.start(request.clone()).await.unwrap();
        query.await_termination().await.unwrap();
        assert_eq!(sink.rows(), expected);
    }
    let query = house.manager.start(request).await.unwrap();
    query.await_termination().await.unwrap();
    assert_eq!(*sink.given.lock(), [0, 0, 1], "nothing to do runs nothing");
}

#[tokio::test]
async fn available_now_runs_the_uncommitted_batch_first() {
    let (house, numbers, sink, store) =
        (House::new(), Numbers::limited(2), Written::new(), store());
    let mut request = house.request(&numbers, &sink);
    request.trigger = Trigger::AvailableNow;
    request.checkpoint = at(&store);
    numbers.add([1, 2, 3]);
    sink.fail(0);
    let query = house.manager.start(request.clone()).await.unwrap();
    query.await_termination().await.unwrap_err();
    numbers.add([4]);
    let query = house.manager.start(request).await.unwrap();
    query.await_termination().await.unwrap();
    assert_eq!(sink.rows(), [vec![1, 2], vec![3, 4]]);
    assert_eq!(*sink.given.lock(), [0, 0, 1]);
}

#[tokio::test]
async fn the_default_trigger_runs_as_soon_as_there_is_data() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    for n in 0..5 {
        settle().await;
        assert_eq!(query.status().message, "Waiting for data to arrive");
        numbers.add([n]);
        settle().await;
        assert_eq!(sink.rows().concat(), (0..=n).collect::<Vec<_>>());
    }
    query.stop().await.unwrap();
}

#[tokio::test]
async fn batch_times_are_whole_milliseconds_of_the_clock() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let frame = house.frame("numbers", &numbers);
    let query = house
        .manager
        .start(house.request_for(frame, &sink))
        .await
        .unwrap();
    house.clock.advance("1500 us").unwrap();
    numbers.add([1]);
    query.process_all_available().await.unwrap();
    assert_eq!(
        query.last_progress().unwrap().timestamp.as_micros(),
        1_001_500
    );
    query.stop().await.unwrap();
}
