//! Small durable files under numbers: the logs that checkpoints, file sources and file sinks keep.
//!
//! ```text
//!  open_location("s3://bucket/ckpt") ──► (store, folder)
//!                                            │
//!        NumberedLog    0  1  2  3 …         │  one entry a number, each written once
//!        CompactingLog  … 8  9.compact  10   │  the same, where old entries are folded into one
//!                                            ▼
//!                             object: put_new, read, names, remove
//! ```
//!
//! Every entry is text: a first line `v1`, then one line of JSON for each item, as in Spark.
//! An entry is written with *put if absent*: when two runs of a query want the same number, one of
//! them gets it and the other gets an error of kind `Fenced`. All else follows from that.
//!
//! **Architecture invariant:** this crate knows nothing of queries, sources or state; what an entry
//! means is its owner's business.
//!
//! Below the logs, stores that wrap another one: [`RetryStore`] tries again what failed for a moment, and
//! [`DurableStore`] flushes what it acknowledges to the disk.
//!
//! Reading order: [`object`], [`text`], [`log`], [`compacting`], [`location`], [`retry`], [`durable`].

pub mod compacting;
pub mod durable;
pub mod location;
pub mod log;
pub mod object;
pub mod retry;
pub mod text;

pub use compacting::CompactingLog;
pub use durable::DurableStore;
pub use location::{open_durable, open_location, open_undurable};
pub use log::NumberedLog;
pub use retry::{RetryPolicy, RetryStore};
pub use text::LogEntry;
