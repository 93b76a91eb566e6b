//! `stateTtl`: state that no watermark bounds is forgotten when it is old.
//!
//! It is for inner joins of two streams: a row that leaves early costs the pairs it would have been in, and nothing that
//! came out becomes wrong. Everywhere else a row of the result would silently change, and it is refused.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_plan::ExecutionPlan;
use highwater_core::{Error, Result};

use crate::incrementalize::operators_of;
use crate::operators::join::StreamJoinExec;

/// The plan, in which rows of inner joins leave after `ttl` on sides that nothing else bounds.
///
/// # Errors
/// `Invalid` when it is 0, or no state is without a bound; `Unsupported` when the state of another operator is.
pub(super) fn bound_by_age(
    plan: Arc<dyn ExecutionPlan>,
    ttl: Duration,
) -> Result<Arc<dyn ExecutionPlan>> {
    if ttl.is_zero() {
        return Err(Error::invalid("`stateTtl` is 0: no row would be kept")
            .with_option(OPTION)
            .with_hint("give a length of time, such as `1 hour`"));
    }
    let age_us = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    let mut bounded = false;
    let plan = plan
        .transform_up(|node| {
            let join = node.downcast_ref::<StreamJoinExec>();
            match join.and_then(|join| join.by_age(age_us)) {
                Some(join) => {
                    bounded = true;
                    Ok(Transformed::yes(Arc::new(join) as Arc<dyn ExecutionPlan>))
                }
                None => Ok(Transformed::no(node)),
            }
        })
        .data()?;
    check_others(&plan)?;
    match bounded {
        true => Ok(plan),
        false => Err(Error::invalid(
            "`stateTtl` bounds the state of inner joins of two streams that nothing else bounds, and the query has none",
        )
        .with_option(OPTION)
        .with_hint("leave the option out")),
    }
}

const OPTION: &str = "stateTtl";

/// Refuses a query in which the state of another operator grows for ever.
fn check_others(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    for (operator, _) in operators_of(plan)? {
        let schema = operator.state_schema();
        // Without a key there is one record.
        let grows = schema.pane.is_none() && !schema.keys.fields().is_empty();
        if grows {
            return Err(Error::unsupported(format!(
                "`stateTtl` for `{}`: only rows of inner joins can be forgotten by their age",
                operator.name()
            ))
            .with_option(OPTION)
            .with_operator(operator.name())
            .with_hint("bound its state by a watermark, or leave the option out"));
        }
    }
    Ok(())
}
