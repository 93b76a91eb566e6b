//! The source `rate`: so many rows for each second that passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{
    BatchId, Clock, Error, Offset, ReadLimit, ReadRequest, Result, Source, SourceContext,
    SourceProvider, SourceSpec, SourceTraits, Timestamp,
};
use highwater_storage::{LogEntry, NumberedLog};

use super::{RateSourceOptions, rows};
use crate::refuse;

/// Rows made at a steady rate.
///
/// The offset is the number of whole seconds since the query began for the first time, which is kept in
/// its checkpoint, so that a restart makes the rows of the time it was away. Inside a range the
/// timestamps are evenly apart, in whole milliseconds (Spark).
#[derive(Debug)]
pub struct RateSource {
    options: RateSourceOptions,
    clock: Arc<dyn Clock>,
    began: Timestamp,
    /// Where the reader last asked what comes next.
    position: AtomicU64,
}

impl RateSource {
    /// A source that begins now; a query makes its own of it.
    #[must_use]
    pub fn new(options: RateSourceOptions, clock: Arc<dyn Clock>) -> Self {
        let began = clock.now().floor_to_millis();
        Self::begun(options, clock, began)
    }

    fn begun(options: RateSourceOptions, clock: Arc<dyn Clock>, began: Timestamp) -> Self {
        Self {
            options,
            clock,
            began,
            position: AtomicU64::new(0),
        }
    }

    /// The number of rows of the first `seconds` seconds.
    fn value_at(&self, seconds: u64) -> Result<i64> {
        let value = value_at_second(
            seconds,
            self.options.rows_per_second,
            self.options.ramp_up_time.as_secs(),
        );
        i64::try_from(value).map_err(|_| {
            Error::invalid(format!(
                "Integer overflow: {} rows a second for {seconds} seconds do not fit a BIGINT",
                self.options.rows_per_second
            ))
            .with_option("rowsPerSecond")
        })
    }

    /// The last second, after `from`, by which no more than `most` rows are made; at least one second.
    fn admit(&self, from: u64, end: u64, most: u64) -> Result<u64> {
        let base = self.value_at(from)?;
        let (mut low, mut high) = (from.saturating_add(1).min(end), end);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.value_at(middle)?.abs_diff(base) <= most {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }
}

#[async_trait]
impl Source for RateSource {
    fn description(&self) -> String {
        format!(
            "RateStreamV2[rowsPerSecond={}, rampUpTimeSeconds={}]",
            self.options.rows_per_second,
            self.options.ramp_up_time.as_secs()
        )
    }

    fn schema(&self) -> SchemaRef {
        rows::schema()
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
        let from: u64 = start.parse()?;
        self.position.store(from, Ordering::Release);
        let passed = self.clock.now().since(self.began).as_secs();
        let mut end = match upto {
            Some(upto) => passed.min(upto.parse()?),
            None => passed,
        };
        // A clock that was set back makes no row again.
        end = end.max(from);
        if let ReadLimit::MaxRows(most) = limit {
            end = self.admit(from, end, *most)?;
        }
        Ok(Offset::from(end))
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let start: u64 = request.range.start.parse()?;
        let end: u64 = request.range.end.parse()?;
        let values = self.value_at(start)?..self.value_at(end)?;
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let first = values.start;
        let began = self
            .began
            .as_millis()
            .saturating_add_unsigned(start.saturating_mul(1_000));
        let each = (end - start) as f64 * 1_000.0 / (values.end - first) as f64;
        let micros = move |value: i64| {
            let millis = ((value - first) as f64 * each).round() as i64;
            Timestamp::from_millis(began.saturating_add(millis)).as_micros()
        };
        Ok(vec![rows::stream(&request, values, micros)?])
    }

    async fn for_query(&self, context: SourceContext) -> Result<Option<Arc<dyn Source>>> {
        let log = NumberedLog::<Began>::new(Arc::clone(&context.store), context.folder.clone());
        let began = match log.get(BatchId(0)).await? {
            Some(began) => began,
            None => {
                let began = Began(context.clock.now().floor_to_millis());
                log.add(BatchId(0), &began).await?;
                began
            }
        };
        let source = Self::begun(self.options.clone(), context.clock, began.0);
        Ok(Some(Arc::new(source)))
    }

    /// Comes back when a whole second has passed after the position where the reader last asked.
    async fn changed(&self) {
        let position = self.position.load(Ordering::Acquire);
        let next = std::time::Duration::from_secs(position.saturating_add(1));
        self.clock.sleep_until(self.began.plus(next)).await;
    }
}

/// Spark's curve: during the ramp-up each second makes `delta` rows more than the one before.
///
/// With 4 seconds of ramp-up to 10 rows a second the values are 0, 2, 6, 12, 20, 30, 40, …
fn value_at_second(seconds: u64, rows_per_second: u64, ramp_up: u64) -> u128 {
    let delta = u128::from(rows_per_second / ramp_up.saturating_add(1));
    let ramped = u128::from(seconds.min(ramp_up));
    let steady = u128::from(seconds.saturating_sub(ramp_up)) * u128::from(rows_per_second);
    (ramped * (ramped + 1) / 2)
        .saturating_mul(delta)
        .saturating_add(steady)
}

/// When the query began for the first time.
#[derive(Clone, Copy, Debug)]
struct Began(Timestamp);

impl LogEntry for Began {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(format!("v1\n{}", self.0.as_millis()).into_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let millis = text
            .strip_prefix("v1\n")
            .and_then(|t| t.trim().parse().ok());
        millis
            .map(|millis| Self(Timestamp::from_millis(millis)))
            .ok_or_else(|| {
                Error::corrupt(
                    "the start time of source `rate` is not `v1` and a number of milliseconds",
                )
            })
    }
}

/// The format `rate`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateProvider;

#[async_trait]
impl SourceProvider for RateProvider {
    fn format(&self) -> &str {
        "rate"
    }

    async fn open(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        refuse::source_path(&spec)?;
        refuse::source_schema(&spec)?;
        let options = RateSourceOptions::try_from(spec.options)?;
        Ok(Arc::new(RateSource::new(options, spec.clock)))
    }
}
