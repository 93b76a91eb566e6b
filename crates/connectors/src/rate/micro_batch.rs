//! The source `rate-micro-batch`: the same rows in every micro-batch of every run.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{
    Error, Offset, ReadLimit, ReadRequest, Result, Source, SourceProvider, SourceSpec,
    SourceTraits, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{RateMicroBatchSourceOptions, rows};
use crate::refuse;

/// So many rows a micro-batch, whatever the time and the trigger.
///
/// Micro-batch `i` has the numbers from `i × rows` on, all with one timestamp. There is always a next
/// one, so that the default trigger never sleeps; read limits do not apply (Spark).
#[derive(Clone, Debug)]
pub struct RateMicroBatchSource {
    options: RateMicroBatchSourceOptions,
}

/// A position: `{"offset":3,"timestamp":1000}` (Spark).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    offset: i64,
    timestamp: i64,
}

impl RateMicroBatchSource {
    /// A source with these options.
    ///
    /// # Errors
    /// `Invalid`, naming the option, when `rows_per_batch` is 0 or a number does not fit a BIGINT.
    pub fn try_new(options: RateMicroBatchSourceOptions) -> Result<Self> {
        for (name, value, least) in [
            ("rowsPerBatch", options.rows_per_batch, 1),
            ("startTimestamp", options.start_timestamp, 0),
            ("advanceMillisPerBatch", options.advance_millis_per_batch, 0),
        ] {
            if value < least || i64::try_from(value).is_err() {
                let why = "it is out of range";
                return Err(
                    Error::invalid(format!("option `{name}` is `{value}`: {why}"))
                        .with_option(name),
                );
            }
        }
        Ok(Self { options })
    }
}

#[async_trait]
impl Source for RateMicroBatchSource {
    fn description(&self) -> String {
        format!(
            "RatePerMicroBatchStream[rowsPerBatch={}, startTimestamp={}, advanceMsPerBatch={}]",
            self.options.rows_per_batch,
            self.options.start_timestamp,
            self.options.advance_millis_per_batch
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
        Offset::new(&Position {
            offset: 0,
            timestamp: 0_i64.saturating_add_unsigned(self.options.start_timestamp),
        })
    }

    async fn latest_offset(
        &self,
        start: &Offset,
        _limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        let from: Position = start.parse()?;
        let next = Position {
            offset: from
                .offset
                .saturating_add_unsigned(self.options.rows_per_batch),
            timestamp: from
                .timestamp
                .saturating_add_unsigned(self.options.advance_millis_per_batch),
        };
        let pinned: Option<Position> = upto.map(Offset::parse).transpose()?;
        match pinned {
            Some(pinned) if next.offset >= pinned.offset => Offset::new(&pinned),
            _ => Offset::new(&next),
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let start: Position = request.range.start.parse()?;
        let end: Position = request.range.end.parse()?;
        let micros = Timestamp::from_millis(start.timestamp).as_micros();
        let values = start.offset..end.offset;
        Ok(vec![rows::stream(&request, values, move |_| micros)?])
    }

    fn read_limit(&self) -> ReadLimit {
        ReadLimit::MaxRows(self.options.rows_per_batch)
    }

    /// There is always a next micro-batch.
    async fn changed(&self) {}
}

/// The format `rate-micro-batch`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateMicroBatchProvider;

#[async_trait]
impl SourceProvider for RateMicroBatchProvider {
    fn format(&self) -> &str {
        "rate-micro-batch"
    }

    async fn open(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
        refuse::source_path(&spec)?;
        refuse::source_schema(&spec)?;
        let options = RateMicroBatchSourceOptions::try_from(spec.options)?;
        Ok(Arc::new(RateMicroBatchSource::try_new(options)?))
    }
}
