//! `late_rows_to` and `maxEventTimeSkew`: rows that are dropped go somewhere, and are counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::prelude::{DataFrame, col};
use futures::TryStreamExt;
use highwater_core::{
    BatchOutput, Error, ErrorKind, Guarantee, OutputMode, Result, Sink, SinkCommit, SinkRun,
};
use parking_lot::Mutex;

use super::event_time::{seconds, timed};
use super::support::{House, Numbers, Written, at, store};
use crate::{LateTarget, StartRequest, StreamingQuery};

/// Keeps late rows, batch by batch.
#[derive(Debug, Default)]
struct Aside {
    batches: Mutex<BTreeMap<u64, Vec<RecordBatch>>>,
    given: Mutex<Vec<u64>>,
    fail: Mutex<Option<u64>>,
    begun: Mutex<Vec<OutputMode>>,
    needs_checkpoint: bool,
    refuses: bool,
}

#[async_trait]
impl Sink for Aside {
    fn description(&self) -> String {
        "Aside".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn supports(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append && !self.refuses
    }

    fn needs_checkpoint(&self) -> bool {
        self.needs_checkpoint
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        self.begun.lock().push(run.mode);
        Ok(())
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        self.given.lock().push(output.id.0);
        let rows: Vec<RecordBatch> = output.stream.try_collect().await?;
        if self.fail.lock().take_if(|id| *id == output.id.0).is_some() {
            return Err(Error::unavailable("no place for late rows"));
        }
        self.batches.lock().insert(output.id.0, rows);
        Ok(SinkCommit::default())
    }
}

impl Aside {
    /// Each late row: its number, who put it aside, the watermark in seconds, the micro-batch.
    fn rows(&self) -> Vec<(i64, String, i64, i64)> {
        let batches = self.batches.lock();
        let rows = batches.values().flatten().flat_map(|rows| {
            let numbers = rows["n"].as_primitive::<Int64Type>();
            let operators = rows["_operator"].as_string_view();
            let marks = rows["_watermark"].as_primitive::<TimestampMicrosecondType>();
            let ids = rows["_batch_id"].as_primitive::<Int64Type>();
            (0..rows.num_rows())
                .map(|i| {
                    let operator = operators.value(i).to_owned();
                    let mark = marks.value(i) / 1_000_000;
                    (numbers.value(i), operator, mark, ids.value(i))
                })
                .collect::<Vec<_>>()
        });
        rows.collect()
    }
}

/// Opens to the same sink every time.
#[derive(Debug)]
struct To(Arc<Aside>);

#[async_trait]
impl LateTarget for To {
    async fn open(&self, _schema: SchemaRef) -> Result<Arc<dyn Sink>> {
        Ok(Arc::<Aside>::clone(&self.0))
    }
}

/// The sum of the numbers at each time, in append mode; late rows go to `aside`.
fn sums(house: &House, numbers: &Numbers, sink: &Arc<Written>, aside: &Arc<Aside>) -> StartRequest {
    let frame = summed(timed(house, "numbers", numbers, "0 seconds"));
    let mut request = house.request_for(frame, sink);
    request.options.late_rows = Some(Arc::new(To(Arc::clone(aside))));
    request
}

fn summed(frame: DataFrame) -> DataFrame {
    let frame = frame.aggregate(vec![col("ts")], vec![sum(col("n")).alias("s")]);
    frame.unwrap().select(vec![col("s"), col("ts")]).unwrap()
}

/// All late rows that the progress counts.
fn counted(query: &StreamingQuery) -> u64 {
    let told = query.recent_progress();
    let operators = told.iter().flat_map(|p| &p.state_operators);
    let watermarks = told.iter().flat_map(|p| &p.watermarks);
    operators.map(|o| o.num_late_rows).sum::<u64>()
        + watermarks.map(|w| w.num_late_rows).sum::<u64>()
}

async fn add(query: &StreamingQuery, numbers: &Numbers, rows: impl IntoIterator<Item = i64>) {
    numbers.add(rows);
    query.process_all_available().await.unwrap();
}

/// 50 closes all up to 50 in batch 1; what is at or before 50 then is late in batch 2.
#[tokio::test]
async fn late_rows_are_delivered_and_counted() {
    let (house, numbers, sink, aside) = (
        House::new(),
        Numbers::new(),
        Written::new(),
        Arc::new(Aside::default()),
    );
    let request = sums(&house, &numbers, &sink, &aside);
    let query = house.manager.start(request).await.unwrap();
    add(&query, &numbers, [50]).await;
    add(&query, &numbers, [10, 60, 50, 10]).await;
    add(&query, &numbers, [60]).await;
    let aggregate = |n, mark, id| (n, "aggregate".to_owned(), mark, id);
    let expected = [
        aggregate(10, 50, 2),
        aggregate(50, 50, 2),
        aggregate(10, 50, 2),
        aggregate(60, 60, 4),
    ];
    assert_eq!(aside.rows(), expected);
    assert_eq!(counted(&query), 4);
    assert_eq!(sink.rows().concat(), [50, 60]);
    assert_eq!(
        *aside.given.lock(),
        [0, 1, 2, 3, 4],
        "it hears of every one"
    );
    assert_eq!(*aside.begun.lock(), [OutputMode::Append]);
    query.stop().await.unwrap();
}

/// The late sink fails after the main sink has written: both get the same rows under the same number again.
#[tokio::test]
async fn a_replay_writes_the_same_late_rows_under_the_same_number() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let aside = Arc::new(Aside::default());
    let mut request = sums(&house, &numbers, &sink, &aside);
    request.checkpoint = at(&store);
    let query = house.manager.start(request.clone()).await.unwrap();
    add(&query, &numbers, [50]).await;
    *aside.fail.lock() = Some(2);
    numbers.add([10, 70]);
    let error = query.process_all_available().await.unwrap_err();
    assert_eq!(error.message(), "the late rows: no place for late rows");
    numbers.add([20]);
    let query = house.manager.start(request).await.unwrap();
    query.process_all_available().await.unwrap();
    // Batch 3 has data, so it is judged by what batch 2 ran with.
    assert_eq!(*sink.given.lock(), [0, 1, 2, 2, 3]);
    assert_eq!(*aside.given.lock(), [0, 1, 2, 2, 3]);
    let rows: Vec<_> = aside
        .rows()
        .iter()
        .map(|row| (row.0, row.2, row.3))
        .collect();
    assert_eq!(rows, [(10, 50, 2), (20, 50, 3)]);
    assert_eq!(sink.rows().concat(), [50, 70]);
    query.stop().await.unwrap();
}

