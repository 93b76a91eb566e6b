//! The private copy of the user's session that streaming queries are planned with.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::execution::{SessionState, SessionStateBuilder};

use crate::push_down::PushDownToOwnNodes;

/// Rules of DataFusion's logical optimizer that suit one run over all the data, not many over its parts.
///
/// - a DISTINCT aggregate as two stacked ones: the lower one would have to remember too;
/// - folding what is known to be empty: a streaming leaf must be read all the same, and the operators above
///   it exist in the checkpoint;
/// - limits pushed down: the limit of a stream counts over all micro-batches.
const LOGICAL_RULES_LEFT_OUT: [&str; 5] = [
    "single_distinct_aggregation_to_group_by",
    "propagate_empty_relation",
    "eliminate_filter",
    "eliminate_limit",
    "push_down_limit",
];

/// Physical rules that answer from statistics or stop an aggregate early.
const PHYSICAL_RULES_LEFT_OUT: [&str; 3] = [
    "aggregate_statistics",
    "LimitedDistinctAggregation",
    "LimitAggregation",
];

/// A copy of `user` for planning and running streaming queries: its tables, functions, analyzer rules, object
/// stores and memory are shared; settings and rules that do not suit a plan made once are changed in the copy.
///
/// The user's own session keeps all its settings and cores.
#[must_use]
pub fn streaming_state(user: &SessionState) -> SessionState {
    let logical = user
        .optimizers()
        .iter()
        .filter(|rule| !LOGICAL_RULES_LEFT_OUT.contains(&rule.name()))
        .map(|rule| match rule.name() {
            "push_down_filter" => Arc::new(PushDownToOwnNodes::new()),
            _ => Arc::clone(rule),
        })
        .collect();
    let physical = user
        .physical_optimizers()
        .iter()
        .filter(|rule| !PHYSICAL_RULES_LEFT_OUT.contains(&rule.name()))
        .cloned()
        .collect();
    let mut builder = SessionStateBuilder::new_from_existing(user.clone())
        .with_session_id(user.session_id().to_string())
        .with_optimizer_rules(logical)
        .with_physical_optimizer_rules(physical);
    if let Some(config) = builder.config() {
        adjust(config.options_mut());
    }
    builder.build()
}

/// One partition (a repartition costs more than small micro-batches do), and nothing that is only right
/// when a plan runs once.
fn adjust(options: &mut ConfigOptions) {
    let execution = &mut options.execution;
    execution.target_partitions = 1;
    execution.skip_partial_aggregation_probe_ratio_threshold = 2.0;
    let optimizer = &mut options.optimizer;
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    optimizer.enable_round_robin_repartition = false;
    optimizer.repartition_aggregations = false;
    optimizer.repartition_joins = false;
    optimizer.repartition_windows = false;
    optimizer.repartition_sorts = false;
    optimizer.repartition_file_scans = false;
    optimizer.enable_unions_to_filter = false;
    optimizer.filter_null_join_keys = true;
    // Its joins are not among those that keep a static side.
    optimizer.enable_piecewise_merge_join = false;
}
