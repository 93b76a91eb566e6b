//! Nothing is lost and nothing doubled: processes that die, that fight, and checkpoints that are damaged.

mod damage;
mod fights;
mod file_sink;
mod order;
mod points;

/// The seed of everything that is chosen at random here; a failure tells it.
const SEED: u64 = 20_260_711;
