//! The analyzer rule that turns `window(…)` into plain operators, for batch and streaming queries alike.
//!
//! ```text
//!  Aggregate [window(ts, 10 s), k]        Projection [window_of_start(#0) AS "window(…)", k, …]
//!    input                         ──►      Aggregate [window_start(ts), k]
//!                                             Filter ts IS NOT NULL
//!                                               input
//! ```
//! With overlapping windows an Unnest between makes one row per window, or the aggregate groups by
//! [panes](super::panes). The columns that come out keep their names, so that nothing above notices.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, UnnestOptions};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Projection, ident,
};
use datafusion::optimizer::AnalyzerRule;
use highwater_core::Error;

use super::kernels::{Part, call, call_in_place};
use super::{WINDOW, WindowArguments, panes};
use crate::event_time::EventTime;
use crate::functions::session_window::{self, is_session};

/// The column of starts that sliding windows are unnested into.
const STARTS: &str = "__window_start";

/// Expands `window(…)` below the node that uses it.
#[derive(Debug)]
pub struct ExpandWindows {
    /// Sliding windows of a stream share panes where they can.
    pub(crate) shared_panes: bool,
}

impl Default for ExpandWindows {
    fn default() -> Self {
        Self { shared_panes: true }
    }
}

impl AnalyzerRule for ExpandWindows {
    fn name(&self) -> &str {
        "expand_windows"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let expanded = plan.transform_up_with_subqueries(|node| self.expand(node))?;
        if !expanded.transformed {
            return Ok(expanded.data);
        }
        expanded
            .data
            .transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))
            .data()
    }
}

impl ExpandWindows {
    fn expand(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let Some(call) = the_window_of(&plan)? else {
            return Ok(Transformed::no(plan));
        };
        if is_session(&call) {
            return match plan {
                LogicalPlan::Aggregate(aggregate) => {
                    session_window::under_aggregate(aggregate, &call)
                }
                _ => Err(session_window::not_a_key().into()),
            }
            .map(Transformed::yes);
        }
        let expanded = match plan {
            LogicalPlan::Aggregate(aggregate) => {
                let mut windows = Windows::try_new(&call, aggregate.input.schema())?;
                if self.shared_panes && panes::apply(&aggregate, windows.arguments)? {
                    windows = windows.of_panes();
                }
                windows.under_aggregate(aggregate)?
            }
            LogicalPlan::Projection(projection) => {
                Windows::try_new(&call, projection.input.schema())?.under_projection(projection)?
            }
            LogicalPlan::Filter(filter) => {
                Windows::try_new(&call, filter.input.schema())?.under_filter(filter)?
            }
            other => {
                return Err(Error::unsupported(format!(
                    "window(…) cannot be used in {}",
                    other.display()
                ))
                .with_operator(WINDOW)
                .with_hint("use it in SELECT, WHERE or GROUP BY, and its column elsewhere")
                .into());
            }
        };
        Ok(Transformed::yes(expanded))
    }
}

/// The one `window` or `session_window` call in the node's expressions.
///
/// # Errors
/// `Unsupported` when there are two that differ (Spark).
fn the_window_of(plan: &LogicalPlan) -> Result<Option<ScalarFunction>> {
    let mut found: Option<ScalarFunction> = None;
    plan.apply_expressions(|root| {
        root.apply(|expr| match expr {
            Expr::ScalarFunction(call) if is_window(call) || is_session(call) => {
                if found.as_ref().is_some_and(|first| first != call) {
                    return Err(two_windows().into());
                }
                found.get_or_insert_with(|| call.clone());
                Ok(TreeNodeRecursion::Jump)
            }
            _ => Ok(TreeNodeRecursion::Continue),
        })
    })?;
    Ok(found)
}

pub(super) fn is_window(call: &ScalarFunction) -> bool {
    call.func.inner().is::<super::marker::Window>()
}

fn two_windows() -> Error {
    Error::unsupported(
        "Multiple time/session window expressions would result in a cartesian product of rows, \
         therefore they are currently not supported.",
    )
    .with_condition("UNSUPPORTED_FEATURE.MULTIPLE_WINDOW_EXPRESSIONS")
    .with_operator(WINDOW)
    .with_hint("use one window in a query, and another in a query around it")
}

/// One `window` call, and what stands for it.
struct Windows {
    /// The time argument.
    time: Expr,
    arguments: WindowArguments,
    /// The start of a row's window, above [`Windows::input`]: marked as event time where the time is.
    start: Expr,
    /// The time is event time.
    marked: bool,
    /// The starts are those of panes; the aggregate gives windows all the same.
    panes: bool,
}

impl Windows {
    /// The windows of `call`, whose arguments are of `input`.
    fn try_new(window: &ScalarFunction, input: &DFSchema) -> Result<Self> {
        let lengths: Vec<Option<&ScalarValue>> = window.args[1..]
            .iter()
            .map(|argument| match argument {
                Expr::Literal(value, _) => Some(value),
                _ => None,
            })
            .collect();
        let arguments = WindowArguments::parse(&lengths)?;
        let time = window.args[0].clone();
        let mark = EventTime::of(&time.to_field(input)?.1);
        let start = if arguments.is_tumbling() {
            call(Part::Start, arguments, time.clone())
        } else if mark.is_some() {
            // Unnest takes the mark off.
            let span = Some(arguments.span(false));
            let mark = EventTime { span };
            call(Part::Marked(Some(mark)), arguments, ident(STARTS))
        } else {
            ident(STARTS)
        };
        Ok(Self {
            time,
            arguments,
            start,
            marked: mark.is_some(),
            panes: false,
        })
    }

    /// The same windows, made of panes by the aggregate.
    fn of_panes(self) -> Self {
        Self {
            start: call(Part::Pane, self.arguments, self.time.clone()),
            panes: true,
            ..self
        }
    }

