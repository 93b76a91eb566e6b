//! A verdict and the lists become an outcome; the tally at the end.

use std::fmt;

use super::case::Case;
use super::lists::Lists;
use super::run::Verdict;

/// What is told of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It agrees with Spark.
    Passed,
    /// It does not, and what differs.
    Failed(String),
    /// It waits for an issue, and why.
    Skipped(String),
    /// Spark refuses the query and we answer it, on purpose.
    Beyond,
}

impl Outcome {
    /// Judges a verdict by what the project's lists say of the case.
    #[must_use]
    pub fn of(case: &Case, verdict: Verdict, lists: &Lists) -> Self {
        let issue = lists.issue_of(&case.name);
        let beyond = lists.beyond.contains(&case.name);
        match (verdict, issue) {
            (Verdict::Passed, Some(_)) => Self::Failed("listed as not yet, but passes".into()),
            (Verdict::Passed, None) if beyond => {
                Self::Failed("listed as beyond Spark, but does as Spark".into())
            }
            (Verdict::Passed, None) => Self::Passed,
            (Verdict::NotRefused, _) if beyond => Self::Beyond,
            (verdict, Some(issue)) => Self::Skipped(format!("issue {issue}: {}", verdict.reason())),
            (verdict, None) => Self::Failed(verdict.reason()),
        }
    }
}

/// How many cases had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that agree with Spark.
    pub passed: usize,
    /// Cases that do not.
    pub failed: usize,
    /// Cases that wait for an issue.
    pub skipped: usize,
    /// Cases where we go beyond Spark on purpose.
    pub beyond: usize,
}

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
            Outcome::Beyond => self.beyond += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
            beyond,
        } = self;
        if *beyond > 0 {
            writeln!(f, "{beyond} beyond")?;
        }
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// The line that is printed for a case.
#[must_use]
pub fn line(name: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed => format!("ok {name}"),
        Outcome::Failed(what) => format!("FAIL {name}: {}", one_line(what)),
        Outcome::Skipped(why) => format!("skip {name}: {}", one_line(why)),
        Outcome::Beyond => format!("beyond {name}"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
