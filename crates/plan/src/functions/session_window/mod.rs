//! `session_window(ts, gap)`: rows of a key grouped by activity; a session ends when no row came for `gap`.
//!
//! ```text
//!  SQL text      window/names.rs  session_window.start, bare `session_window` ──► the call itself
//!  logical plan  marker.rs        session_window(ts, '5 minutes')      checks its arguments, has the type struct<start, end>
//!  analyzer      expand.rs        Aggregate(session_of_row(ts, gap)) below, its column renamed above
//!  execution     kernels.rs       the session of each row by itself; the session operator merges them
//! ```
//! [`gap`](self) reads what users write as a gap. The key's field carries
//! [`SESSION_KEY`](crate::event_time::SESSION_KEY): by it the planner knows the aggregate that merges sessions.

mod expand;
mod gap;
mod kernels;
mod marker;

use std::sync::Arc;
use std::time::Duration;

use datafusion::logical_expr::{Expr, ScalarUDF, lit};
use highwater_core::Interval;

use super::window::WindowLength;

pub(super) use expand::{is_session, not_a_key, under_aggregate};

/// The name of the function, and of the column it makes.
pub const SESSION_WINDOW: &str = "session_window";

/// The gap that ends a session: a length, or an expression that gives each row its own.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionGap(Expr);

impl From<Expr> for SessionGap {
    /// A gap for each row: an interval, or a text such as `5 minutes`. Rows where it is null, no length, or
    /// not above zero are dropped (Spark).
    fn from(gap: Expr) -> Self {
        Self(gap)
    }
}

macro_rules! gap_from {
    ($($length:ty),*) => {
        $(impl From<$length> for SessionGap {
            /// The same gap for all rows.
            fn from(gap: $length) -> Self {
                Self(lit(WindowLength::from(gap).into_text()))
            }
        })*
    };
}
gap_from!(&str, String, Duration, Interval);

/// The sessions of `ts`: a column `session_window`, a struct of the time of the first row and the end, which
/// is `gap` after the last row and excluded.
///
/// It stands among the keys of an aggregate over a stream, with another key beside it. `ts` is a timestamp, or
/// the `window` column of an aggregate below. Rows without a time are dropped. A gap that is no length is told
/// by the frame call that takes the expression.
pub fn session_window(ts: Expr, gap: impl Into<SessionGap>) -> Expr {
    session_window_udf()
        .call(vec![ts, gap.into().0])
        .alias(SESSION_WINDOW)
}

/// The function `session_window`, for registration.
pub(crate) fn session_window_udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(marker::SessionWindow::new()))
}

#[cfg(test)]
mod tests;
