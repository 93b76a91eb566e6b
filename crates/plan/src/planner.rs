//! From the optimized logical plan to the physical one, our own nodes included.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::find_aggregate_exprs;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use highwater_core::Error;
use parking_lot::Mutex;

use crate::analyze::within_without_watermark;
use crate::cell::BatchCell;
use crate::nodes::{
    self, Deduplicate, EventTimeWatermark, Identity, MapBatches, Observe, StreamLimit,
};
use crate::operators::dedup::{DedupOperator, Recipe};
use crate::operators::limit::LimitOperator;
use crate::operators::map_batches::MapBatchesOperator;
use crate::operators::observe::{Aggregate, Observations, ObserveOperator};
use crate::operators::unary::UnaryExec;
use crate::operators::watermark::{WatermarkInput, WatermarkOperator};
use crate::static_side::{StaticScanExec, StaticSide};

/// Plans `plan`: with the user's own planner when nothing of ours is in it, else with DataFusion's
/// default one and the nodes of both.
pub(crate) async fn create_physical_plan(
    plan: &LogicalPlan,
    state: &SessionState,
    observations: &Arc<Observations>,
    cell: &BatchCell,
) -> Result<Arc<dyn ExecutionPlan>> {
    let user = Arc::clone(state.query_planner());
    if !has_own_nodes(plan)? {
        return user.create_physical_plan(plan, state).await;
    }
    let own = OwnNodes {
        observations: Arc::clone(observations),
        cell: cell.clone(),
        watermarks: Mutex::default(),
    };
    DefaultPhysicalPlanner::with_extension_planners(vec![
        Arc::new(own),
        Arc::new(UsersNodes { user }),
    ])
    .create_physical_plan(plan, state)
    .await
}

/// True for a node of this crate.
pub(crate) fn is_own(node: &dyn UserDefinedLogicalNode) -> bool {
    let node = node.as_any();
    node.is::<StreamLimit>()
        || node.is::<Observe>()
        || node.is::<MapBatches>()
        || node.is::<EventTimeWatermark>()
        || node.is::<Deduplicate>()
        || node.is::<StaticSide>()
}

fn has_own_nodes(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found = found
            || matches!(node, LogicalPlan::Extension(extension) if is_own(extension.node.as_ref()));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Plans the nodes of this crate.
struct OwnNodes {
    observations: Arc<Observations>,
    cell: BatchCell,
    /// What the nodes of one `with_watermark` observe together.
    watermarks: Mutex<Vec<(Identity, Arc<WatermarkInput>)>>,
}

#[async_trait]
impl ExtensionPlanner for OwnNodes {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(side) = node.as_any().downcast_ref::<StaticSide>() {
            return Ok(Some(Arc::new(StaticScanExec::new(Arc::clone(&side.cell)))));
        }
        let (&[logical], [input]) = (logical_inputs, physical_inputs) else {
            return Ok(None);
        };
        let input = Arc::clone(input);
        let schema = input.schema();
        if let Some(limit) = node.as_any().downcast_ref::<StreamLimit>() {
            let operator = LimitOperator::new(&limit.name, limit.fetch);
            let operator = operator.draining(must_see_all(&limit.input));
            return Ok(Some(Arc::new(UnaryExec::new(
                Arc::new(operator),
                input,
                schema,
            ))));
        }
        if let Some(map) = node.as_any().downcast_ref::<MapBatches>() {
            let operator = MapBatchesOperator {
                function: Arc::clone(&map.function.0),
            };
            let schema = Arc::clone(map.schema.inner());
            return Ok(Some(Arc::new(UnaryExec::new(
                Arc::new(operator),
                input,
                schema,
            ))));
        }
        if let Some(watermark) = node.as_any().downcast_ref::<EventTimeWatermark>() {
            let at = watermark.schema.index_of_column(&watermark.column)?;
            let observed = self.observed_by(watermark);
            let operator = WatermarkOperator::new(observed, at, self.cell.clone());
            let schema = Arc::clone(watermark.schema.inner());
            return Ok(Some(Arc::new(UnaryExec::new(
                Arc::new(operator),
                input,
                schema,
            ))));
        }
        if let Some(dedup) = node.as_any().downcast_ref::<Deduplicate>() {
            return Ok(Some(self.dedup(dedup, logical, input)?));
        }
        if let Some(observe) = node.as_any().downcast_ref::<Observe>() {
            let operator = self.observer(observe, logical, &schema, session, planning)?;
            return Ok(Some(Arc::new(UnaryExec::new(
                Arc::new(operator),
                input,
                schema,
            ))));
        }
        Ok(None)
    }
}

