//! The memory of an operator's state, reserved from the session's pool.

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use highwater_core::{Error, Result};

/// What one operator has reserved.
#[derive(Debug, Default)]
pub(crate) struct StateMemory(Option<MemoryReservation>);

impl StateMemory {
    /// A micro-batch begins; the first one registers the operator with the pool.
    pub(crate) fn begin(&mut self, operator: &str, context: &TaskContext) {
        self.0.get_or_insert_with(|| {
            let consumer = MemoryConsumer::new(format!("state of {operator}"));
            consumer.register(context.memory_pool())
        });
    }

    /// From now on the operator holds so many bytes.
    ///
    /// # Errors
    /// `Unavailable` when the pool refuses them.
    pub(crate) fn hold(&self, operator: &str, bytes: usize) -> Result<()> {
        let Some(reservation) = self.0.as_ref().filter(|held| held.size() != bytes) else {
            return Ok(());
        };
        reservation.try_resize(bytes).map_err(|e| {
            Error::unavailable(format!(
                "operator `{operator}` needs {bytes} bytes for its state, and the memory pool refuses them"
            ))
            .with_operator(operator)
            .with_hint("give the session a larger memory pool, or keep fewer keys")
            .with_source(e)
        })
    }
}
