//! Spark ignores the case of column names; DataFusion folds unquoted names and then compares exactly.
//!
//! Under Spark's semantics an unquoted name that is no column as DataFusion folds it, but is one when case is
//! ignored, is replaced by that column's quoted name. Only names that the FROM clause can be asked for are
//! touched: tables, subqueries and names from WITH.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
    VisitMut, VisitorMut,
};

use super::planner::Form;
use crate::Result;

/// Replaces names that differ from their column by case only.
///
/// # Errors
/// When a catalog cannot be asked.
pub(super) async fn ignore_case(state: &SessionState, statement: &mut Statement) -> Result<()> {
    let mut tables = Names::new();
    for reference in state.resolve_table_references(statement)? {
        let Ok(schema) = state.schema_for_ref(reference.clone()) else {
            continue;
        };
        if let Some(table) = schema.table(reference.table()).await? {
            tables.insert(reference.table().to_lowercase(), Some(columns(&*table)));
        }
    }
    let folded = |names: &Vec<String>| names.iter().all(|name| *name == name.to_lowercase());
    if tables.values().flatten().all(folded) {
        return Ok(()); // folding alone is right
    }
    match statement {
        Statement::Statement(statement) => {
            let _walked = statement.visit(&mut Queries(vec![tables]));
        }
        Statement::Explain(explain) => {
            if let Statement::Statement(inner) = explain.statement.as_mut() {
                let _walked = inner.visit(&mut Queries(vec![tables]));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The columns of each name a FROM clause may use; `None` where they are not known.
type Names = HashMap<String, Option<Vec<String>>>;

fn columns(table: &dyn TableProvider) -> Vec<String> {
    let schema = table.schema();
    schema.fields().iter().map(|f| f.name().clone()).collect()
}

/// Visits each query with the names it can see on top of the stack.
struct Queries(Vec<Names>);

impl VisitorMut for Queries {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let names = seen_by(query, self.0.last());
        if let SetExpr::Select(select) = query.body.as_ref() {
            let scope = Scope::of(&select.from, &names);
            let mut rename = Rename {
                scope: &scope,
                spared: aliases(select),
                subqueries: 0,
            };
            if let Some(order_by) = &mut query.order_by {
                order_by.visit(&mut rename)?;
            }
        }
        self.0.push(names);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.0.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let Some(names) = self.0.last() else {
            return ControlFlow::Continue(());
        };
        let scope = Scope::of(&select.from, names);
        let mut rename = Rename {
            scope: &scope,
            spared: Vec::new(),
            subqueries: 0,
        };
        for item in &mut select.projection {
            item.visit(&mut rename)?;
        }
        for from in &mut select.from {
            event_time(&mut from.relation, names)?;
            for join in &mut from.joins {
                event_time(&mut join.relation, names)?;
                join.join_operator.visit(&mut rename)?;
            }
        }
        select.selection.visit(&mut rename)?;
        rename.spared = aliases(select);
        select.group_by.visit(&mut rename)?;
        select.having.visit(&mut rename)?;
        select.qualify.visit(&mut rename)
    }
}

/// What `outer` knows, and the query's own WITH.
fn seen_by(query: &Query, outer: Option<&Names>) -> Names {
    let mut names = outer.cloned().unwrap_or_default();
    for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
        let columns = if cte.alias.columns.is_empty() {
            outputs(&cte.query, &names)
        } else {
            Some(cte.alias.columns.iter().map(|c| fold(&c.name)).collect())
        };
        names.insert(fold(&cte.alias.name).to_lowercase(), columns);
    }
    names
}

/// The names of the columns that come out of a query; `None` where they are not known.
fn outputs(query: &Query, outer: &Names) -> Option<Vec<String>> {
    let names = seen_by(query, Some(outer));
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::Select(select) => return outputs_of(select, &names),
            SetExpr::Query(query) => return outputs(query, &names),
            SetExpr::SetOperation { left, .. } => body = left,
            _ => return None,
        }
    }
}

fn outputs_of(select: &Select, names: &Names) -> Option<Vec<String>> {
    let scope = Scope::of(&select.from, names);
    let mut outputs = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => outputs.push(fold(alias)),
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                outputs.push(scope.meant(None, name).unwrap_or_else(|| fold(name)));
            }
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                let (name, table) = (parts.last()?, parts.first()?);
                let meant = scope.meant(Some(table), name);
                outputs.push(meant.unwrap_or_else(|| fold(name)));
            }
            SelectItem::UnnamedExpr(_) => {} // a name that nobody types
            SelectItem::Wildcard(_) => outputs.extend(scope.all()?),
            _ => return None,
        }
    }
    Some(outputs)
}

