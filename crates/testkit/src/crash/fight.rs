//! Two processes that fight for one checkpoint, each held where it hurts.
//!
//! ```text
//!  A ──────────● operation a                ●──────────►  ends, fenced or not
//!               └► B starts ──● operation b │     │
//!                             └─────────────┘     └► B goes on
//! ```
//!
//! Micro-batches without data are off here: taking over is a restart, which leaves a pending one out (Spark), and
//! what is compared is what comes of the rows.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::future;
use highwater::{Error, ErrorKind, Result, StreamingQuery};
use highwater_core::testing::Fault;
use tokio::sync::watch;

use super::disk::{CHECKPOINT, Disk};
use super::drive::{Lives, begin, drive, start};
use super::target::{Output, Setup};
use super::{Process, Subject};

/// Where the two meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// A waits in this operation, counted from 1, and B starts.
    pub first: u64,
    /// B waits in this one until A has gone on to its end; `None`: A waits until B is at its end.
    pub second: Option<u64>,
    /// Both wait before their operation is done, or after.
    pub when: Fault,
}

/// One of the two.
struct Side {
    disk: Disk,
    process: Option<Process>,
    query: Option<StreamingQuery>,
    error: Option<Error>,
}

impl Side {
    fn new(disk: &Disk) -> Self {
        Self {
            disk: disk.beside(),
            process: None,
            query: None,
            error: None,
        }
    }

