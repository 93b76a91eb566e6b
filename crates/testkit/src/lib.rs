//! What tests of Highwater are written with: scripts, the batch oracle, the conformance runner.
//!
//! - [`script`]: a test as a list of steps: rows in, process, rows out, crash, restart.
//! - [`oracle`]: the batch answer over the same rows, and how an update stream folds into it.
//! - [`random`], [`rng`]: seeded random schemas, rows, splits and queries.
//! - [`conformance`]: runs case files whose expectations come from Apache Spark.
//! - [`harness`], [`sink`], [`value`]: what those share: one query that can crash and restart,
//!   the sink that keeps what it is given, and values that compare across engines.
//! - [`kill9`]: proofs with real processes that are killed, or fight for one checkpoint.
//! - [`crash`]: kills a query at each of its I/O operations, and compares what comes of it.
//! - [`store_contract`]: what a store must do so that a checkpoint can lie in it.
//! - [`s3`]: a server that really speaks S3, on loopback.
//! - [`data`]: the seeded generator of the data set under `data/`.
//!
//! **Architecture invariant:** everything here uses only the public API of `highwater`; the only
//! things taken from below are the manual clock and the faulty store.
//!
//! ```no_run
//! use highwater::prelude::*;
//! use highwater_testkit::{TestStream, row};
//!
//! # async fn example() -> highwater::Result<()> {
//! let session = highwater_testkit::script::session()?;
//! let words = MemoryStream::new(&session, "word STRING")?;
//! let counts = words.to_frame().group_by([col("word")]).count()?;
//! TestStream::new(counts, OutputMode::Update)?
//!     .add_data(&words, [("a",), ("b",), ("a",)])
//!     .process()
//!     .check_new([row!["a", 2], row!["b", 1]])
//!     .restart()
//!     .add_data(&words, [("a",)])
//!     .process()
//!     .check_new([row!["a", 3]])
//!     .run()
//!     .await
//! # }
//! ```

pub mod conformance;
pub mod crash;
pub mod data;
pub mod harness;
pub mod kill9;
pub mod oracle;
pub mod random;
pub mod rng;
pub mod s3;
pub mod script;
pub mod sink;
pub mod store_contract;
pub mod value;

pub use harness::Harness;
pub use highwater_core::testing::ManualClock;
pub use script::TestStream;
pub use sink::CollectingSink;
pub use value::{Row, Value};

/// The programs of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
