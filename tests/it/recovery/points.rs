//! A process dies at one I/O operation after the other; what comes of it is what would have come without.
//!
//! Here a bounded part, in full: `cargo run --release -p highwater-testkit --bin crash-proof -- all`.

use std::path::Path;

use highwater::prelude::*;
use highwater_testkit::conformance::{Lists, Selection, load};
use highwater_testkit::crash::corpus::{CaseSubject, RandomSubject};
use highwater_testkit::crash::drive::World;
use highwater_testkit::crash::target::{Batches, Memory};
use highwater_testkit::crash::{Disk, FileScript, Lives, Proof, Setup, Subject, Tally, drive};
use highwater_testkit::rng::Rng;

use super::SEED;

/// So many crash points there are at least in each part; together more than 500.
const SCRIPTS: usize = 400;
const CORPUS: usize = 150;
const RANDOM: usize = 60;

async fn prove(subject: &dyn Subject, setup: &Setup, points: usize) -> Tally {
    let proof = Proof {
        subject,
        setup,
        seed: SEED,
        points,
    };
    proof.run().await.unwrap_or_else(|e| panic!("{e}"))
}

/// Every operation of a stateful query, with each kind of death, and samples of the other scripts.
#[tokio::test]
async fn files_come_out_once_whatever_operation_a_process_dies_in() {
    let mut tally = Tally::default();
    let batches = Setup::new(Batches);
    let whole = FileScript::named("window-append", SEED).unwrap();
    tally.add(prove(&whole, &batches, usize::MAX).await);
    for file in [
        "runs/N",
        "operators",
        "metadata",
        "sources/events/N",
        "offsets/N",
        "state/N-N",
        "commits/N",
    ] {
        for fault in ["Before", "After", "Staged"] {
            let kind = format!("{fault} put_opts ckpt/{file}");
            assert!(tally.kinds.contains(&kind), "{kind}: {:#?}", tally.kinds);
        }
    }
    assert!(tally.kinds.contains("After put_opts out/N"));
    for script in FileScript::all(SEED + 1) {
        tally.add(prove(&script, &batches, 24).await);
    }
    let complete = FileScript::named("keys-complete", SEED).unwrap();
    tally.add(prove(&complete, &Setup::new(Memory), 40).await);
    assert!(tally.points >= SCRIPTS, "{}", tally.points);
    assert!(tally.deaths >= tally.points);
}

#[tokio::test]
async fn cases_of_the_conformance_corpus_come_out_once() {
    let project = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let folder = Selection {
        paths: vec![project("tests/conformance")],
        kinds: Vec::new(),
    };
    let lists = Lists::read(
        &project("tests/conformance/not-yet.txt"),
        &project("docs/beyond-spark.md"),
    );
    let (lists, cases) = (lists.unwrap(), load(&folder).unwrap());
    let subjects = cases
        .iter()
        .map(|case| CaseSubject::new(case, &lists).unwrap());
    let mut subjects: Vec<CaseSubject> = subjects.flatten().collect();
    assert!(subjects.len() > 100, "{} cases", subjects.len());
    let mut rng = Rng::new(SEED);
    let (mut tally, setup) = (Tally::default(), Setup::new(Batches));
    while tally.points < CORPUS {
        let subject = subjects.swap_remove(rng.below(subjects.len()));
        tally.add(prove(&subject, &setup, 4).await);
    }
}

#[tokio::test]
async fn random_aggregates_come_out_once() {
    let (mut tally, setup) = (Tally::default(), Setup::new(Batches));
    for seed in SEED.. {
        let mode = match seed % 2 {
            0 => OutputMode::Update,
            _ => OutputMode::Complete,
        };
        let subject = RandomSubject::new(seed, mode).unwrap();
        if subject.steps() > 0 {
            tally.add(prove(&subject, &setup, 5).await);
        }
        if tally.points >= RANDOM {
            break;
        }
    }
}

/// With `durability=process` the last writes may be lost with the power. As long as it is the *last* ones, in their
/// order, what is left is what a process leaves that died earlier.
#[tokio::test]
async fn the_last_writes_may_go_with_the_power() {
    let (script, setup) = (
        FileScript::named("window-append", SEED).unwrap(),
        Setup::new(Batches),
    );
    let last = script.steps() - 1;
    for lost in 0..14 {
        let lives = Lives::default();
        let disk = Disk::new();
        disk.faulty().remember_writes();
        let mut world = World::new(&script, &setup, &lives, disk.clone());
        world.go(0..last).await.unwrap();
        disk.faulty().lose_power(lost).await.unwrap();
        let ran = world.go(last..last + 1).await.unwrap();
        let mut possible = Vec::new();
        for cuts in [None, Some(last - 1)] {
            let lives = Lives {
                deaths: Vec::new(),
                cuts: cuts.into_iter().collect(),
            };
            possible.push(drive(&script, &setup, &lives).await.unwrap().output);
        }
        assert!(possible.contains(&ran.output), "{lost} writes lost");
    }
}
