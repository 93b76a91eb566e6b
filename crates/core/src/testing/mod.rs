//! What tests of sources, sinks and queries need: a manual clock, contract suites, a faulty store.
//!
//! Behind the feature `testing`. A source's own test is one call of
//! [`contract::source::all`], a sink's one call of [`contract::sink::all`].

pub mod contract;
mod faulty_store;
mod manual_clock;

pub use faulty_store::{Failure, Fault, FaultyStore, Held, Which};
pub use manual_clock::ManualClock;
