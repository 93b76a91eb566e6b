//! SQL logic tests over streams: `.slt` files run over a [`StreamSession`], streaming statements included.
//!
//! ```text
//!  statement ok
//!  CREATE STREAMING TABLE counts OPTIONS (output_mode 'complete') AS SELECT k, count(*) AS n FROM STREAM events GROUP BY k
//!
//!  statement ok
//!  process
//!
//!  query TI rowsort
//!  SELECT k, n FROM counts
//!  ----
//!  a 2
//!  b 1
//! ```
//! Two statements are ours: `process` advances all active queries until everything that is there is done, and
//! `process name` one of them. A streaming SELECT as a `query` is run until what is there is done; its rows are the
//! result, in the output mode that `EMIT` says, append by default. All else is [`StreamSession::sql`], and the files are
//! those of the crate [`sqllogictest`], whose `$__TEST_DIR__` (after `control substitution on`) is a folder of the
//! file's own.
//!
//! ```no_run
//! # #[tokio::main] async fn main() {
//! highwater_slt::run_file("tests/slt/windows.slt").await.expect("as written");
//! # }
//! ```
//! [`run_markdown`] runs the SQL of a page of documentation, so that its examples stay true.
//!
//! Reading order: `lib.rs`, `session.rs`, `rows.rs`, `markdown.rs`.

mod markdown;
mod rows;
mod session;

use std::path::Path;

use highwater::{Result, StreamSession};
pub use sqllogictest;
use sqllogictest::{Runner, TestError};

pub use markdown::run_markdown;
pub use session::SltSession;

/// Runs a file with a session of its own for each connection.
///
/// # Errors
/// The first record that does not do as is written, with its line.
pub async fn run_file(path: impl AsRef<Path>) -> Result<(), TestError> {
    run_file_with(path, || Ok(StreamSession::new())).await
}

/// Runs a file with sessions that `make` makes: with tables, functions and settings of your own.
///
/// # Errors
/// As for [`run_file`].
pub async fn run_file_with(
    path: impl AsRef<Path>,
    make: impl Fn() -> Result<StreamSession>,
) -> Result<(), TestError> {
    let mut runner = Runner::new(|| std::future::ready(make().map(SltSession::new)));
    let done = runner.run_file_async(path).await;
    runner.shutdown_async().await;
    done
}
