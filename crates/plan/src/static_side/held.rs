//! The memory of kept rows, reserved from the session's pool.

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use highwater_core::{Error, Result};

/// A reservation for the rows of static tables; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of: String,
    reservation: MemoryReservation,
}

impl Held {
    /// Nothing yet, for the tables `of`.
    pub(crate) fn new(of: &str, context: &TaskContext) -> Self {
        let consumer = MemoryConsumer::new(format!("static side {of}"));
        Self {
            of: of.to_owned(),
            reservation: consumer.register(context.memory_pool()),
        }
    }

    /// So many bytes more.
    ///
    /// # Errors
    /// `Unavailable` when the pool refuses them.
    pub(crate) fn grow(&self, bytes: usize) -> Result<()> {
        self.resize(self.reservation.size() + bytes)
    }

    /// So many bytes in all.
    ///
    /// # Errors
    /// `Unavailable` when the pool refuses them.
    pub(crate) fn resize(&self, bytes: usize) -> Result<()> {
        self.reservation.try_resize(bytes).map_err(|e| {
            let of = &self.of;
            Error::unavailable(format!(
                "the static side `{of}` needs {bytes} bytes to be kept, and the memory pool refuses them"
            ))
            .with_operator("static_join")
            .with_hint("give the session a larger memory pool, or select fewer rows and columns of the table")
            .with_source(e)
        })
    }
}
