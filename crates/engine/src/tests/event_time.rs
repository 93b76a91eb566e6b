//! Watermarks through whole queries: when they move, what micro-batches they cause, what is told of them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::cast;
use datafusion::prelude::{DataFrame, col};
use highwater_core::{IntoInterval, OutputMode, Timestamp, Trigger};
use highwater_plan::nodes::watermark;

use super::support::{House, Numbers, Written, at, logged, store};
use crate::{QueryEvent, StartRequest, StreamingQuery, WatermarkPolicy};

/// `numbers` with a column `ts`, the number in seconds since 1970, and a watermark on it.
pub(super) fn timed(house: &House, name: &str, numbers: &Numbers, delay: &str) -> DataFrame {
    let seconds = cast(col("n"), DataType::Timestamp(TimeUnit::Second, None));
    let micros = cast(seconds, DataType::Timestamp(TimeUnit::Microsecond, None));
    let frame = house.frame(name, numbers);
    let frame = frame.select(vec![col("n"), micros.alias("ts")]).unwrap();
    let (session, plan) = frame.into_parts();
    let plan = watermark(plan, "ts", delay.into_interval().unwrap()).unwrap();
    DataFrame::new(session, plan)
}

/// How often each number came: an aggregate that has a use for micro-batches without data.
pub(super) fn counted(frame: DataFrame) -> DataFrame {
    frame
        .aggregate(vec![col("n")], vec![count(col("ts"))])
        .unwrap()
}

pub(super) fn counting(house: &House, numbers: &Numbers, sink: &Arc<Written>) -> StartRequest {
    let frame = counted(timed(house, "numbers", numbers, "5 seconds"));
    let mut request = house.request_for(frame, sink);
    request.mode = OutputMode::Update;
    request
}

pub(super) fn seconds(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp::from_millis(seconds * 1_000))
}

async fn all(query: &StreamingQuery) -> Option<Timestamp> {
    query.process_all_available().await.unwrap();
    query.watermark()
}

/// spark.md 2.1 and 2.4: it moves at the end of a micro-batch, and one without data follows.
#[tokio::test]
async fn a_watermark_that_moved_causes_one_batch_without_data() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let request = counting(&house, &numbers, &sink);
    let query = house.manager.start(request).await.unwrap();
    assert_eq!(query.watermark(), seconds(0));
    for (add, watermark, given) in [
        (vec![], 0, vec![]),
        (vec![3, 8, 14], 9, vec![0, 1]),
        (vec![12], 9, vec![0, 1, 2]),
        (vec![21], 16, vec![0, 1, 2, 3, 4]),
        (vec![], 16, vec![0, 1, 2, 3, 4]),
    ] {
        numbers.add(add);
        assert_eq!(all(&query).await, seconds(watermark));
        assert_eq!(*sink.given.lock(), given);
    }
    let without = query.last_progress().unwrap();
    assert_eq!((without.batch_id.0, without.num_input_rows), (4, 0));
    query.stop().await.unwrap();
}

/// An operator alone causes none: it must have a use for the watermark.
#[tokio::test]
async fn no_batch_without_data_where_nothing_wants_it() {
    let (house, numbers) = (House::new(), Numbers::new());
    let timed = || timed(&house, "numbers", &numbers, "5 seconds");
    let limited = timed().limit(0, Some(100)).unwrap();
    let mut switched_off = counting(&house, &numbers, &Written::new());
    switched_off.settings.no_data_batches = false;
    let plain = house.request_for(timed(), &Written::new());
    let limited = house.request_for(limited, &Written::new());
    numbers.add([14]);
    for request in [plain, limited, switched_off] {
        let query = house.manager.start(request).await.unwrap();
        assert_eq!(all(&query).await, seconds(9));
        assert_eq!(query.recent_progress().len(), 1);
        query.stop().await.unwrap();
    }
}

#[tokio::test]
async fn available_now_runs_it_and_once_does_not() {
    let (house, numbers) = (House::new(), Numbers::limited(1));
    numbers.add([3, 14]);
    for (trigger, given) in [
        (Trigger::AvailableNow, vec![0, 1, 2]),
        (Trigger::Once, vec![0]),
    ] {
        let sink = Written::new();
        let mut request = counting(&house, &numbers, &sink);
        request.trigger = trigger;
        let query = house.manager.start(request).await.unwrap();
        query.await_termination().await.unwrap();
        assert_eq!(*sink.given.lock(), given, "{trigger}");
        assert_eq!(query.watermark(), seconds(9));
    }
}

async fn start(house: &House, request: &StartRequest) -> StreamingQuery {
    house.manager.start(request.clone()).await.unwrap()
}

/// spark.md 2.4 and 2.19: a restart keeps the watermark, runs nothing for it, and judges late rows by the last
/// micro-batch's.
#[tokio::test]
async fn a_restart_keeps_the_watermark_and_runs_nothing_for_it() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let mut request = counting(&house, &numbers, &sink);
    request.checkpoint = at(&store);
    request.trigger = Trigger::Once;
    numbers.add([14]);
    start(&house, &request)
        .await
        .await_termination()
        .await
        .unwrap();
    request.trigger = Trigger::default();
    let query = start(&house, &request).await;
    assert_eq!(query.watermark(), seconds(9));
    assert_eq!(all(&query).await, seconds(9));
    assert_eq!(*sink.given.lock(), [0], "nothing right after a restart");
    numbers.add([10]);
    assert_eq!(all(&query).await, seconds(9));
    query.stop().await.unwrap();
    for (file, key, value) in [
        ("offsets/0", "batchWatermarkMs", 0),
        ("commits/0", "nextBatchWatermarkMs", 9_000),
        ("offsets/1", "batchWatermarkMs", 9_000),
        ("offsets/1", "lateWatermarkMs", 0),
        ("commits/1", "nextBatchWatermarkMs", 9_000),
    ] {
        assert_eq!(logged(&store, file).await[key], value, "{file} {key}");
    }
}

