//! Looking into a checkpoint: `status`, `state` and `replay`. Nothing is written there, and a query that runs there
//! does not notice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use clap::Args;
use datafusion::prelude::ident;
use futures::TryStreamExt;
use highwater::datafusion::dataframe::DataFrameWriteOptions;
use highwater::{
    Clock, Error, Result, StateOperator, StreamFrame, StreamSession, SystemClock, Timestamp,
};
use serde_json::{Map, Value, json};

use crate::Exit;
use crate::errors::render;
use crate::live::length;
use crate::output::{Format, Printer, Screen, Shown, values};
use crate::session::{self, Dialect};

/// Tells how far the query of a checkpoint has come: last batch, watermark and its lag, sources, state.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The checkpoint: a folder, or a URL such as `s3://bucket/folder`
    checkpoint: String,
    /// How it is printed; `csv` has a line `property,value` for each
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints or exports the state that a query keeps in its checkpoint.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// The checkpoint: a folder, or a URL such as `s3://bucket/folder`
    checkpoint: String,
    /// The stateful operator: its number or its name, as `status` tells them; the first by default
    #[arg(long, value_name = "OPERATOR")]
    operator: Option<String>,
    /// The micro-batch after which the state is shown; the last by default
    #[arg(long, value_name = "BATCH")]
    batch: Option<u64>,
    /// Shows what the micro-batches FROM to TO have changed, both included, and not the state
    #[arg(long, value_name = "FROM..TO", value_parser = span, conflicts_with = "batch")]
    changes: Option<(u64, u64)>,
    /// How rows are printed
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Writes the rows to a file: `.csv`, `.json`, `.parquet`, or as `--format` says
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints the log of micro-batches: what each read, when, and whether it is done.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The checkpoint: a folder, or a URL such as `s3://bucket/folder`
    checkpoint: String,
    /// How rows are printed; `json` and `csv` have all columns
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn span(text: &str) -> Result<(u64, u64), String> {
    let numbers = text.split_once("..").and_then(|(from, to)| {
        let to = to.strip_prefix('=').unwrap_or(to);
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    });
    numbers.ok_or_else(|| "give two numbers of micro-batches, as in `3..7`".to_owned())
}

/// `highwater status`.
pub(crate) async fn status(args: StatusArgs) -> Exit {
    Looker::look(args.format, async |looker| {
        let status = looker.status(&args.checkpoint).await?;
        match args.format {
            Format::Table => looker.tell(&status).await,
            Format::Json => looker.print(&format!("{status}\n")),
            Format::Csv => looker.print(&flat(&status)),
        }
    })
    .await
}

/// `highwater state`.
pub(crate) async fn state(args: StateArgs) -> Exit {
    let format = args.format.unwrap_or_default();
    Looker::look(format, async |looker| {
        looker.exists(&args.checkpoint)?;
        let mut reader = looker.session.read_state(args.checkpoint.clone());
        if let Some(operator) = &args.operator {
            reader = reader.operator(match operator.parse() {
                Ok(number) => StateOperator::Number(number),
                Err(_) => StateOperator::Name(operator.clone()),
            });
        }
        if let Some(batch) = args.batch {
            reader = reader.batch(batch);
        }
        if let Some((from, to)) = args.changes {
            reader = reader.changes(from, to);
        }
        let frame = reader.load().await?;
        match &args.output {
            Some(file) => write(frame, file, args.format).await,
            None => looker.rows(frame).await,
        }
    })
    .await
}

/// `highwater replay`.
pub(crate) async fn replay(args: ReplayArgs) -> Exit {
    Looker::look(args.format, async |looker| {
        looker.exists(&args.checkpoint)?;
        let reader = looker.session.read_state(args.checkpoint.clone());
        let mut frame = reader.batches().await?;
        if args.format == Format::Table {
            let shown = SHOWN.map(|(column, name)| ident(column).alias(name));
            frame = frame.select(shown)?;
        }
        looker.rows(frame).await
    })
    .await
}

/// The columns of the log that a table shows, with shorter names.
const SHOWN: [(&str, &str); 9] = [
    ("batch_id", "batch"),
    ("batch_time", "time"),
    ("committed", "done"),
    ("source", "source"),
    ("start_offset", "after"),
    ("end_offset", "up to"),
    ("watermark", "watermark"),
    ("output_rows", "rows out"),
    ("state_file", "state"),
];

/// Looks into checkpoints.
struct Looker {
    session: StreamSession,
    printer: Arc<Printer>,
}

