//! What a streaming query may do: operator by output mode, decided on the analyzed plan.
//!
//! A pure function over the logical plan before DataFusion's optimizer has seen it (which would turn DISTINCT
//! into an aggregate, EXCEPT into a join, and `WHERE false` into nothing). The rules are Spark's, but for
//! sessions in update mode, which it refuses; what is refused says which operator, in which mode, and the way out.
//! Which columns are event time, the schemas say.
//!
//! **Every kind of node has an arm of its own here.** A new one in DataFusion fails to compile.

mod refusals;

pub(crate) use refusals::{
    join_never_completes, join_unbounded, join_with_mark, join_with_static, join_without_equality,
    within_without_watermark,
};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinType, NullEquality};
use datafusion::logical_expr::{
    Aggregate, Distinct, Extension, FetchType, Join, Limit, LogicalPlan, SkipType, Sort, Union,
    UserDefinedLogicalNode,
};
use highwater_core::{OutputMode, Result};

use crate::event_time::{EventTime, SESSION_KEY, is_marked};
use crate::nodes::{Deduplicate, EventTimeWatermark};
use crate::planner::is_own;
use crate::table::{is_streaming, reads_stream, source_streams};

/// Decides whether `plan` can run as a streaming query in `mode`.
///
/// # Errors
/// `Unsupported`, with operator, Spark's condition where it has one, and a hint; `Invalid` when nothing streams.
pub fn analyze(plan: &LogicalPlan, mode: OutputMode) -> Result<()> {
    if !is_streaming(plan) {
        return Err(refusals::not_streaming());
    }
    refuse_streaming_subqueries(plan)?;
    refuse_commands(plan)?;
    match mode {
        OutputMode::Complete if !aggregates(plan) => {
            return Err(refusals::complete_without_aggregate());
        }
        OutputMode::Append if never_finished(plan)? => return Err(refusals::append_aggregate()),
        OutputMode::Append | OutputMode::Update | OutputMode::Complete => {}
        // The modes are ours, and every one of today's is above.
        other => return Err(refusals::unknown_mode(other)),
    }
    Checker { mode }.check(plan)?;
    Ok(())
}

/// True when there is a streaming aggregate in `plan`; SQL's DISTINCT is one.
pub(crate) fn aggregates(plan: &LogicalPlan) -> bool {
    let here = matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_));
    (here && reads_stream(plan)) || plan.inputs().into_iter().any(aggregates)
}

/// True when a streaming aggregate has no event time in its key: its groups never end, so append mode would
/// never give one out.
fn never_finished(plan: &LogicalPlan) -> Result<bool> {
    let here = match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let keys = &aggregate.schema.fields()[..aggregate.group_expr_len()?];
            !keys.iter().any(|key| EventTime::of(key).is_some())
        }
        LogicalPlan::Distinct(Distinct::All(input)) => !is_marked(input.schema()),
        _ => false,
    };
    if here && reads_stream(plan) {
        return Ok(true);
    }
    let inputs = plan.inputs();
    inputs
        .into_iter()
        .try_fold(false, |found, input| Ok(found || never_finished(input)?))
}

/// Commands have a streaming query inside, and are none.
fn refuse_commands(plan: &LogicalPlan) -> Result<()> {
    match plan {
        LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_) => {
            Err(refusals::command(plan.display().to_string().as_str()))
        }
        LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::DescribeTable(_) => {
            Err(refusals::command(plan.display().to_string().as_str()))
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::RecursiveQuery(_) => Ok(()),
    }
}

/// Subqueries in expressions may read static tables only.
fn refuse_streaming_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_subqueries(|subquery| {
            found = found || is_streaming(subquery);
            Ok(TreeNodeRecursion::Jump)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if found {
        return Err(refusals::streaming_subquery());
    }
    Ok(())
}

/// What is known of the rows at one place of the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// A streaming source is below.
    streaming: bool,
    /// A streaming aggregate is below.
    aggregated: bool,
    /// A watermark is below.
    watermarked: bool,
}

