//! `window.start` and the bare `window` in SQL text: names for the window the query groups by. The same for
//! `session_window`.
//!
//! Spark's analyzer gives a query that groups by `window(ts, …)` a column `window`. DataFusion resolves names
//! before any rule of ours sees them, so here, on the parsed statement, each such name is replaced by the
//! call itself; the SQL planner then finds it among the grouping keys. Nothing is replaced where the
//! call's own arguments speak of a column `window`: that one comes from below.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem,
    SetExpr, Subscript, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::WINDOW;
use crate::functions::session_window::SESSION_WINDOW;

/// Replaces `window`, `window.start` and `window.end` in `statement` by the window call they mean,
/// and names an unnamed `window(…)` in a SELECT list `window`.
///
/// Call it between parsing and planning.
pub fn resolve_window_names(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => _ = VisitMut::visit(statement, &mut Selects),
        Statement::Explain(explain) => resolve_window_names(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

/// Visits each SELECT once, inner ones too.
struct Selects;

impl VisitorMut for Selects {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_ref()
            && let Some(call) = grouping_window(select)
            && let Some(order_by) = &mut query.order_by
        {
            return VisitMut::visit(order_by, &mut Names::new(&call));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let call = grouping_window(select);
        name_items(&mut select.projection, call.as_ref().map(|call| call.name));
        if let Some(call) = call {
            let mut names = Names::new(&call);
            for item in &mut select.projection {
                VisitMut::visit(item, &mut names)?;
            }
            VisitMut::visit(&mut select.having, &mut names)?;
            VisitMut::visit(&mut select.qualify, &mut names)?;
        }
        ControlFlow::Continue(())
    }
}

/// A window call and its name, which is that of its column too.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    expr: Expr,
    name: &'static str,
}

impl Call {
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::Function(function) = expr else {
            return None;
        };
        let name = name_of(function)?;
        let expr = expr.clone();
        Some(Self { expr, name })
    }
}

/// Gives unnamed items the names they have in Spark; two windows keep DataFusion's names, which differ.
/// `grouped` is the name of the window that is grouped by.
fn name_items(items: &mut [SelectItem], grouped: Option<&'static str>) {
    let call = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) => Call::of(expr).map(|call| call.name),
        _ => None,
    };
    let one_call = items.iter().filter_map(call).count() == 1;
    for item in items {
        let called = call(item);
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let name = match (&*expr, grouped) {
            (Expr::Function(_), _) if one_call && called.is_some() => called.map(str::to_owned),
            (Expr::Identifier(ident), Some(window)) if names(ident, window) => {
                Some(window.to_owned())
            }
            (Expr::CompoundIdentifier(parts), _)
                if parts.len() == 2 && names_a_window(&parts[0]).is_some() =>
            {
                Some(parts[1].value.clone())
            }
            _ => None,
        };
        if let Some(name) = name {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::new(name),
            };
        }
    }
}

/// The name of the window function that `call` is of.
fn name_of(call: &Function) -> Option<&'static str> {
    let [part] = call.name.0.as_slice() else {
        return None;
    };
    let has_arguments = matches!(&call.args, FunctionArguments::List(list) if list.args.len() > 1);
    if call.over.is_some() || !has_arguments {
        return None;
    }
    names_a_window(part.as_ident()?)
}

fn names_a_window(ident: &Ident) -> Option<&'static str> {
    [WINDOW, SESSION_WINDOW]
        .into_iter()
        .find(|name| names(ident, name))
}

fn names(ident: &Ident, name: &str) -> bool {
    ident.value.eq_ignore_ascii_case(name)
}

/// The one window the SELECT groups by; `None` when there is none, or two, or names would be ambiguous.
fn grouping_window(select: &Select) -> Option<Call> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else {
        return None;
    };
    let mut calls = Calls::default();
    if Visit::visit(keys, &mut calls).is_break() {
        return None;
    }
    let call = calls.0?;
    let mut mentions = Mentions(call.name);
    let Expr::Function(function) = &call.expr else {
        return None;
    };
    match Visit::visit(&function.args, &mut mentions) {
        ControlFlow::Continue(()) => Some(call),
        ControlFlow::Break(()) => None,
    }
}

/// Finds window calls; breaks at a second that differs.
#[derive(Default)]
struct Calls(Option<Call>);

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Some(call) = Call::of(expr) {
            if self.0.as_ref().is_some_and(|first| *first != call) {
                return ControlFlow::Break(());
            }
            self.0 = Some(call);
        }
        ControlFlow::Continue(())
    }
}

/// Breaks when an expression speaks of a column of that name.
struct Mentions(&'static str);

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) if names(ident, self.0) => ControlFlow::Break(()),
            Expr::CompoundIdentifier(parts) if parts.iter().any(|part| names(part, self.0)) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Puts the call in place of its names, not in subqueries.
struct Names<'a> {
    call: &'a Call,
    subqueries: u32,
}

impl<'a> Names<'a> {
    fn new(call: &'a Call) -> Self {
        Self {
            call,
            subqueries: 0,
        }
    }
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.subqueries > 0 {
            return ControlFlow::Continue(());
        }
        let meant = match &*expr {
            Expr::Identifier(ident) if names(ident, self.call.name) => self.call.expr.clone(),
            Expr::CompoundIdentifier(parts)
                if parts.len() == 2 && names(&parts[0], self.call.name) =>
            {
                Expr::CompoundFieldAccess {
                    root: Box::new(self.call.expr.clone()),
                    access_chain: vec![AccessExpr::Subscript(Subscript::Index {
                        index: Expr::value(Value::SingleQuotedString(parts[1].value.clone())),
                    })],
                }
            }
            _ => return ControlFlow::Continue(()),
        };
        *expr = meant;
        ControlFlow::Continue(())
    }
}
