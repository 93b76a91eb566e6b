//! The proofs of recovery, in full: `crash-proof [all | scripts | corpus | random | fights | damage]…`.
//!
//! `--seed N` chooses data and second deaths, `--points N` bounds the crash points of each query, `--queries N` how
//! many random queries there are, `--format F` adds the file sink of that format. Prints how much was proven; a
//! failure says the query, the deaths and the seed, and ends with 1.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use highwater::Result;
use highwater::prelude::*;
use highwater_core::testing::Fault;
use highwater_testkit::conformance::{Lists, Selection, load};
use highwater_testkit::crash::corpus::{CaseSubject, RandomSubject};
use highwater_testkit::crash::damage::{Damage, survive};
use highwater_testkit::crash::drive::World;
use highwater_testkit::crash::fight::{Meeting, alone, fight};
use highwater_testkit::crash::target::{Batches, Files, Memory};
use highwater_testkit::crash::{Disk, FileScript, Lives, Proof, Setup, Subject, Tally, drive};
use highwater_testkit::rng::Rng;

const USAGE: &str = "usage: crash-proof [--seed N] [--points N] [--queries N] [--format F] \
                     [all | scripts | corpus | random | fights | damage]...";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}", arguments.seed);
    match prove(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL {error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn prove(arguments: &Arguments) -> Result<()> {
    if arguments.wants("scripts") {
        told("scripts", &scripts(arguments).await?);
    }
    if arguments.wants("corpus") {
        told("corpus", &corpus(arguments).await?);
    }
    if arguments.wants("random") {
        told("random", &random(arguments).await?);
    }
    if arguments.wants("fights") {
        println!("fights: {} meetings", fights(arguments).await?);
    }
    if arguments.wants("damage") {
        println!("damage: {} damaged checkpoints", damage(arguments).await?);
    }
    Ok(())
}

fn told(part: &str, tally: &Tally) {
    println!(
        "{part}: {} crash points, {} deaths, in {} kinds of operations",
        tally.points,
        tally.deaths,
        tally.kinds.len()
    );
}

async fn point_by_point(
    arguments: &Arguments,
    subject: &dyn Subject,
    setup: &Setup,
) -> Result<Tally> {
    let proof = Proof {
        subject,
        setup,
        seed: arguments.seed,
        points: arguments.points,
    };
    let tally = proof.run().await?;
    println!("{proof:?}: {} crash points", tally.points);
    Ok(tally)
}

async fn scripts(arguments: &Arguments) -> Result<Tally> {
    let mut setups = vec![
        Setup::new(Batches),
        Setup::new(Batches).setting("highwater.min_batches_to_retain", "2"),
        Setup::new(Memory),
    ];
    let formats = arguments.formats.iter();
    setups.extend(formats.map(|format| {
        Setup::new(Files {
            format: format.clone(),
        })
    }));
    let mut tally = Tally::default();
    for script in FileScript::all(arguments.seed) {
        let takes = setups
            .iter()
            .filter(|setup| setup.target.takes(script.mode()));
        for setup in takes {
            tally.add(point_by_point(arguments, &script, setup).await?);
        }
    }
    Ok(tally)
}

async fn corpus(arguments: &Arguments) -> Result<Tally> {
    let folder = Selection {
        paths: vec![in_project("tests/conformance")],
        kinds: Vec::new(),
    };
    let lists = Lists::read(
        &in_project("tests/conformance/not-yet.txt"),
        &in_project("docs/beyond-spark.md"),
    )?;
    let (mut tally, setup) = (Tally::default(), Setup::new(Batches));
    for case in load(&folder)? {
        if let Some(subject) = CaseSubject::new(&case, &lists)? {
            tally.add(point_by_point(arguments, &subject, &setup).await?);
        }
    }
    Ok(tally)
}

async fn random(arguments: &Arguments) -> Result<Tally> {
    let (mut tally, setup) = (Tally::default(), Setup::new(Batches));
    for seed in arguments.seed..arguments.seed + arguments.queries {
        for mode in [OutputMode::Update, OutputMode::Complete] {
            let subject = RandomSubject::new(seed, mode)?;
            if subject.steps() > 0 {
                tally.add(point_by_point(arguments, &subject, &setup).await?);
            }
        }
    }
    Ok(tally)
}

async fn fights(arguments: &Arguments) -> Result<usize> {
    let setup = Setup::new(Batches);
    let mut meetings = 0;
    for name in ["window-update", "window-append", "stateless"] {
        let script = FileScript::named(name, arguments.seed)?;
        let (expected, operations) = alone(&script, &setup).await?;
        for first in 1..=operations {
            for second in (1..=operations).map(Some).chain([None]) {
                for when in [Fault::Before, Fault::After] {
                    let meeting = Meeting {
                        first,
                        second,
                        when,
                    };
                    fight(&script, &setup, meeting, &expected).await?;
                    meetings += 1;
                }
            }
        }
    }
    Ok(meetings)
}

async fn damage(arguments: &Arguments) -> Result<usize> {
    let (setup, lives) = (Setup::new(Batches), Lives::default());
    let mut rng = Rng::new(arguments.seed);
    let mut damaged = 0;
    for script in FileScript::all(arguments.seed) {
        let (disk, last) = (Disk::new(), script.steps() - 1);
        let mut world = World::new(&script, &setup, &lives, disk.clone());
        world.go(0..last).await?;
        let expected = drive(&script, &setup, &lives).await?.output;
        for path in disk.files("ckpt").await? {
            for damage in Damage::of(&disk, &path, &mut rng, 20).await? {
                survive(&script, &setup, &disk, (&path, &damage), &expected).await?;
                damaged += 1;
            }
        }
    }
    Ok(damaged)
}

/// What the command line says.
struct Arguments {
    seed: u64,
    points: usize,
    queries: u64,
    formats: Vec<String>,
    parts: Vec<String>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self {
            seed: 1,
            points: usize::MAX,
            queries: 100,
            formats: Vec::new(),
            parts: Vec::new(),
        };
        let parts = ["all", "scripts", "corpus", "random", "fights", "damage"];
        while let Some(word) = words.next() {
            let value = match word.starts_with("--") {
                true => words.next().ok_or_else(|| missing(&word))?,
                false => String::new(),
            };
            match word.as_str() {
                "--seed" => arguments.seed = number(&value)?,
                "--points" => arguments.points = number(&value)?,
                "--queries" => arguments.queries = number(&value)?,
                "--format" => arguments.formats.push(value),
                part if parts.contains(&part) => arguments.parts.push(word),
                _ => return Err(Error::invalid(format!("unknown word `{word}`"))),
            }
        }
        if arguments.parts.is_empty() {
            arguments.parts.push("all".into());
        }
        Ok(arguments)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts
            .iter()
            .any(|asked| asked == part || asked == "all")
    }
}

fn missing(flag: &str) -> Error {
    Error::invalid(format!("`{flag}` needs a value"))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| Error::invalid(format!("`{text}` is no number")))
}

/// A file of the project, found from where this crate was built, else from the current directory.
fn in_project(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match root.join(path) {
        found if found.exists() => found,
        _ => path.into(),
    }
}
