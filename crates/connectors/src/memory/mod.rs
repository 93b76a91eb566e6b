//! Memory: a source of rows that a program adds, and a sink that is a table.
//!
//! The vehicle of tests: rows in, batch run, rows out, no file and no port.

mod entries;
mod sink;
mod source;
mod table;

pub use sink::{MemoryProvider, MemorySink};
pub use source::MemorySource;
pub use table::MemoryTable;

#[cfg(test)]
mod tests;
