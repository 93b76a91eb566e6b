//! placeholder
pub mod cell;
pub mod operators;
