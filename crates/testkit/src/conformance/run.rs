//! One case, run through the public API as a user would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use highwater::prelude::*;
use highwater::{Result, SqlSemantics, Timestamp};
use tokio::runtime::Handle;

use super::case::{Case, ColumnDef, DedupDef, SourceDef, SourceKind, Step, WatermarkDef};
use super::{compare, sql_front, value};
use crate::harness::Harness;
use crate::sink::INJECTED;

/// A case that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// How watermarks and deduplication of a case are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Front {
    /// As calls on frames.
    #[default]
    Frames,
    /// In SQL.
    Sql,
}

/// How a run of a case ended, whatever the project's lists say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As Spark.
    Passed,
    /// Otherwise, and what differs.
    Failed(String),
    /// Spark refuses the query, or it fails there; here it runs.
    NotRefused,
}

impl Verdict {
    /// Why it is not as in Spark.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Passed => "as Spark".into(),
            Self::Failed(what) => what.clone(),
            Self::NotRefused => "expected an error, none came".into(),
        }
    }
}

/// Runs one case on the current runtime, which must have one thread.
#[expect(
    clippy::disallowed_methods,
    reason = "a watch over the runner itself; no query sees this time"
)]
pub async fn run_case(case: &Case, front: Front) -> Verdict {
    match tokio::time::timeout(LIMIT, drive(case, front)).await {
        Ok(verdict) => verdict,
        Err(_) => Verdict::Failed(format!("hangs: no end after {} s", LIMIT.as_secs())),
    }
}

async fn drive(case: &Case, front: Front) -> Verdict {
    let mut run = match Run::set_up(case, front).await {
        Ok(run) => run,
        Err(broken) => return Verdict::Failed(format!("cannot set up: {broken:?}")),
    };
    for (index, step) in case.steps.iter().enumerate() {
        if let Err(wrong) = run.step(step).await {
            return wrong.at(index);
        }
    }
    let end = run.no_error();
    run.stop().await;
    match end {
        Ok(()) => Verdict::Passed,
        Err(wrong) => wrong.at(case.steps.len()),
    }
}

/// What ends a case early.
enum Wrong {
    Differs(String),
    NotRefused,
}

impl Wrong {
    fn at(self, index: usize) -> Verdict {
        match self {
            Self::Differs(what) => Verdict::Failed(format!("step {index}: {what}")),
            Self::NotRefused => Verdict::NotRefused,
        }
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Differs(format!("{error:?}"))
    }
}

/// The streams of a case by their names, and their columns.
pub(crate) type Streams = BTreeMap<String, (MemoryStream, SchemaRef)>;

/// A case while it runs.
struct Run<'a> {
    case: &'a Case,
    columns: Option<SchemaRef>,
    streams: Streams,
    /// Added and not yet given to a stream: all of it belongs to one micro-batch.
    waiting: Vec<(&'a str, RecordBatch)>,
    harness: Option<Harness>,
    crashing: bool,
    error: Option<Error>,
}

impl<'a> Run<'a> {
    /// Makes session, sources and tables; a refusal of the query itself is kept for its step.
    async fn set_up(case: &'a Case, front: Front) -> Result<Self> {
        let mut run = Self {
            case,
            columns: case.columns.as_deref().map(value::schema).transpose()?,
            streams: Streams::new(),
            waiting: Vec::new(),
            harness: None,
            crashing: false,
            error: None,
        };
        match session(case, &[]) {
            Ok(session) => {
                run.streams = open(case, &session)?;
                run.keep_error(begin(case, front, &session, &run.streams).await);
            }
            Err(error) => run.error = Some(error),
        }
        Ok(run)
    }

    fn keep_error(&mut self, begun: Result<Harness>) {
        match begun {
            Ok(harness) => self.harness = Some(harness),
            Err(error) => self.error = Some(error),
        }
    }

    async fn step(&mut self, step: &'a Step) -> std::result::Result<(), Wrong> {
        match step {
            Step::Add { source, rows } => self.add(source, rows)?,
            Step::Process { crash_at } => self.process(*crash_at).await?,
            Step::ExpectError { .. } => return self.expect_error(),
            Step::Restart => {
                self.no_error()?;
                self.stop().await;
            }
            Step::Expect { all, rows } => {
                self.no_error()?;
                return self.expect(*all, rows);
            }
            Step::ExpectWatermark(time) => {
                self.no_error()?;
                return self.expect_watermark(time);
            }
        }
        Ok(())
    }

    fn add(&mut self, source: &'a str, rows: &[Vec<serde_json::Value>]) -> Result<()> {
        if let Some((_, schema)) = self.streams.get(source) {
            self.waiting.push((source, value::batch(schema, rows)?));
        }
        Ok(())
    }

    async fn process(&mut self, crash_at: Option<u64>) -> Result<()> {
        let Some(harness) = self.harness.as_mut().filter(|_| self.error.is_none()) else {
            return Ok(());
        };
        match crash_at {
            Some(nth) => harness.sink().fail_at(nth),
            None => harness.sink().do_not_fail(),
        }
        for (source, rows) in self.waiting.drain(..) {
            if let Some((stream, _)) = self.streams.get(source) {
                stream.add_batch(rows)?;
            }
        }
        self.crashing = crash_at.is_some();
        self.error = harness.process().await.err();
        Ok(())
    }

    /// The query must have been refused or have failed; after an injected crash, because of it.
    fn expect_error(&mut self) -> std::result::Result<(), Wrong> {
        let Some(error) = self.error.take() else {
            return Err(Wrong::NotRefused);
        };
        let crashing = std::mem::take(&mut self.crashing);
        if crashing && !format!("{error:?}").contains(INJECTED) {
            return Err(error.context("not the injected failure").into());
        }
        Ok(())
    }

