//! The source `socket`: lines of text from a TCP connection, for trying things out.
//!
//! ```text
//!  server ──TCP──► reader task ──► buffer of lines ──► read (start, end]
//!                   │ connects again, pausing longer each time     └─ commit forgets lines
//! ```

mod buffer;
mod options;
mod reader;
mod source;

pub use options::SocketSourceOptions;
pub use source::{SocketProvider, SocketSource};

#[cfg(test)]
mod tests;
