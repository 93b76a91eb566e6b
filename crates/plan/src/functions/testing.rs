//! What the tests of the functions share: streams with event time, and a look into the plans they become.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, ExprSchemable, LogicalPlan};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::DataFrame;
use highwater_core::{Interval, Result};

use super::window::ExpandWindows;
use crate::event_time::EventTime;
use crate::nodes::watermark;
use crate::session::streaming_state;
use crate::testing::Fixture;

/// The delay of the watermark on `timed`, in milliseconds.
const DELAY_MS: i64 = 7_000;

/// The mark of an instant or a whole window of `timed`.
pub(super) const MARK: Option<EventTime> = Some(EventTime { span: None });

/// The streams of [`Fixture`], and `timed`: a view of `events` with `ts` as event time.
pub(super) async fn fixture() -> Fixture {
    let fixture = Fixture::new();
    let events = fixture.logical("SELECT * FROM events").await;
    let delay = Interval::from_micros(1_000 * DELAY_MS);
    let timed = watermark(events.expect("planned"), "ts", delay).expect("a time");
    let view = DataFrame::new(fixture.ctx.state(), timed).into_view();
    fixture.ctx.register_table("timed", view).expect("new");
    fixture
}

/// A frame of `plan`.
pub(super) fn frame(fixture: &Fixture, plan: LogicalPlan) -> DataFrame {
    DataFrame::new(fixture.ctx.state(), plan)
}

/// `plan` as the rules for streams see it, and as DataFusion's optimizer leaves it.
pub(super) fn planned(fixture: &Fixture, plan: LogicalPlan) -> Result<[LogicalPlan; 2]> {
    planned_by(fixture, plan, false)
}

/// The same with sliding windows that share panes.
pub(super) async fn sql_with_panes(fixture: &Fixture, text: &str) -> Result<[LogicalPlan; 2]> {
    planned_by(fixture, fixture.logical(text).await?, true)
}

fn planned_by(
    fixture: &Fixture,
    plan: LogicalPlan,
    shared_panes: bool,
) -> Result<[LogicalPlan; 2]> {
    let state = streaming_state(&fixture.ctx.state());
    let ours: Arc<dyn AnalyzerRule + Send + Sync> = Arc::new(ExpandWindows { shared_panes });
    let rules = state.analyzer().rules.iter();
    let rules = rules
        .map(|rule| match rule.name() == ours.name() {
            true => Arc::clone(&ours),
            false => Arc::clone(rule),
        })
        .collect();
    let analyzed =
        Analyzer::with_rules(rules).execute_and_check(plan, state.config_options(), |_, _| {})?;
    let optimized = state
        .optimizer()
        .optimize(analyzed.clone(), &state, |_, _| {})?;
    Ok([analyzed, optimized])
}

/// The same of SQL text.
pub(super) async fn sql(fixture: &Fixture, text: &str) -> Result<[LogicalPlan; 2]> {
    planned(fixture, fixture.logical(text).await?)
}

/// The aggregates of `plan`, from the top down.
pub(super) fn aggregates(plan: &LogicalPlan) -> Vec<Aggregate> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            found.push(aggregate.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("walked");
    found
}

/// The field of the first key of `aggregate`, computed from what is below.
pub(super) fn key(aggregate: &Aggregate) -> FieldRef {
    let key = &aggregate.group_expr[0];
    key.to_field(aggregate.input.schema()).expect("typed").1
}

/// The marks of the columns that come out of `plan`.
pub(super) fn marks(plan: &LogicalPlan) -> Vec<Option<EventTime>> {
    let fields = plan.schema().fields().iter();
    fields.map(|field| EventTime::of(field)).collect()
}
