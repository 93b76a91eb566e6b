//! `flushOnEnd`: one last micro-batch in which everything closes, and nothing after it.

use std::sync::Arc;
use std::time::Duration;

use highwater_core::{ErrorKind, Trigger};

use super::event_time::{counting, seconds, timed};
use super::support::{House, Numbers, Written, at, logged, store};
use crate::{StartRequest, StreamingQuery};

fn flushed(house: &House, numbers: &Numbers, sink: &Arc<Written>) -> StartRequest {
    let mut request = counting(house, numbers, sink);
    request.trigger = Trigger::AvailableNow;
    request.options.flush_on_end = true;
    request
}

async fn run(house: &House, request: &StartRequest) -> StreamingQuery {
    let query = house.manager.start(request.clone()).await.unwrap();
    query.await_termination().await.unwrap();
    query
}

/// Two micro-batches with data, one without, then the final one; the ordinary watermark stays.
#[tokio::test]
async fn the_final_batch_comes_after_all_others_and_says_so() {
    let (house, numbers, sink, store) =
        (House::new(), Numbers::limited(1), Written::new(), store());
    let mut request = flushed(&house, &numbers, &sink);
    request.checkpoint = at(&store);
    numbers.add([3, 14]);
    let query = run(&house, &request).await;
    assert_eq!(*sink.given.lock(), [0, 1, 2, 3]);
    assert_eq!(query.watermark(), seconds(9));
    let told = query.last_progress().unwrap();
    assert_eq!((told.batch_id.0, told.num_input_rows), (3, 0));
    assert_eq!(told.event_time.watermark.unwrap().0, 9_000);
    for n in 0..3 {
        assert!(logged(&store, &format!("offsets/{n}")).await["final"].is_null());
        assert!(logged(&store, &format!("commits/{n}")).await["final"].is_null());
    }
    let (intent, done) = (
        logged(&store, "offsets/3").await,
        logged(&store, "commits/3").await,
    );
    assert_eq!(
        (&intent["final"], &done["final"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        (&intent["batchWatermarkMs"], &intent["lateWatermarkMs"]),
        (&9_000.into(), &9_000.into())
    );
    assert_eq!(done["nextBatchWatermarkMs"], 9_000);
}

#[tokio::test]
async fn once_is_flushed_too_and_nothing_read_is_nothing_flushed() {
    let (house, numbers) = (House::new(), Numbers::limited(1));
    for trigger in [Trigger::Once, Trigger::AvailableNow] {
        let sink = Written::new();
        let mut request = flushed(&house, &Numbers::new(), &sink);
        request.trigger = trigger;
        run(&house, &request).await;
        assert!(sink.given.lock().is_empty(), "{trigger}");
    }
    numbers.add([3, 14]);
    let sink = Written::new();
    let mut request = flushed(&house, &numbers, &sink);
    request.trigger = Trigger::Once;
    let query = run(&house, &request).await;
    assert_eq!(
        *sink.given.lock(),
        [0, 1],
        "all data in one, then the final one"
    );
    let told = query
        .recent_progress()
        .iter()
        .map(|p| p.num_input_rows)
        .collect::<Vec<_>>();
    assert_eq!(told, [2, 0]);
}

/// Whoever waits for all that is there gets the final micro-batch, too.
#[tokio::test]
async fn process_all_available_waits_for_the_final_batch() {
    let (house, numbers, sink) = (House::new(), Numbers::limited(1), Written::new());
    numbers.add([3, 14]);
    let query = house
        .manager
        .start(flushed(&house, &numbers, &sink))
        .await
        .unwrap();
    query.process_all_available().await.unwrap();
    assert_eq!(*sink.given.lock(), [0, 1, 2, 3]);
}

/// The windows are given out: a row that came now would open one again.
#[tokio::test]
async fn new_data_after_it_is_refused_and_without_new_data_nothing_runs() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let mut request = flushed(&house, &numbers, &sink);
    request.checkpoint = at(&store);
    numbers.add([3]);
    run(&house, &request).await;
    assert_eq!(*sink.given.lock(), [0, 1]);
    let mut ordinary = counting(&house, &numbers, &sink);
    ordinary.checkpoint = at(&store);
    run(&house, &request).await;
    ordinary.trigger = Trigger::AvailableNow;
    run(&house, &ordinary).await;
    ordinary.trigger = Trigger::Once;
    run(&house, &ordinary).await;
    assert_eq!(*sink.given.lock(), [0, 1], "zero batches");

    // A run that is up when data comes fails; one that is started with it is refused.
    ordinary.trigger = Trigger::default();
    let query = house.manager.start(ordinary.clone()).await.unwrap();
    query.process_all_available().await.unwrap();
    numbers.add([4]);
    let mut errors = vec![query.await_termination().await.unwrap_err()];
    for request in [ordinary, request] {
        errors.push(house.manager.start(request).await.unwrap_err());
    }
    for error in errors {
        assert_eq!(
            (error.kind(), error.option()),
            (ErrorKind::Invalid, Some("flushOnEnd"))
        );
        assert!(error.message().contains("flushOnEnd") && error.hint().is_some());
    }
    assert_eq!(*sink.given.lock(), [0, 1]);
}

/// It fails, and new data comes before it runs again: it is still final, and has none of it.
#[tokio::test]
async fn a_final_batch_that_failed_runs_again_as_it_was() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let mut request = flushed(&house, &numbers, &sink);
    request.checkpoint = at(&store);
    numbers.add([3]);
    sink.fail(1);
    let query = house.manager.start(request.clone()).await.unwrap();
    query.await_termination().await.unwrap_err();
    let intent = logged(&store, "offsets/1").await;
    // Even where the option is not given again.
    request.options.flush_on_end = false;
    run(&house, &request).await;
    assert_eq!(*sink.given.lock(), [0, 1, 1]);
    assert_eq!(logged(&store, "offsets/1").await, intent);
    assert_eq!(logged(&store, "commits/1").await["final"], true);
    numbers.add([4]);
    let error = house.manager.start(request).await.unwrap_err();
    assert_eq!(error.option(), Some("flushOnEnd"));
}

