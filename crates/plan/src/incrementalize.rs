//! Makes a plan incremental: what must remember something from one micro-batch to the next becomes an operator
//! with state. Only what stands above a streaming leaf is touched.
//!
//! ```text
//!  optimized logical plan   Limit ─────────► StreamLimit
//!  physical plan            AggregateExec ─► StatefulAggregateExec   (keeps DataFusion's grouping and aggregates)
//!                           … by session ─► StatefulSessionExec
//!                           HashJoinExec ──► StreamJoinExec      (of two streams)
//!                           … of one ─────► StaticJoinExec       (with a static side that is kept)
//!                           UnionExec ─────► ConcatExec              (one partition, rows in a fixed order)
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Extension, FetchType, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateMode, AggregateOutputMode,
};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use highwater_core::{Error, OutputMode, Result};

use crate::analyze::{aggregates, join_without_equality};
use crate::cell::BatchCell;
use crate::leaf::StreamScanExec;
use crate::nodes::{Deduplicate, EventTimeWatermark, Identity, StreamLimit};
use crate::operators::StatefulOperator;
use crate::operators::aggregate::StatefulAggregateExec;
use crate::operators::dedup::DedupOperator;
use crate::operators::join::StreamJoinExec;
use crate::operators::limit::LimitOperator;
use crate::operators::session::{StatefulSessionExec, has_session};
use crate::operators::static_join::StaticJoinExec;
use crate::operators::unary::UnaryExec;
use crate::operators::watermark::{WatermarkInput, WatermarkOperator};
use crate::table::reads_stream;

/// Gives limits above streams their state, and takes repartitioning away.
///
/// A limit counts over the whole query in append mode, and in any mode where no aggregate is below it; above
/// an aggregate in complete mode it counts the rows of one result (Spark).
pub(crate) fn remember_limits(plan: LogicalPlan, mode: OutputMode) -> Result<LogicalPlan> {
    let mut names = Names::new("limit");
    let mut watermarks = WatermarkNames::new();
    let mut dedups = Names::new("dedup");
    let plan = plan
        .transform_up(|node| match node {
            LogicalPlan::Extension(extension) => Ok(named(extension, &mut watermarks, &mut dedups)),
            LogicalPlan::Repartition(repartition) => {
                Ok(Transformed::yes(Arc::unwrap_or_clone(repartition.input)))
            }
            LogicalPlan::Limit(limit)
                if reads_stream(&limit.input)
                    && (mode == OutputMode::Append || !aggregates(&limit.input)) =>
            {
                let FetchType::Literal(Some(fetch)) = limit.get_fetch_type()? else {
                    return Ok(Transformed::yes(Arc::unwrap_or_clone(limit.input)));
                };
                let node = StreamLimit {
                    name: names.next(),
                    input: Arc::unwrap_or_clone(limit.input),
                    fetch: fetch as u64,
                };
                Ok(Transformed::yes(LogicalPlan::Extension(Extension {
                    node: Arc::new(node),
                })))
            }
            other => Ok(Transformed::no(other)),
        })
        .data()?;
    Ok(plan)
}

/// Watermarks and deduplications with their names in the checkpoint.
fn named(
    extension: Extension,
    watermarks: &mut WatermarkNames,
    dedups: &mut Names,
) -> Transformed<LogicalPlan> {
    let node = extension.node.as_any();
    let named: Arc<dyn UserDefinedLogicalNode> =
        if let Some(watermark) = node.downcast_ref::<EventTimeWatermark>() {
            let name = watermarks.of(&watermark.identity);
            let watermark = watermark.clone();
            Arc::new(EventTimeWatermark { name, ..watermark })
        } else if let Some(dedup) = node.downcast_ref::<Deduplicate>() {
            let name = dedups.next();
            let dedup = dedup.clone();
            Arc::new(Deduplicate { name, ..dedup })
        } else {
            return Transformed::no(LogicalPlan::Extension(extension));
        };
    Transformed::yes(LogicalPlan::Extension(Extension { node: named }))
}

