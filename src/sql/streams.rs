//! `STREAM t`, with options and a name: what is not yet a stream is opened as one before the statement is planned.
//!
//! Planning cannot wait for I/O. So each `STREAM t` that needs a source of its own, because it brings options or a name
//! or because `t` is bounded, is looked up first; it then stands in the statement as a function without arguments
//! that gives the stream, as the tables of state do.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Cte, Ident, ObjectName, ObjectNamePart, Query, SetExpr, Spanned, TableAlias, TableFactor,
    TableFunctionArgs as Arguments, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use highwater_connectors::file::FileTable;
use highwater_plan::StreamTable;

use super::declare::{DeclaredTable, reopened};
use super::planner::{Form, StreamForm};
use super::words::at_location;
use crate::writer::table_files;
use crate::{Error, Options, Result, SourceSpec, StreamSession};

/// The stream of the table `name` with more options, or under a name of its own; `None` when the table is to be taken
/// as it is.
///
/// # Errors
/// What the source says; `Invalid` when the table takes no options or no name.
pub(crate) async fn stream_of(
    session: &StreamSession,
    name: &TableReference,
    options: Options,
    identity: Option<&str>,
) -> Result<Option<LogicalPlan>> {
    if !session.context().table_exist(name.clone())? {
        return Ok(None);
    }
    let table = session.context().table_provider(name.clone()).await?;
    let plain = options.is_empty() && identity.is_none();
    if let Some(declared) = DeclaredTable::of(&table) {
        let declared = declared.declared();
        if plain && declared.unbounded {
            return Ok(None);
        }
        if session.registry().source(&declared.format).is_err() {
            return Ok(None);
        }
        let source = declared.open(session, options).await?;
        return declared.stream(source, identity).map(Some);
    }
    if let Some(files) = files_of(session, &table).await? {
        let (clock, state) = (Arc::clone(session.clock()), session.state_for_files());
        let source = files.stream(options, clock, state).await?;
        return super::declare::stream(name.table(), source, identity).map(Some);
    }
    if let (Some(stream), Some(identity)) = (table.downcast_ref::<StreamTable>(), identity) {
        options.finish("a streaming table")?;
        let source = Arc::clone(stream.source());
        return super::declare::stream(name.table(), source, Some(identity)).map(Some);
    }
    options.finish("a view or a table of this kind")?;
    if identity.is_some() && !plain {
        return Err(Error::unsupported(format!(
            "a name for the source of `{name}`, which is no table of a source"
        ))
        .with_operator("IDENTIFIED BY")
        .with_hint("name the source where the view reads it"));
    }
    Ok(None)
}

/// The files of a table, when it is one of files.
async fn files_of(
    session: &StreamSession,
    table: &Arc<dyn TableProvider>,
) -> Result<Option<Arc<FileTable>>> {
    let any: Arc<dyn std::any::Any + Send + Sync> = Arc::<dyn TableProvider>::clone(table);
    if let Ok(files) = Arc::clone(&any).downcast::<FileTable>() {
        return Ok(Some(files));
    }
    let Some(listing) = table_files::read_listing(&*any, &session.state())? else {
        return Ok(None);
    };
    let clock = Arc::clone(session.clock());
    let mut spec = SourceSpec::new(listing.format, clock, session.state_for_files());
    spec.path = Some(listing.path);
    spec.schema = Some(crate::reader::nullable(&table.schema()));
    spec.options = listing.options;
    Ok(Some(Arc::new(FileTable::open(spec).await?)))
}

/// Opens the streams of a statement, and makes them known to `state`.
///
/// # Errors
/// As for [`stream_of`], with the place of the table or of the option.
pub(super) async fn resolve(
    session: &StreamSession,
    state: &mut SessionState,
    statement: &mut Statement,
) -> Result<()> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explain) => match explain.statement.as_mut() {
            Statement::Statement(inner) => inner,
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    reopen(session, statement).await?;
    let mut asked = Asked::default();
    if Visit::visit(&*statement, &mut asked).is_break() {
        return Ok(());
    }
    let mut made = Vec::new();
    for ask in &asked.streams {
        let opened = match &ask.table {
            Some(table) if !asked.ctes.contains(table.table()) => {
                let options = super::cursor::map(&ask.options);
                stream_of(session, table, options, ask.identity.as_deref()).await
            }
            _ if ask.options.is_empty() && ask.identity.is_none() => Ok(None),
            _ => Err(Error::invalid("options are for tables, not for queries")),
        };
        let plan = opened.map_err(|e| {
            let e = super::cursor::at_option(e, &ask.options);
            match e.position() {
                Some(_) => e,
                None => at_location(e, ask.place),
            }
        })?;
        let number = made.len();
        made.push(plan.map(|plan| {
            let name = format!("highwater.streamed.{number}");
            let view = ViewTable::new(plan, None);
            state.register_udtf(&name, Arc::new(Streamed(Arc::new(view))));
            name
        }));
    }
    let mut replace = Replace {
        made: made.into_iter(),
    };
    let _walked = VisitMut::visit(statement, &mut replace);
    Ok(())
}