impl Looker {
    /// Does it, and tells what is wrong.
    async fn look(format: Format, job: impl AsyncFnOnce(&Self) -> Result<()>) -> Exit {
        let screen = Arc::new(Screen::new(false));
        let printer = Arc::new(Printer::new(Arc::clone(&screen), format));
        let done = match session::open(&printer, Dialect::default()) {
            Ok(session) => job(&Self { session, printer }).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Exit::Fine,
            Err(_) if screen.is_gone() => Exit::Interrupted,
            Err(error) => {
                screen.note(&render(&error, None, Screen::coloured()));
                Exit::Failed
            }
        }
    }

    /// A folder that is not there is not made by looking for it.
    fn exists(&self, checkpoint: &str) -> Result<()> {
        if checkpoint.contains("://") || Path::new(checkpoint).is_dir() {
            return Ok(());
        }
        Err(Error::invalid(format!("there is no folder `{checkpoint}`"))
            .with_hint("give the folder that is the query's checkpointLocation"))
    }

    fn print(&self, text: &str) -> Result<()> {
        self.printer.screen.print(text.as_bytes())
    }

    async fn rows(&self, frame: StreamFrame) -> Result<()> {
        let schema: SchemaRef = Arc::clone(frame.schema().inner());
        let mut rows = frame.execute_stream().await?;
        if self.printer.format() == Format::Table {
            let rows: Vec<_> = rows.try_collect().await?;
            return self.printer.table(&schema, &rows, Shown::ALL);
        }
        self.printer.begin(&schema)?;
        while let Some(rows) = rows.try_next().await? {
            self.printer.rows(&rows)?;
        }
        Ok(())
    }

    /// What there is to tell, with the names of the JSON.
    async fn status(&self, checkpoint: &str) -> Result<Value> {
        self.exists(checkpoint)?;
        let reader = || self.session.read_state(checkpoint);
        let id = reader().query_id().await?;
        let batches = values(&reader().batches().await?.collect().await?)?;
        let done = |row: &Map<String, Value>| row["committed"] == json!(true);
        let last = batches.iter().rfind(|row| done(row));
        let next = batches.iter().rfind(|row| !done(row));
        let operators = match last {
            Some(_) => values(&reader().metadata().await?.collect().await?)?,
            None => Vec::new(),
        };
        let sources = last.map(|last| sources(&batches, &last["batch_id"]));
        let time = |row: &Map<String, Value>, name: &str| -> Option<Timestamp> {
            row[name].as_str()?.parse().ok()
        };
        let watermark = last.and_then(|last| time(last, "next_watermark"));
        let now = SystemClock.now();
        let lag =
            watermark.map(|mark| u64::try_from(now.since(mark).as_millis()).unwrap_or(u64::MAX));
        Ok(json!({
            "checkpoint": checkpoint,
            "queryId": id.to_string(),
            "lastBatch": last.map(|last| last["batch_id"].clone()),
            "lastBatchTime": last.and_then(|last| time(last, "batch_time")).map(Timestamp::to_iso),
            "intendedBatch": next.map(|next| next["batch_id"].clone()),
            "watermark": watermark.map(Timestamp::to_iso),
            "watermarkLagMs": lag,
            "flushed": last.map(|last| last["final"].clone()),
            "sources": sources,
            "operators": operators.iter().map(operator).collect::<Vec<_>>(),
        }))
    }

