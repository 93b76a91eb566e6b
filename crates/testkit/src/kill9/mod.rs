//! Proofs with real processes: a worker under load that is killed with SIGKILL, and two that fight for one checkpoint.
//!
//! ```text
//!  parent (proof, fight)                         child (worker)
//!  ─────────────────────                         ──────────────
//!  Feeder ── files, temp name + rename ──► in/ ──► three queries ──► out/<query>/
//!  Child  ◄────────── a line for each committed batch ──┘   └──► ckpt/<query>/
//!         ─── SIGKILL at a moment that the seed gives ──►
//!  verdict: out/ against DataFusion's batch answer over all rows of the load
//! ```
//!
//! - [`load`]: the rows, a pure function of seed and number, and the thread that writes them into files.
//! - [`queries`]: the three queries, what they come to, and their sinks.
//! - [`worker`]: what the child does.
//! - [`child`]: the child as its parent sees it.
//! - [`verdict`]: the comparison, row by row.
//! - [`proof`], [`fight`]: the two proofs.
//! - [`place`]: the folder, and where in a micro-batch a kill hit.
//!
//! Real time is part of what is proven here, so this module, unlike all others, reads the clock and sleeps.

pub mod child;
pub mod fight;
pub mod load;
pub mod place;
pub mod proof;
pub mod queries;
pub mod verdict;
pub mod worker;

pub use fight::{FightOptions, fight};
pub use proof::{ProofOptions, proof};
pub use worker::{WorkerOptions, work};
