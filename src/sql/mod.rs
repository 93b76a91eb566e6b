//! SQL: DataFusion's, with the few forms that streams bring.
//!
//! ```text
//!  text ──► words ──► STREAM, WATERMARK ──► parse ──► settings' aliases, names of windows ──► plan ──► run
//!          Tokenizer  relation.rs          DFParser   set.rs, resolve_window_names          planner.rs  DataFusion
//!                     later.rs refuses          state.rs: tables of state, looked up
//! ```
//! One statement at a time. The text is parsed once by the session's own dialect; what is rewritten are words,
//! which keep their place, and the syntax tree, never the text, so that errors speak of what the user wrote.

mod columns;
mod interval;
mod later;
mod literals;
mod planner;
mod position;
mod relation;
mod set;
mod state;
mod words;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use highwater_plan::functions::window::resolve_window_names;

pub(crate) use planner::StreamRelations;

use crate::{Error, Result, StreamFrame, StreamSession};

/// Runs one statement; statements that change the session act at once, queries become a frame.
pub(crate) async fn run(session: &StreamSession, text: &str) -> Result<StreamFrame> {
    let mut state = session.state();
    let mut statement = parse(&state, text)?;
    if let Statement::Statement(inner) = &mut statement {
        set::alias(inner)?;
    }
    later::refuse_statement(&statement)?;
    Box::pin(state::resolve(&mut state, &mut statement)).await?;
    resolve_window_names(&mut statement);
    if set::is_spark(&state) {
        literals::doubles(&mut statement);
        columns::ignore_case(&state, &mut statement).await?;
    }
    let plan = Box::pin(state.statement_to_plan(statement))
        .await
        .map_err(|e| position::locate(e.into()))?;
    execute(session, plan).await
}

/// The one statement of the text.
fn parse(state: &SessionState, text: &str) -> Result<Statement> {
    let options = &state.config_options().sql_parser;
    let dialect = dialect_from_str(options.dialect)
        .ok_or_else(|| Error::invalid(format!("unknown SQL dialect {}", options.dialect)))?;
    let located = |e: DataFusionError| position::locate(e.into());
    let mut tokens = Tokenizer::new(&*dialect, text)
        .tokenize_with_location()
        .map_err(|e| located(ParserError::from(e).into()))?;
    state::quote_from(&mut tokens);
    let tokens = relation::rewrite(tokens, &*dialect)?;
    later::refuse(&tokens)?;
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&*dialect)
        .with_recursion_limit(options.recursion_limit.get())
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(located)?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => Err(Error::unsupported("several SQL statements in one call")
            .with_hint("call `sql` once for each")),
        (None, _) => Err(Error::invalid("there is no SQL statement in the text")),
    }
}

async fn execute(session: &StreamSession, plan: LogicalPlan) -> Result<StreamFrame> {
    match &plan {
        LogicalPlan::Explain(explain) if highwater_plan::is_streaming(&explain.plan) => {
            let state = session.state();
            let frame = datafusion::dataframe::DataFrame::new(state, explain.plan.as_ref().clone());
            return session.frame(frame).explain(explain.verbose, false);
        }
        LogicalPlan::Analyze(analyze) if highwater_plan::is_streaming(&analyze.input) => {
            return Err(Error::unsupported("EXPLAIN ANALYZE of a streaming query")
                .with_operator("explain")
                .with_hint("start the query; its progress tells the figures"));
        }
        LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => must_be_batch(&plan, "write_stream()")?,
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
            must_be_batch(&table.input, "write_stream().format(\"memory\")")?;
        }
        _ => {}
    }
    let frame = Box::pin(session.context().execute_logical_plan(plan)).await?;
    Ok(session.frame(frame))
}

fn must_be_batch(plan: &LogicalPlan, instead: &str) -> Result<()> {
    if highwater_plan::is_streaming(plan) {
        return Err(Error::unsupported(
            "Queries with streaming sources must be executed with write_stream().start()",
        )
        .with_hint(format!(
            "take the SELECT alone as a frame and call {instead}"
        )));
    }
    Ok(())
}
