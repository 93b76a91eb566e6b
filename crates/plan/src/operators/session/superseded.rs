//! The column `superseded` of sessions in update mode: the sessions of its key, given out earlier, that a row
//! replaces. Folding is exact: for each row remove those sessions of its key, then put the row. (A HAVING on values
//! leaves rows out as in any aggregation in update mode: a session that no longer passes is not taken back.)
//!
//! In the plan it is an aggregate function that only the session operator can compute; the plan above hands
//! its column up to the end:
//!
//! ```text
//!  Projection …, superseded
//!    Filter                                        (HAVING)
//!      Aggregate session_of_row(ts, gap), k | count(*), session_superseded(true)
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, Aggregate, AggregateUDF, AggregateUDFImpl, Expr, Extension, LogicalPlan,
    Projection, Signature, Volatility, lit,
};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use highwater_core::{Error, Result};

use super::recipe::is_session;
use crate::nodes::Observe;

/// The name of the column.
const SUPERSEDED: &str = "superseded";
/// Its name within the plan, where a column of the user's may have the other.
const WITHIN: &str = "__session_superseded";

/// The aggregate function; it knows the type of a session's start and end.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Superseded {
    time: DataType,
    signature: Signature,
}

impl AggregateUDFImpl for Superseded {
    fn name(&self) -> &str {
        "session_superseded"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _args: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::List(item(&self.time)))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
        Err(Error::internal("only the operator of sessions knows what a session supersedes").into())
    }
}

/// The field of an element of the column.
pub(super) fn item(time: &DataType) -> FieldRef {
    let bound = |name: &str| Field::new(name, time.clone(), false);
    let session = DataType::Struct(vec![bound("start"), bound("end")].into());
    Arc::new(Field::new_list_field(session, true))
}

/// True for the function of [`superseded`].
pub(super) fn is_superseded(expr: &AggregateFunctionExpr) -> bool {
    expr.fun().inner().is::<Superseded>()
}

/// The sessions that a session replaces, as an aggregate; `time` is the type of its start.
pub(crate) fn superseded(time: DataType) -> Expr {
    AggregateUDF::new_from_impl(Superseded {
        time,
        signature: Signature::any(1, Volatility::Immutable),
    })
    .call(vec![lit(true)])
}

/// `plan`, which is to run in update mode, with the column `superseded` at its end; a plan without sessions
/// as it is.
///
/// # Errors
/// `Unsupported` when something stands above the sessions that cannot hand the column on; `Invalid` when
/// the result has a column of that name.
pub(crate) fn with_superseded(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_sessions(&plan) {
        return Ok(plan);
    }
    let mut exprs: Vec<_> = columns(plan.schema()).map(Expr::Column).collect();
    if columns(plan.schema()).any(|column| column.name == SUPERSEDED) {
        return Err(Error::invalid(format!(
            "a column is called `{SUPERSEDED}`, and sessions in update mode bring one of that name"
        ))
        .with_column(SUPERSEDED)
        .with_hint("give your column another name"));
    }
    let (plan, column) = lift(plan)?;
    exprs.push(Expr::Column(column).alias(SUPERSEDED));
    let projection = Projection::try_new(exprs, Arc::new(plan))?;
    Ok(LogicalPlan::Projection(projection))
}

fn columns(schema: &DFSchema) -> impl Iterator<Item = Column> + '_ {
    schema.iter().map(Column::from)
}

fn has_sessions(plan: &LogicalPlan) -> bool {
    let here =
        matches!(plan, LogicalPlan::Aggregate(aggregate) if session_time(aggregate).is_some());
    here || plan.inputs().into_iter().any(has_sessions)
}

/// The type of the start of the sessions that `aggregate` groups by.
fn session_time(aggregate: &Aggregate) -> Option<DataType> {
    let groups = aggregate.group_expr.len();
    let mut fields = aggregate.schema.fields().iter().take(groups);
    match fields.find(|field| is_session(field))?.data_type() {
        DataType::Struct(bounds) => Some(bounds.first()?.data_type().clone()),
        _ => None,
    }
}

/// The plan with one column more, and that column.
fn lift(plan: LogicalPlan) -> Result<(LogicalPlan, Column)> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let Some(time) = session_time(&aggregate) else {
                return Err(in_the_way("an aggregate"));
            };
            let Aggregate {
                input,
                group_expr,
                mut aggr_expr,
                ..
            } = aggregate;
            aggr_expr.push(superseded(time).alias(WITHIN));
            let aggregate = Aggregate::try_new(input, group_expr, aggr_expr)?;
            Ok((LogicalPlan::Aggregate(aggregate), Column::from_name(WITHIN)))
        }
        LogicalPlan::Projection(projection) => {
            let (input, column) = lift(Arc::unwrap_or_clone(projection.input))?;
            let mut exprs = projection.expr;
            // Without an alias of the same name: DataFusion's optimizer may take the two for two columns.
            exprs.push(Expr::Column(column.clone()));
            let projection = Projection::try_new(exprs, Arc::new(input))?;
            Ok((LogicalPlan::Projection(projection), column))
        }
        plan @ (LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_)) => lift_through(&plan),
        LogicalPlan::Extension(Extension { node }) if node.as_any().is::<Observe>() => {
            lift_through(&LogicalPlan::Extension(Extension { node }))
        }
        other => Err(in_the_way(&format!("`{}`", other.display()))),
    }
}

/// Through a node that hands all columns of its one input on.
fn lift_through(plan: &LogicalPlan) -> Result<(LogicalPlan, Column)> {
    let inputs = plan.inputs().into_iter().cloned();
    let inputs = inputs
        .map(|input| Ok(lift(input)?.0))
        .collect::<Result<Vec<_>>>()?;
    let plan = plan.with_new_exprs(plan.expressions(), inputs)?;
    let last = columns(plan.schema()).last();
    let column = last.ok_or_else(|| Error::internal("a plan of sessions without columns"))?;
    Ok((plan, column))
}

fn in_the_way(what: &str) -> Error {
    Error::unsupported(format!(
        "{what} above session_window in update output mode: it cannot hand the column `{SUPERSEDED}` on"
    ))
    .with_hint("use the append output mode, or leave to a query of its own what comes after the sessions")
}