/// The aliases of a SELECT list: in GROUP BY, HAVING and ORDER BY they go before columns.
fn aliases(select: &Select) -> Vec<String> {
    let items = select.projection.iter();
    items
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        })
        .collect()
}

/// The tables of one FROM clause, by the names that qualify their columns.
struct Scope(Vec<(String, Option<Vec<String>>)>);

impl Scope {
    fn of(from: &[TableWithJoins], names: &Names) -> Self {
        let factors = from.iter().flat_map(|table| {
            let joined = table.joins.iter().map(|join| &join.relation);
            std::iter::once(&table.relation).chain(joined)
        });
        Self(factors.map(|factor| named(factor, names)).collect())
    }

    /// The column that `name` means, where it is spelled otherwise.
    fn meant(&self, table: Option<&Ident>, name: &Ident) -> Option<String> {
        if name.quote_style.is_some() {
            return None;
        }
        let table = table.map(fold);
        let mut tables = self
            .0
            .iter()
            .filter(|(called, _)| table.as_ref().is_none_or(|t| t == called));
        let mut found: Option<&String> = None;
        // A table whose columns are not known may have the name as it is.
        let known = tables.try_fold(Vec::new(), |mut all, (_, columns)| {
            all.extend(columns.as_ref()?);
            Some(all)
        })?;
        let folded = fold(name);
        for column in known {
            if *column == folded {
                return None;
            }
            if column.eq_ignore_ascii_case(&folded) {
                if found.is_some_and(|other| other != column) {
                    return None; // ambiguous: DataFusion's error tells the names
                }
                found = Some(column);
            }
        }
        found.cloned()
    }

    /// All columns, where all are known.
    fn all(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for (_, columns) in &self.0 {
            all.extend(columns.clone()?);
        }
        Some(all)
    }
}

/// Renames the columns of a WATERMARK clause or a DESCRIPTOR; the relation they are of is visited by itself.
fn event_time(factor: &mut TableFactor, names: &Names) -> ControlFlow<()> {
    if matches!(Form::of(factor), None | Some(Form::Stream(_))) {
        return ControlFlow::Continue(());
    }
    let scope = Scope(vec![named(factor, names)]);
    let TableFactor::Table {
        args: Some(args), ..
    } = factor
    else {
        return ControlFlow::Continue(());
    };
    let mut rename = Rename {
        scope: &scope,
        spared: Vec::new(),
        subqueries: 0,
    };
    args.args.iter_mut().try_for_each(|a| a.visit(&mut rename))
}

fn named(factor: &TableFactor, names: &Names) -> (String, Option<Vec<String>>) {
    if let (Some(form), TableFactor::Table { alias, .. }) = (Form::of(factor), factor) {
        let called = alias.as_ref().map(|a| fold(&a.name));
        let inner = || match form.input().body.as_ref() {
            SetExpr::Select(select) => Scope::of(&select.from, names).0.into_iter().next(),
            _ => None,
        };
        let called = called.or_else(|| inner().map(|(name, _)| name));
        return (called.unwrap_or_default(), outputs(form.input(), names));
    }
    match factor {
        TableFactor::Table { name, alias, .. } => {
            let columns = last(name).and_then(|n| names.get(&n).cloned()).flatten();
            let called = alias.as_ref().map(|a| fold(&a.name));
            (called.or_else(|| last(name)).unwrap_or_default(), columns)
        }
        TableFactor::Derived {
            subquery, alias, ..
        } => {
            let called = alias.as_ref().map(|a| fold(&a.name));
            (called.unwrap_or_default(), outputs(subquery, names))
        }
        _ => (String::new(), None),
    }
}

fn last(name: &ObjectName) -> Option<String> {
    let part = name.0.last()?.as_ident()?;
    Some(part.value.to_lowercase())
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// Puts the columns' own names in place, not in subqueries: those are visited by themselves.
struct Rename<'a> {
    scope: &'a Scope,
    spared: Vec<String>,
    subqueries: u32,
}

impl VisitorMut for Rename<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.subqueries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.subqueries > 0 {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(name) if !self.spared.contains(&fold(name)) => {
                if let Some(meant) = self.scope.meant(None, name) {
                    *name = Ident::with_quote('"', meant);
                }
            }
            Expr::CompoundIdentifier(parts) => {
                if let [table, name, ..] = parts.as_mut_slice()
                    && let Some(meant) = self.scope.meant(Some(table), name)
                    && self
                        .scope
                        .0
                        .iter()
                        .any(|(called, _)| *called == fold(table))
                {
                    *name = Ident::with_quote('"', meant);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
