//! One case, run through the public API as a user would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use highwater::prelude::*;
use highwater::{Result, SqlSemantics};
use tokio::runtime::Handle;

use super::case::{Case, ColumnDef, DedupDef, SourceDef, SourceKind, Step, WatermarkDef};
use super::{compare, value};
use crate::harness::Harness;
use crate::sink::INJECTED;

/// A case that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// How a run of a case ended, whatever the project's lists say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As Spark.
    Passed,
    /// Otherwise, and what differs.
    Failed(String),
    /// Spark refuses the query, or it fails there; here it runs.
    NotRefused,
    /// The public API has no call for what the case needs.
    Lacking(String),
}

impl Verdict {
    /// Why it is not as in Spark.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Passed => "as Spark".into(),
            Self::Failed(what) => what.clone(),
            Self::NotRefused => "expected an error, none came".into(),
            Self::Lacking(what) => format!("there is no {what}"),
        }
    }
}

/// Runs one case on the current runtime, which must have one thread.
#[expect(
    clippy::disallowed_methods,
    reason = "a watch over the runner itself; no query sees this time"
)]
pub async fn run_case(case: &Case) -> Verdict {
    if let Some(what) = lacking(case) {
        return Verdict::Lacking(what.into());
    }
    match tokio::time::timeout(LIMIT, drive(case)).await {
        Ok(verdict) => verdict,
        Err(_) => Verdict::Failed(format!("hangs: no end after {} s", LIMIT.as_secs())),
    }
}

/// What the case needs that the public API does not have.
fn lacking(case: &Case) -> Option<&'static str> {
    let sources = case.sources.iter().map(|s| (&s.watermark, &s.dedup));
    let views = case.views.iter().map(|v| (&v.watermark, &v.dedup));
    let asks: Vec<(&Option<WatermarkDef>, &Option<DedupDef>)> = sources.chain(views).collect();
    if asks.iter().any(|(watermark, _)| watermark.is_some()) {
        return Some("with_watermark");
    }
    if asks.iter().any(|(_, dedup)| dedup.is_some()) {
        return Some("drop_duplicates");
    }
    None
}

async fn drive(case: &Case) -> Verdict {
    let mut run = match Run::set_up(case).await {
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

/// A case while it runs.
struct Run<'a> {
    case: &'a Case,
    columns: Option<SchemaRef>,
    streams: BTreeMap<&'a str, (MemoryStream, SchemaRef)>,
    /// Added and not yet given to a stream: all of it belongs to one micro-batch.
    waiting: Vec<(&'a str, RecordBatch)>,
    harness: Option<Harness>,
    crashing: bool,
    error: Option<Error>,
}

impl<'a> Run<'a> {
    /// Makes session, sources and tables; a refusal of the query itself is kept for its step.
    async fn set_up(case: &'a Case) -> Result<Self> {
        let mut run = Self {
            case,
            columns: case.columns.as_deref().map(value::schema).transpose()?,
            streams: BTreeMap::new(),
            waiting: Vec::new(),
            harness: None,
            crashing: false,
            error: None,
        };
        match session(case) {
            Ok(session) => {
                for source in &case.sources {
                    run.open(&session, source)?;
                }
                run.keep_error(begin(case, &session).await);
            }
            Err(error) => run.error = Some(error),
        }
        Ok(run)
    }

    fn open(&mut self, session: &StreamSession, source: &'a SourceDef) -> Result<()> {
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
                stream
                    .to_frame()
                    .create_or_replace_temp_view(&source.name)?;
                self.streams.insert(&source.name, (stream, schema));
            }
        }
        Ok(())
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
            Step::ExpectWatermark(_) => {
                return Err(Wrong::Differs(
                    "the query does not tell its watermark".into(),
                ));
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

fn session(case: &Case) -> Result<StreamSession> {
    let mut builder = StreamSession::builder()
        .semantics(SqlSemantics::Spark)
        .runtime(Handle::current());
    for (name, setting) in &case.conf {
        builder = builder.config(format!("spark.sql.streaming.{name}"), setting);
    }
    builder.build()
}

/// Defines the views and starts the query, with a new checkpoint.
async fn begin(case: &Case, session: &StreamSession) -> Result<Harness> {
    for view in &case.views {
        let frame = session.sql(&view.sql).await?;
        frame.create_or_replace_temp_view(&view.name)?;
    }
    let mode: OutputMode = case.output_mode.parse()?;
    let frame = session.sql(&case.query).await?;
    let mut harness = Harness::new(frame, mode)?;
    harness.start().await?;
    Ok(harness)
}

fn quoted(name: &str) -> datafusion::common::TableReference {
    datafusion::common::TableReference::bare(name)
}
