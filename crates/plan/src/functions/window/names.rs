//! `window.start` and the bare `window` in SQL text: names for the window the query groups by.
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
        name_items(&mut select.projection, call.is_some());
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

/// Gives unnamed items the names they have in Spark; two windows keep DataFusion's names, which differ.
fn name_items(items: &mut [SelectItem], grouped: bool) {
    let is_call = |item: &&mut SelectItem| matches!(item, SelectItem::UnnamedExpr(Expr::Function(call)) if is_window(call));
    let one_call = items.iter_mut().filter(is_call).count() == 1;
    for item in items {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let name = match &*expr {
            Expr::Function(call) if one_call && is_window(call) => WINDOW.to_string(),
            Expr::Identifier(ident) if grouped && names_window(ident) => WINDOW.to_string(),
            Expr::CompoundIdentifier(parts) if parts.len() == 2 && names_window(&parts[0]) => {
                parts[1].value.clone()
            }
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: Ident::new(name),
        };
    }
}

fn is_window(call: &Function) -> bool {
    call.over.is_none()
        && matches!(&call.args, FunctionArguments::List(list) if list.args.len() > 1)
        && matches!(call.name.0.as_slice(), [part] if part.as_ident().is_some_and(names_window))
}

fn names_window(ident: &Ident) -> bool {
    ident.value.eq_ignore_ascii_case(WINDOW)
}

/// The one window the SELECT groups by; `None` when there is none, or two, or names would be ambiguous.
fn grouping_window(select: &Select) -> Option<Expr> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else {
        return None;
    };
    let mut calls = Calls::default();
    if Visit::visit(keys, &mut calls).is_break() {
        return None;
    }
    let call = calls.0?;
    let mut mentions = Mentions;
    let Expr::Function(function) = &call else {
        return None;
    };
    match Visit::visit(&function.args, &mut mentions) {
        ControlFlow::Continue(()) => Some(call),
        ControlFlow::Break(()) => None,
    }
}

/// Finds window calls; breaks at a second that differs.
#[derive(Default)]
struct Calls(Option<Expr>);

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(call) if is_window(call)) {
            if self.0.as_ref().is_some_and(|first| first != expr) {
                return ControlFlow::Break(());
            }
            self.0 = Some(expr.clone());
        }
        ControlFlow::Continue(())
    }
}

/// Breaks when an expression speaks of a column `window`.
struct Mentions;

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) if names_window(ident) => ControlFlow::Break(()),
            Expr::CompoundIdentifier(parts) if parts.iter().any(names_window) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Puts the call in place of its names, not in subqueries.
struct Names<'a> {
    call: &'a Expr,
    subqueries: u32,
}

impl<'a> Names<'a> {
    fn new(call: &'a Expr) -> Self {
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
            Expr::Identifier(ident) if names_window(ident) => self.call.clone(),
            Expr::CompoundIdentifier(parts) if parts.len() == 2 && names_window(&parts[0]) => {
                Expr::CompoundFieldAccess {
                    root: Box::new(self.call.clone()),
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