/// The micro-batch without data fails; it runs again with its own watermarks.
#[tokio::test]
async fn a_batch_without_data_runs_again_as_it_was() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let mut request = counting(&house, &numbers, &sink);
    request.checkpoint = at(&store);
    sink.fail(1);
    numbers.add([14]);
    let query = start(&house, &request).await;
    query.process_all_available().await.unwrap_err();
    numbers.add([30]);
    let query = start(&house, &request).await;
    assert_eq!(
        query.watermark(),
        seconds(9),
        "that of the one that runs next"
    );
    assert_eq!(all(&query).await, seconds(25));
    assert_eq!(*sink.given.lock(), [0, 1, 1, 2, 3]);
    let told = query.recent_progress();
    let told = told
        .iter()
        .map(|p| (p.num_input_rows, p.event_time.watermark.unwrap().0));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [(0, 9_000), (1, 9_000), (0, 25_000)]
    );
    query.stop().await.unwrap();
}

/// The policy that the first run wrote into the checkpoint is in force, whatever is asked later.
#[tokio::test]
async fn the_policy_is_the_one_that_the_checkpoint_pins() {
    let (house, sink, store) = (House::new(), Written::new(), store());
    let (a, b) = (Numbers::new(), Numbers::new());
    let mut request = house.request_for(both(&house, &a, &b), &sink);
    request.checkpoint = at(&store);
    request.settings.watermark_policy = WatermarkPolicy::Max;
    a.add([50]);
    let query = start(&house, &request).await;
    assert_eq!(all(&query).await, seconds(50));
    query.stop().await.unwrap();
    request.settings.watermark_policy = WatermarkPolicy::Min;
    let query = start(&house, &request).await;
    b.add([60]);
    assert_eq!(all(&query).await, seconds(60), "max: b alone moves it");
    query.stop().await.unwrap();
}

/// The rows of two streams, each with a watermark.
pub(super) fn both(house: &House, a: &Numbers, b: &Numbers) -> DataFrame {
    let b = timed(house, "b", b, "0 seconds");
    timed(house, "a", a, "0 seconds").union(b).unwrap()
}

/// min: the silent input holds the watermark; after a restart it must speak again.
#[tokio::test]
async fn the_slowest_input_holds_the_watermark() {
    let (house, sink, store) = (House::new(), Written::new(), store());
    let (a, b) = (Numbers::new(), Numbers::new());
    let mut request = house.request_for(both(&house, &a, &b), &sink);
    request.checkpoint = at(&store);
    let query = start(&house, &request).await;
    for (to, number, watermark) in [(&a, 50, 0), (&b, 25, 25), (&b, 90, 50)] {
        to.add([number]);
        assert_eq!(all(&query).await, seconds(watermark));
    }
    query.stop().await.unwrap();
    let query = start(&house, &request).await;
    for (to, number, watermark) in [(&a, 95, 50), (&a, 99, 50), (&b, 70, 70)] {
        to.add([number]);
        assert_eq!(all(&query).await, seconds(watermark));
    }
    let told = query.last_progress().unwrap();
    let own = told
        .watermarks
        .iter()
        .map(|w| (&*w.name, &*w.column, w.watermark.0));
    let mut own = own.collect::<Vec<_>>();
    own.sort_unstable();
    assert_eq!(
        own,
        [("watermark", "ts", 99_000), ("watermark_2", "ts", 70_000)]
    );
    query.stop().await.unwrap();
}

#[tokio::test]
async fn progress_tells_event_times_only_with_data_and_the_watermark_always() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let mut events = house.manager.events();
    let query = start(&house, &counting(&house, &numbers, &sink)).await;
    numbers.add([3, 8, 14]);
    all(&query).await;
    query.stop().await.unwrap();
    let told: Vec<_> = query
        .recent_progress()
        .iter()
        .map(|p| serde_json::to_value(p.event_time).unwrap())
        .collect();
    let first = serde_json::json!({
        "max": "1970-01-01T00:00:14.000Z",
        "min": "1970-01-01T00:00:03.000Z",
        // 25 s / 3, cut
        "avg": "1970-01-01T00:00:08.333Z",
        "watermark": "1970-01-01T00:00:00.000Z",
    });
    let second = serde_json::json!({"watermark": "1970-01-01T00:00:09.000Z"});
    assert_eq!(told, [first, second]);
    let mut batches = 0;
    while let Some(event) = futures::StreamExt::next(&mut events).await {
        match event {
            QueryEvent::Progress(_) => batches += 1,
            QueryEvent::Terminated(_) => break,
            _ => {}
        }
    }
    assert_eq!(batches, 2);
}

#[tokio::test]
async fn a_query_without_a_watermark_tells_none() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    numbers.add([1]);
    assert_eq!(all(&query).await, None);
    let told = query.last_progress().unwrap();
    assert_eq!(told.event_time, crate::EventTimeProgress::default());
    assert!(!told.json().contains("watermarks"));
    query.stop().await.unwrap();
}

/// What an operator did is asked after it has committed: a limit tells what it let through.
#[tokio::test]
async fn metrics_are_those_of_the_batch_that_was_committed() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let frame = house.frame("numbers", &numbers).limit(0, Some(2)).unwrap();
    let query = start(&house, &house.request_for(frame, &sink)).await;
    for (number, updated) in [(1, 1), (2, 1), (3, 0)] {
        numbers.add([number]);
        all(&query).await;
        let told = query.last_progress().unwrap();
        assert_eq!(told.state_operators[0].num_rows_updated, updated);
    }
    query.stop().await.unwrap();
}
