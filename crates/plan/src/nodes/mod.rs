//! Logical nodes that DataFusion does not have.
//!
//! [`observe`], [`map_batches`], [`watermark`] and [`deduplicate`] are asked for by the user and stand in the
//! plan from the beginning; [`StreamLimit`] takes a Limit's place after the logical optimizer has run.

mod dedup;
mod limit;
mod map_batches;
mod observe;
mod watermark;

pub use dedup::{Deduplicate, deduplicate};
pub use limit::StreamLimit;
pub use map_batches::{MapBatches, MapBatchesFn, map_batches};
pub use observe::{Observe, observe};
pub(crate) use watermark::watermark_delay_ms;
pub use watermark::{EventTimeWatermark, Identity, watermark};
