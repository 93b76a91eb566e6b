//! SQL: DataFusion's, with the few forms that streams bring.
//!
//! ```text
//!  text ──► parse ──► settings' aliases, forms of later versions ──► names of windows ──► plan ──► run
//!            DFParser        set.rs, later.rs                           resolve_window_names       DataFusion
//! ```
//! One statement at a time. The text is parsed once by the session's own dialect; what is rewritten is
//! the syntax tree, never the text, so that errors speak of what the user wrote.

mod columns;
mod later;
mod literals;
mod position;
mod set;

use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement;
use highwater_plan::functions::window::resolve_window_names;

use crate::{Error, Result, StreamFrame, StreamSession};

/// Runs one statement; statements that change the session act at once, queries become a frame.
pub(crate) async fn run(session: &StreamSession, text: &str) -> Result<StreamFrame> {
    let state = session.state();
    later::refuse(text)?;
    let dialect = state.config_options().sql_parser.dialect;
    let mut statement = state
        .sql_to_statement(text, &dialect)
        .map_err(|e| position::locate(e.into()))?;
    if let Statement::Statement(inner) = &mut statement {
        set::alias(inner)?;
    }
    later::refuse_statement(&statement)?;
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
