//! Runs case files whose expectations were produced by Apache Spark.
//!
//! ```text
//!  file.json ─► case ─► run ─► Verdict ─┐
//!                       │               ├─► report ─► ok / FAIL / skip / beyond
//!                    compare   lists ───┘
//! ```
//!
//! - [`case`]: what a file says, typed.
//! - [`value`]: how a value is written in a file.
//! - [`run`]: one case against the public API.
//! - [`sql_front`]: the same, with watermarks and deduplication written in SQL.
//! - [`compare`]: expected rows against the rows that came.
//! - [`lists`]: the cases that are not yet expected to pass, and those where we go beyond Spark.
//! - [`report`]: a verdict and the lists become an outcome; the tally.
//! - [`suite`]: files and folders in, outcomes out, several cases at once.

pub mod case;
pub mod compare;
pub mod lists;
pub mod report;
pub mod run;
pub mod sql_front;
pub mod suite;
pub mod value;

pub use case::{Case, Step};
pub use lists::{Lists, NotYet};
pub use report::{Outcome, Tally};
pub use run::{Front, Verdict, run_case};
pub use suite::{Selection, load, run_all, run_all_through};
