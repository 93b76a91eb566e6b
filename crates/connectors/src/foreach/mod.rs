//! The user's own code as a sink: `foreach` by batches of rows, `foreach_batch` by whole frames.
//!
//! Both are at-least-once: after a failure the same batch id comes again.

mod frames;
mod writer;

pub use frames::ForeachBatchSink;
pub use writer::{ForeachSink, ForeachWriter};

#[cfg(test)]
mod tests;
