//! `idleTimeout`: a silent input holds the watermark for so long and no longer; decided when a micro-batch is made.

use std::sync::Arc;
use std::time::Duration;

use highwater_core::{OutputMode, Trigger};

use super::event_time::{both, counted, seconds};
use super::support::{House, Numbers, Written, at, logged, settle, store};
use crate::{StartRequest, WatermarkPolicy};

/// Counts over two inputs; one that is silent for 10 s is idle. The clock begins at 1 s.
fn counting(house: &House, [a, b]: [&Numbers; 2], sink: &Arc<Written>) -> StartRequest {
    let mut request = house.request_for(counted(both(house, a, b)), sink);
    request.mode = OutputMode::Update;
    request.options.idle_timeout = Some(Duration::from_secs(10));
    request
}

/// b has its last row at 1 s, so it is idle at 11 s; nothing arrives, and the ticker wakes all the same.
#[tokio::test]
async fn silence_alone_causes_a_batch_without_data_at_the_deadline() {
    let (house, sink) = (House::new(), Written::new());
    let (a, b) = (Numbers::new(), Numbers::new());
    let request = counting(&house, [&a, &b], &sink);
    let query = house.manager.start(request).await.unwrap();
    a.add([50]);
    b.add([30]);
    query.process_all_available().await.unwrap();
    house.clock.advance("4 s").unwrap();
    a.add([70]);
    query.process_all_available().await.unwrap();
    assert_eq!(
        (query.watermark(), &*sink.given.lock()),
        (seconds(30), &vec![0, 1, 2])
    );
    house.clock.advance("5999 ms").unwrap();
    settle().await;
    assert_eq!(sink.given.lock().len(), 3, "not before the deadline");
    house.clock.advance("1 ms").unwrap();
    settle().await;
    assert_eq!(*sink.given.lock(), [0, 1, 2, 3]);
    assert_eq!(query.watermark(), seconds(70));
    let told = query.last_progress().unwrap();
    assert_eq!(
        (told.num_input_rows, told.timestamp.as_millis()),
        (0, 11_000)
    );
    assert_eq!(told.event_time.watermark.unwrap().0, 70_000);

    // It rejoins at its own maximum; the watermark does not fall, and then waits for it.
    b.add([40]);
    a.add([90]);
    query.process_all_available().await.unwrap();
    assert_eq!(query.watermark(), seconds(70));
    b.add([80]);
    query.process_all_available().await.unwrap();
    assert_eq!(query.watermark(), seconds(80));
    query.stop().await.unwrap();
}

/// When all fall silent together nothing changes, and nobody wakes.
#[tokio::test]
async fn when_all_are_silent_nothing_runs() {
    let (house, sink) = (House::new(), Written::new());
    let (a, b) = (Numbers::new(), Numbers::new());
    let request = counting(&house, [&a, &b], &sink);
    let query = house.manager.start(request).await.unwrap();
    a.add([50]);
    b.add([30]);
    query.process_all_available().await.unwrap();
    house.clock.advance("1 hour").unwrap();
    settle().await;
    assert_eq!(*sink.given.lock(), [0, 1]);
    assert_eq!(query.watermark(), seconds(30));
    query.stop().await.unwrap();
}

/// The micro-batch that goes on without b fails; run again it has the same watermark, though b has spoken since,
/// and though the new run knows nothing of b's silence.
#[tokio::test]
async fn the_decision_is_logged_so_a_replay_decides_alike() {
    let (house, sink, store) = (House::new(), Written::new(), store());
    let (a, b) = (Numbers::new(), Numbers::new());
    let mut request = counting(&house, [&a, &b], &sink);
    request.checkpoint = at(&store);
    sink.fail(1);
    a.add([50]);
    let query = house.manager.start(request.clone()).await.unwrap();
    query.process_all_available().await.unwrap();
    assert_eq!(query.watermark(), seconds(0), "b never spoke");
    house.clock.advance("9 s").unwrap();
    a.add([60]);
    settle().await;
    query.await_termination().await.unwrap_err();

    // Batch 1 was constructed at 10 s: b was not idle. It runs again so, at any time.
    house.clock.advance("1 hour").unwrap();
    sink.fail(2);
    let query = house.manager.start(request.clone()).await.unwrap();
    query.process_all_available().await.unwrap();
    assert_eq!(query.watermark(), seconds(0));
    house.clock.advance("9 s").unwrap();
    a.add([70]);
    query.process_all_available().await.unwrap_err();
    let query = house.manager.start(request.clone()).await.unwrap();
    query.process_all_available().await.unwrap();
    house.clock.advance("5 s").unwrap();
    a.add([75]);
    query.process_all_available().await.unwrap();
    sink.fail(4);
    house.clock.advance("5 s").unwrap();
    settle().await;
    query.await_termination().await.unwrap_err();
    assert_eq!(
        logged(&store, "offsets/4").await["batchWatermarkMs"],
        75_000
    );
    assert_eq!(logged(&store, "commits/3").await["nextBatchWatermarkMs"], 0);

    b.add([1]);
    let query = house.manager.start(request).await.unwrap();
    assert_eq!(query.watermark(), seconds(75));
    query.process_all_available().await.unwrap();
    let told = query.recent_progress();
    assert_eq!((told[0].batch_id.0, told[0].num_input_rows), (4, 0));
    assert_eq!(told[0].event_time.watermark.unwrap().0, 75_000);
    assert_eq!(query.watermark(), seconds(75), "it never falls");
    query.stop().await.unwrap();
}

