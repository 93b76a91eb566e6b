//! `window(ts, size[, slide[, start]])`: rows grouped by spans of time, with Spark's rules.
//!
//! ```text
//!  SQL text      names.rs      window.start, bare `window` ──► the call itself
//!  logical plan  marker.rs     window(ts, '10 minutes')          checks its arguments, has the type struct<start, end>
//!  analyzer      expand.rs     Aggregate(window_start(ts)) below, the struct rebuilt above; sliding ones unnest
//!                panes.rs      … or, over a stream, group by panes that windows share
//!  execution     kernels.rs    the arithmetic on microseconds
//! ```
//! `window_time(w)`, in time.rs, is the instant that stands for a window. Grouping by the start alone is two to three times faster than grouping by a struct.

mod arguments;
mod expand;
mod kernels;
mod marker;
mod names;
mod panes;
mod spec;
mod time;

use std::sync::Arc;

use datafusion::logical_expr::{Expr, ScalarUDF, lit};

pub use arguments::WindowArguments;
pub(in crate::functions) use arguments::{fixed_micros, literal_length};
pub use expand::ExpandWindows;
pub(in crate::functions) use expand::renamed;
pub(in crate::functions) use kernels::micros;
pub(crate) use marker::is_window;
pub(in crate::functions) use marker::{time_type_in, window_type};
pub use names::resolve_window_names;
pub(in crate::functions) use panes::bare;
pub use spec::{WindowLength, WindowSpec, sliding};
pub use time::window_end;
pub(crate) use time::window_time_udf;

/// The name of the function, and of the column it makes.
pub const WINDOW: &str = "window";

/// The windows of `ts`: a column `window`, a struct of `start` and `end`, the end excluded.
///
/// `ts` is a timestamp, or the `window` column of an aggregate below. Rows without a time are dropped.
/// `spec` is a length (`"10 minutes"`, a [`Duration`](std::time::Duration)) or [`sliding`]. A length that
/// is none is told by the frame call that takes the expression.
pub fn window(ts: Expr, spec: impl Into<WindowSpec>) -> Expr {
    let spec = spec.into();
    let mut args = vec![ts];
    args.extend(spec.arguments().into_iter().map(lit));
    window_udf().call(args).alias(WINDOW)
}

/// The time that stands for a window: its end less a microsecond, event time where the window is (Spark).
///
/// `window` is a column of [`window`](window()) or of `session_window`. Group its result by windows again.
pub fn window_time(window: Expr) -> Expr {
    window_time_udf().call(vec![window])
}

/// The function `window`, for registration.
pub(crate) fn window_udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(marker::Window::new()))
}

#[cfg(test)]
mod tests;
