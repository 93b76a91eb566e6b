//! The sources and sinks that come with Highwater and need nothing heavy.
//!
//! | folder | source | sink |
//! |---|---|---|
//! | [`mod@file`] | `csv`, `json`, `parquet`, `text` | the same |
//! | [`rate`] | `rate`, `rate-micro-batch` | – |
//! | [`socket`] | `socket` | – |
//! | [`memory`] | rows that a test or a program adds | `memory`: a table that SQL can ask |
//! | [`console`] | – | `console` |
//! | [`noop`] | – | `noop` |
//! | [`foreach`] | – | the user's own code, a batch or a frame at a time |
//!
//! **Architecture invariant:** a connector knows `highwater-core` and nothing of plans, checkpoints or
//! the loop; connectors do not know one another. One folder a format: `options.rs` turns strings into
//! a typed struct once, `source.rs` or `sink.rs` does the work.

pub mod console;
pub mod file;
pub mod foreach;
pub mod memory;
pub mod noop;
pub mod rate;
pub mod socket;

mod batches;
mod refuse;

use std::sync::Arc;

use highwater_core::{SinkProvider, SourceProvider};

/// The sources that a session knows from the start.
#[must_use]
pub fn source_providers() -> Vec<Arc<dyn SourceProvider>> {
    vec![
        Arc::new(file::CsvProvider),
        Arc::new(file::JsonProvider),
        Arc::new(file::ParquetProvider),
        Arc::new(file::TextProvider),
        Arc::new(rate::RateProvider),
        Arc::new(rate::RateMicroBatchProvider),
        Arc::new(socket::SocketProvider),
    ]
}

/// The sinks that a session knows from the start.
#[must_use]
pub fn sink_providers() -> Vec<Arc<dyn SinkProvider>> {
    vec![
        Arc::new(file::CsvSinkProvider),
        Arc::new(file::JsonSinkProvider),
        Arc::new(file::ParquetSinkProvider),
        Arc::new(file::TextSinkProvider),
        Arc::new(memory::MemoryProvider),
        Arc::new(console::ConsoleProvider),
        Arc::new(noop::NoopProvider),
    ]
}

#[cfg(test)]
mod tests;
