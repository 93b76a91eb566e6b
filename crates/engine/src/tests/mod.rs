//! Whole queries: sources and sinks of the tests around the real plan, checkpoint and loop.

mod event_time;
mod failing;
mod flush;
mod idle;
mod late;
mod lifecycle;
mod recovery;
pub(crate) mod support;
mod triggers;
mod watching;
