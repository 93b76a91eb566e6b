//! One run of the query over one range of input.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{BatchId, OffsetRange, Timestamp};

/// The event time up to which no further row changes a result, in milliseconds since 1970, UTC.
///
/// It starts at 0 and never falls. Batch N runs with the watermark computed after batch N−1 (Spark).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Later than every event time: the last micro-batch of a query that is flushed runs with it, and closes all there is.
    pub const END: Self = Self(i64::MAX);

    /// The watermark as a point in time.
    #[must_use]
    pub const fn as_timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Timestamp::from_millis(self.0).fmt(f)
    }
}

/// What one micro-batch is made of: the same again when it is run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Its number.
    pub id: BatchId,
    /// The range of each source, by the source's name.
    pub ranges: BTreeMap<String, OffsetRange>,
    /// The batch time: what `current_timestamp()` answers, in whole milliseconds (Spark).
    pub time: Timestamp,
    /// The watermark that closes windows and evicts state in this micro-batch; [`Watermark::END`] in the final one
    /// of `flushOnEnd`.
    pub watermark: Watermark,
    /// The watermark that judges late rows: the one the micro-batch before ran with.
    pub late_watermark: Watermark,
}

impl MicroBatch {
    /// True for the last micro-batch of a query that is flushed: everything closes in it, and no row comes after it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.watermark == Watermark::END
    }
}
