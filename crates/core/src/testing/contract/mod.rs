//! One suite for each contract; every implementation runs it.

pub mod sink;
pub mod source;

#[cfg(test)]
mod tests;
