//! The SQL functions that streaming brings: `window`, and the batch time for `now()` and its kin.

pub(crate) mod batch_time;
mod sample;
pub mod window;

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use highwater_core::Result;

pub use window::{WindowLength, WindowSpec, resolve_window_names, sliding, window};

/// Makes the functions known to `context`, for batch queries as well as streaming ones.
///
/// It adds the function `window`, the analyzer rule that expands it, and a check that refuses
/// TABLESAMPLE over streams; it changes no setting.
///
/// # Errors
/// When DataFusion cannot take the planner hook.
pub fn register_functions(context: &SessionContext) -> Result<()> {
    context.register_udf(window::window_udf().as_ref().clone());
    context.add_analyzer_rule(Arc::new(window::ExpandWindows));
    context.register_relation_planner(Arc::new(sample::RefuseSamples))?;
    Ok(())
}
