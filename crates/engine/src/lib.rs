//! The micro-batch loop of Highwater: it runs a planned query over its sources, one micro-batch after another.
//!
//! ```text
//!            StreamingQueryManager::start(StartRequest)
//!                │  plan, open the checkpoint, recover, begin the sink        start.rs
//!                ▼
//!  ticker ─► construct ─► intend ─► open ─► write ─► state ─► watermark ─► done ─► release     run.rs
//!    ▲           (when)     (what)      (the order is the exactly-once protocol)      │
//!    └──────── sources' changed(), stop, process_all_available                        ▼
//!                                                    progress ─► StreamingQuery, listeners, events
//! ```
//!
//! **Architecture invariant:** the engine sees `dyn Source` and `dyn Sink`, never a connector; no line of
//! the loop asks what kind of source, sink or trigger it serves. What is decided is decided by pure functions
//! (`construct.rs`, `ticker.rs`); the loop obeys.
//!
//! Reading order: `run.rs`, `steps.rs`, `construct.rs`, `ticker.rs`, `start.rs`, `recover.rs`, then what a user holds: [`query`],
//! [`manager`], [`listener`], [`progress`].

pub mod clock;
mod construct;
mod failure;
mod late;
mod life;
mod listen;
pub mod listener;
pub mod manager;
mod options;
mod output;
pub mod progress;
pub mod query;
mod recover;
mod report;
mod run;
mod start;
pub mod status;
mod steps;
mod ticker;
pub mod watermarks;

#[cfg(test)]
mod tests;

pub use clock::SystemClock;
pub use highwater_checkpoint::SnapshotPolicy;
pub use late::LateTarget;
pub use listener::{
    ListenerId, QueryEvent, QueryEvents, QueryIdleEvent, QueryProgressEvent, QueryStartedEvent,
    QueryTerminatedEvent, StreamingQueryListener,
};
pub use manager::{CheckpointLocation, QuerySettings, StartRequest, StreamingQueryManager};
pub use options::{Durability, QueryOptions};
pub use progress::{
    DurationProgress, EventTimeProgress, SinkProgress, SourceProgress, StateOperatorProgress,
    StreamingQueryProgress, WatermarkProgress,
};
pub use query::StreamingQuery;
pub use status::StreamingQueryStatus;
pub use watermarks::WatermarkPolicy;