    /// The status for a person.
    async fn tell(&self, status: &Value) -> Result<()> {
        let text = |key: &str| match &status[key] {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut lines = vec![
            ("checkpoint", text("checkpoint")),
            ("query", text("queryId")),
            ("last batch", last_batch(status)),
        ];
        if !status["intendedBatch"].is_null() {
            let said = format!("{}, begun and not committed", text("intendedBatch"));
            lines.push(("next batch", said));
        }
        lines.push(("watermark", watermark(status)));
        if status["flushed"] == json!(true) {
            lines.push(("flushed", "every window is closed (flushOnEnd)".to_owned()));
        }
        for (name, offset) in status["sources"].as_object().into_iter().flatten() {
            lines.push(("source", format!("{name} up to {offset}")));
        }
        let lines = lines
            .iter()
            .map(|(key, value)| format!("{key:<12}{value}\n"));
        let mut told: String = lines.collect();
        let operators = status["operators"].as_array();
        if operators.is_none_or(Vec::is_empty) {
            told.push_str("state       none\n");
            return self.print(&told);
        }
        self.print(&told)?;
        self.operators(&text("checkpoint")).await
    }

    async fn operators(&self, checkpoint: &str) -> Result<()> {
        let frame = self.session.read_state(checkpoint).metadata().await?;
        let columns = [
            ident("operator"),
            ident("name"),
            ident("kind"),
            ident("keys"),
            ident("values"),
            ident("rows"),
        ];
        self.rows(frame.select(columns)?).await
    }
}

fn last_of(status: &Value) -> Option<u64> {
    status["lastBatch"].as_u64()
}

fn last_batch(status: &Value) -> String {
    match (last_of(status), status["lastBatchTime"].as_str()) {
        (Some(batch), Some(time)) => format!("{batch}, at {time}"),
        (Some(batch), None) => batch.to_string(),
        (None, _) => "none is committed".to_owned(),
    }
}

fn watermark(status: &Value) -> String {
    let lag = status["watermarkLagMs"].as_u64();
    match (status["watermark"].as_str(), lag) {
        (Some(mark), Some(lag)) => {
            let lag = length(std::time::Duration::from_millis(lag));
            format!("{mark}, {lag} behind the clock")
        }
        _ => "none".to_owned(),
    }
}

/// How far each source was read by the end of a micro-batch.
fn sources(batches: &[Map<String, Value>], batch: &Value) -> Value {
    let rows = batches.iter().filter(|row| row["batch_id"] == *batch);
    let ends = rows.filter_map(|row| {
        let offset = row["end_offset"].as_str()?;
        let offset = serde_json::from_str(offset).unwrap_or(Value::Null);
        Some((row["source"].as_str()?.to_owned(), offset))
    });
    Value::Object(ends.collect())
}

fn operator(row: &Map<String, Value>) -> Value {
    let mut row = row.clone();
    row.remove("min_batch");
    row.remove("max_batch");
    Value::Object(row)
}

/// `property,value` for each leaf of the status.
fn flat(status: &Value) -> String {
    let mut lines = vec![("property".to_owned(), "value".to_owned())];
    leaves(String::new(), status, &mut lines);
    let quoted = |text: &str| match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    let lines = lines.iter();
    lines
        .map(|(key, value)| format!("{},{}\n", quoted(key), quoted(value)))
        .collect()
}

fn leaves(path: String, value: &Value, to: &mut Vec<(String, String)>) {
    let under = |key: &str| match path.as_str() {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                leaves(under(key), value, to);
            }
        }
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                leaves(under(&at.to_string()), value, to);
            }
        }
        Value::Null => to.push((path, String::new())),
        Value::String(text) => to.push((path, text.clone())),
        other => to.push((path, other.to_string())),
    }
}

/// Writes the rows to a file.
async fn write(frame: StreamFrame, file: &Path, format: Option<Format>) -> Result<()> {
    let ending = file
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let path = file
        .to_str()
        .ok_or_else(|| Error::invalid("the name of the file is no text"))?;
    if format.is_none() && ending.eq_ignore_ascii_case("parquet") {
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        frame.write_parquet(path, options, None).await?;
        return Ok(());
    }
    let format = match (format, ending.to_ascii_lowercase().as_str()) {
        (Some(format), _) => format,
        (None, "csv") => Format::Csv,
        (None, "json" | "ndjson" | "jsonl") => Format::Json,
        (None, "txt") => Format::Table,
        (None, _) => {
            return Err(
                Error::invalid(format!("what is to be written to `{path}`?"))
                    .with_option("output")
                    .with_hint("name it .csv, .json or .parquet, or say --format"),
            );
        }
    };
    let schema: SchemaRef = Arc::clone(frame.schema().inner());
    let rows = frame.collect().await?;
    let mut text = Vec::new();
    match format {
        Format::Table => text = crate::table::table(&schema, &rows, Shown::ALL)?.into_bytes(),
        Format::Json => {
            for rows in &rows {
                text.extend(crate::output::json_lines(rows)?);
            }
        }
        Format::Csv => {
            let header = arrow::array::RecordBatch::new_empty(schema);
            text.extend(crate::output::csv_lines(&header, true)?);
            for rows in &rows {
                text.extend(crate::output::csv_lines(rows, false)?);
            }
        }
    }
    std::fs::write(file, text).map_err(|e| Error::from(e).context(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_as_properties() {
        let status = json!({"a": 1, "b": {"c": null, "d": ["x,y", true]}});
        let text = "property,value\na,1\nb.c,\nb.d.0,\"x,y\"\nb.d.1,true\n";
        assert_eq!(flat(&status), text);
    }

    #[test]
    fn a_span_has_two_ends() {
        assert_eq!(span("3..7"), Ok((3, 7)));
        assert_eq!(span("3..=7"), Ok((3, 7)));
        assert!(span("3").is_err() && span("a..b").is_err());
    }
}
