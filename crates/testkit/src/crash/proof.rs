//! Crash points, chosen all or by a seed, and the comparison with what would have been without them.

use std::collections::{BTreeMap, BTreeSet};

use highwater::{Error, Result};
use highwater_core::testing::Fault;

use super::Subject;
use super::drive::{Death, Lives, Ran, drive};
use super::target::Setup;
use crate::rng::Rng;

/// One subject with one sink.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// The query and what comes.
    pub subject: &'a dyn Subject,
    /// The sink and what the query is told.
    pub setup: &'a Setup,
    /// Chooses the points, where not all are taken, and the second deaths.
    pub seed: u64,
    /// At most so many points.
    pub points: usize,
}

impl std::fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} into {}", self.subject.name(), self.setup.name())
    }
}

/// What was proven.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many crash points there were.
    pub points: usize,
    /// How many processes died.
    pub deaths: usize,
    /// In which operations, without numbers: `Before put_opts ckpt/offsets/N`.
    pub kinds: BTreeSet<String>,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.points += other.points;
        self.deaths += other.deaths;
        self.kinds.extend(other.kinds);
    }
}

/// How operations die.
const FAULTS: [Fault; 3] = [Fault::Before, Fault::After, Fault::Staged];

impl Proof<'_> {
    /// Kills the process at one operation after the other.
    ///
    /// # Errors
    /// The first point at which the output is not what it should be, with all that is needed to see it again.
    pub async fn run(&self) -> Result<Tally> {
        let mut references = References::new(self);
        let plain = references.with(&BTreeSet::new()).await?.clone();
        let mut rng = Rng::new(self.seed);
        let mut tally = Tally::default();
        for death in self.choose(&plain, &mut rng) {
            let mut deaths = vec![death];
            if rng.chance(40) && !self.setup.target.forgets() {
                deaths.push(second(&mut rng, plain.operations.len()));
            }
            let lives = Lives {
                deaths,
                cuts: BTreeSet::new(),
            };
            let died = self.point(&lives, &plain, &mut references).await;
            tally.deaths += died.map_err(|e| self.told(&e, &lives, &plain))?;
            tally.points += 1;
            tally.kinds.insert(kind(death, &plain));
        }
        Ok(tally)
    }

    /// The points of the first death.
    fn choose(&self, plain: &Ran, rng: &mut Rng) -> Vec<Death> {
        let end = match self.setup.target.forgets() {
            // What comes after the crash must make the sink whole again.
            true => plain.before.last().copied().unwrap_or_default(),
            false => plain.operations.len(),
        };
        let mut all: Vec<Death> = Vec::new();
        for (index, operation) in plain.operations[..end].iter().enumerate() {
            let faults = FAULTS.iter();
            let faults =
                faults.filter(|f| **f != Fault::Staged || operation.starts_with("put_opts"));
            let at = index as u64 + 1;
            all.extend(faults.map(|fault| Death { at, fault: *fault }));
        }
        while all.len() > self.points {
            all.swap_remove(rng.below(all.len()));
        }
        all.sort_by_key(|death| death.at);
        all
    }

    /// One point: how many processes died.
    async fn point(
        &self,
        lives: &Lives,
        plain: &Ran,
        references: &mut References<'_>,
    ) -> Result<usize> {
        let ran = drive(self.subject, self.setup, lives).await?;
        let steps = ran.batches.iter().zip(&plain.batches).enumerate();
        let cuts = steps.filter(|(_, (ran, plain))| **ran + 1 == **plain);
        let cuts: BTreeSet<usize> = cuts.map(|(step, _)| step).collect();
        let reference = references.with(&cuts).await?;
        if ran.batches != reference.batches {
            return Err(Error::internal(format!(
                "the steps had {:?} micro-batches, expected {:?}",
                ran.batches, reference.batches
            )));
        }
        if ran.output == reference.output {
            return Ok(ran.died);
        }
        let all: BTreeSet<&u64> = ran
            .output
            .batches
            .keys()
            .chain(reference.output.batches.keys())
            .collect();
        let differs = all.into_iter().find_map(|id| {
            let (ran, expected) = (ran.output.batches.get(id), reference.output.batches.get(id));
            (ran != expected).then(|| format!("micro-batch {id}: {ran:?}, expected {expected:?}"))
        });
        Err(Error::internal(differs.unwrap_or_default()))
    }

    fn told(&self, error: &Error, lives: &Lives, plain: &Ran) -> Error {
        let at = lives.deaths.first().map_or(0, |death| death.at);
        let operation = usize::try_from(at).ok().and_then(|at| at.checked_sub(1));
        let operation = operation.and_then(|at| plain.operations.get(at));
        Error::internal(format!(
            "{self:?}, seed {}: deaths {:?}, the first in `{}`: {error:?}",
            self.seed,
            lives.deaths,
            operation.map_or("?", String::as_str)
        ))
    }
}

fn second(rng: &mut Rng, operations: usize) -> Death {
    Death {
        at: rng.below(operations) as u64 + 1,
        fault: *rng.pick(&FAULTS),
    }
}

/// The operation a process died in, without numbers.
fn kind(death: Death, plain: &Ran) -> String {
    let at = usize::try_from(death.at).unwrap_or(1) - 1;
    let operation = plain.operations.get(at).map_or("?", String::as_str);
    format!("{:?} {}", death.fault, unnumbered(operation))
}

/// An operation without numbers: `put_opts ckpt/state/N-N`.
#[must_use]
pub fn unnumbered(operation: &str) -> String {
    let mut text = String::new();
    for c in operation.chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('N') => {}
            true => text.push('N'),
            false => text.push(c),
        }
    }
    text
}

/// What comes without deaths, by the steps that lack their micro-batch without data.
struct References<'a> {
    proof: &'a Proof<'a>,
    known: BTreeMap<BTreeSet<usize>, Ran>,
}

impl<'a> References<'a> {
    fn new(proof: &'a Proof<'a>) -> Self {
        Self {
            proof,
            known: BTreeMap::new(),
        }
    }

    async fn with(&mut self, cuts: &BTreeSet<usize>) -> Result<&Ran> {
        if !self.known.contains_key(cuts) {
            let lives = Lives {
                deaths: Vec::new(),
                cuts: cuts.clone(),
            };
            let Proof { subject, setup, .. } = self.proof;
            let ran = drive(*subject, setup, &lives).await;
            let told = |e: Error| e.context(format!("{:?} without deaths", self.proof));
            self.known.insert(cuts.clone(), ran.map_err(told)?);
        }
        self.known
            .get(cuts)
            .ok_or_else(|| Error::internal("just put there"))
    }
}