    /// `input` without the rows that have no time, and with one row per window.
    fn input(&self, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
        let builder = LogicalPlanBuilder::from(Arc::unwrap_or_clone(input))
            .filter(self.time.clone().is_not_null())?;
        if self.arguments.is_tumbling() || self.panes {
            return builder.build();
        }
        let mut columns = columns_of(builder.plan());
        columns.push(call(Part::Starts, self.arguments, self.time.clone()).alias(STARTS));
        builder
            .project(columns)?
            .unnest_column_with_options(
                Column::new_unqualified(STARTS),
                UnnestOptions::new().with_preserve_nulls(false),
            )?
            .build()
    }

    fn under_aggregate(&self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let Aggregate {
            input,
            group_expr,
            aggr_expr,
            schema,
            ..
        } = aggregate;
        let keys: Vec<bool> = grouping_set_to_exprlist(&group_expr)?
            .into_iter()
            .map(|key| matches!(key.clone().unalias(), Expr::ScalarFunction(call) if is_window(&call)))
            .collect();
        let group = group_expr
            .into_iter()
            .map(|expr| self.group_key(expr))
            .collect::<Result<Vec<_>>>()?;
        let aggregates = aggr_expr
            .into_iter()
            .map(|expr| self.named(expr))
            .collect::<Result<Vec<_>>>()?;
        let inner = Aggregate::try_new(Arc::new(self.input(input)?), group, aggregates)?;
        let call = match self.panes {
            false => call,
            true => call_in_place,
        };
        renamed(inner, &schema, |i, column| {
            let whole = keys.get(i).is_some_and(|is_window| *is_window);
            whole.then(|| call(Part::Window, self.arguments, column.clone()))
        })
    }

    fn under_projection(&self, projection: Projection) -> Result<LogicalPlan> {
        let exprs = projection
            .expr
            .into_iter()
            .map(|expr| self.named(expr))
            .collect::<Result<Vec<_>>>()?;
        let input = Arc::new(self.input(projection.input)?);
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, input)?))
    }

    fn under_filter(&self, filter: Filter) -> Result<LogicalPlan> {
        let columns = columns_of(&filter.input);
        let predicate = self.replaced(filter.predicate)?.data;
        LogicalPlanBuilder::from(self.input(filter.input)?)
            .filter(predicate)?
            .project(columns)?
            .build()
    }

    /// A grouping key: a whole window becomes its start, what is computed from one keeps its name.
    fn group_key(&self, expr: Expr) -> Result<Expr> {
        match expr {
            Expr::Alias(alias) if matches!(alias.expr.as_ref(), Expr::ScalarFunction(call) if is_window(call)) => {
                Ok(self.start.clone())
            }
            Expr::ScalarFunction(window) if is_window(&window) => Ok(self.start.clone()),
            Expr::GroupingSet(set) => Expr::GroupingSet(set)
                .map_children(|key| self.group_key(key).map(Transformed::yes))
                .data(),
            other => self.named(other),
        }
    }

    /// The expression with the window replaced, under the name it had.
    fn named(&self, expr: Expr) -> Result<Expr> {
        let (qualifier, name) = expr.qualified_name();
        let replaced = self.replaced(expr)?;
        if !replaced.transformed
            || replaced.data.qualified_name() == (qualifier.clone(), name.clone())
        {
            return Ok(replaced.data);
        }
        Ok(replaced.data.alias_qualified(qualifier, name))
    }

    /// The start of a row's window by itself, which is not event time (Spark).
    fn plain_start(&self) -> Expr {
        let start = self.start.clone();
        match self.marked {
            false => start,
            true => call(Part::Marked(None), self.arguments, start),
        }
    }

    /// `window(…)` computed from its start; `.start` and `.end` of it without the struct.
    fn replaced(&self, expr: Expr) -> Result<Transformed<Expr>> {
        expr.transform_down(|expr| {
            let Expr::ScalarFunction(function) = &expr else {
                return Ok(Transformed::no(expr));
            };
            if is_window(function) {
                let whole = call(Part::Window, self.arguments, self.start.clone());
                return Ok(Transformed::new(whole, true, TreeNodeRecursion::Jump));
            }
            let field = match (function.func.name(), function.args.as_slice()) {
                ("get_field", [Expr::ScalarFunction(inner), Expr::Literal(name, _)])
                    if is_window(inner) =>
                {
                    name.try_as_str().flatten()
                }
                _ => None,
            };
            let part = match field {
                Some("start") => self.plain_start(),
                Some("end") => call(Part::End, self.arguments, self.start.clone()),
                _ => return Ok(Transformed::no(expr)),
            };
            Ok(Transformed::new(part, true, TreeNodeRecursion::Jump))
        })
    }
}

/// `inner` under a projection that gives its columns the names in `schema`; `rebuilt` tells what stands in
/// place of the column at an index.
pub(in crate::functions) fn renamed(
    inner: Aggregate,
    schema: &DFSchema,
    rebuilt: impl Fn(usize, &Expr) -> Option<Expr>,
) -> Result<LogicalPlan> {
    let outputs = schema
        .iter()
        .zip(inner.schema.columns())
        .enumerate()
        .map(|(i, ((qualifier, field), column))| {
            let output = Expr::Column(column.clone());
            match rebuilt(i, &output) {
                Some(rebuilt) => rebuilt.alias_qualified(qualifier.cloned(), field.name()),
                None if column == Column::from((qualifier, field)) => output,
                None => output.alias_qualified(qualifier.cloned(), field.name()),
            }
        })
        .collect();
    let projection = Projection::try_new(outputs, Arc::new(LogicalPlan::Aggregate(inner)))?;
    Ok(LogicalPlan::Projection(projection))
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect()
}
