//! What a query writes down so that it can be killed at any moment and go on: the checkpoint.
//!
//! ```text
//!  metadata      the query's identity, and the version of the format
//!  operators     the stateful operators, by name, with the types of their state; operators-S where run S changed them
//!  runs/S        who runs the query: run S is fenced off as soon as runs/S+1 is there
//!  offsets/N     micro-batch N is intended: its ranges, its watermarks, its batch time
//!  state/N-S     what micro-batch N, run by run S, changed in the state
//!  state/N-S.P.snapshot   the parts from P on of the state after micro-batch N, taken by run S
//!  commits/N     micro-batch N is done: which state file counts, which snapshots are whole, the next watermark
//!  sources/<x>/  what source <x> keeps for itself
//! ```
//!
//! The protocol is the order: `offsets/N`, then the sink, then `state/N-S`, then `commits/N`. Offsets
//! and commits are *put if absent*, so a micro-batch is intended once and done once, whoever tries.
//! What a restart does follows from the highest numbers of the two logs ([`resume`]).
//!
//! **Architecture invariant:** state is seen here as record batches under an operator's name; this
//! crate knows no plan, no source and no sink.
//!
//! Reading order: [`layout`], [`entries`], [`recovery`], [`claim`], [`state_file`], [`operators`], [`checkpoint`],
//! [`read_only`]; then the state on disk: [`snapshot`], `history`, `restore`, `purge`, [`upkeep`].

pub mod checkpoint;
pub mod claim;
pub mod entries;
mod history;
pub mod layout;
pub mod operators;
mod purge;
pub mod read_only;
pub mod recovery;
mod restore;
pub mod snapshot;
pub mod state_file;
pub mod upkeep;

pub use checkpoint::Checkpoint;
pub use entries::{CommitEntry, OffsetsEntry, SnapshotEntry};
pub use layout::Layout;
pub use operators::OperatorIdentity;
pub use read_only::ReadOnly;
pub use recovery::{Recovery, Resume, resume};
pub use restore::Restored;
pub use snapshot::{SnapshotPolicy, StateParts};
pub use state_file::OperatorChanges;
pub use upkeep::Upkeep;
