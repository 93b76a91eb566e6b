//! One subject through its lives: it runs until it dies, is started again, and goes on to its end.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use highwater::prelude::*;
use highwater::{Result, StreamingQuery};
use highwater_core::testing::Fault;

use super::disk::{CHECKPOINT, Disk};
use super::target::{Output, Setup};
use super::{Process, Subject};

/// A script that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// How a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// At this operation of its life, counted from 1.
    pub at: u64,
    /// What becomes of that operation.
    pub fault: Fault,
}

/// What happens to the processes of one script.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    /// How the first process dies, the second, …; the one after the last lives to the end.
    pub deaths: Vec<Death>,
    /// In these steps no micro-batch without data runs, and the query is started anew after them.
    ///
    /// A process that dies between a micro-batch and the one without data that would follow leaves just that:
    /// the next process does not run it right away (Spark).
    pub cuts: BTreeSet<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// What the sink holds.
    pub output: Output,
    /// How many micro-batches each step had.
    pub batches: Vec<u64>,
    /// The operations of all processes.
    pub operations: Vec<String>,
    /// How many operations there were before each step.
    pub before: Vec<usize>,
    /// How many processes died.
    pub died: usize,
}

/// Drives a subject through its lives on an empty disk.
///
/// # Errors
/// What fails though no process died of it.
pub async fn drive(subject: &dyn Subject, setup: &Setup, lives: &Lives) -> Result<Ran> {
    let mut world = World::new(subject, setup, lives, setup.disks.empty());
    world.go(0..subject.steps()).await
}

/// A subject on its disk.
pub struct World<'a> {
    subject: &'a dyn Subject,
    setup: &'a Setup,
    lives: &'a Lives,
    deaths: VecDeque<Death>,
    disk: Disk,
    process: Option<Process>,
    query: Option<StreamingQuery>,
    fed: Option<usize>,
    ran: Ran,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World({}, {})", self.subject.name(), self.setup.name())
    }
}

impl<'a> World<'a> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(subject: &'a dyn Subject, setup: &'a Setup, lives: &'a Lives, disk: Disk) -> Self {
        Self {
            subject,
            setup,
            lives,
            deaths: lives.deaths.iter().copied().collect(),
            disk,
            process: None,
            query: None,
            fed: None,
            ran: Ran::default(),
        }
    }

    /// Goes through these steps, stops, and tells what came of it.
    ///
    /// # Errors
    /// What fails though no process died of it.
    #[expect(
        clippy::disallowed_methods,
        reason = "a watch over the proof itself; no query sees this time"
    )]
    pub async fn go(&mut self, steps: std::ops::Range<usize>) -> Result<Ran> {
        match tokio::time::timeout(LIMIT, self.all(steps)).await {
            Ok(ran) => ran,
            Err(_) => Err(Error::internal("it hangs")),
        }
    }

    async fn all(&mut self, steps: std::ops::Range<usize>) -> Result<Ran> {
        self.arm();
        for step in steps {
            let told = |e: Error| e.context(format!("step {step}"));
            self.step(step).await.map_err(told)?;
        }
        self.disk.faulty().heal();
        if let Some(process) = &self.process {
            self.ran.output = self.setup.target.output(&self.disk, process).await?;
        }
        self.stop().await?;
        self.ran.operations = self.disk.faulty().operations();
        Ok(std::mem::take(&mut self.ran))
    }

    async fn step(&mut self, step: usize) -> Result<()> {
        let cut = self.lives.cuts.contains(&step);
        let after_cut = step > 0 && self.lives.cuts.contains(&(step - 1));
        if cut || after_cut {
            self.stop().await?;
        }
        let before = self.last().await?;
        self.ran.before.push(self.disk.faulty().operations().len());
        self.subject.deliver(&self.disk, step).await?;
        while let Err(error) = self.attempt(step, cut).await {
            if !self.disk.faulty().is_dead() {
                return Err(error);
            }
            self.die().await?;
        }
        self.ran.batches.push(self.last().await? - before);
        Ok(())
    }

    /// How many micro-batches are committed.
    async fn last(&self) -> Result<u64> {
        let ids = self.disk.numbers(&format!("{CHECKPOINT}/commits")).await?;
        Ok(ids.last().map_or(0, |last| last + 1))
    }

    async fn attempt(&mut self, step: usize, cut: bool) -> Result<()> {
        let process = match self.process.take() {
            Some(process) => self.process.insert(process),
            None => {
                let begun = begin(self.subject, self.setup, &self.disk, !cut).await?;
                self.fed = None;
                self.process.insert(begun)
            }
        };
        for step in self.fed.map_or(0, |fed| fed + 1)..=step {
            self.subject.feed(process, step)?;
        }
        self.fed = Some(step);
        if self.query.is_none() {
            let started = start(self.subject, self.setup, &self.disk, process).await?;
            self.query = Some(started);
        }
        match &self.query {
            Some(query) => query.process_all_available().await,
            None => Ok(()),
        }
    }

    /// The process is gone with all it had; the next one finds the disk well again.
    async fn die(&mut self) -> Result<()> {
        if let Some(query) = self.query.take() {
            query.abort().await?;
        }
        self.process = None;
        self.ran.died += 1;
        self.disk.faulty().heal();
        self.arm();
        Ok(())
    }

    fn arm(&mut self) {
        if let Some(Death { at, fault }) = self.deaths.pop_front() {
            self.disk.faulty().die(self.disk.count() + at, fault);
        }
    }

    async fn stop(&mut self) -> Result<()> {
        if let Some(query) = self.query.take() {
            query.stop().await?;
        }
        self.process = None;
        Ok(())
    }
}

/// A process of the subject begins on the disk.
///
/// # Errors
/// When the query is refused.
pub async fn begin(
    subject: &dyn Subject,
    setup: &Setup,
    disk: &Disk,
    no_data: bool,
) -> Result<Process> {
    let mut settings = setup.settings.clone();
    if !no_data {
        settings.push(("highwater.no_data_batches".into(), "false".into()));
    }
    subject.begin(disk, &settings).await
}

/// Starts the query of a process.
///
/// # Errors
/// When it is refused, or the disk fails.
pub async fn start(
    subject: &dyn Subject,
    setup: &Setup,
    disk: &Disk,
    process: &Process,
) -> Result<StreamingQuery> {
    let writer = process
        .frame
        .clone()
        .write_stream()
        .output_mode(subject.mode())
        .checkpoint_location(Disk::checkpoint());
    let options = setup.options.iter();
    let writer = options.fold(writer, |writer, (name, value)| {
        writer.option(name, value.as_str())
    });
    setup.target.attach(writer, disk).start().await
}
