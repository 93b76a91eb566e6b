//! Plans the relations that `relation.rs` makes of `STREAM t` and `t WATERMARK ts DELAY OF …`, and
//! `table_functions.rs` of `TUMBLE(…)` and its kin.

use datafusion::error::Result as DataFusionResult;
use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::Expr;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, Query, SetExpr, Spanned,
    TableFactor, Value,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use highwater_plan::functions::WindowSpec;
use highwater_plan::functions::window::{sliding, window, window_end};
use highwater_plan::{is_streaming, nodes};

use super::cursor::Written;
use super::words::at_location;
use crate::{Error, IntoInterval, Result};

/// The function that stands for STREAM; nobody types it by chance.
pub(super) const STREAM: &str = "highwater.stream";
/// The function that stands for WATERMARK.
pub(super) const WATERMARK: &str = "highwater.watermark";
/// The function that stands for TUMBLE and HOP.
pub(super) const WINDOW: &str = "highwater.window";
/// The function that stands for SESSION.
pub(super) const SESSION: &str = "highwater.session";
/// The function that stands for DROP_DUPLICATES.
pub(super) const DISTINCT: &str = "highwater.distinct";
/// The function that stands for DROP_DUPLICATES_WITHIN_WATERMARK.
pub(super) const DISTINCT_WITHIN: &str = "highwater.distinct_within";

/// Plans these functions.
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
        let plan = plan(form, input, context)?;
        let TableFactor::Table { alias, .. } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let planned = PlannedRelation::new(plan, alias);
        Ok(RelationPlanning::Planned(Box::new(planned)))
    }
}

/// What the form makes of its input.
fn plan(
    form: Form<'_>,
    input: LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> DataFusionResult<LogicalPlan> {
    Ok(match form {
        Form::Stream(stream) => must_stream(input, stream.input)?,
        Form::Watermark { column, delay, .. } => {
            let named = column_of(column, &input, context)?;
            watermark(input, &named, delay).map_err(|e| at_location(e, column.span().start))?
        }
        Form::Window { time, lengths, .. } => {
            let of = column_of(time, &input, context)?;
            windows(input, of, &lengths).map_err(|e| at_location(e, time.span().start))?
        }
        Form::Distinct { keys, within, .. } => {
            let mut columns = Vec::new();
            for key in &keys {
                columns.push(column_of(key, &input, context)?);
            }
            let place = keys
                .first()
                .map_or(Location::empty(), |key| key.span().start);
            distinct(input, &columns, within).map_err(|e| at_location(e, place))?
        }
        Form::Session { time, .. } => {
            let error = super::sessions::needs_group_by();
            return Err(at_location(error, time.span().start).into());
        }
    })
}

/// The expression as one of the input's; what is not there is told at its place.
fn column_of(
    expr: &SqlExpr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> DataFusionResult<Expr> {
    let planned = context.sql_to_expr(expr.clone(), input.schema());
    let place = expr.span().start;
    Ok(planned.map_err(|e| at_location(e.into(), place))?)
}

/// A relation that `relation.rs` or `table_functions.rs` has made.
pub(super) enum Form<'a> {
    /// `STREAM t`.
    Stream(StreamForm<'a>),
    /// `t WATERMARK column DELAY OF delay`.
    Watermark {
        input: &'a Query,
        column: &'a SqlExpr,
        delay: &'a str,
    },
    /// `TUMBLE` and `HOP`: the lengths are those of `window`.
    Window {
        input: &'a Query,
        time: &'a SqlExpr,
        lengths: Vec<&'a str>,
    },
    /// `SESSION`.
    Session {
        input: &'a Query,
        time: &'a SqlExpr,
        gap: &'a SqlExpr,
        partition_by: Vec<&'a SqlExpr>,
    },
    /// `DROP_DUPLICATES` and its kin.
    Distinct {
        input: &'a Query,
        keys: Vec<&'a SqlExpr>,
        within: bool,
    },
}

/// `STREAM t WITH (options) IDENTIFIED BY identity`.
pub(super) struct StreamForm<'a> {
    /// The query that reads `t`.
    pub(super) input: &'a Query,
    pub(super) identity: Option<String>,
    pub(super) options: Vec<Written>,
}

impl<'a> StreamForm<'a> {
    fn of(input: &'a Query, args: impl Iterator<Item = &'a SqlExpr>) -> Option<Self> {
        let args: Vec<&SqlExpr> = args.collect();
        let identity = args.first().and_then(|e| text(e)).filter(|i| !i.is_empty());
        let pairs = args.get(1..).unwrap_or_default().chunks_exact(2);
        let options = pairs.map(|pair| {
            Some(Written {
                key: text(pair[0])?.to_owned(),
                value: text(pair[1])?.to_owned(),
                place: pair[0].span().start,
            })
        });
        Some(Self {
            input,
            identity: identity.map(str::to_owned),
            options: options.collect::<Option<_>>()?,
        })
    }
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
        let function = function(name)?;
        let mut args = args.args.iter().map_while(argument);
        let Some(SqlExpr::Subquery(input)) = args.next() else {
            return None;
        };
        Some(match function {
            STREAM => Self::Stream(StreamForm::of(input, args)?),
            WATERMARK => Self::Watermark {
                input,
                column: args.next()?,
                delay: text(args.next()?)?,
            },
            WINDOW => Self::Window {
                input,
                time: args.next()?,
                lengths: args.map(text).collect::<Option<_>>()?,
            },
            SESSION => Self::Session {
                input,
                time: args.next()?,
                gap: args.next()?,
                partition_by: args.collect(),
            },
            DISTINCT | DISTINCT_WITHIN => Self::Distinct {
                input,
                keys: args.collect(),
                within: function == DISTINCT_WITHIN,
            },
            _ => return None,
        })
    }

    /// The query that gives the rows.
    pub(super) fn input(&self) -> &'a Query {
        match self {
            Self::Stream(stream) => stream.input,
            Self::Watermark { input, .. }
            | Self::Window { input, .. }
            | Self::Session { input, .. }
            | Self::Distinct { input, .. } => input,
        }
    }
}