/// A processing-time trigger looks at its multiples; it is not woken between them.
#[tokio::test]
async fn a_processing_time_trigger_keeps_its_multiples() {
    let (house, sink) = (House::new(), Written::new());
    let (a, b) = (Numbers::new(), Numbers::new());
    let mut request = counting(&house, [&a, &b], &sink);
    request.trigger = Trigger::ProcessingTime(Duration::from_secs(8));
    b.add([30]);
    let query = house.manager.start(request).await.unwrap();
    settle().await;
    a.add([50]);
    house.clock.advance("7 s").unwrap();
    settle().await;
    assert_eq!(query.watermark(), seconds(30));
    house.clock.advance("7999 ms").unwrap();
    settle().await;
    // At 15.999 s: b is idle since 11 s, a since never.
    assert_eq!(query.last_progress().unwrap().timestamp.as_millis(), 8_000);
    house.clock.advance("1 ms").unwrap();
    settle().await;
    assert_eq!(query.watermark(), seconds(50));
    query.stop().await.unwrap();
}

/// Where nothing wants a batch without data, the next one with data goes on without the idle input.
#[tokio::test]
async fn without_a_use_for_it_the_next_batch_with_data_tells() {
    let (house, sink) = (House::new(), Written::new());
    let (a, b) = (Numbers::new(), Numbers::new());
    let mut request = house.request_for(both(&house, &a, &b), &sink);
    request.options.idle_timeout = Some(Duration::from_secs(10));
    let query = house.manager.start(request).await.unwrap();
    a.add([50]);
    b.add([30]);
    query.process_all_available().await.unwrap();
    house.clock.advance("5 s").unwrap();
    a.add([70]);
    query.process_all_available().await.unwrap();
    house.clock.advance("5 s").unwrap();
    settle().await;
    assert_eq!(
        (query.watermark(), sink.given.lock().len()),
        (seconds(30), 2)
    );
    a.add([60]);
    query.process_all_available().await.unwrap();
    let told = query.last_progress().unwrap();
    assert_eq!(told.event_time.watermark.unwrap().0, 70_000);
    query.stop().await.unwrap();
}

#[tokio::test]
async fn with_policy_max_it_has_no_effect() {
    let (house, sink) = (House::new(), Written::new());
    let (a, b) = (Numbers::new(), Numbers::new());
    let mut request = counting(&house, [&a, &b], &sink);
    request.settings.watermark_policy = WatermarkPolicy::Max;
    let query = house.manager.start(request).await.unwrap();
    a.add([50]);
    query.process_all_available().await.unwrap();
    house.clock.advance("1 hour").unwrap();
    settle().await;
    assert_eq!(*sink.given.lock(), [0, 1]);
    assert_eq!(query.watermark(), seconds(50));
    query.stop().await.unwrap();
}

#[tokio::test]
async fn a_length_of_zero_and_a_query_without_watermark_are_refused_by_name() {
    let (house, a, b, sink) = (House::new(), Numbers::new(), Numbers::new(), Written::new());
    let mut zero = counting(&house, [&a, &b], &sink);
    zero.options.idle_timeout = Some(Duration::ZERO);
    let mut without = house.request(&a, &sink);
    without.options.idle_timeout = Some(Duration::from_secs(1));
    for request in [zero, without] {
        let error = house.manager.start(request).await.unwrap_err();
        assert_eq!(error.option(), Some("idleTimeout"), "{error}");
    }
}
