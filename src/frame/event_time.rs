//! Event time: watermarks, and the first row of each key.

use highwater_plan::nodes;

use super::StreamFrame;
use crate::{IntoInterval, Result};

impl StreamFrame {
    /// Says that `column` tells when a row happened, and that rows come at most `delay` late.
    ///
    /// The watermark follows the greatest event time seen, less `delay`; it moves at the end of a micro-batch
    /// and is in force from the next one on. What is over by the watermark is given out and forgotten by the
    /// operators above, and rows that belong to it are late. On a batch frame it does nothing (Spark).
    ///
    /// # Errors
    /// `Invalid` when `column` is not a top-level timestamp of the frame, when `delay` is no length of time
    /// (a month is 31 days), and when it is negative.
    pub fn with_watermark(self, column: &str, delay: impl IntoInterval) -> Result<Self> {
        let delay = delay.into_interval()?;
        self.with_plan(|plan| nodes::watermark(plan, column, delay))
    }

    /// Keeps the first row, in input order, of each key; `&[]`: all columns are the key.
    ///
    /// A key is remembered for ever. With a watermark on one of its columns it is remembered until the
    /// watermark reaches that column's value; rows that come later than that are dropped.
    /// On a batch frame it is DataFusion's distinct.
    ///
    /// # Errors
    /// `Invalid` when there is no such column.
    pub fn drop_duplicates(self, columns: &[&str]) -> Result<Self> {
        self.with_plan(|plan| nodes::deduplicate(plan, columns, false))
    }

    /// Keeps the first row, in input order, of each key; `&[]`: all columns are the key.
    ///
    /// A key is remembered until the watermark reaches the event time of its first row plus the watermark's
    /// delay: rows whose event times are no further apart than the delay are told to be duplicates.
    ///
    /// # Errors
    /// `Invalid` when there is no such column; `Unsupported` on a batch frame. That a stream needs a watermark
    /// is told by `start`.
    pub fn drop_duplicates_within_watermark(self, columns: &[&str]) -> Result<Self> {
        self.with_plan(|plan| nodes::deduplicate(plan, columns, true))
    }

    /// The rows without duplicates: [`drop_duplicates`](Self::drop_duplicates) on all columns.
    ///
    /// SQL's DISTINCT is another thing on a stream: an aggregate, which in append mode gives a row out when the
    /// watermark has passed it (Spark).
    ///
    /// # Errors
    /// None of its own.
    pub fn distinct(self) -> Result<Self> {
        self.drop_duplicates(&[])
    }
}
