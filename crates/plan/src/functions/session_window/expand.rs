//! Turns an aggregate by `session_window(…)` into one by the session of each row, for the session operator to
//! merge.
//!
//! ```text
//!  Aggregate [session_window(ts, gap), k]      Projection [merged_session(#0) AS "session_window(…)", k, …]
//!    input                               ──►     Aggregate [session_of_row(ts, gap), k]
//!                                                  Filter session_of_row(ts, gap) IS NOT NULL
//!                                                    input
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder};
use highwater_core::Error;

use super::SESSION_WINDOW;
use super::gap::Gap;
use super::kernels::{merged, session_of_row};
use crate::functions::window::{bare, renamed};
use crate::table::reads_stream;

/// True for a call of `session_window`.
pub(in crate::functions) fn is_session(call: &ScalarFunction) -> bool {
    call.func.inner().is::<super::marker::SessionWindow>()
}

/// What is told where a session is no key of an aggregate.
pub(in crate::functions) fn not_a_key() -> Error {
    Error::unsupported("session_window(…) can only be a grouping key by itself")
        .with_operator(SESSION_WINDOW)
        .with_hint("group by session_window(ts, gap) and another key, and use its column above the aggregate")
}

/// The plan for `aggregate`, one of whose keys is `call`.
///
/// # Errors
/// `Unsupported` when the call is anywhere else too, in a grouping set, or over a table that does not stream.
pub(in crate::functions) fn under_aggregate(
    aggregate: Aggregate,
    call: &ScalarFunction,
) -> Result<LogicalPlan> {
    if !reads_stream(&aggregate.input) {
        return Err(batch().into());
    }
    let Aggregate {
        input,
        mut group_expr,
        aggr_expr,
        schema,
        ..
    } = aggregate;
    let at = the_key(&group_expr, &aggr_expr)?;
    let [time, gap] = call.args.as_slice() else {
        return Err(Error::internal("session_window without its two arguments").into());
    };
    let session = session_of_row(time.clone(), gap)?;
    let kept = match Gap::of(gap)? {
        Gap::Fixed(_) => time.clone().is_not_null(),
        Gap::PerRow => session.clone().is_not_null(),
    };
    group_expr[at] = session;
    let input = LogicalPlanBuilder::from(Arc::unwrap_or_clone(input))
        .filter(kept)?
        .build()?;
    let inner = Aggregate::try_new(Arc::new(input), group_expr, aggr_expr)?;
    renamed(inner, &schema, |i, column| {
        (i == at).then(|| merged(column.clone()))
    })
}

/// The index of the one key that is a session.
fn the_key(keys: &[Expr], aggregates: &[Expr]) -> highwater_core::Result<usize> {
    let is_key = |key: &Expr| matches!(bare(key), Expr::ScalarFunction(call) if is_session(call));
    let at = keys.iter().position(is_key).ok_or_else(not_a_key)?;
    let mut others = keys[..at].iter().chain(&keys[at + 1..]).chain(aggregates);
    if others.any(mentions_session) {
        return Err(not_a_key());
    }
    Ok(at)
}

fn mentions_session(expr: &Expr) -> bool {
    let mut found = false;
    // The visitor itself never fails.
    let _walked = expr.apply(|expr| {
        found = found || matches!(expr, Expr::ScalarFunction(call) if is_session(call));
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn batch() -> Error {
    Error::unsupported("session_window(…) over a table that does not stream")
        .with_operator(SESSION_WINDOW)
        .with_hint("read the data as a stream and run the query with Trigger::AvailableNow")
}
