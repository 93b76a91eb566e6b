//! Logical nodes that DataFusion does not have.
//!
//! [`observe`] and [`map_batches`] are asked for by the user and stand in the plan from the beginning;
//! [`StreamLimit`] takes a Limit's place after the logical optimizer has run.

mod limit;
mod map_batches;
mod observe;

pub use limit::StreamLimit;
pub use map_batches::{MapBatches, MapBatchesFn, map_batches};
pub use observe::{Observe, observe};
