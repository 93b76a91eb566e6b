//! Rows that came too late: each operator with event time puts them here, the engine takes them out.

use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

/// Late rows of one operator, in the columns of its input.
#[derive(Clone, Debug)]
pub struct Late {
    /// The operator that did not take them.
    pub operator: String,
    /// The rows.
    pub rows: RecordBatch,
}

/// The late rows of the running micro-batch; they are kept only where somebody wants them.
#[derive(Debug, Default)]
pub struct LateRows {
    wanted: AtomicBool,
    rows: Mutex<Vec<Late>>,
}

impl LateRows {
    /// From now on late rows are kept until they are taken.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// True when somebody wants them.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// The rows since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Late> {
        std::mem::take(&mut self.rows.lock())
    }

    /// Keeps late rows of `operator`; nothing is kept unless wanted.
    pub(crate) fn put(&self, operator: &str, rows: RecordBatch) {
        if self.wanted() && rows.num_rows() > 0 {
            self.rows.lock().push(Late {
                operator: operator.to_owned(),
                rows,
            });
        }
    }
}
