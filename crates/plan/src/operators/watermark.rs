//! Looks at the event time of the rows that pass, and lets them pass; rows too far in the future may be kept out.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter, filter_record_batch, max, min, not};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use highwater_core::{Error, Timestamp};
use parking_lot::Mutex;

use super::unary::UnaryOperator;
use crate::cell::BatchCell;
use crate::nodes::EventTimeWatermark;

/// The event times that one `with_watermark` saw in a micro-batch, in microseconds; rows without a time do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTimes {
    /// How many rows had a time.
    pub count: u64,
    /// The least.
    pub min: i64,
    /// The greatest: the watermark follows it.
    pub max: i64,
    /// Their sum, for the mean in the progress.
    pub sum: i128,
}

impl EventTimes {
    fn see(&mut self, micros: &Int64Array) {
        let (Some(least), Some(greatest)) = (min(micros), max(micros)) else {
            return;
        };
        self.min = if self.count == 0 {
            least
        } else {
            self.min.min(least)
        };
        self.max = if self.count == 0 {
            greatest
        } else {
            self.max.max(greatest)
        };
        self.count += (micros.len() - micros.null_count()) as u64;
        self.sum += micros.iter().flatten().map(i128::from).sum::<i128>();
    }
}

/// One `with_watermark` of a query, as the engine sees it.
#[derive(Debug)]
pub struct WatermarkInput {
    /// Its name, unique in the query: `watermark`, `watermark_2`.
    pub name: String,
    /// The column of event time.
    pub column: String,
    /// How far the watermark stays behind the greatest event time, in milliseconds.
    pub delay_ms: i64,
    schema: SchemaRef,
    seen: Mutex<EventTimes>,
    /// How far after the batch time an event time may be, in microseconds; `i64::MAX`: as far as it likes.
    skew_us: AtomicI64,
    late_rows: AtomicU64,
}

impl WatermarkInput {
    /// What `node` observes.
    pub(crate) fn of(node: &EventTimeWatermark) -> Self {
        Self {
            name: node.name.clone(),
            column: node.column.name.clone(),
            delay_ms: node.delay_ms,
            schema: Arc::clone(node.schema.inner()),
            seen: Mutex::default(),
            skew_us: AtomicI64::new(i64::MAX),
            late_rows: AtomicU64::new(0),
        }
    }

    /// From now on rows whose event time is more than `micros` after the batch time are kept out.
    pub(crate) fn limit_skew(&self, micros: i64) {
        self.skew_us.store(micros, Ordering::Relaxed);
    }

    /// The latest event time that may pass in a micro-batch at `time`; `None`: any may.
    fn latest(&self, time: Timestamp) -> Option<i64> {
        match self.skew_us.load(Ordering::Relaxed) {
            i64::MAX => None,
            skew => Some(time.as_micros().saturating_add(skew)),
        }
    }

    /// The columns of the rows that are kept out; `None` when none ever is.
    #[must_use]
    pub fn late_schema(&self) -> Option<SchemaRef> {
        self.latest(Timestamp::default())
            .map(|_| Arc::clone(&self.schema))
    }

    /// Rows of the running, or the last, micro-batch that were kept out.
    #[must_use]
    pub fn late_rows(&self) -> u64 {
        self.late_rows.load(Ordering::Relaxed)
    }

    /// What the running, or the last, micro-batch had.
    #[must_use]
    pub fn seen(&self) -> EventTimes {
        *self.seen.lock()
    }

    /// A micro-batch begins.
    pub(crate) fn begin(&self) {
        *self.seen.lock() = EventTimes::default();
        self.late_rows.store(0, Ordering::Relaxed);
    }
}

/// Observes one column.
#[derive(Debug)]
pub(crate) struct WatermarkOperator {
    input: Arc<WatermarkInput>,
    at: usize,
    cell: BatchCell,
}

impl WatermarkOperator {
    /// Observes the column `at` for `input`.
    pub(crate) fn new(input: Arc<WatermarkInput>, at: usize, cell: BatchCell) -> Self {
        Self { input, at, cell }
    }

    pub(crate) fn input(&self) -> Arc<WatermarkInput> {
        Arc::clone(&self.input)
    }

    /// Looks at the rows; gives those that pass.
    fn see(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let times = event_micros(batch.column(self.at))?;
        if let Some(latest) = self.input.latest(self.cell.numbers().time)
            && max(&times).is_some_and(|greatest| greatest > latest)
        {
            return self.keep_out(&batch, &times, latest);
        }
        self.input.seen.lock().see(&times);
        Ok(batch)
    }

    /// Rows later than `latest` go to the late rows, and do not move the watermark.
    fn keep_out(
        &self,
        batch: &RecordBatch,
        times: &Int64Array,
        latest: i64,
    ) -> Result<RecordBatch> {
        let ahead = times
            .iter()
            .map(|time| time.is_some_and(|time| time > latest));
        let ahead: BooleanArray = ahead.map(Some).collect();
        if !self.cell.late().wanted() {
            return Err(self.too_far_ahead(times, latest).into());
        }
        let rows = filter_record_batch(batch, &ahead)?;
        self.input
            .late_rows
            .fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        self.cell.late().put(&self.input.name, rows);
        let passes = not(&ahead)?;
        let times = filter(times, &passes)?;
        self.input.seen.lock().see(times.as_primitive());
        Ok(filter_record_batch(batch, &passes)?)
    }

    /// The first row that is later than `latest`.
    fn too_far_ahead(&self, times: &Int64Array, latest: i64) -> Error {
        let first = times.iter().flatten().find(|time| *time > latest);
        let (time, now) = (first.unwrap_or(latest), self.cell.numbers().time);
        Error::invalid(format!(
            "a row has the event time {} in `{}`, more than {} ms after the batch time {now} (maxEventTimeSkew)",
            Timestamp::from_micros(time),
            self.input.column,
            self.input.skew_us.load(Ordering::Relaxed) / 1_000,
        ))
        .with_operator(&self.input.name)
        .with_column(&self.input.column)
        .with_option("maxEventTimeSkew")
        .with_hint(
            "give such rows a place of their own with `late_rows_to`, filter them out below the watermark, or \
             allow a longer skew",
        )
    }
}

/// Event times in microseconds, cut off as Spark keeps them; a window counts by its end.
fn event_micros(column: &ArrayRef) -> Result<Int64Array> {
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let nanos = cast(column, &DataType::Int64)?;
            nanos
                .as_primitive::<Int64Type>()
                .unary(|t| t.div_euclid(1_000))
        }
        _ => crate::event_time::ends(column, None)?,
    })
}

impl UnaryOperator for WatermarkOperator {
    fn name(&self) -> &'static str {
        "EventTimeWatermarkExec"
    }

    fn describe(&self) -> String {
        let WatermarkInput {
            name,
            column,
            delay_ms,
            ..
        } = self.input.as_ref();
        format!("name={name}, column={column}, delay={delay_ms} ms")
    }

    fn run(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> Result<SendableRecordBatchStream> {
        let marked = Arc::clone(&schema);
        let rows = input.and_then(move |batch| {
            let marked = batch.with_schema(Arc::clone(&marked));
            let passed = marked.map_err(Into::into).and_then(|rows| self.see(rows));
            futures::future::ready(passed)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