    fn no_error(&self) -> std::result::Result<(), Wrong> {
        match &self.error {
            Some(error) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    fn expect(&self, all: bool, rows: &[Vec<serde_json::Value>]) -> std::result::Result<(), Wrong> {
        let (Some(harness), Some(columns)) = (&self.harness, &self.columns) else {
            return Err(Wrong::Differs("the case has no columns".into()));
        };
        self.check_names(harness)?;
        let expected = value::expected(columns, rows)?;
        let new = harness.take_new()?.concat();
        let actual = if all { harness.last()? } else { new };
        match compare::difference(&expected, &actual, self.case.ordered) {
            Some(what) => Err(Wrong::Differs(what)),
            None => Ok(()),
        }
    }

    /// A query that has no watermark stands where one does that has not moved yet: at 1970.
    fn expect_watermark(&self, time: &str) -> std::result::Result<(), Wrong> {
        let expected: Timestamp = time.parse()?;
        let query = self.harness.as_ref().and_then(Harness::query);
        let query = query.ok_or_else(|| Wrong::Differs("the query is not started".into()))?;
        let actual = query.watermark().unwrap_or_default();
        if actual == expected {
            return Ok(());
        }
        Err(Wrong::Differs(format!(
            "the watermark is {actual}, expected {expected}"
        )))
    }

    fn check_names(&self, harness: &Harness) -> std::result::Result<(), Wrong> {
        let (Some(schema), Some(columns)) = (harness.sink().schema(), &self.case.columns) else {
            return Ok(());
        };
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let wanted: Vec<&str> = columns
            .iter()
            .map(|(name, _): &ColumnDef| name.as_str())
            .collect();
        if names == wanted {
            return Ok(());
        }
        Err(Wrong::Differs(format!(
            "the columns are {names:?}, expected {wanted:?}"
        )))
    }

    /// Stops the query; the next `process` starts it again.
    async fn stop(&mut self) {
        if let Some(harness) = &mut self.harness {
            self.error = harness.stop().await.err();
        }
    }
}

/// Makes the sources and the tables of a case.
///
/// # Errors
/// When a table of the case is wrong.
pub(crate) fn open(case: &Case, session: &StreamSession) -> Result<Streams> {
    let mut streams = Streams::new();
    for source in &case.sources {
        open_source(session, source, &mut streams)?;
    }
    Ok(streams)
}

fn open_source(session: &StreamSession, source: &SourceDef, streams: &mut Streams) -> Result<()> {
    let schema = value::schema(&source.columns)?;
    match source.kind {
        SourceKind::Static => {
            let rows = value::batch(&schema, &source.rows)?;
            let table = MemTable::try_new(schema, vec![vec![rows]])?;
            session
                .context()
                .register_table(quoted(&source.name), Arc::new(table))?;
        }
        SourceKind::Stream => {
            let stream = MemoryStream::new(session, &schema)?;
            streams.insert(source.name.clone(), (stream, schema));
        }
    }
    Ok(())
}

/// A session with the settings of the case, and then `more`.
///
/// # Errors
/// When a setting is wrong.
pub(crate) fn session(case: &Case, more: &[(String, String)]) -> Result<StreamSession> {
    let mut builder = StreamSession::builder()
        .semantics(SqlSemantics::Spark)
        .runtime(Handle::current());
    for (name, setting) in &case.conf {
        builder = builder.config(format!("spark.sql.streaming.{name}"), setting);
    }
    for (name, setting) in more {
        builder = builder.config(name, setting);
    }
    builder.build()
}

/// Defines sources and views and starts the query, with a new checkpoint.
async fn begin(
    case: &Case,
    front: Front,
    session: &StreamSession,
    streams: &Streams,
) -> Result<Harness> {
    let (frame, mode) = match front {
        Front::Frames => define(case, session, streams).await?,
        Front::Sql => sql_front::define(case, session, streams).await?,
    };
    let mut harness = Harness::new(frame, mode)?;
    harness.start().await?;
    Ok(harness)
}

/// Defines sources, views and the query of a case.
///
/// # Errors
/// When one of them is refused.
pub(crate) async fn define(
    case: &Case,
    session: &StreamSession,
    streams: &Streams,
) -> Result<(StreamFrame, OutputMode)> {
    for source in &case.sources {
        if let Some((stream, _)) = streams.get(source.name.as_str()) {
            let frame = event_time(stream.to_frame(), &source.watermark, &source.dedup)?;
            frame.create_or_replace_temp_view(&source.name)?;
        }
    }
    for view in &case.views {
        let frame = session.sql(&view.sql).await?;
        let frame = event_time(frame, &view.watermark, &view.dedup)?;
        frame.create_or_replace_temp_view(&view.name)?;
    }
    let mode: OutputMode = case.output_mode.parse()?;
    let frame = session.sql(&case.query).await?;
    Ok((frame, mode))
}

/// The frame with its watermark, then with its deduplication.
fn event_time(
    mut frame: StreamFrame,
    watermark: &Option<WatermarkDef>,
    dedup: &Option<DedupDef>,
) -> Result<StreamFrame> {
    if let Some(WatermarkDef { column, delay }) = watermark {
        frame = frame.with_watermark(column, delay)?;
    }
    let Some(dedup) = dedup else {
        return Ok(frame);
    };
    let columns: Vec<&str> = dedup.columns.iter().map(String::as_str).collect();
    if dedup.within_watermark {
        frame.drop_duplicates_within_watermark(&columns)
    } else {
        frame.drop_duplicates(&columns)
    }
}

fn quoted(name: &str) -> datafusion::common::TableReference {
    datafusion::common::TableReference::bare(name)
}