    /// Starts, and processes what there is; how that ends is kept.
    async fn run(&mut self, subject: &dyn Subject, setup: &Setup) {
        let begun = async {
            let process = begin(subject, setup, &self.disk, false).await?;
            let query = start(subject, setup, &self.disk, &process).await?;
            Ok((process, query))
        };
        match begun.await {
            Ok((process, query)) => {
                self.error = query.process_all_available().await.err();
                (self.process, self.query) = (Some(process), Some(query));
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Processes what has come since.
    async fn go_on(&mut self) {
        if let (Some(query), None) = (&self.query, &self.error) {
            self.error = query.process_all_available().await.err();
        }
    }

    /// The number of its claim, and the micro-batches it committed.
    async fn commits(&self) -> Result<Option<(u64, Vec<u64>)>> {
        let Some(query) = &self.query else {
            return Ok(None);
        };
        for number in self.disk.numbers(&format!("{CHECKPOINT}/runs")).await? {
            let claim = json(&self.disk, &format!("{CHECKPOINT}/runs/{number}")).await?;
            if claim["runId"].as_str() == Some(&query.run_id().to_string()) {
                let done = self.disk.faulty().operations();
                let put = format!("put_opts {CHECKPOINT}/commits/");
                let ids = done
                    .iter()
                    .filter_map(|o| o.strip_prefix(&put)?.parse().ok());
                return Ok(Some((number, ids.collect())));
            }
        }
        Ok(None)
    }
}

async fn json(disk: &Disk, path: &str) -> Result<serde_json::Value> {
    let bytes = disk.read(path).await?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().nth(1).unwrap_or_default();
    serde_json::from_str(line).map_err(|e| Error::corrupt(format!("{path}: {text}")).with_source(e))
}

/// Lets two processes meet; `expected` is the output of one that was alone.
///
/// # Errors
/// When not exactly one wins, the other stops for another reason than that, rows are lost or doubled, or a commit
/// names a state file of a run that did not write the commit.
pub async fn fight(
    subject: &dyn Subject,
    setup: &Setup,
    meeting: Meeting,
    expected: &Output,
) -> Result<()> {
    let disk = setup.disks.empty();
    let (mut a, mut b) = (Side::new(&disk), Side::new(&disk));
    let last = subject.steps() - 1;
    for step in 0..last {
        subject.deliver(&disk, step).await?;
    }
    meet(subject, setup, meeting, (&mut a, &mut b)).await;
    subject.deliver(&disk, last).await?;
    a.go_on().await;
    b.go_on().await;
    let result = judge(setup, &disk, [&a, &b], expected).await;
    for query in [&a, &b].into_iter().filter_map(|side| side.query.as_ref()) {
        query.stop().await?;
    }
    result.map_err(|e| e.context(format!("{} at {meeting:?}", subject.name())))
}

async fn meet(
    subject: &dyn Subject,
    setup: &Setup,
    meeting: Meeting,
    (a, b): (&mut Side, &mut Side),
) {
    let Meeting {
        first,
        second,
        when,
    } = meeting;
    let mut a_held = a.disk.faulty().hold(first, when);
    let b_held = second.map(|second| b.disk.faulty().hold(second, when));
    let (a_ended, b_ended, a_waits) = (Flag::new(), Flag::new(), Flag::new());
    let a_runs = async {
        a.run(subject, setup).await;
        a_ended.raise();
    };
    let b_runs = async {
        a_waits.raised().await;
        b.run(subject, setup).await;
        b_ended.raise();
    };
    let referee = async {
        either(a_held.reached(), a_ended.raised()).await;
        a_waits.raise();
        let Some(mut b_held) = b_held else {
            b_ended.raised().await;
            a_held.release();
            return;
        };
        either(b_held.reached(), b_ended.raised()).await;
        a_held.release();
        a_ended.raised().await;
        b_held.release();
    };
    futures::join!(a_runs, b_runs, referee);
}

/// Something that happens once.
struct Flag(watch::Sender<bool>);

impl Flag {
    fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    fn raise(&self) {
        self.0.send_replace(true);
    }

    async fn raised(&self) {
        let mut seen = self.0.subscribe();
        // The sender lives in `self`, so the wait ends only when it is raised.
        drop(seen.wait_for(|raised| *raised).await);
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    future::select(pin!(one), pin!(other)).await;
}

/// Says what is wrong, if anything is.
async fn judge(setup: &Setup, disk: &Disk, sides: [&Side; 2], expected: &Output) -> Result<()> {
    let won: Vec<&&Side> = sides.iter().filter(|side| side.error.is_none()).collect();
    let errors: Vec<&Error> = sides
        .iter()
        .filter_map(|side| side.error.as_ref())
        .collect();
    let ([winner], [lost]) = (&won[..], &errors[..]) else {
        return Err(Error::internal(format!("{} won: {errors:?}", won.len())));
    };
    if lost.kind() != ErrorKind::Fenced {
        return Err((*lost)
            .clone()
            .context("the loser stopped for another reason"));
    }
    if let Some(process) = &winner.process {
        let output = setup.target.output(disk, process).await?;
        if output != *expected {
            return Err(Error::internal(format!(
                "{output:?}, expected {expected:?}"
            )));
        }
    }
    let mut committed = BTreeMap::new();
    for side in sides {
        committed.extend(side.commits().await?);
    }
    for id in disk.numbers(&format!("{CHECKPOINT}/commits")).await? {
        let commit = json(disk, &format!("{CHECKPOINT}/commits/{id}")).await?;
        let Some(state) = commit["state"].as_str() else {
            continue;
        };
        let run = state.rsplit('-').next().and_then(|run| run.parse().ok());
        let own = run.and_then(|run: u64| committed.get(&run));
        if !own.is_some_and(|ids| ids.contains(&id)) {
            return Err(Error::internal(format!(
                "commits/{id} names {state}, but that run did not write the commit"
            )));
        }
    }
    Ok(())
}

/// What one process does alone, as fights compare with, and how many operations it has for all but the last step.
///
/// # Errors
/// When it fails.
pub async fn alone(subject: &dyn Subject, setup: &Setup) -> Result<(Output, u64)> {
    let setup = setup.clone().setting("highwater.no_data_batches", "false");
    let ran = drive(subject, &setup, &Lives::default()).await?;
    let disk = setup.disks.empty();
    let mut side = Side::new(&disk);
    for step in 0..subject.steps() - 1 {
        subject.deliver(&disk, step).await?;
    }
    side.run(subject, &setup).await;
    let operations = side.disk.count();
    if let Some(query) = &side.query {
        query.stop().await?;
    }
    match side.error {
        Some(error) => Err(error),
        None => Ok((ran.output, operations)),
    }
}
