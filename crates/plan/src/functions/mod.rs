//! The SQL functions that streaming brings: `window`, `session_window`, `window_time`, `current_watermark`, and
//! the batch time for `now()` and its kin.

pub(crate) mod batch_time;
mod current_watermark;
mod sample;
pub mod session_window;
#[cfg(test)]
mod testing;
pub mod window;

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use highwater_core::Result;

pub use current_watermark::current_watermark;
pub use session_window::{SessionGap, session_window};
pub use window::{WindowLength, WindowSpec, resolve_window_names, sliding, window, window_time};

/// Makes the functions known to `context`, for batch queries as well as streaming ones.
///
/// It adds the functions of this module, the analyzer rule that expands windows, and a check that refuses
/// TABLESAMPLE over streams; it changes no setting.
///
/// # Errors
/// When DataFusion cannot take the planner hook.
pub fn register_functions(context: &SessionContext) -> Result<()> {
    context.register_udf(window::window_udf().as_ref().clone());
    context.register_udf(window::window_time_udf().as_ref().clone());
    context.register_udf(session_window::session_window_udf().as_ref().clone());
    context.register_udf(current_watermark::current_watermark_udf().as_ref().clone());
    context.add_analyzer_rule(Arc::new(window::ExpandWindows::default()));
    context.register_relation_planner(Arc::new(sample::RefuseSamples))?;
    Ok(())
}
