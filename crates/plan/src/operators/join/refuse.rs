//! Joins whose state can never be let go, or whose unmatched rows would never come out.

use datafusion::common::JoinType;
use highwater_core::{Error, Result};

use super::bounds::Bound;
use crate::analyze::{join_never_completes, join_unbounded, join_with_mark};

/// Refuses what never completes, and warns of state that only grows. `limits`: whether a limit is known for each
/// side, be there a watermark to heed it or not; that is all that Spark asks.
///
/// # Errors
/// `Unsupported`.
pub(super) fn unbounded(
    name: &str,
    join_type: JoinType,
    bounds: &(Option<Bound>, Option<Bound>),
    limits: (bool, bool),
) -> Result<()> {
    let (left, right) = (bounds.0.is_some(), bounds.1.is_some());
    let (limited, finished) = match join_type {
        JoinType::Inner | JoinType::LeftMark | JoinType::RightMark => (true, true),
        JoinType::Left | JoinType::LeftAnti => (limits.0, left),
        JoinType::Right | JoinType::RightAnti => (limits.1, right),
        JoinType::LeftSemi => (limits.0, true),
        JoinType::RightSemi => (limits.1, true),
        JoinType::Full => (limits.0 || limits.1, true),
    };
    if !limited {
        return Err(join_unbounded(join_type));
    }
    if !finished {
        return Err(join_never_completes(join_type));
    }
    for (side, bounded) in [("left", left), ("right", right)] {
        if !bounded {
            tracing::warn!(
                operator = name,
                side,
                "the state of a join grows for ever: no watermark and time condition bound it"
            );
        }
    }
    Ok(())
}

/// Refuses a join that only EXISTS and IN inside other conditions make.
pub(super) fn mark(join_type: JoinType) -> Error {
    join_with_mark(join_type)
}
