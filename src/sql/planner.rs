//! Plans the relations that `relation.rs` makes of `STREAM t` and `t WATERMARK ts DELAY OF …`.

use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::prelude::Expr;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, Query, Spanned, TableFactor, Value,
};
use highwater_plan::{is_streaming, nodes};

use super::words::at_location;
use crate::{Error, IntoInterval, Result};

/// The function that stands for STREAM; nobody types it by chance.
pub(super) const STREAM: &str = "highwater.stream";
/// The function that stands for WATERMARK.
pub(super) const WATERMARK: &str = "highwater.watermark";

/// Plans both functions.
#[derive(Debug, Default)]
pub(crate) struct StreamRelations;

impl RelationPlanner for StreamRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let Some(form) = Form::of(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = context.plan(TableFactor::Derived {
            lateral: false,
            subquery: Box::new(form.input().clone()),
            alias: None,
            sample: None,
        })?;
        let plan = match form {
            Form::Stream(query) => must_stream(input, query)?,
            Form::Watermark { column, delay, .. } => {
                let named = context.sql_to_expr(column.clone(), input.schema())?;
                watermark(input, &named, delay).map_err(|e| at_location(e, column.span().start))?
            }
        };
        let TableFactor::Table { alias, .. } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let planned = PlannedRelation::new(plan, alias);
        Ok(RelationPlanning::Planned(Box::new(planned)))
    }
}

/// A relation that `relation.rs` has made.
pub(super) enum Form<'a> {
    /// `STREAM t`, and the query that reads `t`.
    Stream(&'a Query),
    /// `t WATERMARK column DELAY OF delay`.
    Watermark {
        input: &'a Query,
        column: &'a SqlExpr,
        delay: &'a str,
    },
}

impl<'a> Form<'a> {
    pub(super) fn of(relation: &'a TableFactor) -> Option<Self> {
        let TableFactor::Table {
            name,
            args: Some(args),
            ..
        } = relation
        else {
            return None;
        };
        let mut args = args.args.iter().map(argument);
        let Some(SqlExpr::Subquery(input)) = args.next()? else {
            return None;
        };
        match function(name)? {
            STREAM => Some(Self::Stream(input)),
            WATERMARK => {
                let column = args.next()??;
                let SqlExpr::Value(delay) = args.next()?? else {
                    return None;
                };
                let Value::SingleQuotedString(delay) = &delay.value else {
                    return None;
                };
                Some(Self::Watermark {
                    input,
                    column,
                    delay,
                })
            }
            _ => None,
        }
    }

    /// The query that gives the rows.
    pub(super) fn input(&self) -> &'a Query {
        match self {
            Self::Stream(input) | Self::Watermark { input, .. } => input,
        }
    }
}

fn function(name: &ObjectName) -> Option<&str> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|ident| ident.value.as_str()),
        _ => None,
    }
}

fn argument(arg: &FunctionArg) -> Option<&SqlExpr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// STREAM says aloud that a table streams; it makes no stream of one that does not.
fn must_stream(input: LogicalPlan, query: &Query) -> Result<LogicalPlan> {
    if is_streaming(&input) {
        return Ok(input);
    }
    let error = Error::unsupported(format!("STREAM over a table that does not stream: {query}"));
    Err(at_location(error, query.body.span().start)
        .with_operator("STREAM")
        .with_hint(
            "leave the word out to read the table as it is, or read it with `read_stream()`",
        ))
}

/// The clause; on a batch table it is checked and does nothing (Spark).
fn watermark(input: LogicalPlan, column: &Expr, delay: &str) -> Result<LogicalPlan> {
    let Expr::Column(column) = column else {
        return Err(Error::invalid(format!(
            "The event time `{column}` must be a top-level column"
        ))
        .with_condition("EVENT_TIME_MUST_BE_TOP_LEVEL_COLUMN")
        .with_operator("watermark")
        .with_hint("give it a name: `WATERMARK expression AS ts DELAY OF …`"));
    };
    nodes::watermark(input, &column.quoted_flat_name(), delay.into_interval()?)
}
