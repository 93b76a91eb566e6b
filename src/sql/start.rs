//! Statements that start queries: `CREATE STREAMING TABLE` and `INSERT INTO … SELECT … FROM STREAM …`.

use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, WriteOp};
use highwater_engine::StreamingQuery;

use super::cursor::{Name, Written, at_option, folded, map};
use super::declare::DeclaredTable;
use super::emit::{self, Emit};
use super::queries;
use super::statement::CreateStreaming;
use super::words::at_location;
use crate::writer::OF_BOTH;
use crate::{DataStreamWriter, Error, OutputMode, Result, StreamFrame, StreamSession, Trigger};

/// `CREATE STREAMING TABLE`: a query of that name into a table in memory.
///
/// # Errors
/// What `start` says, at the word it is about.
pub(super) async fn create(
    session: &StreamSession,
    table: &CreateStreaming,
    plan: LogicalPlan,
) -> Result<StreamFrame> {
    let name = table.name.table.to_string();
    let there = session.context().table_exist(table.name.table.clone())?;
    if table.if_not_exists && there {
        return queries::one_row(session, queries::find(session, &name).as_ref());
    }
    if !highwater_plan::is_streaming(&plan) {
        let error = Error::unsupported("a streaming table of a query that does not stream")
            .with_condition("INVALID_FLOW_QUERY_TYPE.BATCH_RELATION_FOR_STREAMING_TABLE")
            .with_operator("CREATE STREAMING TABLE")
            .with_hint("read a table with STREAM, or write CREATE TABLE … AS");
        return Err(at_location(error, table.query_place));
    }
    let active = session.streams().by_name(&name);
    match active {
        Some(query) if table.or_replace => query.stop().await?,
        _ if there && !table.or_replace => {
            let error = Error::invalid(format!("there is a table `{name}` already"))
                .with_condition("TABLE_OR_VIEW_ALREADY_EXISTS")
                .with_hint("write `CREATE OR REPLACE`, `IF NOT EXISTS`, or choose another name");
            return Err(at_location(error, table.name.place));
        }
        _ => {}
    }
    let frame = session.frame(DataFrame::new(session.state(), plan));
    let writer = frame.write_stream().format("memory").query_name(&name);
    let started = match told(writer, &table.options, table.emit) {
        Ok(writer) => Box::pin(writer.start()).await,
        Err(error) => Err(error),
    };
    let query = started.map_err(|e| placed(e, &table.options, table.emit, &table.name))?;
    queries::one_row(session, Some(&queries::keep(session, query)))
}

/// `INSERT INTO t SELECT …` of a stream: a query into a declared table.
///
/// # Errors
/// What `start` says, at the word it is about.
pub(super) async fn insert(
    session: &StreamSession,
    dml: DmlStatement,
    written: &[Written],
    emit: Option<Emit>,
    target: &Name,
) -> Result<StreamFrame> {
    if dml.op != WriteOp::Insert(InsertOp::Append) {
        let error = Error::unsupported(format!("{} from a stream", dml.op.name()))
            .with_operator("insert")
            .with_hint("write `INSERT INTO`: a stream only appends");
        return Err(at_location(error, target.place));
    }
    let input = std::sync::Arc::unwrap_or_clone(dml.input);
    let frame = session.frame(DataFrame::new(session.state(), input));
    let placed = |e| placed(e, written, emit, target);
    let query = start(session, frame, dml.table_name, written, emit);
    let query = Box::pin(query).await.map_err(placed)?;
    queries::one_row(session, Some(&queries::keep(session, query)))
}

async fn start(
    session: &StreamSession,
    frame: StreamFrame,
    name: TableReference,
    written: &[Written],
    emit: Option<Emit>,
) -> Result<StreamingQuery> {
    let provider = session.context().table_provider(name.clone()).await?;
    let mut writer = frame.write_stream().query_name(name.table());
    let Some(declared) = DeclaredTable::of(&provider) else {
        return Box::pin(told(writer, written, emit)?.to_table(name)).await;
    };
    let declared = declared.declared();
    if declared.sink_table(session).await?.is_some() {
        return Box::pin(told(writer, written, emit)?.to_table(name)).await;
    }
    let of_files = super::declare::is_of_files(&declared.format);
    for (key, value) in declared.options.iter() {
        let both = |known: &&str| folded(known) == folded(key);
        if !of_files || OF_BOTH.iter().any(both) {
            writer = writer.option(key, value);
        }
    }
    if let Some(path) = &declared.path {
        writer = writer.path(path);
    }
    let by: Vec<&str> = declared.partition_by.iter().map(String::as_str).collect();
    let writer = writer.format(&declared.format).partition_by(&by);
    Box::pin(told(writer, written, emit)?.start()).await
}

/// The writer with the options of the statement: the mode, the trigger and the name are its own, the others it takes.
fn told(
    mut writer: DataStreamWriter,
    written: &[Written],
    emit: Option<Emit>,
) -> Result<DataStreamWriter> {
    let mut options = map(written);
    let mode: Option<OutputMode> = parsed(&mut options, "outputMode")?;
    let trigger: Option<Trigger> = parsed(&mut options, "trigger")?;
    if let Some(mode) = emit::mode(emit, mode)? {
        writer = writer.output_mode(mode);
    }
    if let Some(trigger) = trigger {
        writer = writer.trigger(trigger);
    }
    if let Some(name) = options.take_str("queryName") {
        writer = writer.query_name(name);
    }
    if let Some(columns) = options.take_str("partitionBy") {
        let columns: Vec<&str> = columns.split(',').map(str::trim).collect();
        writer = writer.partition_by(&columns);
    }
    Ok(writer.options(options))
}

/// Takes an option whose errors say more than that it is wrong.
fn parsed<T: std::str::FromStr<Err = Error>>(
    options: &mut crate::Options,
    name: &'static str,
) -> Result<Option<T>> {
    let text = options.take_str(name);
    let value = text.map(|text| text.trim().parse::<T>()).transpose();
    value.map_err(|e| e.context(format_args!("option `{name}`")).with_option(name))
}

/// The error at the option, the clause or the name it is about.
fn placed(error: Error, written: &[Written], emit: Option<Emit>, name: &Name) -> Error {
    let error = at_option(error, written);
    if error.position().is_some() {
        return error;
    }
    let of_mode = error
        .condition()
        .is_some_and(|condition| condition.starts_with("STREAMING_OUTPUT_MODE"));
    let mode = written.iter().find(|o| folded(&o.key) == "outputmode");
    let place = match (of_mode, emit, mode) {
        (true, Some(emit), _) => emit.place,
        (true, None, Some(mode)) => mode.place,
        _ => name.place,
    };
    at_location(error, place)
}
