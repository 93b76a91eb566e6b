//! The proof of `kill -9`: a worker under load is killed at moments that the seed gives, started again, and at the end
//! everything it wrote is exact.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use highwater::{Error, Result};

use super::child::{Child, Report, Starter, now};
use super::load::{Feeder, ROWS_PER_FILE};
use super::place::{Place, Step};
use super::queries::Query;
use super::verdict::{Verdict, compare};
use super::worker::WorkerOptions;
use crate::rng::Rng;

/// What the proof is told.
#[derive(Clone, Debug)]
pub struct ProofOptions {
    /// The program whose command `worker` is the worker.
    pub program: PathBuf,
    /// So many times a worker is killed.
    pub runs: u64,
    /// The seed of load and moments.
    pub seed: u64,
    /// Rows that come for each run.
    pub rows: u64,
    /// A file of the load comes so often.
    pub pace: Duration,
    /// What the workers are told; the folder is made, and must have been empty.
    pub worker: WorkerOptions,
}

/// When a worker is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after its start, whatever it does then.
    Start(Duration),
    /// So long after the query has reported its first micro-batch.
    Progress(Query, Duration),
}

impl Moment {
    /// One run in five is killed while it starts.
    fn draw(rng: &mut Rng) -> Self {
        let millis = |from: i64, to: i64, rng: &mut Rng| {
            Duration::from_millis(rng.between(from, to).unsigned_abs())
        };
        match rng.chance(20) {
            true => Self::Start(millis(1, 100, rng)),
            false => Self::Progress(*rng.pick(&Query::ALL), millis(0, 600, rng)),
        }
    }
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    in_start: u64,
    steps: BTreeMap<Step, u64>,
    first_commit: Vec<Duration>,
}

/// Runs the proof; `say` gets lines for whoever watches. True when everything is exact.
///
/// # Errors
/// When a worker fails or hangs, or its output cannot be read.
pub async fn proof(options: &ProofOptions, say: &dyn Fn(&str)) -> Result<bool> {
    let place = Place::new(&options.worker.folder);
    prepare(&place)?;
    say(&format!(
        "kill -9: seed {}, {} runs, {} rows for each, sink {}, in {}",
        options.seed,
        options.runs,
        options.rows,
        options.worker.sink.name(),
        place.folder().display()
    ));
    let starter = Starter {
        program: options.program.clone(),
        options: options.worker.clone(),
    };
    let feeder = Feeder::start(&place.input(), options.seed, options.pace);
    let mut rng = Rng::new(options.seed);
    let mut tally = Tally::default();
    for run in 1..=options.runs {
        feeder.allow(options.rows.div_ceil(ROWS_PER_FILE));
        let how = one_run(&starter, Moment::draw(&mut rng), &mut tally)?;
        let steps = steps(&place, options, &mut tally)?;
        say(&format!("run {run}: {how}; {steps}"));
    }
    let files = feeder.finish()?;
    starter.finish()?;
    tally.tell(say);
    tell_sizes(&place, say)?;
    let verdicts = compare(&place, options.worker.sink, options.seed, files).await?;
    Ok(tell(&verdicts, options.seed, say))
}

/// Makes the folder of the load.
///
/// # Errors
/// `Invalid` when there was a proof in the folder before.
pub(super) fn prepare(place: &Place) -> Result<()> {
    if place.input().exists() {
        let folder = place.folder().display();
        return Err(
            Error::invalid(format!("{folder} has files of an earlier proof"))
                .with_hint("give an empty folder"),
        );
    }
    fs::create_dir_all(place.input())?;
    Ok(())
}

/// Starts a worker and kills it.
fn one_run(starter: &Starter, moment: Moment, tally: &mut Tally) -> Result<String> {
    let mut child = starter.start()?;
    let how = match moment {
        Moment::Start(after) => {
            let until = child.started + after;
            watch_until(&mut child, until)?;
            tally.in_start += 1;
            format!("killed {} ms after its start", after.as_millis())
        }
        Moment::Progress(query, after) => {
            let mut first = None;
            let at = child.report(|report| {
                let Report::Progress { query: done, .. } = report else {
                    return false;
                };
                first.get_or_insert_with(now);
                done == query.name()
            })?;
            tally
                .first_commit
                .extend(first.map(|first| first - child.started));
            watch_until(&mut child, at + after)?;
            let (after, name) = (after.as_millis(), query.name());
            format!("killed {after} ms after the first micro-batch of {name}")
        }
    };
    child.kill()?;
    tally.kills += 1;
    Ok(how)
}

/// Lets the worker work until then.
fn watch_until(child: &mut Child, until: Instant) -> Result<()> {
    while now() < until {
        child.report_until(until)?;
    }
    Ok(())
}

/// Where the queries were when the kill hit.
fn steps(place: &Place, options: &ProofOptions, tally: &mut Tally) -> Result<String> {
    let mut told = Vec::new();
    for query in Query::ALL {
        let (batch, step) = place.step(query, options.worker.sink)?;
        *tally.steps.entry(step).or_default() += 1;
        let batch = batch.map_or_else(|| "-".to_owned(), |batch| batch.to_string());
        told.push(format!("{} {batch} {step}", query.name()));
    }
    Ok(told.join(", "))
}

impl Tally {
    fn tell(&self, say: &dyn Fn(&str)) {
        say(&format!(
            "{} kills, {} of them at a time after the start; queries found:",
            self.kills, self.in_start
        ));
        for (step, count) in &self.steps {
            say(&format!("  {count:>4} {step}"));
        }
        let mut times = self.first_commit.clone();
        times.sort_unstable();
        if let Some(median) = times.get(times.len() / 2) {
            say(&format!(
                "from the start of a process to its first micro-batch: median {} ms of {} starts",
                median.as_millis(),
                times.len()
            ));
        }
    }
}

/// Tells how much is in each folder: only the results and the log of the source's files may grow with the load.
fn tell_sizes(place: &Place, say: &dyn Fn(&str)) -> Result<()> {
    say("files and bytes at the end:");
    for (folder, size) in place.sizes()? {
        say(&format!("  {:>6} {:>11}  {folder}", size.files, size.bytes));
    }
    Ok(())
}

/// Tells the verdicts; true when all are exact.
pub(super) fn tell(verdicts: &[Verdict], seed: u64, say: &dyn Fn(&str)) -> bool {
    for verdict in verdicts {
        let (name, expected) = (verdict.query.name(), verdict.expected);
        match &verdict.difference {
            None => say(&format!("{name}: {expected} rows, exact")),
            Some(difference) => say(&format!("{name}, of {expected} rows {difference}")),
        }
    }
    let exact = verdicts
        .iter()
        .all(|v| v.difference.is_none() && v.expected > 0);
    say(&match exact {
        true => "exact".to_owned(),
        false => format!("NOT exact, seed {seed}"),
    });
    exact
}

/// A folder of the proof's own, which stays when the proof fails.
#[derive(Debug)]
pub struct Workplace(Option<tempfile::TempDir>);

impl Workplace {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new() -> Result<Self> {
        Ok(Self(Some(tempfile::tempdir()?)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0
            .as_ref()
            .map_or(Path::new("."), tempfile::TempDir::path)
    }

    /// Keeps it, and tells where it is.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.0
            .take()
            .map(tempfile::TempDir::keep)
            .unwrap_or_default()
    }
}
