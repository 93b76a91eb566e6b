//! The stateful operators: what of a plan remembers something from one micro-batch to the next.

pub mod aggregate;
pub(crate) mod concat;
pub(crate) mod dedup;
pub mod join;
pub mod limit;
pub(crate) mod map_batches;
pub(crate) mod memory;
pub mod observe;
pub(crate) mod part;
pub(crate) mod records;
pub mod session;
pub(crate) mod static_join;
pub(crate) mod unary;
pub mod watermark;

use std::fmt::Debug;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use highwater_core::{Pane, Result};

pub use self::part::Part;

/// One stateful operator, as the engine sees it: something that can say what a micro-batch changed,
/// and can be brought back to what it was.
///
/// The life of a micro-batch: the plan runs and the operator works on its state in memory, then
/// [`changes`](Self::changes) is written to the checkpoint, then [`commit`](Self::commit) makes it
/// the ground for the next. A micro-batch that fails ends the run; its state is dropped.
pub trait StatefulOperator: Debug + Send + Sync {
    /// Its identity in the checkpoint, unique in the query: `aggregate`, `aggregate_2`.
    fn name(&self) -> &str;

    /// What Spark calls such an operator in its progress: `stateStoreSave`, `globalLimit`.
    fn kind(&self) -> &'static str;

    /// The columns of its state: first the key columns, then the value columns.
    fn state_schema(&self) -> StateSchema;

    /// The records the last micro-batch touched, in the columns of the state schema; none when it touched nothing.
    ///
    /// # Errors
    /// `Internal` when the state cannot be read.
    fn changes(&self) -> Result<Vec<RecordBatch>>;

    /// The last micro-batch is committed: what it touched is forgotten.
    fn commit(&self);

    /// Puts records into the state, as [`changes`](Self::changes) gave them, oldest first.
    ///
    /// # Errors
    /// `Corrupt` when the columns are not those of the state schema, and not fewer of them where that may be
    /// (see [`takes_new_values`](Self::takes_new_values)).
    fn restore(&self, records: &RecordBatch) -> Result<()>;

    /// All records of one part of the state as it is, in the columns of [`changes`](Self::changes), without notes.
    /// Asked after [`commit`](Self::commit); the parts of all numbers together are the state.
    ///
    /// # Errors
    /// `Internal` when the state cannot be read.
    fn part(&self, part: Part) -> Result<Vec<RecordBatch>>;

    /// True where records that were kept before a value column was added can be put back: the missing columns get the
    /// state of a function that has seen no row.
    fn takes_new_values(&self) -> bool {
        false
    }

    /// How large the state is and what the last micro-batch did to it; asked after [`commit`](Self::commit).
    fn metrics(&self) -> OperatorMetrics;

    /// True when it has something to do in a micro-batch without data because the watermark has risen (Spark).
    fn wants_batch_without_data(&self) -> bool {
        false
    }

    /// The columns of the late rows it may put aside, those of its input; `None` when no row is ever late.
    fn late_schema(&self) -> Option<SchemaRef> {
        None
    }

    /// False for one that another operator tells of in the progress and in `explain`.
    fn shows(&self) -> bool {
        true
    }

    /// One line for `explain`: the key, and what bounds the state.
    fn describe(&self) -> String;
}

/// The columns of an operator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSchema {
    /// The key columns.
    pub keys: SchemaRef,
    /// The value columns.
    pub values: SchemaRef,
    /// What tells when a record is over; `None` where none ever is.
    pub pane: Option<Pane>,
}

/// The facts about one operator after a micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorMetrics {
    /// Records in the state.
    pub rows_total: u64,
    /// Records the micro-batch put in or changed.
    pub rows_updated: u64,
    /// Records the micro-batch removed.
    pub rows_removed: u64,
    /// Rows dropped because they were late, counted as Spark counts them: after the grouping by key.
    pub rows_dropped_by_watermark: u64,
    /// Rows of the input that were late.
    pub late_rows: u64,
    /// Bytes of memory the state holds.
    pub memory_bytes: u64,
}
