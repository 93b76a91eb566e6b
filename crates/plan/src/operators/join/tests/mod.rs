//! The join of two streams.

mod bounds;
mod explain;
mod harness;
mod hot;
mod index;
mod model;
mod whole;
