//! A source of numbers, a sink that can fail or wait, and a manager on the test's own runtime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{TryStreamExt, stream};
use highwater_core::testing::ManualClock;
use highwater_core::{
    BatchId, BatchOutput, Clock, Error, Guarantee, Offset, OutputMode, ReadLimit, ReadRequest,
    Result, Sink, SinkCommit, SinkRun, Source, SourceTraits, Timestamp, Trigger,
};
use highwater_plan::StreamTable;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::{
    CheckpointLocation, QueryOptions, QuerySettings, StartRequest, StreamingQuery,
    StreamingQueryManager,
};

/// A replayable source of numbers; its offset is how many there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    numbers: Arc<Mutex<Vec<i64>>>,
    changed: Arc<Notify>,
    limit: Option<u64>,
    broken: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn limited(limit: u64) -> Self {
        Self {
            limit: Some(limit),
            ..Self::default()
        }
    }

    pub(crate) fn add(&self, numbers: impl IntoIterator<Item = i64>) {
        self.numbers.lock().extend(numbers);
        self.changed.notify_waiters();
    }

    /// From now on it cannot tell its latest offset.
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

#[async_trait]
impl Source for Numbers {
    fn description(&self) -> String {
        "Numbers".into()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: true,
            bounded: false,
        }
    }

    async fn initial_offset(&self) -> Result<Offset> {
        Ok(Offset::from(0))
    }

    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the numbers are gone"));
        }
        let start: u64 = start.parse()?;
        let mut end = self.numbers.lock().len() as u64;
        if let Some(upto) = upto {
            end = end.min(upto.parse()?);
        }
        if let ReadLimit::MaxRows(most) = limit {
            end = end.min(start + most);
        }
        Ok(Offset::from(end.max(start)))
    }

    fn read_limit(&self) -> ReadLimit {
        self.limit.map_or(ReadLimit::All, ReadLimit::MaxRows)
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let start: usize = request.range.start.parse()?;
        let end: usize = request.range.end.parse()?;
        let numbers = Int64Array::from(self.numbers.lock()[start..end].to_vec());
        let mut batch = RecordBatch::try_new(schema(), vec![Arc::new(numbers)])?;
        if let Some(columns) = request.projection {
            batch = batch.project(&columns)?;
        }
        let rows = stream::iter([Ok(batch.clone())]);
        Ok(vec![Box::pin(RecordBatchStreamAdapter::new(
            batch.schema(),
            rows,
        ))])
    }

    async fn commit(&self, end: &Offset) -> Result<()> {
        self.committed.store(end.parse()?, Ordering::Relaxed);
        Ok(())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What was written: for each batch id, the rows of its last write.
#[derive(Debug)]
pub(crate) struct Written {
    batches: Mutex<BTreeMap<BatchId, Vec<i64>>>,
    /// Batch ids in the order they were given, failed ones too.
    pub(crate) given: Mutex<Vec<u64>>,
    fail: Mutex<Option<BatchId>>,
    /// A write waits until this is true.
    open: watch::Sender<bool>,
    pub(crate) begun: Mutex<Vec<Option<BatchId>>>,
    needs_checkpoint: bool,
}

impl Written {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(false)
    }

    pub(crate) fn with(needs_checkpoint: bool) -> Arc<Self> {
        Arc::new(Self {
            batches: Mutex::default(),
            given: Mutex::default(),
            fail: Mutex::default(),
            open: watch::Sender::new(true),
            begun: Mutex::default(),
            needs_checkpoint,
        })
    }

    /// Fails the next write of this batch, once.
    pub(crate) fn fail(&self, batch: u64) {
        *self.fail.lock() = Some(BatchId(batch));
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// A write has begun and waits for [`open`](Self::open).
    pub(crate) async fn waits(&self) {
        while self.open.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// The rows, batch by batch.
    pub(crate) fn rows(&self) -> Vec<Vec<i64>> {
        self.batches.lock().values().cloned().collect()
    }
}

#[async_trait]
impl Sink for Written {
    fn description(&self) -> String {
        "Written".into()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn supports(&self, mode: OutputMode) -> bool {
        mode != OutputMode::Complete
    }

    fn needs_checkpoint(&self) -> bool {
        self.needs_checkpoint
    }

    async fn begin(&self, run: &SinkRun) -> Result<()> {
        self.begun.lock().push(run.last_logged);
        Ok(())
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        self.given.lock().push(output.id.0);
        let batches: Vec<RecordBatch> = output.stream.try_collect().await?;
        let columns = batches
            .iter()
            .map(|b| b.column(0).as_primitive::<Int64Type>());
        let rows: Vec<i64> = columns.flat_map(|c| c.values().to_vec()).collect();
        let mut open = self.open.subscribe();
        drop(open.wait_for(|open| *open).await);
        if self
            .fail
            .lock()
            .take_if(|batch| *batch == output.id)
            .is_some()
        {
            return Err(Error::unavailable("injected sink failure"));
        }
        let count = rows.len() as u64;
        self.batches.lock().insert(output.id, rows);
        Ok(SinkCommit::rows(count))
    }
}

/// A manager on the test's runtime, with a clock that stands still.
pub(crate) struct House {
    pub(crate) clock: ManualClock,
    pub(crate) manager: StreamingQueryManager,
    pub(crate) context: SessionContext,
}

impl House {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_000));
        let passed = Arc::new(clock.clone()) as Arc<dyn Clock>;
        Self {
            clock,
            manager: StreamingQueryManager::new(passed, Handle::current()),
            context: SessionContext::new(),
        }
    }

    pub(crate) fn frame(&self, name: &str, numbers: &Numbers) -> DataFrame {
        let table = StreamTable::new(name, Arc::new(numbers.clone()), true);
        self.context.read_table(Arc::new(table)).unwrap()
    }

    /// All numbers into `sink`, with nothing else said.
    pub(crate) fn request(&self, numbers: &Numbers, sink: &Arc<Written>) -> StartRequest {
        self.request_for(self.frame("numbers", numbers), sink)
    }

    pub(crate) fn request_for(&self, frame: DataFrame, sink: &Arc<Written>) -> StartRequest {
        let (session, plan): (_, LogicalPlan) = frame.into_parts();
        StartRequest {
            name: None,
            plan,
            session,
            sink: Arc::<Written>::clone(sink),
            mode: OutputMode::Append,
            trigger: Trigger::default(),
            checkpoint: CheckpointLocation::Temporary,
            settings: QuerySettings::default(),
            options: QueryOptions::default(),
        }
    }

    pub(crate) async fn start(&self, numbers: &Numbers, sink: &Arc<Written>) -> StreamingQuery {
        self.manager
            .start(self.request(numbers, sink))
            .await
            .unwrap()
    }
}

/// A checkpoint in `store`.
pub(crate) fn at(store: &Arc<dyn ObjectStore>) -> CheckpointLocation {
    CheckpointLocation::At {
        store: Arc::clone(store),
        folder: "ckpt".into(),
        display: "memory:///ckpt".into(),
    }
}

pub(crate) fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// The JSON of an entry of the checkpoint in `store`.
pub(crate) async fn logged(store: &Arc<dyn ObjectStore>, file: &str) -> serde_json::Value {
    let path = object_store::path::Path::from(format!("ckpt/{file}"));
    let entry = store.get(&path).await.unwrap().bytes().await.unwrap();
    let text = std::str::from_utf8(&entry).unwrap();
    serde_json::from_str(text.lines().nth(1).unwrap()).unwrap()
}

/// Lets the query's task run until it waits.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
