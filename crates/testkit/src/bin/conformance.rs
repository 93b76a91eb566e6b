//! Runs conformance case files: `conformance [--kind K]… [--no-skip] PATH…`.
//!
//! Prints a line for each case and `N passed, N failed, N skipped` at the end; ends with 1 when a
//! case failed, with `--no-skip` also when one was skipped, and with 2 when nothing could be run.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use highwater::{Error, Result};
use highwater_testkit::conformance::{Case, Lists, Selection, Tally, load, report, run_all};

const USAGE: &str =
    "usage: conformance [--kind K]... [--no-skip] [--not-yet FILE] [--beyond FILE] PATH...";

fn main() -> ExitCode {
    match prepare() {
        Ok((arguments, cases, lists)) => run(&arguments, &cases, &lists),
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn prepare() -> Result<(Arguments, Vec<Case>, Lists)> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let cases = load(&arguments.selection)?;
    let lists = Lists::read(&arguments.not_yet, &arguments.beyond)?;
    Ok((arguments, cases, lists))
}

fn run(arguments: &Arguments, cases: &[Case], lists: &Lists) -> ExitCode {
    let mut tally = Tally::default();
    run_all(cases, lists, |case, outcome| {
        tally.count(outcome);
        println!("{}", report::line(&case.name, outcome));
    });
    println!("{tally}");
    let skips = arguments.no_skip && tally.skipped > 0;
    if tally.failed > 0 || skips {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What the command line says.
struct Arguments {
    selection: Selection,
    no_skip: bool,
    not_yet: PathBuf,
    beyond: PathBuf,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self {
            selection: Selection::default(),
            no_skip: false,
            not_yet: in_project("tests/conformance/not-yet.txt"),
            beyond: in_project("docs/beyond-spark.md"),
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| Error::invalid(format!("`{word}` needs a value")))
            };
            match word.as_str() {
                "--kind" => arguments.selection.kinds.push(value()?),
                "--no-skip" => arguments.no_skip = true,
                "--not-yet" => arguments.not_yet = value()?.into(),
                "--beyond" => arguments.beyond = value()?.into(),
                flag if flag.starts_with('-') => {
                    return Err(Error::invalid(format!("unknown flag `{flag}`")));
                }
                path => arguments.selection.paths.push(path.into()),
            }
        }
        if arguments.selection.paths.is_empty() {
            return Err(Error::invalid("no file or folder of cases given"));
        }
        Ok(arguments)
    }
}

/// A file of the project, found from where this crate was built, else from the current directory.
fn in_project(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if root.join(path).exists() {
        return root.join(path);
    }
    path.into()
}
