//! Generated rows: `rate`, so many a second, and `rate-micro-batch`, so many a micro-batch.
//!
//! Both have the columns `timestamp` and `value`, which counts from 0.

mod micro_batch;
mod options;
mod rows;
mod source;

pub use micro_batch::{RateMicroBatchProvider, RateMicroBatchSource};
pub use options::{RateMicroBatchSourceOptions, RateSourceOptions};
pub use source::{RateProvider, RateSource};

#[cfg(test)]
mod tests;