impl OwnNodes {
    fn observed_by(&self, node: &EventTimeWatermark) -> Arc<WatermarkInput> {
        let mut inputs = self.watermarks.lock();
        let known = inputs
            .iter()
            .find(|(identity, _)| *identity == node.identity);
        if let Some((_, input)) = known {
            return Arc::clone(input);
        }
        let input = Arc::new(WatermarkInput::of(node));
        inputs.push((node.identity.clone(), Arc::clone(&input)));
        input
    }

    fn dedup(
        &self,
        node: &Deduplicate,
        logical: &LogicalPlan,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // The marks of event time are sure in the logical schema only.
        let schema = Arc::clone(logical.schema().inner());
        let keys = node.columns.iter();
        let keys = keys
            .map(|column| logical.schema().index_of_column(column))
            .collect::<Result<_>>()?;
        let delay_ms = if node.within_watermark {
            let delay = nodes::watermark_delay_ms(logical);
            Some(delay.ok_or_else(within_without_watermark)?)
        } else {
            None
        };
        let recipe = Recipe::try_new(node.name.clone(), schema, keys, delay_ms)?;
        let operator = Arc::new(DedupOperator::try_new(recipe, self.cell.clone())?);
        let schema = input.schema();
        Ok(Arc::new(UnaryExec::new(operator, input, schema)))
    }

    fn observer(
        &self,
        node: &Observe,
        logical: &LogicalPlan,
        physical: &Schema,
        session: &dyn Session,
        planning: &PhysicalPlanningContext,
    ) -> Result<ObserveOperator> {
        let props = session.execution_props();
        let exprs = find_aggregate_exprs(&node.aggregates);
        let mut aggregates = Vec::with_capacity(exprs.len());
        let mut fields = Vec::with_capacity(exprs.len());
        for expr in &exprs {
            let lowered =
                LoweredAggregateBuilder::new(expr, logical.schema(), physical, props, planning)
                    .with_name(expr.schema_name().to_string())
                    .build()?;
            if !lowered.order_bys.is_empty() {
                return Err(Error::unsupported(format!(
                    "observe `{}`: an aggregate with ORDER BY is not supported",
                    node.name
                ))
                .with_operator("observe")
                .into());
            }
            let name = expr.schema_name().to_string();
            let data_type = lowered.aggregate.field().data_type().clone();
            fields.push(Field::new(name, data_type, true));
            aggregates.push(Aggregate {
                function: lowered.aggregate,
                filter: lowered.filter,
            });
        }
        let computed = DFSchema::try_from(Schema::new(fields))?;
        let figures = node
            .names
            .iter()
            .zip(&node.aggregates)
            .map(|(name, expr)| {
                let over_columns = columns_for(expr.clone(), &exprs)?;
                let expr = create_physical_expr(&over_columns, &computed, props, planning)?;
                Ok((name.clone(), expr))
            })
            .collect::<Result<_>>()?;
        Ok(ObserveOperator {
            name: node.name.clone(),
            aggregates,
            computed: Arc::clone(computed.inner()),
            figures,
            observations: Arc::clone(&self.observations),
        })
    }
}

/// True when something in `plan` remembers rows or follows their event time.
fn must_see_all(plan: &LogicalPlan) -> bool {
    let here = match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Join(_) => true,
        LogicalPlan::Extension(extension) => {
            let node = extension.node.as_any();
            node.is::<EventTimeWatermark>() || node.is::<Deduplicate>()
        }
        _ => false,
    };
    here || plan.inputs().into_iter().any(must_see_all)
}

/// `expr` with each aggregate replaced by the column that holds its value.
fn columns_for(expr: Expr, aggregates: &[Expr]) -> Result<Expr> {
    expr.transform_down(|expr| {
        Ok(if aggregates.contains(&expr) {
            let column = Column::new_unqualified(expr.schema_name().to_string());
            Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump)
        } else {
            Transformed::no(expr)
        })
    })
    .data()
}

/// Plans the user's own extension nodes, which stand only in static parts of the plan.
struct UsersNodes {
    user: Arc<dyn QueryPlanner + Send + Sync>,
}

impl fmt::Debug for UsersNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UsersNodes")
    }
}

#[async_trait]
impl ExtensionPlanner for UsersNodes {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let inputs = logical_inputs
            .iter()
            .map(|input| (*input).clone())
            .collect();
        let node = node.with_exprs_and_inputs(node.expressions(), inputs)?;
        let plan = LogicalPlan::Extension(Extension { node });
        self.user
            .create_physical_plan(&plan, session)
            .await
            .map(Some)
    }
}
