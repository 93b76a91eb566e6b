//! The join of two streams.

mod age;
mod bounds;
mod compact;
mod explain;
mod harness;
mod hot;
mod index;
mod model;
mod whole;
