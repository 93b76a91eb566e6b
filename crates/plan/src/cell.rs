//! The per-trigger cell: the numbers of the micro-batch that is running, read by the plan's operators.

use std::sync::Arc;

use highwater_core::{BatchId, MicroBatch, Timestamp, Watermark};
use parking_lot::RwLock;

use crate::event_time::micros;
use crate::late::LateRows;

/// The numbers of one micro-batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchNumbers {
    /// Its number.
    pub id: BatchId,
    /// The batch time.
    pub time: Timestamp,
    /// What closes windows and evicts state.
    pub watermark: Watermark,
    /// What judges late rows.
    pub late_watermark: Watermark,
}

impl BatchNumbers {
    /// What is over by this time, in microseconds, is closed and evicted.
    #[must_use]
    pub fn closes_us(&self) -> i64 {
        micros(self.watermark)
    }

    /// What was over by this time, in microseconds, takes no row any more.
    #[must_use]
    pub fn late_us(&self) -> i64 {
        micros(self.late_watermark)
    }
}

/// Where operators, functions and leaves of one query look up the running micro-batch.
///
/// The physical plan is made once; only what this cell holds changes from trigger to trigger.
#[derive(Clone, Debug, Default)]
pub struct BatchCell {
    cell: Arc<Cell>,
    /// How far the watermarks seen here are behind those of the query, in milliseconds.
    delay_ms: i64,
}

#[derive(Debug, Default)]
struct Cell {
    numbers: RwLock<BatchNumbers>,
    late: LateRows,
}

impl BatchCell {
    /// The numbers of the running micro-batch.
    #[must_use]
    pub fn numbers(&self) -> BatchNumbers {
        let numbers = *self.cell.numbers.read();
        BatchNumbers {
            watermark: self.delayed(numbers.watermark),
            late_watermark: self.delayed(numbers.late_watermark),
            ..numbers
        }
    }

    /// The same cell as an operator sees it whose rows may be so much behind the query's watermark: those above a join
    /// that holds rows back (Spark).
    #[must_use]
    pub fn shifted(&self, delay_ms: i64) -> Self {
        Self {
            cell: Arc::clone(&self.cell),
            delay_ms: self.delay_ms.saturating_add(delay_ms),
        }
    }

    fn delayed(&self, watermark: Watermark) -> Watermark {
        match watermark {
            Watermark::END => Watermark::END,
            Watermark(ms) => Watermark(ms.saturating_sub(self.delay_ms)),
        }
    }

    /// Puts the numbers of the next micro-batch in.
    pub fn open(&self, batch: &MicroBatch) {
        *self.cell.numbers.write() = BatchNumbers {
            id: batch.id,
            time: batch.time,
            watermark: batch.watermark,
            late_watermark: batch.late_watermark,
        };
    }

    /// Where late rows go.
    #[must_use]
    pub fn late(&self) -> &LateRows {
        &self.cell.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Above two joins that hold back 2 s and 3 s the watermark is 5 s behind; the end of the input stays the end, and
    /// there is nothing before the least time.
    #[test]
    fn a_shifted_cell_is_behind_the_query() {
        let cell = BatchCell::default();
        let above = cell.shifted(2_000).shifted(3_000);
        for (watermark, behind) in [
            (Watermark(60_000), Watermark(55_000)),
            (Watermark(0), Watermark(-5_000)),
            (Watermark(i64::MIN), Watermark(i64::MIN)),
            (Watermark::END, Watermark::END),
        ] {
            cell.open(&MicroBatch {
                id: BatchId(3),
                ranges: [].into(),
                time: Timestamp::from_millis(7),
                watermark,
                late_watermark: watermark,
            });
            let numbers = above.numbers();
            assert_eq!(
                (numbers.watermark, numbers.late_watermark),
                (behind, behind)
            );
            assert_eq!(cell.numbers().watermark, watermark);
            assert_eq!(numbers.id, BatchId(3));
        }
    }
}
