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
pub struct BatchCell(Arc<Cell>);

#[derive(Debug, Default)]
struct Cell {
    numbers: RwLock<BatchNumbers>,
    late: LateRows,
}

impl BatchCell {
    /// The numbers of the running micro-batch.
    #[must_use]
    pub fn numbers(&self) -> BatchNumbers {
        *self.0.numbers.read()
    }

    /// Puts the numbers of the next micro-batch in.
    pub fn open(&self, batch: &MicroBatch) {
        *self.0.numbers.write() = BatchNumbers {
            id: batch.id,
            time: batch.time,
            watermark: batch.watermark,
            late_watermark: batch.late_watermark,
        };
    }

    /// Where late rows go.
    #[must_use]
    pub fn late(&self) -> &LateRows {
        &self.0.late
    }
}
