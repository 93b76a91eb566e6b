//! The memory source and the memory sink keep their contracts.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::execution::TaskContext;
use datafusion::prelude::SessionContext;
use futures::{FutureExt, TryStreamExt};
use highwater_core::testing::{ManualClock, contract};
use highwater_core::{
    BatchId, Error, ErrorKind, Offset, OffsetRange, OutputMode, QueryId, ReadLimit, ReadRequest,
    Result, RunId, Sink, SinkProvider, SinkRun, SinkSpec, Source, Timestamp,
};
use uuid::Uuid;

use super::{MemoryProvider, MemorySink, MemorySource};

fn numbers(n: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: Int64Array = n.into_iter().map(Some).collect();
    RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).expect("a batch")
}

fn source() -> MemorySource {
    MemorySource::new(&Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

async fn read(source: &dyn Source, start: u64, end: u64) -> Result<Vec<Vec<i64>>> {
    let request = ReadRequest {
        range: OffsetRange::new(Offset::from(start), Offset::from(end)),
        projection: None,
        filters: Vec::new(),
        batch_time: Timestamp::default(),
        task: Arc::new(TaskContext::default()),
    };
    let mut batches = Vec::new();
    for stream in source.read(request).await? {
        batches.extend(stream.try_collect::<Vec<_>>().await?);
    }
    let values = |b: &RecordBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec();
    Ok(batches.iter().map(values).collect())
}

#[tokio::test]
async fn the_source_keeps_its_contract() -> Result<()> {
    contract::source::all(async || {
        let schema = contract::sink::schema();
        let source = MemorySource::new(&schema);
        for (key, n) in [("a", 1), ("b", 2), ("c", 3)] {
            let keys: StringArray = vec![Some(key); n].into_iter().collect();
            let numbers = Int32Array::from(vec![1; n]);
            let columns: [(&str, Arc<dyn Array>); 2] =
                [("n", Arc::new(numbers)), ("k", Arc::new(keys))];
            source.add(RecordBatch::try_from_iter(columns)?)?;
        }
        Ok(Arc::new(source) as Arc<dyn Source>)
    })
    .await
}

#[tokio::test]
async fn an_offset_counts_entries_and_an_empty_entry_counts() -> Result<()> {
    let source = source();
    assert_eq!(source.description(), "MemoryStream[n]");
    assert_eq!(source.add(numbers([1, 2]))?, Offset::from(1));
    assert_eq!(source.add(numbers([]))?, Offset::from(2));
    assert_eq!(source.add(numbers([3]))?, Offset::from(3));
    assert_eq!(read(&source, 0, 3).await?, [[1, 2, 3]]);
    assert!(read(&source, 1, 2).await?.is_empty());
    let limit = ReadLimit::MaxRows(1);
    let ends = [(0, 1), (1, 3), (2, 3), (3, 3)];
    for (start, end) in ends {
        let latest = source
            .latest_offset(&Offset::from(start), &limit, None)
            .await?;
        assert_eq!(latest, Offset::from(end), "from {start}");
    }
    Ok(())
}

#[tokio::test]
async fn small_entries_come_together_and_large_ones_in_slices() -> Result<()> {
    let source = source();
    for n in 0..10 {
        source.add(numbers([n]))?;
    }
    source.add(numbers(10..20_000))?;
    let batches = read(&source, 0, 11).await?;
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [10, 8192, 8192, 3606]);
    assert!(batches.concat().into_iter().eq(0..20_000));
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_the_columns_is_refused_by_name() -> Result<()> {
    let source = source();
    let text: StringArray = ["7", "seven"].into_iter().map(Some).collect();
    let wrong = RecordBatch::try_from_iter([("n", Arc::new(text) as _)])?;
    let other = RecordBatch::try_from_iter([("m", Arc::new(Int64Array::from(vec![1])) as _)])?;
    for (rows, column) in [(wrong, "n"), (other, "m")] {
        let error = source.add(rows).expect_err("refused");
        assert_eq!(
            (error.kind(), error.column()),
            (ErrorKind::Invalid, Some(column))
        );
    }
    let gone = source
        .latest_offset(&Offset::from(5), &ReadLimit::All, None)
        .await;
    assert_eq!(gone.expect_err("gone").kind(), ErrorKind::Corrupt);
    Ok(())
}

#[tokio::test]
async fn a_sleeping_reader_wakes_with_an_entry_and_no_entry_is_missed() -> Result<()> {
    let source = source();
    source
        .latest_offset(&Offset::from(0), &ReadLimit::All, None)
        .await?;
    let mut changed = source.changed();
    assert!(changed.as_mut().now_or_never().is_none());
    source.add(numbers([1]))?;
    assert!(changed.as_mut().now_or_never().is_some());
    // Added after the look and before the sleep: not missed.
    source
        .latest_offset(&Offset::from(1), &ReadLimit::All, None)
        .await?;
    source.add(numbers([2]))?;
    assert!(source.changed().now_or_never().is_some());
    // All read: asleep.
    source
        .latest_offset(&Offset::from(2), &ReadLimit::All, None)
        .await?;
    assert!(source.changed().now_or_never().is_none());
    Ok(())
}

#[tokio::test]
async fn the_sink_keeps_its_contract() -> Result<()> {
    contract::sink::all(async |mode| {
        let sink = Arc::new(MemorySink::new("t", contract::sink::schema(), mode));
        let eyes = Arc::clone(&sink);
        Ok(contract::sink::Subject::seen(sink, move || eyes.batches()))
    })
    .await
}

#[tokio::test]
async fn a_checkpoint_can_be_taken_up_in_complete_mode_only() -> Result<()> {
    let schema = contract::sink::schema();
    for (mode, logged, taken) in [
        (OutputMode::Append, None, true),
        (OutputMode::Append, Some(BatchId(0)), false),
        (OutputMode::Update, Some(BatchId(3)), false),
        (OutputMode::Complete, Some(BatchId(3)), true),
    ] {
        let sink = MemorySink::new("t", Arc::clone(&schema), mode);
        let (query, run) = (QueryId(Uuid::nil()), RunId(Uuid::nil()));
        let mut run = SinkRun::new(query, run, mode, Arc::clone(&schema));
        run.last_logged = logged;
        let begun = sink.begin(&run).await;
        assert_eq!(begun.is_ok(), taken, "{mode} after {logged:?}");
        if let Err(error) = begun {
            let text = "This query does not support recovering from checkpoint location";
            assert!(error.message().ends_with(text), "{error}");
        }
    }
    Ok(())
}

fn spec(ctx: &SessionContext) -> Result<SinkSpec> {
    let clock = Arc::new(ManualClock::at("2024-05-01 12:00:00")?);
    let session = Arc::new(ctx.state());
    let schema = contract::sink::schema();
    let mut spec = SinkSpec::new("memory", schema, OutputMode::Append, clock, session);
    spec.query_name = Some("counts".into());
    Ok(spec)
}

async fn begin(spec: SinkSpec) -> Result<Arc<dyn Sink>> {
    let (query, run) = (QueryId(Uuid::nil()), RunId(Uuid::nil()));
    let run = SinkRun::new(query, run, spec.mode, Arc::clone(&spec.schema));
    let sink = MemoryProvider.open(spec).await?;
    sink.begin(&run).await?;
    Ok(sink)
}

#[tokio::test]
async fn the_table_replaces_an_earlier_querys_and_no_other() -> Result<()> {
    let ctx = SessionContext::new();
    begin(spec(&ctx)?).await?;
    begin(spec(&ctx)?).await?;
    assert_eq!(ctx.table("counts").await?.count().await?, 0);
    ctx.deregister_table("counts")?;
    ctx.register_batch("counts", numbers([1]))?;
    let error = begin(spec(&ctx)?).await.expect_err("refused");
    assert!(error.message().contains("`counts`"), "{error}");
    assert_eq!(ctx.table("counts").await?.count().await?, 1);
    Ok(())
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_by_name() -> Result<()> {
    type Change = fn(&mut SinkSpec);
    let cases: [(Change, &str); 4] = [
        (|s| s.query_name = None, "needs the name of the query"),
        (
            |s| s.options.set("numRows", 3),
            "unknown option `numRows` of sink `memory`",
        ),
        (
            |s| s.partition_by = vec!["k".into()],
            "partition_by is not supported by sink `memory`",
        ),
        (|s| s.path = Some("/tmp/x".into()), "writes to no path"),
    ];
    let ctx = SessionContext::new();
    for (change, why) in cases {
        let mut spec = spec(&ctx)?;
        change(&mut spec);
        let error: Error = MemoryProvider.open(spec).await.expect_err(why);
        assert!(error.message().contains(why), "{error}");
    }
    Ok(())
}
