//! SQL: DataFusion's, with the statements and forms that streams bring.
//!
//! ```text
//!  text ──► words ──► which statement? ──┬─► declare/     CREATE EXTERNAL TABLE
//!         position.rs   statement.rs     ├─► queries.rs   AWAIT, STOP, SHOW, DESCRIBE, EXPLAIN STREAMING QUERY
//!                        emit.rs         └─► all others:
//!
//!  words ──► TUMBLE(…) ──► STREAM, WATERMARK ──► parse ──► what is opened first ──► names of windows ──► plan ──► run or
//!       table_functions.rs    relation.rs       DFParser  state.rs, streams.rs     resolve_window_names  planner.rs  start.rs
//!                              later.rs refuses            sessions.rs
//! ```
//! One statement at a time. The text is parsed once by the session's own dialect; what is rewritten are words,
//! which keep their place, and the syntax tree, never the text, so that errors speak of what the user wrote.
//! Whatever goes wrong comes by [`Text::locate`](position::Text::locate): every error has a line and a column.

mod columns;
mod cursor;
mod declare;
mod emit;
mod interval;
mod later;
mod literals;
mod near;
mod planner;
mod position;
mod queries;
mod relation;
pub mod script;
mod sessions;
mod set;
mod start;
mod state;
mod statement;
mod streams;
mod table_functions;
mod words;

use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use highwater_plan::functions::window::resolve_window_names;

pub(crate) use declare::DeclaredTable;
pub(crate) use planner::StreamRelations;
pub(crate) use queries::Started;
pub(crate) use streams::stream_of;

use crate::{Error, OutputMode, Result, StreamFrame, StreamSession};
use cursor::{Cursor, Name};
use declare::Decision;
use position::Text;
use statement::{Other, Statement as Streaming};

/// Runs one statement; statements that change the session act at once, queries become a frame.
pub(crate) async fn run(session: &StreamSession, text: &str) -> Result<StreamFrame> {
    let state = session.state();
    let text = Text::read(text, &*dialect(&state)?)?;
    let done = Box::pin(act(session, state, text.words())).await;
    done.map_err(|error| text.locate(error, &session.state()))
}

fn dialect(state: &SessionState) -> Result<Box<dyn Dialect>> {
    let options = &state.config_options().sql_parser;
    dialect_from_str(options.dialect)
        .ok_or_else(|| Error::invalid(format!("unknown SQL dialect {}", options.dialect)))
}

async fn act(
    session: &StreamSession,
    state: SessionState,
    words: Vec<TokenWithSpan>,
) -> Result<StreamFrame> {
    match statement::parse(words.clone())? {
        Streaming::Other(other) => Box::pin(run_other(session, state, other)).await,
        Streaming::Declare(table) => match declare::decide(&table, &words, session, &state) {
            Decision::Ours => {
                Box::pin(declare::create(session, &table)).await?;
                nothing(session)
            }
            Decision::DataFusion(tokens) => {
                let other = Other {
                    tokens,
                    options: None,
                    emit: None,
                };
                Box::pin(run_other(session, state, other)).await
            }
        },
        Streaming::Create(create) => {
            let query = Box::pin(plan(session, state, create.query.clone())).await?;
            Box::pin(start::create(session, &create, query)).await
        }
        Streaming::Await(name, limit) => queries::wait(session, &name, limit).await,
        Streaming::Stop(name) => queries::stop(session, &name).await,
        Streaming::Describe(name) => queries::describe(session, &name),
        Streaming::Show => queries::show(session),
        Streaming::ExplainQuery(name) => queries::explain(session, &name),
        Streaming::Explain(query) => {
            let plan = Box::pin(plan(session, state, query.tokens)).await?;
            let frame = session.frame(DataFrame::new(session.state(), plan));
            if !frame.is_streaming() {
                return Err(Error::unsupported(
                    "EXPLAIN STREAMING of a query that does not stream",
                )
                .with_operator("explain")
                .with_hint("write EXPLAIN, or read a table with STREAM"));
            }
            frame
                .emitting(query.emit.map(|e| e.mode))
                .explain(false, false)
        }
    }
}

/// A frame without rows and columns, as DataFusion's statements that create something give.
fn nothing(session: &StreamSession) -> Result<StreamFrame> {
    let plan = LogicalPlanBuilder::empty(false).build()?;
    Ok(session.frame(DataFrame::new(session.state(), plan)))
}

