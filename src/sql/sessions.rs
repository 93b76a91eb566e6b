//! `SESSION(TABLE t, DESCRIPTOR(ts), gap)` with GROUP BY: sessions are merged by the aggregate above, so here, on the
//! parsed statement, it becomes `session_window(ts, gap)` among the keys, and `window_start` and `window_end` its parts.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned,
    TableFactor, VisitMut, VisitorMut,
};
use highwater_plan::functions::session_window::SESSION_WINDOW;

use super::planner::Form;
use super::words::at_location;
use crate::{Error, Result};

/// Replaces each `SESSION(…)` below a GROUP BY of its `window_start` and `window_end`.
///
/// # Errors
/// `Unsupported`, with its place, where they are not grouped by.
pub(super) fn expand(statement: &mut Statement) -> Result<()> {
    let walked = match statement {
        Statement::Statement(statement) => statement.visit(&mut Selects),
        Statement::Explain(explain) => return expand(&mut explain.statement),
        _ => return Ok(()),
    };
    match walked {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// What is told where the sessions are not grouped by.
pub(super) fn needs_group_by() -> Error {
    Error::unsupported("`SESSION` without GROUP BY: a session is known once all its rows are")
        .with_operator("SESSION")
        .with_hint("group by `window_start, window_end` and the other keys in the same SELECT")
}

struct Selects;

impl VisitorMut for Selects {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let SetExpr::Select(select) = query.body.as_mut() else {
            return ControlFlow::Continue(());
        };
        match sessions(select) {
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
            Ok(Some(alias)) => {
                let mut parts = Parts { alias };
                if let Some(order_by) = &mut query.order_by {
                    order_by.visit(&mut parts)?;
                }
                ControlFlow::Continue(())
            }
        }
    }
}

/// Rewrites one SELECT; the alias of the sessions, when there were any.
fn sessions(select: &mut Select) -> Result<Option<Option<Ident>>> {
    let relations = select.from.iter_mut().flat_map(|from| {
        let joined = from.joins.iter_mut().map(|join| &mut join.relation);
        std::iter::once(&mut from.relation).chain(joined)
    });
    let mut found: Option<Found> = None;
    for relation in relations {
        let Some(one) = Found::take(relation)? else {
            continue;
        };
        if found.is_some() {
            let error = Error::unsupported("two `SESSION`s in one SELECT").with_operator("SESSION");
            return Err(at_location(error, one.time.span().start));
        }
        found = Some(one);
    }
    let Some(found) = found else {
        return Ok(None);
    };
    found.group(select)?;
    let mut parts = Parts {
        alias: found.alias.clone(),
    };
    for item in &mut select.projection {
        name_part(item, &parts);
        let _walked = item.visit(&mut parts);
    }
    let _walked = select.having.visit(&mut parts);
    Ok(Some(found.alias))
}

/// A `SESSION(…)` that was taken out of a FROM clause.
struct Found {
    time: Expr,
    gap: Expr,
    partition_by: Vec<Expr>,
    alias: Option<Ident>,
}

impl Found {
    fn take(relation: &mut TableFactor) -> Result<Option<Self>> {
        let Some(Form::Session {
            input,
            time,
            gap,
            partition_by,
        }) = Form::of(relation)
        else {
            return Ok(None);
        };
        let TableFactor::Table { alias, .. } = &*relation else {
            return Ok(None);
        };
        let found = Self {
            time: time.clone(),
            gap: gap.clone(),
            partition_by: partition_by.into_iter().cloned().collect(),
            alias: alias.as_ref().map(|alias| alias.name.clone()),
        };
        *relation = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(input.clone()),
            alias: alias.clone(),
            sample: None,
        };
        Ok(Some(found))
    }

    /// Puts the sessions among the keys, in the place of their start and end.
    fn group(&self, select: &mut Select) -> Result<()> {
        let place = self.time.span().start;
        let GroupByExpr::Expressions(keys, _) = &mut select.group_by else {
            return Err(at_location(needs_group_by(), place));
        };
        let before = keys.len();
        let first = keys
            .iter()
            .position(|key| part(key, self.alias.as_ref()).is_some());
        keys.retain(|key| part(key, self.alias.as_ref()).is_none());
        if let Some(first) = first.filter(|_| before - keys.len() == 2) {
            let first = first.min(keys.len());
            keys.insert(first, self.call());
        } else {
            return Err(at_location(needs_group_by(), place));
        }
        for key in &self.partition_by {
            if !keys.iter().any(|k| same_column(k, key)) {
                let error = Error::invalid(format!(
                    "the sessions are of each `{key}`, which is not among the keys"
                ))
                .with_operator("SESSION")
                .with_hint(format!("add `{key}` to GROUP BY"));
                return Err(at_location(error, key.span().start));
            }
        }
        Ok(())
    }

    /// `session_window(ts, gap)`.
    fn call(&self) -> Expr {
        let argument = |expr: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr.clone()));
        Expr::Function(Function {
            name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(SESSION_WINDOW))]),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args: vec![argument(&self.time), argument(&self.gap)],
                clauses: Vec::new(),
            }),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: Vec::new(),
        })
    }
}

/// The last parts of two names are the same.
fn same_column(a: &Expr, b: &Expr) -> bool {
    let last = |expr: &Expr| match expr {
        Expr::Identifier(ident) => Some(ident.value.to_lowercase()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|p| p.value.to_lowercase()),
        _ => None,
    };
    last(a).is_some() && last(a) == last(b)
}

/// `start` or `end` for `window_start` and `window_end`, with the alias or without.
fn part(expr: &Expr, alias: Option<&Ident>) -> Option<&'static str> {
    let ident = match expr {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, ident] if alias.is_some_and(|a| a.value.eq_ignore_ascii_case(&table.value)) => {
                ident
            }
            _ => return None,
        },
        _ => return None,
    };
    ["start", "end"]
        .into_iter()
        .find(|part| ident.value.eq_ignore_ascii_case(&format!("window_{part}")))
}

/// A part that is selected by itself keeps its name.
fn name_part(item: &mut SelectItem, parts: &Parts) {
    if let SelectItem::UnnamedExpr(expr) = item
        && let Some(part) = part(expr, parts.alias.as_ref())
    {
        *item = SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: Ident::new(format!("window_{part}")),
        };
    }
}

/// Puts `session_window.start` in the place of `window_start`.
struct Parts {
    alias: Option<Ident>,
}

impl VisitorMut for Parts {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Some(part) = part(expr, self.alias.as_ref()) {
            *expr = Expr::CompoundIdentifier(vec![Ident::new(SESSION_WINDOW), Ident::new(part)]);
        }
        ControlFlow::Continue(())
    }
}