/// Swaps the aggregates above streams and their joins for stateful ones, and puts unions into one partition.
pub(crate) fn remember_aggregates(
    plan: Arc<dyn ExecutionPlan>,
    mode: OutputMode,
    cell: &BatchCell,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut names = Names::new("aggregate");
    let mut sessions = Names::new("session");
    let mut joins = Names::new("join");
    let plan = plan
        .transform_up(|node| {
            if !streams(&node) {
                return Ok(Transformed::no(node));
            }
            if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
                return match aggregate.mode().output_mode() {
                    AggregateOutputMode::Partial => Ok(Transformed::no(node)),
                    AggregateOutputMode::Final => {
                        let names = match has_session(aggregate) {
                            true => &mut sessions,
                            false => &mut names,
                        };
                        let stateful =
                            stateful(aggregate, names.next(), mode, cell.shifted(delay_ms(&node)))?;
                        Ok(Transformed::yes(stateful))
                    }
                };
            }
            if joins_streams(&node) {
                let delayed = cell.shifted(delay_ms(&node));
                return Ok(Transformed::yes(stream_join(&node, &mut joins, delayed)?));
            }
            if let Some(join) = static_join(&node)? {
                return Ok(Transformed::yes(join));
            }
            if let Some(dedup) = node.downcast_ref::<UnaryExec<DedupOperator>>() {
                dedup.operator().delay(delay_ms(&node));
                return Ok(Transformed::no(node));
            }
            if node.is::<UnionExec>() {
                return Ok(Transformed::yes(
                    Arc::new(crate::operators::concat::ConcatExec::of(node.as_ref()))
                        as Arc<dyn ExecutionPlan>,
                ));
            }
            Ok(without_needless_merge(node))
        })
        .data()?;
    Ok(plan)
}

