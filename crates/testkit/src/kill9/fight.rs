//! Two processes fight for one checkpoint: the second one that starts wins, the first one stops and says who won.

use std::path::PathBuf;
use std::time::Duration;

use highwater::{Error, Result};

use super::child::{Child, FENCED, Report, Starter};
use super::load::{Feeder, ROWS_PER_FILE};
use super::place::Place;
use super::proof::{prepare, tell};
use super::queries::Query;
use super::verdict::compare;
use super::worker::WorkerOptions;
use crate::rng::Rng;

/// What the fight is told.
#[derive(Clone, Debug)]
pub struct FightOptions {
    /// The program whose command `worker` is the worker.
    pub program: PathBuf,
    /// So often a worker takes over from the one before it.
    pub rounds: u64,
    /// The seed of load and moments.
    pub seed: u64,
    /// Rows that come for each round.
    pub rows: u64,
    /// A file of the load comes so often.
    pub pace: Duration,
    /// What the workers are told; the folder is made, and must have been empty.
    pub worker: WorkerOptions,
}

/// Runs the fight; `say` gets lines for whoever watches. True when everything is exact.
///
/// In each round worker A works until a micro-batch that the seed gives; then B starts on the same checkpoints. A must
/// end with the error that names B's process, B must go on, and is the A of the next round.
///
/// # Errors
/// When the wrong one ends, or without naming the other, or an output cannot be read.
pub async fn fight(options: &FightOptions, say: &dyn Fn(&str)) -> Result<bool> {
    let place = Place::new(&options.worker.folder);
    prepare(&place)?;
    let (seed, rounds, folder) = (options.seed, options.rounds, place.folder().display());
    say(&format!("fight: seed {seed}, {rounds} rounds, in {folder}"));
    let starter = Starter {
        program: options.program.clone(),
        options: options.worker.clone(),
    };
    let feeder = Feeder::start(&place.input(), seed, options.pace);
    let mut rng = Rng::new(seed);
    feeder.allow(options.rows.div_ceil(ROWS_PER_FILE));
    let mut owner = starter.start()?;
    for round in 1..=rounds {
        feeder.allow(options.rows.div_ceil(ROWS_PER_FILE));
        let after = 1 + rng.below(20);
        let told = one_round(&mut owner, &starter, after)?;
        say(&format!("round {round}: {told}"));
    }
    owner.kill()?;
    let files = feeder.finish()?;
    starter.finish()?;
    let verdicts = compare(&place, options.worker.sink, seed, files).await?;
    Ok(tell(&verdicts, seed, say))
}

/// A second worker takes over after `after` micro-batches of the first.
fn one_round(owner: &mut Child, starter: &Starter, after: usize) -> Result<String> {
    let mut seen = 0;
    owner.report(|report| {
        seen += usize::from(matches!(report, Report::Progress { .. }));
        seen >= after
    })?;
    let mut second = starter.start()?;
    let lost = owner.ended()?;
    let winner = format!("process {})", second.id());
    if lost.status.code() != Some(FENCED) || !lost.said.contains(&winner) {
        return Err(Error::internal(format!(
            "the first worker must end with code {FENCED} and name {winner}; it ended, {}: {}",
            lost.status, lost.said
        )));
    }
    // The winner's queries all go on.
    let mut waiting: Vec<&str> = Query::ALL.map(Query::name).to_vec();
    second.report(|report| {
        if let Report::Progress { query, .. } = report {
            waiting.retain(|name| name != query);
        }
        waiting.is_empty()
    })?;
    let first = std::mem::replace(owner, second);
    let (first, second) = (first.id(), owner.id());
    let said = lost.said.lines().next().unwrap_or_default();
    Ok(format!(
        "process {second} took over after {after} micro-batches of process {first}, which said: {said}"
    ))
}
