//! The conformance cases and random queries as subjects of the proofs.
//!
//! A case's expectations are not looked at here: the conformance run does that. Here its output with crashes is
//! compared with its output without.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use highwater::prelude::*;
use highwater::{Result, StreamSession};
use tokio::runtime::Handle;

use super::disk::Disk;
use super::{Process, Subject};
use crate::conformance::case::SourceKind;
use crate::conformance::run::{Streams, define, open, session};
use crate::conformance::{Case, Lists, Step, value};
use crate::random::{Action, RandomCase};
use crate::sink::INJECTED;

/// Rows for a stream of this name.
type Feed = (String, RecordBatch);

/// A conformance case.
#[derive(Debug)]
pub struct CaseSubject {
    case: Case,
    mode: OutputMode,
    steps: Vec<Vec<Feed>>,
}

impl CaseSubject {
    /// The case as a subject; `None` when it is refused, does not pass yet, or has not just one stream.
    ///
    /// # Errors
    /// When rows of the case do not fit their columns.
    pub fn new(case: &Case, lists: &Lists) -> Result<Option<Self>> {
        let streams = case.sources.iter().filter(|s| s.kind == SourceKind::Stream);
        let refused = case
            .steps
            .iter()
            .any(|step| matches!(step, Step::ExpectError { like } if like != INJECTED));
        let fits = streams.count() == 1
            && !refused
            && !case.expects_refusal()
            && lists.issue_of(&case.name).is_none();
        let Ok(mode) = case.output_mode.parse() else {
            return Ok(None);
        };
        if !fits {
            return Ok(None);
        }
        let steps = steps(case)?;
        let case = case.clone();
        Ok((!steps.is_empty()).then_some(Self { case, mode, steps }))
    }
}

/// What comes before each `process`.
fn steps(case: &Case) -> Result<Vec<Vec<Feed>>> {
    let (mut steps, mut waiting) = (Vec::new(), Vec::new());
    for step in &case.steps {
        match step {
            Step::Add { source, rows } => {
                let definition = case.sources.iter().find(|s| s.name == *source);
                let definition = definition.filter(|s| s.kind == SourceKind::Stream);
                if let Some(definition) = definition {
                    let schema = value::schema(&definition.columns)?;
                    waiting.push((source.clone(), value::batch(&schema, rows)?));
                }
            }
            Step::Process { .. } => steps.push(std::mem::take(&mut waiting)),
            _ => {}
        }
    }
    Ok(steps)
}

/// Gives rows to the streams of a process.
fn feed(process: &Process, feeds: &[Feed]) -> Result<()> {
    for (source, rows) in feeds {
        if let Some((stream, _)) = process.streams.get(source) {
            stream.add_batch(rows.clone())?;
        }
    }
    Ok(())
}

#[async_trait]
impl Subject for CaseSubject {
    fn name(&self) -> String {
        self.case.name.clone()
    }

    fn mode(&self) -> OutputMode {
        self.mode
    }

    fn steps(&self) -> usize {
        self.steps.len()
    }

    async fn deliver(&self, _disk: &Disk, _step: usize) -> Result<()> {
        Ok(())
    }

    fn feed(&self, process: &Process, step: usize) -> Result<()> {
        feed(process, &self.steps[step])
    }

    async fn begin(&self, disk: &Disk, settings: &[(String, String)]) -> Result<Process> {
        let session = session(&self.case, settings)?;
        disk.mount(&session)?;
        let streams = open(&self.case, &session)?;
        let (frame, _) = define(&self.case, &session, &streams).await?;
        Ok(Process {
            session,
            frame,
            streams,
        })
    }
}

/// A random aggregate query over random rows.
#[derive(Debug)]
pub struct RandomSubject {
    case: RandomCase,
    mode: OutputMode,
    steps: Vec<Vec<Feed>>,
}

impl RandomSubject {
    /// The query of a seed.
    ///
    /// # Errors
    /// As [`RandomCase::new`].
    pub fn new(seed: u64, mode: OutputMode) -> Result<Self> {
        let case = RandomCase::new(seed, mode == OutputMode::Complete)?;
        let mut fed = 0;
        let steps = case.plan.iter().filter_map(|action| match action {
            Action::Feed(rows) | Action::Crash(rows) => {
                let batch = case.rows.slice(fed, *rows);
                fed += rows;
                Some(vec![(INPUT.to_owned(), batch)])
            }
            Action::Restart => None,
        });
        let steps = steps.collect();
        Ok(Self { case, mode, steps })
    }
}

/// The name of the table of a random query.
const INPUT: &str = "input";

#[async_trait]
impl Subject for RandomSubject {
    fn name(&self) -> String {
        format!("random/{}: {}", self.case.seed, self.case.query.sql)
    }

    fn mode(&self) -> OutputMode {
        self.mode
    }

    fn steps(&self) -> usize {
        self.steps.len()
    }

    async fn deliver(&self, _disk: &Disk, _step: usize) -> Result<()> {
        Ok(())
    }

    fn feed(&self, process: &Process, step: usize) -> Result<()> {
        feed(process, &self.steps[step])
    }

    async fn begin(&self, disk: &Disk, settings: &[(String, String)]) -> Result<Process> {
        let mut builder = StreamSession::builder().runtime(Handle::current());
        for (name, value) in settings {
            builder = builder.config(name, value);
        }
        let session = builder.build()?;
        disk.mount(&session)?;
        let stream = MemoryStream::new(&session, &self.case.schema)?;
        stream.to_frame().create_or_replace_temp_view(INPUT)?;
        let frame = session.sql(&self.case.query.sql).await?;
        let schema = std::sync::Arc::clone(&self.case.schema);
        let streams = Streams::from([(INPUT.to_owned(), (stream, schema))]);
        Ok(Process {
            session,
            frame,
            streams,
        })
    }
}