/// Puts the rows of aggregates below a deduplication into the order in which Spark was seen to give them: of the
/// windows that close together, the latest first. Spark's order is that of its hashes and promised nowhere, but a
/// deduplication keeps the row that comes first. Elsewhere windows come in the order of their ends.
pub(crate) fn order_for_deduplication(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    plan.apply(|node| {
        if node.is::<UnaryExec<DedupOperator>>() {
            node.apply(|below| {
                if let Some(aggregate) = below.downcast_ref::<StatefulAggregateExec>() {
                    aggregate.emit_latest_first();
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The operators with state in `plan`, from the top down, each with the sources it reads.
pub(crate) fn operators_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Placed>> {
    let mut operators = Vec::new();
    plan.apply(|node| {
        if let Some(join) = node.downcast_ref::<StreamJoinExec>() {
            for (side, input) in join.operators().into_iter().zip(node.children()) {
                operators.push((side, sources_below(input)?));
            }
        }
        if let Some(operator) = operator_of(node) {
            let sources = sources_below(node)?;
            operators.push((operator, sources));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(operators)
}

/// An operator, and the names of the sources below it, in order.
pub(crate) type Placed = (Arc<dyn StatefulOperator>, BTreeSet<String>);

fn operator_of(node: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn StatefulOperator>> {
    if let Some(aggregate) = node.downcast_ref::<StatefulAggregateExec>() {
        return Some(aggregate.operator());
    }
    if let Some(sessions) = node.downcast_ref::<StatefulSessionExec>() {
        return Some(sessions.operator());
    }
    if let Some(limit) = node.downcast_ref::<UnaryExec<LimitOperator>>() {
        let operator: Arc<LimitOperator> = Arc::clone(limit.operator());
        return Some(operator);
    }
    let dedup = node.downcast_ref::<UnaryExec<DedupOperator>>()?;
    let operator: Arc<DedupOperator> = Arc::clone(dedup.operator());
    Some(operator)
}

fn sources_below(plan: &Arc<dyn ExecutionPlan>) -> Result<BTreeSet<String>> {
    let mut sources = BTreeSet::new();
    plan.apply(|node| {
        if let Some(scan) = node.downcast_ref::<StreamScanExec>() {
            sources.insert(scan.source().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(sources)
}

/// The places in `plan` that look at event time, from the top down.
pub(crate) fn watermarks_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<WatermarkInput>>> {
    let mut inputs: Vec<Arc<WatermarkInput>> = Vec::new();
    plan.apply(|node| {
        if let Some(watermark) = node.downcast_ref::<UnaryExec<WatermarkOperator>>() {
            let input = watermark.operator().input();
            if !inputs.iter().any(|seen| Arc::ptr_eq(seen, &input)) {
                inputs.push(input);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(inputs)
}

/// The stateful operator for an aggregate that gives final values.
fn stateful(
    aggregate: &AggregateExec,
    name: String,
    mode: OutputMode,
    cell: BatchCell,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let single;
    let raw = match aggregate.mode().input_mode() {
        AggregateInputMode::Raw => aggregate,
        AggregateInputMode::Partial => {
            single = in_one_step(aggregate.input())?;
            &single
        }
    };
    let stateful: Arc<dyn ExecutionPlan> = if has_session(raw) {
        Arc::new(StatefulSessionExec::try_new(raw, name, mode, cell)?)
    } else {
        Arc::new(StatefulAggregateExec::try_new(raw, name, mode, cell)?)
    };
    // DataFusion may have left a sort out because its own aggregate keeps the order of sorted input.
    Ok(match aggregate.properties().output_ordering() {
        Some(order) => Arc::new(SortExec::new(order.clone(), stateful)),
        None => stateful,
    })
}

/// The partial step that `input` ends with, as an aggregate that does all in one.
fn in_one_step(input: &Arc<dyn ExecutionPlan>) -> DataFusionResult<AggregateExec> {
    if let Some(partial) = input.downcast_ref::<AggregateExec>() {
        return AggregateExec::try_new(
            AggregateMode::Single,
            partial.group_expr().clone(),
            partial.aggr_expr().to_vec(),
            partial.filter_expr().to_vec(),
            Arc::clone(partial.input()),
            partial.input_schema(),
        );
    }
    match input.children().as_slice() {
        [below] => in_one_step(below),
        _ => Err(Error::internal("an aggregate in two steps has lost its first").into()),
    }
}

/// True for a join with a stream below each side.
fn joins_streams(node: &Arc<dyn ExecutionPlan>) -> bool {
    let both = node
        .children()
        .into_iter()
        .filter(|below| streams(below))
        .count()
        > 1;
    both && !node.is::<UnionExec>() && !node.is::<InterleaveExec>()
}

/// The stateful operator for a join of two streams.
fn stream_join(
    node: &Arc<dyn ExecutionPlan>,
    names: &mut Names,
    cell: BatchCell,
) -> Result<Arc<dyn ExecutionPlan>> {
    match node.downcast_ref::<HashJoinExec>() {
        Some(join) => Ok(Arc::new(StreamJoinExec::try_new(join, names.next(), cell)?)),
        None => Err(join_without_equality()),
    }
}

/// The form of a join of a stream with a static side that keeps the static side; `None` for another node.
fn static_join(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let [left, right] = node.children()[..] else {
        return Ok(None);
    };
    let join = match (streams(left), streams(right)) {
        (true, false) => StaticJoinExec::of(node, true)?,
        (false, true) => StaticJoinExec::of(node, false)?,
        _ => None,
    };
    Ok(join.map(|join| {
        let join: Arc<dyn ExecutionPlan> = Arc::new(join);
        match node.fetch() {
            // DataFusion has put the limit above into its join.
            Some(fetch) => Arc::new(GlobalLimitExec::new(join, 0, Some(fetch))),
            None => join,
        }
    }))
}

/// How far the rows that come out of `plan` may be behind the query's watermark: what the joins on the longest way hold
/// back.
fn delay_ms(plan: &Arc<dyn ExecutionPlan>) -> i64 {
    let own = plan.downcast_ref::<StreamJoinExec>();
    delay_below(plan) + own.map_or(0, StreamJoinExec::delay_ms)
}

/// As [`delay_ms`], of the rows that come into `plan`.
fn delay_below(plan: &Arc<dyn ExecutionPlan>) -> i64 {
    let below = plan.children().into_iter().map(delay_ms).max();
    below.unwrap_or(0)
}

/// How far the watermark of the operator called `name` is behind the query's, in milliseconds.
pub(crate) fn delay_of(plan: &Arc<dyn ExecutionPlan>, name: &str) -> i64 {
    let named = |operator: &dyn StatefulOperator| operator.name() == name;
    let join = plan.downcast_ref::<StreamJoinExec>();
    let sides = join.map(StreamJoinExec::operators).into_iter().flatten();
    let own = operator_of(plan).into_iter().chain(sides);
    if own.into_iter().any(|operator| named(operator.as_ref())) {
        return delay_below(plan);
    }
    let below = plan.children().into_iter();
    below.map(|below| delay_of(below, name)).max().unwrap_or(0)
}

fn streams(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<StreamScanExec>() || plan.children().into_iter().any(streams)
}

fn without_needless_merge(node: Arc<dyn ExecutionPlan>) -> Transformed<Arc<dyn ExecutionPlan>> {
    let below = node
        .downcast_ref::<CoalescePartitionsExec>()
        .filter(|merge| {
            merge.fetch().is_none() && merge.input().output_partitioning().partition_count() == 1
        })
        .map(|merge| Arc::clone(merge.input()));
    match below {
        Some(input) => Transformed::yes(input),
        None => Transformed::no(node),
    }
}

/// The names of watermarks: nodes of one call have one.
struct WatermarkNames {
    names: Names,
    given: Vec<(Identity, String)>,
}

impl WatermarkNames {
    fn new() -> Self {
        Self {
            names: Names::new("watermark"),
            given: Vec::new(),
        }
    }

    fn of(&mut self, identity: &Identity) -> String {
        if let Some((_, name)) = self.given.iter().find(|(given, _)| given == identity) {
            return name.clone();
        }
        let name = self.names.next();
        self.given.push((identity.clone(), name.clone()));
        name
    }
}

/// `aggregate`, `aggregate_2`, … in the order of the plan, from the leaves up.
struct Names {
    kind: &'static str,
    given: usize,
}

impl Names {
    fn new(kind: &'static str) -> Self {
        Self { kind, given: 0 }
    }

    fn next(&mut self) -> String {
        self.given += 1;
        match self.given {
            1 => self.kind.to_string(),
            n => format!("{}_{n}", self.kind),
        }
    }
}
