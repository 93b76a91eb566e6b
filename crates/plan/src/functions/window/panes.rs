//! When the sliding windows of a stream share panes.
//!
//! ```text
//!  panes of gcd(size, slide)   |  p0  |  p1  |  p2  |  p3  |      a row is aggregated once, into its pane
//!  windows                     [──── w0 ────)                     the aggregate merges the panes of a window
//!                                     [──── w1 ────)
//! ```
//! The aggregate then groups by [`Part::Pane`](super::kernels::Part), whose field says what the windows are, and
//! gives the starts of windows in that column. What is above must not be pushed below it.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr};

use super::WindowArguments;
use super::expand::is_window;
use crate::table::reads_stream;

/// Aggregates, of DataFusion and in Spark's meaning, whose states merge in any order to the same value.
const MERGING: [&str; 35] = [
    "count",
    "sum",
    "try_sum",
    "avg",
    "mean",
    "try_avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "every",
    "some",
    "bit_and",
    "bit_or",
    "bit_xor",
    "var",
    "var_samp",
    "var_pop",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "covar",
    "covar_samp",
    "covar_pop",
    "corr",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "count_if",
];

/// The panes of a window are at most this often the windows of a row: with a size of 60 s and a slide of 59 s
/// there would be 60 panes for 2 windows, and more state than with a row for each window.
const PANES_PER_WINDOW: i64 = 4;

/// True when `aggregate` can make its windows of panes.
///
/// It is one of a stream, has one key that is a whole window and no other mention of it, and its functions
/// merge without order.
pub(super) fn apply(aggregate: &Aggregate, arguments: WindowArguments) -> Result<bool> {
    if arguments.is_tumbling() || !are_few(arguments) || !reads_stream(&aggregate.input) {
        return Ok(false);
    }
    let mut windows = 0;
    for key in &aggregate.group_expr {
        match bare(key) {
            Expr::GroupingSet(_) => return Ok(false),
            Expr::ScalarFunction(call) if is_window(call) => windows += 1,
            other if mentions_window(other)? => return Ok(false),
            _ => {}
        }
    }
    if windows != 1 {
        return Ok(false);
    }
    for function in &aggregate.aggr_expr {
        if !merges(bare(function)) || mentions_window(function)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn are_few(arguments: WindowArguments) -> bool {
    let panes = arguments.size / arguments.panes().size;
    let windows = (arguments.size - 1) / arguments.slide + 1;
    panes <= windows.saturating_mul(PANES_PER_WINDOW)
}

fn merges(function: &Expr) -> bool {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = function else {
        return false;
    };
    !params.distinct && params.order_by.is_empty() && MERGING.contains(&func.name())
}

fn mentions_window(expr: &Expr) -> Result<bool> {
    let mut found = false;
    expr.apply(|expr| {
        found = found || matches!(expr, Expr::ScalarFunction(call) if is_window(call));
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// The expression under its aliases.
pub(in crate::functions) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        other => other,
    }
}
