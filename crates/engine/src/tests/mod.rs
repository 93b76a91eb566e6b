//! Whole queries: sources and sinks of the tests around the real plan, checkpoint and loop.

mod failing;
mod lifecycle;
mod recovery;
pub(crate) mod support;
mod triggers;
mod watching;
