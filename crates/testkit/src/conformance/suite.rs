//! Files and folders in, outcomes out, several cases at once.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater::{Error, Result};
use parking_lot::Mutex;
use tokio::runtime::Builder;

use super::case::{self, Case};
use super::lists::Lists;
use super::report::Outcome;
use super::run::{Front, Verdict, run_case};

/// Which cases to run.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Files, or folders of `.json` files.
    pub paths: Vec<PathBuf>,
    /// Only these kinds; empty: all.
    pub kinds: Vec<String>,
}

/// The cases of a selection: files in the order of their names, cases in the order of the file.
///
/// # Errors
/// `Unavailable` when a path cannot be read, `Invalid` when a file is no case file.
pub fn load(selection: &Selection) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for path in &selection.paths {
        for file in files(path)? {
            cases.extend(case::read_file(&file)?);
        }
    }
    let kinds = &selection.kinds;
    cases.retain(|case| kinds.is_empty() || kinds.contains(&case.kind));
    Ok(cases)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let told = |e: std::io::Error| Error::from(e).context(format!("reading {}", path.display()));
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = std::fs::read_dir(path)
        .map_err(told)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(told)?;
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    Ok(files)
}

/// Runs the cases on all cores and tells the outcomes in the order of the cases.
pub fn run_all(cases: &[Case], lists: &Lists, told: impl FnMut(&Case, &Outcome)) {
    run_all_through(Front::Frames, cases, lists, told);
}

/// The same through one of the fronts.
pub fn run_all_through(
    front: Front,
    cases: &[Case],
    lists: &Lists,
    mut told: impl FnMut(&Case, &Outcome),
) {
    let outcomes: Vec<Mutex<Option<Outcome>>> = cases.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(index) = take(&next, cases.len()) {
                    let outcome = Outcome::of(&cases[index], judge(&cases[index], front), lists);
                    *outcomes[index].lock() = Some(outcome);
                }
            });
        }
    });
    for (case, outcome) in cases.iter().zip(outcomes) {
        if let Some(outcome) = outcome.into_inner() {
            told(case, &outcome);
        }
    }
}

fn take(next: &AtomicUsize, end: usize) -> Option<usize> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    (index < end).then_some(index)
}

/// Runs one case on a runtime of its own; a panic fails the case and nothing else.
///
/// The runtime has one thread, which the query shares with the runner: what the runner does between
/// two awaits, such as adding rows to two sources, no micro-batch can come between.
fn judge(case: &Case, front: Front) -> Verdict {
    let run = || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok::<_, std::io::Error>(runtime.block_on(run_case(case, front)))
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => Verdict::Failed(format!("no runtime: {error}")),
        Err(_) => Verdict::Failed("the runner panicked".into()),
    }
}
