//! The per-trigger cell: the numbers of the micro-batch that is running, read by the plan's operators.

use std::sync::Arc;

use highwater_core::{BatchId, MicroBatch, Timestamp, Watermark};
use parking_lot::RwLock;

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

/// Where operators, functions and leaves of one query look up the running micro-batch.
///
/// The physical plan is made once; only what this cell holds changes from trigger to trigger.
#[derive(Clone, Debug, Default)]
pub struct BatchCell(Arc<RwLock<BatchNumbers>>);

impl BatchCell {
    /// The numbers of the running micro-batch.
    #[must_use]
    pub fn numbers(&self) -> BatchNumbers {
        *self.0.read()
    }

    /// Puts the numbers of the next micro-batch in.
    pub fn open(&self, batch: &MicroBatch) {
        *self.0.write() = BatchNumbers {
            id: batch.id,
            time: batch.time,
            watermark: batch.watermark,
            late_watermark: batch.late_watermark,
        };
    }
}