impl Facts {
    fn and(self, other: Self) -> Self {
        Self {
            streaming: self.streaming || other.streaming,
            aggregated: self.aggregated || other.aggregated,
            watermarked: self.watermarked || other.watermarked,
        }
    }
}

struct Checker {
    mode: OutputMode,
}

impl Checker {
    /// Checks `plan` from its leaves upwards, as Spark does.
    fn check(&self, plan: &LogicalPlan) -> Result<Facts> {
        let inputs = plan
            .inputs()
            .into_iter()
            .map(|input| self.check(input))
            .collect::<Result<Vec<_>>>()?;
        let below = inputs.iter().copied().fold(Facts::default(), Facts::and);
        match plan {
            LogicalPlan::TableScan(scan) => Ok(Facts {
                streaming: source_streams(scan.source.as_ref()),
                ..Facts::default()
            }),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(Facts::default()),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Unnest(_)
            // Where rows are computed is ours to choose; the node does nothing.
            | LogicalPlan::Repartition(_) => Ok(below),
            LogicalPlan::RecursiveQuery(_) => Err(refusals::recursive_query()),
            LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::DescribeTable(_) => {
                Err(refusals::command(plan.display().to_string().as_str()))
            }
            // What follows matters only above a stream; static tables may do as they like.
            LogicalPlan::Aggregate(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Extension(_)
                if !below.streaming =>
            {
                Ok(below)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, below),
            LogicalPlan::Distinct(distinct) => self.distinct(distinct, below),
            LogicalPlan::Sort(sort) => self.sort(sort, below),
            LogicalPlan::Limit(limit) => self.limit(limit, below),
            LogicalPlan::Union(union) => self.union(union, &inputs, below),
            LogicalPlan::Join(join) => self.join(join, &inputs, below),
            LogicalPlan::Window(window) => Err(refusals::over_window(&window.window_expr)),
            LogicalPlan::Extension(Extension { node }) => self.extension(node.as_ref(), below),
        }
    }

    fn extension(&self, node: &dyn UserDefinedLogicalNode, below: Facts) -> Result<Facts> {
        if let Some(dedup) = node.as_any().downcast_ref::<Deduplicate>() {
            return self.dedup(dedup, below);
        }
        if node.as_any().is::<EventTimeWatermark>() {
            return watermark(below);
        }
        if is_own(node) {
            Ok(below)
        } else {
            Err(refusals::foreign_node(node.name()))
        }
    }

    /// True when rows that come from below may be taken back by later ones: an operator that goes by event time
    /// cannot stand above.
    fn changes(&self, below: Facts) -> bool {
        below.aggregated && self.mode != OutputMode::Append
    }

    fn aggregate(&self, aggregate: &Aggregate, below: Facts) -> Result<Facts> {
        if self.changes(below) {
            return Err(refusals::above_aggregate("aggregate", self.mode));
        }
        let keys = &aggregate.schema.fields()[..aggregate.group_expr_len()?];
        if let [only] = keys
            && only.metadata().contains_key(SESSION_KEY)
        {
            return Err(refusals::session_without_key());
        }
        Ok(Facts {
            aggregated: true,
            ..below
        })
    }

    fn dedup(&self, dedup: &Deduplicate, below: Facts) -> Result<Facts> {
        let schema = dedup.input.schema();
        if dedup.within_watermark && !is_marked(schema) {
            return Err(within_without_watermark());
        }
        let mut by_time = dedup.within_watermark;
        for column in &dedup.columns {
            let field = schema.field(schema.index_of_column(column)?);
            by_time |= EventTime::of(field).is_some();
        }
        // Without event time in its key it does not matter when a row comes (Spark).
        if by_time && self.changes(below) {
            return Err(refusals::above_aggregate("dedup", self.mode));
        }
        Ok(below)
    }

    fn distinct(&self, distinct: &Distinct, below: Facts) -> Result<Facts> {
        match distinct {
            Distinct::On(_) => Err(refusals::distinct_on()),
            Distinct::All(_) if self.changes(below) => {
                Err(refusals::above_aggregate("aggregate", self.mode))
            }
            Distinct::All(_) => Ok(Facts {
                aggregated: true,
                ..below
            }),
        }
    }

    fn sort(&self, _sort: &Sort, below: Facts) -> Result<Facts> {
        if self.mode == OutputMode::Complete && below.aggregated {
            Ok(below)
        } else {
            Err(refusals::sort(self.mode))
        }
    }

    fn limit(&self, limit: &Limit, below: Facts) -> Result<Facts> {
        match limit.get_skip_type()? {
            SkipType::Literal(0) => {}
            SkipType::Literal(_) => return Err(refusals::offset()),
            SkipType::UnsupportedExpr => return Err(refusals::computed_limit()),
        }
        match limit.get_fetch_type()? {
            FetchType::Literal(None) => Ok(below),
            FetchType::Literal(Some(_)) if self.mode == OutputMode::Update => {
                Err(refusals::limit_in_update())
            }
            FetchType::Literal(Some(_)) => Ok(below),
            FetchType::UnsupportedExpr => Err(refusals::computed_limit()),
        }
    }

    /// EXCEPT and INTERSECT are joins by now; a join with a static table keeps nothing of the stream. Whether a join of
    /// two streams is bounded is seen when it is planned.
    fn join(&self, join: &Join, inputs: &[Facts], below: Facts) -> Result<Facts> {
        let streams = |i: usize| inputs.get(i).is_some_and(|facts| facts.streaming);
        let (left, right) = (streams(0), streams(1));
        let set_operation = join.null_equality == NullEquality::NullEqualsNull
            && matches!(join.join_type, JoinType::LeftAnti | JoinType::LeftSemi);
        if set_operation {
            return set_operation_of(join, left, right).map(|()| below);
        }
        if !(left && right) {
            return match ends_with_the_stream(join.join_type, left) {
                true => Ok(below),
                false => Err(join_with_static(join.join_type, left)),
            };
        }
        if !joins_in(join.join_type, self.mode) {
            return Err(refusals::join_mode(join.join_type, self.mode));
        }
        if self.changes(below) {
            return Err(refusals::above_aggregate("join", self.mode));
        }
        Ok(below)
    }

    fn union(&self, _union: &Union, inputs: &[Facts], below: Facts) -> Result<Facts> {
        if inputs.iter().all(|input| input.streaming) {
            Ok(below)
        } else {
            Err(refusals::union_with_static())
        }
    }
}

/// EXCEPT of a stream and a static table can run; INTERSECT cannot (Spark).
fn set_operation_of(join: &Join, left: bool, right: bool) -> Result<()> {
    match join.join_type {
        JoinType::LeftAnti if right => Err(refusals::except()),
        JoinType::LeftAnti if left && matches!(*join.left, LogicalPlan::Distinct(_)) => Ok(()),
        JoinType::LeftAnti => Err(refusals::except_all()),
        _ => Err(refusals::intersect()),
    }
}

/// True when each row of the stream can be joined with the static side as it comes: no row of the static side must wait
/// for the end of the stream.
fn ends_with_the_stream(join_type: JoinType, stream_left: bool) -> bool {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi};
    use JoinType::{Right, RightAnti, RightMark, RightSemi};
    match join_type {
        Inner => true,
        Left | LeftSemi | LeftAnti | LeftMark => stream_left,
        Right | RightSemi | RightAnti | RightMark => !stream_left,
        Full => false,
    }
}

/// True when a join of two streams can run in `mode`: where rows come out late, or not at all, only what is final does.
fn joins_in(join_type: JoinType, mode: OutputMode) -> bool {
    match mode {
        OutputMode::Append => true,
        OutputMode::Update => {
            use JoinType::{Inner, LeftSemi, RightSemi};
            matches!(join_type, Inner | LeftSemi | RightSemi)
        }
        _ => false,
    }
}

/// There is one watermark on the way of a row (Spark).
fn watermark(below: Facts) -> Result<Facts> {
    if below.watermarked {
        return Err(refusals::redefined_watermark());
    }
    Ok(Facts {
        watermarked: true,
        ..below
    })
}

#[cfg(test)]
mod tests;