/// A statement of DataFusion's.
async fn run_other(
    session: &StreamSession,
    state: SessionState,
    other: Other,
) -> Result<StreamFrame> {
    let target = insert_target(&other.tokens);
    let plan = Box::pin(plan(session, state, other.tokens)).await?;
    let streams = match &plan {
        LogicalPlan::Dml(dml) => highwater_plan::is_streaming(&dml.input),
        plan => highwater_plan::is_streaming(plan),
    };
    let written = other.options.as_ref();
    let written = written.map_or(&[][..], |(options, _)| options.as_slice());
    let plan = match (plan, target) {
        (LogicalPlan::Dml(dml), Some(target)) if streams => {
            return Box::pin(start::insert(session, dml, written, other.emit, &target)).await;
        }
        (plan, _) => plan,
    };
    if let Some((_, place)) = other.options {
        let error =
            Error::invalid("the options of an INSERT are for streams, and this does not stream")
                .with_operator("insert")
                .with_hint("leave them out, or read a table with STREAM");
        return Err(words::at_location(error, place));
    }
    let is_query = streams && !matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Copy(_));
    if let Some(emit) = other.emit.filter(|_| !is_query) {
        return Err(emit::misplaced(emit));
    }
    execute(session, plan, other.emit.map(|e| e.mode)).await
}

/// The table of an INSERT.
fn insert_target(tokens: &[TokenWithSpan]) -> Option<Name> {
    let mut cursor = Cursor::new(tokens);
    let insert = cursor.eat(&["INSERT"]) && (cursor.eat(&["INTO"]) || cursor.eat(&["OVERWRITE"]));
    cursor.eat(&["TABLE"]);
    insert.then(|| cursor.name("").ok()).flatten()
}

/// Words become a plan.
async fn plan(
    session: &StreamSession,
    mut state: SessionState,
    tokens: Vec<TokenWithSpan>,
) -> Result<LogicalPlan> {
    // Places of names, for errors.
    state.config_mut().options_mut().sql_parser.collect_spans = true;
    let mut statement = parse(&state, tokens)?;
    if let Statement::Statement(inner) = &mut statement {
        set::alias(inner)?;
    }
    Box::pin(state::resolve(&mut state, &mut statement)).await?;
    Box::pin(streams::resolve(session, &mut state, &mut statement)).await?;
    sessions::expand(&mut statement)?;
    resolve_window_names(&mut statement);
    if set::is_spark(&state) {
        literals::doubles(&mut statement);
        columns::ignore_case(&state, &mut statement).await?;
    }
    let plan = Box::pin(state.statement_to_plan(statement)).await?;
    DeclaredTable::must_be_readable(&plan)?;
    Ok(plan)
}

/// The one statement of the words.
fn parse(state: &SessionState, mut tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let dialect = dialect(state)?;
    state::quote_from(&mut tokens);
    let users = |name: &str| state.table_functions().contains_key(name);
    let tokens = table_functions::rewrite(tokens, users)?;
    let tokens = relation::rewrite(tokens, &*dialect)?;
    later::refuse(&tokens)?;
    let limit = state.config_options().sql_parser.recursion_limit.get();
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&*dialect)
        .with_recursion_limit(limit)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e: DataFusionError| Error::from(e))?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => Err(Error::unsupported("several SQL statements in one call")
            .with_hint("call `sql` once for each")),
        (None, _) => Err(Error::invalid("there is no SQL statement in the text")),
    }
}

async fn execute(
    session: &StreamSession,
    plan: LogicalPlan,
    mode: Option<OutputMode>,
) -> Result<StreamFrame> {
    match &plan {
        LogicalPlan::Explain(explain) if highwater_plan::is_streaming(&explain.plan) => {
            let state = session.state();
            let frame = DataFrame::new(state, explain.plan.as_ref().clone());
            let frame = session.frame(frame).emitting(mode);
            return frame.explain(explain.verbose, false);
        }
        LogicalPlan::Analyze(analyze) if highwater_plan::is_streaming(&analyze.input) => {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a streaming query")
                .with_operator("explain")
                .with_hint("start the query; its progress tells the figures"));
        }
        LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => {
            must_be_batch(
                &plan,
                "declare a table with CREATE EXTERNAL TABLE and INSERT INTO it",
            )?;
        }
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
            must_be_batch(&table.input, "write CREATE STREAMING TABLE … AS SELECT …")?;
        }
        _ => {}
    }
    let frame = Box::pin(session.context().execute_logical_plan(plan)).await?;
    Ok(session.frame(frame).emitting(mode))
}

fn must_be_batch(plan: &LogicalPlan, instead: &str) -> Result<()> {
    if highwater_plan::is_streaming(plan) {
        return Err(Error::unsupported(
            "Queries with streaming sources must be executed with write_stream().start()",
        )
        .with_hint(instead));
    }
    Ok(())
}
