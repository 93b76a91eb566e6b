//! The options of `rate` and `rate-micro-batch`, with Spark's names and defaults.

use std::time::Duration;

use highwater_core::{Error, IntoInterval, Options, Result};

use crate::refuse;

/// The options of the source `rate`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateSourceOptions {
    /// Rows a second; 1.
    pub rows_per_second: u64,
    /// How long the rate grows, second by second, before it is reached; none. Parts of a second do not count.
    pub ramp_up_time: Duration,
}

impl Default for RateSourceOptions {
    fn default() -> Self {
        Self {
            rows_per_second: 1,
            ramp_up_time: Duration::ZERO,
        }
    }
}

impl RateSourceOptions {
    /// Spark's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the rows a second.
    #[must_use]
    pub fn rows_per_second(mut self, rows: u64) -> Self {
        self.rows_per_second = rows;
        self
    }

    /// Sets how long the rate grows.
    #[must_use]
    pub fn ramp_up_time(mut self, time: Duration) -> Self {
        self.ramp_up_time = time;
        self
    }
}

impl TryFrom<Options> for RateSourceOptions {
    type Error = Error;

    /// # Errors
    /// `Invalid`, naming an option that is unknown or out of range; `Unsupported` for `numPartitions`.
    fn try_from(mut options: Options) -> Result<Self> {
        let default = Self::default();
        let parsed = Self {
            rows_per_second: options
                .take_positive("rowsPerSecond")?
                .unwrap_or(default.rows_per_second),
            ramp_up_time: match options.take_str("rampUpTime") {
                Some(text) => seconds_or_interval("rampUpTime", &text)?,
                None => default.ramp_up_time,
            },
        };
        refuse::num_partitions(&options, "rate")?;
        options.finish("source `rate`")?;
        Ok(parsed)
    }
}

impl From<RateSourceOptions> for Options {
    fn from(options: RateSourceOptions) -> Self {
        let mut map = Self::new();
        map.set("rowsPerSecond", options.rows_per_second);
        map.set("rampUpTime", options.ramp_up_time);
        map
    }
}

/// Spark reads a bare number as seconds here.
fn seconds_or_interval(name: &'static str, text: &str) -> Result<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let length = text.into_interval().and_then(|i| i.to_duration());
    length.map_err(|e| {
        Error::invalid(format!("option `{name}` is `{text}`: {}", e.message())).with_option(name)
    })
}

/// The options of the source `rate-micro-batch`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateMicroBatchSourceOptions {
    /// Rows a micro-batch.
    pub rows_per_batch: u64,
    /// The timestamp of the first micro-batch's rows, in milliseconds since 1970; 0.
    pub start_timestamp: u64,
    /// How far the timestamp moves from one micro-batch to the next, in milliseconds; 1000.
    pub advance_millis_per_batch: u64,
}

impl RateMicroBatchSourceOptions {
    /// `rows_per_batch` rows a micro-batch, otherwise Spark's defaults.
    #[must_use]
    pub fn new(rows_per_batch: u64) -> Self {
        Self {
            rows_per_batch,
            start_timestamp: 0,
            advance_millis_per_batch: 1_000,
        }
    }

    /// Sets the timestamp of the first micro-batch's rows, in milliseconds since 1970.
    #[must_use]
    pub fn start_timestamp(mut self, millis: u64) -> Self {
        self.start_timestamp = millis;
        self
    }

    /// Sets how far the timestamp moves, in milliseconds.
    #[must_use]
    pub fn advance_millis_per_batch(mut self, millis: u64) -> Self {
        self.advance_millis_per_batch = millis;
        self
    }
}

impl TryFrom<Options> for RateMicroBatchSourceOptions {
    type Error = Error;

    /// # Errors
    /// `Invalid`, naming an option that is missing, unknown or out of range; `Unsupported` for `numPartitions`.
    fn try_from(mut options: Options) -> Result<Self> {
        let Some(rows) = options.take_positive("rowsPerBatch")? else {
            // A typo in its name is told as such.
            options.finish("source `rate-micro-batch`")?;
            return Err(Error::invalid(
                "source `rate-micro-batch` needs the option `rowsPerBatch`",
            )
            .with_option("rowsPerBatch")
            .with_hint("it is the number of rows in each micro-batch"));
        };
        let mut parsed = Self::new(rows);
        if let Some(millis) = options.take("startTimestamp")? {
            parsed.start_timestamp = millis;
        }
        if let Some(millis) = options.take("advanceMillisPerBatch")? {
            parsed.advance_millis_per_batch = millis;
        }
        refuse::num_partitions(&options, "rate-micro-batch")?;
        options.finish("source `rate-micro-batch`")?;
        Ok(parsed)
    }
}

impl From<RateMicroBatchSourceOptions> for Options {
    fn from(options: RateMicroBatchSourceOptions) -> Self {
        let mut map = Self::new();
        map.set("rowsPerBatch", options.rows_per_batch);
        map.set("startTimestamp", options.start_timestamp);
        map.set("advanceMillisPerBatch", options.advance_millis_per_batch);
        map
    }
}