/// Opens again what was not there when it was declared.
async fn reopen(
    session: &StreamSession,
    statement: &datafusion::sql::sqlparser::ast::Statement,
) -> Result<()> {
    let mut tables = Tables::default();
    let _walked = Visit::visit(statement, &mut tables);
    for name in tables.0 {
        let context = session.context();
        if !context.table_exist(name.clone()).unwrap_or(false) {
            continue;
        }
        let table = context.table_provider(name.clone()).await?;
        let Some(declared) = DeclaredTable::of(&table) else {
            continue;
        };
        if let Some(table) = reopened(session, &declared).await {
            context.deregister_table(name.clone())?;
            context.register_table(name, Arc::new(table))?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tables(HashSet<TableReference>);

impl Visitor for Tables {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.0.extend(reference(name));
        ControlFlow::Continue(())
    }
}

/// A `STREAM t`.
struct Ask {
    table: Option<TableReference>,
    options: Vec<super::cursor::Written>,
    identity: Option<String>,
    place: Location,
}

/// Collects them, in the order in which [`Replace`] comes by.
#[derive(Default)]
struct Asked {
    streams: Vec<Ask>,
    ctes: HashSet<String>,
}

impl Visitor for Asked {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes
            .extend(ctes.map(|cte: &Cte| fold(&cte.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let Some(Form::Stream(stream)) = Form::of(factor) {
            let StreamForm {
                input,
                identity,
                options,
            } = stream;
            let inner = inner(input);
            self.streams.push(Ask {
                table: inner.and_then(|(name, _)| reference(name)),
                place: input.body.span().start,
                options,
                identity,
            });
        }
        ControlFlow::Continue(())
    }
}

/// The table that `SELECT * FROM t` reads, when it reads one.
fn inner(query: &Query) -> Option<(&ObjectName, Option<&TableAlias>)> {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let [from] = select.from.as_slice() else {
        return None;
    };
    match &from.relation {
        TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } if from.joins.is_empty() => Some((name, alias.as_ref())),
        _ => None,
    }
}

/// Puts the functions in the place of the tables.
struct Replace<I> {
    made: I,
}

impl<I: Iterator<Item = Option<String>>> VisitorMut for Replace<I> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if !matches!(Form::of(factor), Some(Form::Stream(_))) {
            return ControlFlow::Continue(());
        }
        let Some(Some(stand_in)) = self.made.next() else {
            return ControlFlow::Continue(());
        };
        if let Some(TableFactor::Table {
            name, alias, args, ..
        }) = super::planner::inner_mut(factor)
        {
            let own = name.0.last().and_then(|part| part.as_ident().cloned());
            alias.get_or_insert_with(|| TableAlias {
                explicit: true,
                name: own.unwrap_or_else(|| Ident::new("stream")),
                columns: Vec::new(),
                at: None,
            });
            let stand_in = Ident::new(stand_in);
            *name = ObjectName(vec![ObjectNamePart::Identifier(stand_in)]);
            *args = Some(Arguments {
                args: Vec::new(),
                settings: None,
            });
        }
        ControlFlow::Continue(())
    }
}

/// The name as a reference, as DataFusion folds it.
pub(super) fn reference(name: &ObjectName) -> Option<TableReference> {
    let parts: Option<Vec<String>> = name.0.iter().map(|p| p.as_ident().map(fold)).collect();
    match parts?.as_slice() {
        [table] => Some(TableReference::bare(table.as_str())),
        [schema, table] => Some(TableReference::partial(schema.as_str(), table.as_str())),
        [catalog, schema, table] => Some(TableReference::full(
            catalog.as_str(),
            schema.as_str(),
            table.as_str(),
        )),
        _ => None,
    }
}

fn fold(ident: &Ident) -> String {
    super::cursor::fold(&ident.value, ident.quote_style.is_some())
}

/// A stream as a function without arguments.
#[derive(Debug)]
struct Streamed(Arc<dyn TableProvider>);

impl TableFunctionImpl for Streamed {
    fn call_with_args(&self, _args: TableFunctionArgs) -> DataFusionResult<Arc<dyn TableProvider>> {
        Ok(Arc::clone(&self.0))
    }
}
