//! The rate sources keep their contract and make Spark's rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use datafusion::execution::TaskContext;
use datafusion::prelude::SessionContext;
use futures::{FutureExt, TryStreamExt};
use highwater_core::testing::{ManualClock, contract};
use highwater_core::{
    ErrorKind, Offset, OffsetRange, Options, ReadLimit, ReadRequest, Result, Source, SourceContext,
    SourceProvider, SourceSpec, Timestamp,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;

/// Milliseconds since 1970 and values.
async fn read(source: &dyn Source, start: Offset, end: Offset) -> Result<Vec<(i64, i64)>> {
    let request = ReadRequest {
        range: OffsetRange::new(start, end),
        projection: None,
        filters: Vec::new(),
        batch_time: Timestamp::default(),
        task: Arc::new(TaskContext::default()),
    };
    let mut rows = Vec::new();
    for stream in source.read(request).await? {
        for batch in stream.try_collect::<Vec<_>>().await? {
            let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            let values = batch.column(1).as_primitive::<Int64Type>();
            let pairs = times.values().iter().zip(values.values());
            rows.extend(pairs.map(|(t, v)| (t / 1_000, *v)));
        }
    }
    Ok(rows)
}

fn context(store: &Arc<InMemory>, clock: &ManualClock) -> SourceContext {
    SourceContext {
        store: Arc::clone(store) as Arc<dyn ObjectStore>,
        folder: Path::from("sources/rate"),
        clock: Arc::new(clock.clone()),
    }
}

async fn rate(options: RateSourceOptions, clock: &ManualClock) -> Result<Arc<dyn Source>> {
    let source = RateSource::new(options, Arc::new(clock.clone()));
    let own = source.for_query(context(&Arc::default(), clock)).await?;
    Ok(own.expect("a source of the query's own"))
}

#[tokio::test]
async fn both_keep_the_contract() -> Result<()> {
    for (rows, ramp_up, seconds) in [(1, 0, 3), (7, 0, 2), (10, 4, 7), (20_000, 0, 1)] {
        contract::source::all(async || {
            let clock = ManualClock::at("2024-05-01 12:00:00")?;
            let options = RateSourceOptions::new()
                .rows_per_second(rows)
                .ramp_up_time(Duration::from_secs(ramp_up));
            let source = rate(options, &clock).await?;
            clock.advance(Duration::from_secs(seconds))?;
            Ok(source)
        })
        .await?;
    }
    contract::source::all(async || {
        let options = RateMicroBatchSourceOptions::new(5);
        Ok(Arc::new(RateMicroBatchSource::try_new(options)?) as Arc<dyn Source>)
    })
    .await
}

#[tokio::test]
async fn rows_are_evenly_apart_in_whole_milliseconds() -> Result<()> {
    let clock = ManualClock::new(Timestamp::from_millis(5_000));
    let source = rate(RateSourceOptions::new().rows_per_second(3), &clock).await?;
    clock.advance("2 seconds")?;
    let rows = read(&*source, Offset::from(0), Offset::from(1)).await?;
    assert_eq!(rows, [(5_000, 0), (5_333, 1), (5_667, 2)]);
    let rows = read(&*source, Offset::from(1), Offset::from(2)).await?;
    assert_eq!(rows, [(6_000, 3), (6_333, 4), (6_667, 5)]);
    Ok(())
}

#[tokio::test]
async fn the_ramp_up_follows_sparks_curve() -> Result<()> {
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let options = RateSourceOptions::new()
        .rows_per_second(10)
        .ramp_up_time(Duration::from_secs(4));
    let source = rate(options, &clock).await?;
    for (seconds, end_value) in [(0, 0), (1, 2), (2, 6), (3, 12), (4, 20), (5, 30), (6, 40)] {
        let rows = read(&*source, Offset::from(0), Offset::from(seconds)).await?;
        assert_eq!(rows.len(), end_value, "after {seconds} s");
    }
    Ok(())
}

#[tokio::test]
async fn a_restart_goes_on_from_the_first_start() -> Result<()> {
    let store = Arc::new(InMemory::new());
    let clock = ManualClock::new(Timestamp::from_millis(5_000));
    let opened = RateSource::new(RateSourceOptions::new(), Arc::new(clock.clone()));
    clock.advance("1 second")?;
    opened.for_query(context(&store, &clock)).await?;
    clock.advance("10 seconds")?;
    let again = opened.for_query(context(&store, &clock)).await?;
    let again = again.expect("a source of the query's own");
    let latest = again
        .latest_offset(&Offset::from(3), &ReadLimit::All, None)
        .await?;
    assert_eq!(latest, Offset::from(10));
    let rows = read(&*again, Offset::from(3), Offset::from(5)).await?;
    assert_eq!(rows, [(9_000, 3), (10_000, 4)]);
    let log = store
        .get(&Path::from("sources/rate/0"))
        .await?
        .bytes()
        .await?;
    let sealed = highwater_storage::text::seal("rate/0", b"v1\n6000".to_vec());
    assert_eq!(&log[..], sealed);
    Ok(())
}

#[tokio::test]
async fn an_idle_reader_sleeps_until_the_next_second() -> Result<()> {
    let clock = ManualClock::at("2024-05-01 12:00:00")?;
    let source = rate(RateSourceOptions::new(), &clock).await?;
    let (zero, all) = (Offset::from(0), ReadLimit::All);
    assert_eq!(source.latest_offset(&zero, &all, None).await?, zero);
    let mut changed = source.changed();
    clock.advance("999 ms")?;
    assert!(changed.as_mut().now_or_never().is_none());
    clock.advance("1 ms")?;
    assert!(changed.as_mut().now_or_never().is_some());
    Ok(())
}

#[tokio::test]
async fn a_micro_batch_has_one_timestamp_and_sparks_offset() -> Result<()> {
    let options = RateMicroBatchSourceOptions::new(3)
        .start_timestamp(7)
        .advance_millis_per_batch(1_000);
    let source = RateMicroBatchSource::try_new(options)?;
    let start = source.initial_offset().await?;
    let end = source.latest_offset(&start, &ReadLimit::All, None).await?;
    assert_eq!(end.to_string(), r#"{"offset":3,"timestamp":1007}"#);
    let next = source.latest_offset(&end, &ReadLimit::All, None).await?;
    let rows = read(&source, end, next).await?;
    assert_eq!(rows, [(1_007, 3), (1_007, 4), (1_007, 5)]);
    Ok(())
}

fn spec(format: &str, options: Options) -> SourceSpec {
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let session = Arc::new(SessionContext::new().state());
    let mut spec = SourceSpec::new(format, Arc::new(clock), session);
    spec.options = options;
    spec
}

#[tokio::test]
async fn wrong_options_are_refused_by_name() {
    for (format, name, value, kind) in [
        ("rate", "rowsPerSecond", "0", ErrorKind::Invalid),
        ("rate", "rowsPerSecond", "many", ErrorKind::Invalid),
        ("rate", "rampUpTime", "-1 s", ErrorKind::Invalid),
        ("rate", "numPartitions", "2", ErrorKind::Unsupported),
        ("rate", "rowPerSecond", "2", ErrorKind::Invalid),
        ("rate-micro-batch", "rowsPerBatch", "0", ErrorKind::Invalid),
        ("rate-micro-batch", "rowPerBatch", "1", ErrorKind::Invalid),
    ] {
        let spec = spec(format, Options::from([(name, value)]));
        let opened = match format {
            "rate" => RateProvider.open(spec).await,
            _ => RateMicroBatchProvider.open(spec).await,
        };
        let error = opened.expect_err(name);
        assert_eq!(
            (error.option(), error.kind()),
            (Some(name), kind),
            "{error}"
        );
    }
    let error = RateMicroBatchProvider.open(spec("rate-micro-batch", Options::new()));
    assert_eq!(
        error.await.expect_err("refused").option(),
        Some("rowsPerBatch")
    );
    let mut with_path = spec("rate", Options::new());
    with_path.path = Some("/tmp/x".into());
    assert!(RateProvider.open(with_path).await.is_err());
}

#[test]
fn typed_options_are_the_same_map() -> Result<()> {
    let rate = RateSourceOptions::new()
        .rows_per_second(10)
        .ramp_up_time(Duration::from_secs(5));
    assert_eq!(
        RateSourceOptions::try_from(Options::from(rate.clone()))?,
        rate
    );
    let text = Options::from([("rows_per_second", "10"), ("RampUpTime", "5")]);
    assert_eq!(RateSourceOptions::try_from(text)?, rate);
    let batch = RateMicroBatchSourceOptions::new(3).start_timestamp(9);
    let back = RateMicroBatchSourceOptions::try_from(Options::from(batch.clone()))?;
    assert_eq!(back, batch);
    Ok(())
}
