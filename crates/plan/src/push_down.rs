//! DataFusion's rule that moves filters towards the leaves, kept from moving them past nodes of ours.
//!
//! A node says which columns a filter must not read to go below it, which leaves filters that read no column:
//! `random() < 0.5` below a deduplication is another query than above it.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::nodes::EventTimeWatermark;
use crate::planner::is_own;

/// [`PushDownFilter`], but what is not deterministic stays above our nodes, and what reads no column above all
/// of them but watermarks (Spark).
#[derive(Debug)]
pub(crate) struct PushDownToOwnNodes(PushDownFilter);

impl PushDownToOwnNodes {
    pub(crate) fn new() -> Self {
        Self(PushDownFilter::new())
    }
}

impl OptimizerRule for PushDownToOwnNodes {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else {
            return self.0.rewrite(plan, config);
        };
        let (stays, moves): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(&filter.predicate)
            .into_iter()
            .partition(|expr| stays_above(expr, &filter.input));
        match (stays.is_empty(), moves.is_empty()) {
            (true, _) if !any_stays(&filter.input) => self.0.rewrite(plan, config),
            (true, _) | (_, true) => Ok(Transformed::no(plan)),
            (false, false) => {
                let input = with_filter(moves, Arc::clone(&filter.input))?;
                with_filter(stays, Arc::new(input)).map(Transformed::yes)
            }
        }
    }
}

/// True for a condition that must not go below the node of ours that `input` ends with.
fn stays_above(expr: &Expr, input: &LogicalPlan) -> bool {
    match input {
        LogicalPlan::Filter(filter) => stays_above(expr, &filter.input),
        LogicalPlan::Extension(Extension { node }) if is_own(node.as_ref()) => {
            let watermark = node.as_any().is::<EventTimeWatermark>();
            expr.is_volatile() || (expr.column_refs().is_empty() && !watermark)
        }
        _ => false,
    }
}

/// True when a filter that `input` begins with stays where it is: DataFusion would merge the one above with it.
fn any_stays(input: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = input else {
        return false;
    };
    let mut conditions = split_conjunction(&filter.predicate).into_iter();
    conditions.any(|expr| stays_above(expr, &filter.input)) || any_stays(&filter.input)
}

fn with_filter(conditions: Vec<&Expr>, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    match conjunction(conditions.into_iter().cloned()) {
        Some(predicate) => Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?)),
        None => Ok(Arc::unwrap_or_clone(input)),
    }
}