/// The last micro-batch with data failed; the restart runs it, what is left, and the final one.
#[tokio::test]
async fn a_run_after_a_crash_flushes_at_its_own_end() {
    for (trigger, given) in [
        (Trigger::AvailableNow, vec![0, 0, 1, 2]),
        (Trigger::Once, vec![0, 0, 1, 2]),
    ] {
        let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
        let mut request = flushed(&house, &numbers, &sink);
        request.checkpoint = at(&store);
        request.trigger = trigger;
        numbers.add([3]);
        sink.fail(0);
        let query = house.manager.start(request.clone()).await.unwrap();
        query.await_termination().await.unwrap_err();
        numbers.add([4]);
        run(&house, &request).await;
        assert_eq!(*sink.given.lock(), given, "{trigger}");
        assert_eq!(
            logged(&store, "offsets/1").await["sources"]["numbers"]["end"],
            2
        );
    }
}

/// An earlier run ended without it: one that has the option and no new data closes what is open.
#[tokio::test]
async fn what_an_earlier_run_left_open_is_flushed() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let mut request = flushed(&house, &numbers, &sink);
    request.checkpoint = at(&store);
    request.options.flush_on_end = false;
    numbers.add([3]);
    run(&house, &request).await;
    request.options.flush_on_end = true;
    run(&house, &request).await;
    assert_eq!(*sink.given.lock(), [0, 1]);
    assert_eq!(logged(&store, "commits/1").await["final"], true);
}

#[tokio::test]
async fn it_is_refused_where_it_has_no_meaning() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let mut endless = flushed(&house, &numbers, &sink);
    endless.trigger = Trigger::ProcessingTime(Duration::from_secs(1));
    let mut default = flushed(&house, &numbers, &sink);
    default.trigger = Trigger::default();
    let mut without = house.request(&numbers, &sink);
    without.trigger = Trigger::AvailableNow;
    without.options.flush_on_end = true;
    for request in [endless, default, without] {
        let error = house.manager.start(request).await.unwrap_err();
        assert_eq!(error.option(), Some("flushOnEnd"), "{error}");
    }
    let mut stateless = house.request_for(timed(&house, "numbers", &numbers, "0 s"), &sink);
    stateless.trigger = Trigger::AvailableNow;
    stateless.options.flush_on_end = true;
    run(&house, &stateless).await;
}
