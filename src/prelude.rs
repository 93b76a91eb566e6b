//! What most programs need: `use highwater::prelude::*;`.
//!
//! DataFusion's prelude, its aggregates and field access, and the types of this crate that a program names.
//! There is no `Result` in it: write `highwater::Result`.

pub use datafusion::functions::core::expr_ext::FieldAccessor;
pub use datafusion::functions_aggregate::count::count_all;
pub use datafusion::functions_aggregate::expr_fn::*;
pub use datafusion::prelude::*;

pub use crate::{
    BatchId, Error, ForeachWriter, MemoryStream, OutputMode, StreamFrame, StreamSession,
    StreamingQuery, Trigger, current_watermark, interval, session_window, sliding, window,
    window_time,
};
