//! Installs Spark's meaning of SQL on a session's state.

use std::sync::Arc;

use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion_spark::SessionStateBuilderSpark;

use super::{aggregates, analyzer::SparkRule, distinct, functions, planner::SparkPlanner};

/// `state` with Spark's functions, operators, aggregates and settings.
pub(super) fn install(state: SessionState) -> SessionState {
    let mut analyzer = state.analyzer().clone();
    if analyzer
        .rules
        .iter()
        .any(|rule| rule.name() == SparkRule::NAME)
    {
        return state; // it is there already
    }
    analyzer.rules.insert(0, Arc::new(SparkRule));
    let id = state.session_id().to_string();
    let mut builder = SessionStateBuilder::new_from_existing(state)
        .with_session_id(id)
        .with_spark_features();
    *builder.analyzer() = Some(analyzer);
    builder
        .expr_planners()
        .get_or_insert_with(Vec::new)
        .insert(0, Arc::new(SparkPlanner));
    builder
        .scalar_functions()
        .get_or_insert_with(Vec::new)
        .extend(functions::all());
    builder
        .aggregate_functions()
        .get_or_insert_with(Vec::new)
        .extend(aggregates::all().into_iter().chain(distinct::all()));
    if let Some(config) = builder.config().as_mut() {
        let options = config.options_mut();
        options.sql_parser.default_null_ordering = "nulls_min".to_string();
        options.sql_parser.parse_float_as_decimal = true;
        options.execution.enable_ansi_mode = true;
    }
    builder.build()
}
