//! Makes a DataFusion query incremental: checked, planned once, run once per micro-batch.
//!
//! ```text
//!  LogicalPlan ──analyze──► legal? ──bind leaves, batch time──► DataFusion's optimizer
//!                                                                      │
//!  IncrementalPlan ◄── aggregates with state ◄── physical plan ◄── limits with state
//!        │
//!        └─ per micro-batch: open(ranges, watermarks, time), execute(), operators().changes()
//! ```
//! Reading order: [`table`] (a source in a plan), [`plan`] (the life of a plan), [`analyze`](mod@analyze) (what is legal),
//! [`leaf`] (reading), `static_side` (static tables), [`operators`] (what remembers), [`functions`] (`window` and the batch time),
//! [`nodes`] (`observe`, `map_batches`, watermarks, deduplication).
//!
//! **Architecture invariant:** nothing here writes to a checkpoint or a sink, and no connector is known here:
//! state goes out and comes back as RecordBatches, rows come in through `dyn Source`.

pub mod analyze;
pub mod cell;
mod event_time;
pub mod functions;
mod incrementalize;
pub mod late;
pub mod leaf;
pub mod nodes;
pub mod operators;
pub mod plan;
mod planner;
mod push_down;
pub mod session;
mod static_side;
pub mod table;
#[cfg(test)]
mod testing;

pub use analyze::analyze;
pub use cell::{BatchCell, BatchNumbers};
pub use functions::register_functions;
pub use late::{Late, LateRows};
pub use operators::observe::Observed;
pub use operators::watermark::{EventTimes, WatermarkInput};
pub use operators::{OperatorMetrics, Part, StateSchema, StatefulOperator};
pub use plan::{IncrementalPlan, PlanRequest, PlannedSource, plan_query, result_schema};
pub use session::streaming_state;
pub use static_side::{RefreshWhen, StaticRefresh, TableVersions};
pub use table::{StreamTable, is_streaming};