/// The relation that the form's query reads.
pub(super) fn inner_mut(relation: &mut TableFactor) -> Option<&mut TableFactor> {
    let TableFactor::Table {
        args: Some(args), ..
    } = relation
    else {
        return None;
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Subquery(query)))) =
        args.args.first_mut()
    else {
        return None;
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    select.from.first_mut().map(|from| &mut from.relation)
}

fn text(expr: &SqlExpr) -> Option<&str> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
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
    super::declare::DeclaredTable::must_be_readable(&input)?;
    if is_streaming(&input) {
        return Ok(input);
    }
    let name = match query.body.as_ref() {
        SetExpr::Select(select) => select.from.first().map(|from| from.to_string()),
        _ => None,
    };
    let name = name
        .filter(|name| !name.contains("highwater."))
        .unwrap_or_default();
    let error = Error::unsupported(format!("STREAM over a table that does not stream: {name}"));
    Err(at_location(error, query.body.span().start)
        .with_operator("STREAM")
        .with_hint("leave the word out to read the table as it is, or declare it with CREATE UNBOUNDED EXTERNAL TABLE"))
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

/// The rows with the start and the end of their windows, one row for each window it is in.
fn windows(input: LogicalPlan, time: Expr, lengths: &[&str]) -> Result<LogicalPlan> {
    let spec: WindowSpec = match *lengths {
        [size] => size.into(),
        [size, slide] => sliding(size, slide),
        [size, slide, start] => sliding(size, slide).starting_at(start),
        _ => return Err(Error::internal("a window has one to three lengths")),
    };
    let call = window(time, spec).unalias();
    let mut columns: Vec<Expr> = input
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    columns.push(call.clone().field("start").alias("window_start"));
    columns.push(window_end(call).alias("window_end"));
    Ok(LogicalPlanBuilder::from(input).project(columns)?.build()?)
}

/// The first row of each key.
fn distinct(input: LogicalPlan, keys: &[Expr], within: bool) -> Result<LogicalPlan> {
    let names: Result<Vec<String>> = keys
        .iter()
        .map(|key| match key {
            Expr::Column(column) => Ok(column.quoted_flat_name()),
            other => Err(Error::invalid(format!("`{other}` is no column")).with_operator("dedup")),
        })
        .collect();
    let names = names?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes::deduplicate(input, &names, within)
}