/// Batch time 1 s, 10 s ahead allowed: 11 passes, 12 does not, and does not move the watermark.
#[tokio::test]
async fn rows_from_the_future_go_to_the_late_rows() {
    let (house, numbers, sink, aside) = (
        House::new(),
        Numbers::new(),
        Written::new(),
        Arc::new(Aside::default()),
    );
    let mut request = sums(&house, &numbers, &sink, &aside);
    request.options.max_event_time_skew = Some(Duration::from_secs(10));
    let query = house.manager.start(request).await.unwrap();
    add(&query, &numbers, [9_999, 11, 12, 3]).await;
    assert_eq!(query.watermark(), seconds(11));
    let told = &query.recent_progress()[0];
    assert_eq!(told.event_time.max, seconds(11));
    assert_eq!(told.watermarks[0].num_late_rows, 2);
    // Later the same time is no mistake.
    house.clock.advance("1 s").unwrap();
    add(&query, &numbers, [12, 1]).await;
    let watermark = |n| (n, "watermark".to_owned(), 0, 0);
    let expected = [
        watermark(9_999),
        watermark(12),
        (1, "aggregate".to_owned(), 11, 2),
    ];
    assert_eq!(aside.rows(), expected);
    assert_eq!(counted(&query), 3);
    assert_eq!(sink.rows().concat(), [3, 11, 12]);
    query.stop().await.unwrap();
}

/// Without a place for them they fail the micro-batch; a replay has the same batch time and fails alike, and a
/// place for them is the way out.
#[tokio::test]
async fn rows_from_the_future_fail_the_batch_where_they_have_no_place() {
    let (house, numbers, sink, store) = (House::new(), Numbers::new(), Written::new(), store());
    let aside = Arc::new(Aside::default());
    let mut request = sums(&house, &numbers, &sink, &aside);
    let target = request.options.late_rows.take();
    request.options.max_event_time_skew = Some(Duration::from_secs(10));
    request.checkpoint = at(&store);
    numbers.add([12, 11]);
    for _ in 0..2 {
        let query = house.manager.start(request.clone()).await.unwrap();
        let error = query.await_termination().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("1970-01-01 00:00:12"), "{error}");
        assert_eq!(error.option(), Some("maxEventTimeSkew"));
        assert_eq!(error.column(), Some("ts"));
        assert!(error.hint().is_some());
        house.clock.advance("1 hour").unwrap();
    }
    request.options.late_rows = target;
    let query = house.manager.start(request).await.unwrap();
    query.process_all_available().await.unwrap();
    assert_eq!(sink.rows().concat(), [11]);
    assert_eq!(aside.rows().len(), 1);
    query.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_have_late_rows_or_take_them_is_refused_at_start() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let request = |aside: Aside| sums(&house, &numbers, &sink, &Arc::new(aside));
    let mut stateless = request(Aside::default());
    let plain = house.request_for(timed(&house, "numbers", &numbers, "0 s"), &sink);
    stateless.plan = plain.plan;
    let wants_checkpoint = request(Aside {
        needs_checkpoint: true,
        ..Aside::default()
    });
    let cannot_append = request(Aside {
        refuses: true,
        ..Aside::default()
    });
    let mut no_watermark = house.request(&numbers, &sink);
    no_watermark.options.max_event_time_skew = Some(Duration::from_secs(1));
    for (request, option) in [
        (stateless.clone(), "lateRowsTo"),
        (wants_checkpoint, "checkpointLocation"),
        (cannot_append, "lateRowsTo"),
        (no_watermark, "maxEventTimeSkew"),
    ] {
        let error = house.manager.start(request).await.unwrap_err();
        assert_eq!(error.option(), Some(option), "{error}");
    }
    // With a limit on the skew it has some.
    stateless.options.max_event_time_skew = Some(Duration::from_secs(1));
    let query = house.manager.start(stateless).await.unwrap();
    query.stop().await.unwrap();
}
