//! The two lists that stand beside the cases: what is not yet expected to pass, and where we go beyond Spark.

use std::collections::BTreeSet;
use std::path::Path;

use highwater::{Error, Result};

/// What the project says about cases that do not pass.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Cases that wait for an issue.
    pub not_yet: Vec<NotYet>,
    /// Cases whose refusal by Spark is lifted on purpose.
    pub beyond: BTreeSet<String>,
}

/// A line of `not-yet.txt`: a case, or `kind/*`, and the issue that removes the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// `kind/name`, or `kind/*`.
    pub pattern: String,
    /// The issue: a letter.
    pub issue: String,
}

impl NotYet {
    /// True when the line is about the case `name`.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(kind) => name.starts_with(kind),
            None => self.pattern == name,
        }
    }
}

impl Lists {
    /// Reads both lists; a file that is not there is an empty list.
    ///
    /// # Errors
    /// `Invalid` when a line is not `case<tab>issue`, `Unavailable` when a file cannot be read.
    pub fn read(not_yet: &Path, beyond: &Path) -> Result<Self> {
        Ok(Self {
            not_yet: parse_not_yet(&text(not_yet)?)?,
            beyond: parse_beyond(&text(beyond)?),
        })
    }

    /// The issue that the case waits for.
    #[must_use]
    pub fn issue_of(&self, name: &str) -> Option<&str> {
        self.not_yet
            .iter()
            .find(|line| line.covers(name))
            .map(|line| line.issue.as_str())
    }
}

fn text(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::from(e).context(format!("reading {}", path.display()))),
        Ok(text) => Ok(text),
    }
}

fn parse_not_yet(text: &str) -> Result<Vec<NotYet>> {
    text.lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once('\t') {
            Some((pattern, issue)) if pattern.contains('/') && !issue.is_empty() => Ok(NotYet {
                pattern: pattern.into(),
                issue: issue.into(),
            }),
            _ => Err(Error::invalid(format!("`{line}` is not `case<tab>issue`"))),
        })
        .collect()
}

/// The case names in backquotes in the first column of the tables of a Markdown text.
fn parse_beyond(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix('|'))
        .filter_map(|line| line.split('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| name.contains('/'))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_covers_a_case_or_a_kind() {
        let lists = parse_not_yet("# waits\ndedup/*\tB\nunion/plain\tD\n").unwrap();
        let lists = Lists {
            not_yet: lists,
            ..Lists::default()
        };
        for (name, issue) in [
            ("dedup/keys", Some("B")),
            ("union/plain", Some("D")),
            ("union/plainer", None),
        ] {
            assert_eq!(lists.issue_of(name), issue, "{name}");
        }
        assert!(parse_not_yet("dedup/keys B").is_err());
    }

    #[test]
    fn the_first_column_names_the_cases() {
        let names =
            parse_beyond("| case | why |\n|---|---|\n| `a/b`, `a/c` | `d/e` too |\n`f/g`\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a/b", "a/c"]);
    }
}
