//! `CREATE [UNBOUNDED] EXTERNAL TABLE` and Flink's `CREATE TABLE … WITH ('connector' = …)`: inputs and outputs by name.
//!
//! ```text
//!  words ──► Declaration ──┬─► DataFusion's own table     bounded, and nothing of ours in it
//!            parse.rs      └─► DeclaredTable              open.rs opens the source, checks options, puts the watermark on
//!                                table.rs
//! ```
//! An `UNBOUNDED` table streams when it is named; without the word it is what is there now, and `STREAM t` streams the
//! same ([`stream_of`](super::streams::stream_of)). An `INSERT` from a stream writes to either.

mod columns;
mod open;
mod parse;
mod table;

pub(super) use open::{Decision, create, decide};
pub(super) use parse::{Declaration, parse};
pub(crate) use table::{DeclaredTable, is_of_files, reopened, stream};
