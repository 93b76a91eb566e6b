//! The sink `console`: shows the first rows of each micro-batch, as Spark's does.

mod options;
mod sink;
mod table;

pub use options::ConsoleSinkOptions;
pub use sink::{ConsoleProvider, ConsoleSink};

#[cfg(test)]
mod tests;
