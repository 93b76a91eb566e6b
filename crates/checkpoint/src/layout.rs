//! Every path of a checkpoint, once.

use highwater_core::{BatchId, Error, Result};
use object_store::path::Path;

/// What the name of a snapshot ends with.
const SNAPSHOT: &str = ".snapshot";

/// The folder of a checkpoint, and where each thing is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: Path,
}

impl Layout {
    /// The layout of the checkpoint in `root`.
    #[must_use]
    pub fn new(root: Path) -> Self {
        Self { root }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file with the query's identity.
    #[must_use]
    pub fn metadata(&self) -> Path {
        self.at("metadata")
    }

    /// The file with the stateful operators.
    #[must_use]
    pub fn operators(&self) -> Path {
        self.at("operators")
    }

    /// The name of the file in which one run describes operators that are not those of `operators`, relative to the folder.
    #[must_use]
    pub fn operators_name(run: u64) -> String {
        format!("operators-{run}")
    }

    /// The folder of the claims of runs.
    #[must_use]
    pub fn runs(&self) -> Path {
        self.at("runs")
    }

    /// The folder of the offset log.
    #[must_use]
    pub fn offsets(&self) -> Path {
        self.at("offsets")
    }

    /// The folder of the commit log.
    #[must_use]
    pub fn commits(&self) -> Path {
        self.at("commits")
    }

    /// The folder that a source keeps its own log in; its name is made safe for a path.
    #[must_use]
    pub fn source(&self, name: &str) -> Path {
        self.at("sources").join(name)
    }

    /// The name of the state file of a micro-batch as one run writes it, relative to the folder.
    #[must_use]
    pub fn state_name(batch: BatchId, run: u64) -> String {
        format!("state/{batch}-{run}")
    }

    /// The name of the snapshot of the parts from `part` on that a run takes after a micro-batch, relative to the folder.
    #[must_use]
    pub fn snapshot_name(batch: BatchId, run: u64, part: u32) -> String {
        format!("{}.{part}{SNAPSHOT}", Self::state_name(batch, run))
    }

    /// The folder of state files and snapshots.
    #[must_use]
    pub fn states(&self) -> Path {
        self.at("state")
    }

    /// The run that wrote the state file or snapshot of this name; `None` for the name of another file.
    #[must_use]
    pub fn run_of(name: &str) -> Option<u64> {
        let name = name.strip_prefix("state/").unwrap_or(name);
        let (batch, rest) = name.split_once('-')?;
        batch.parse::<u64>().ok()?;
        let Some(snapshot) = rest.strip_suffix(SNAPSHOT) else {
            return rest.parse().ok();
        };
        let (run, part) = snapshot.split_once('.')?;
        part.parse::<u32>().ok()?;
        run.parse().ok()
    }

    /// The file that a commit entry names.
    ///
    /// # Errors
    /// `Corrupt` when the name leads out of the folder.
    pub fn state_file(&self, name: &str) -> Result<Path> {
        let relative = Path::parse(name).map_err(|e| {
            Error::corrupt(format!("`{name}` is no name of a state file")).with_source(e)
        })?;
        Ok(self.root.parts().chain(relative.parts()).collect())
    }

    fn at(&self, name: &str) -> Path {
        self.root.clone().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_the_documented_ones() {
        let layout = Layout::new(Path::from("a b/ckpt"));
        let name = Layout::state_name(BatchId(3), 1);
        for (path, text) in [
            (layout.metadata(), "a b/ckpt/metadata"),
            (layout.operators(), "a b/ckpt/operators"),
            (layout.runs(), "a b/ckpt/runs"),
            (layout.offsets(), "a b/ckpt/offsets"),
            (layout.commits(), "a b/ckpt/commits"),
            (layout.source("pumps"), "a b/ckpt/sources/pumps"),
            (layout.source("../x"), "a b/ckpt/sources/..%2Fx"),
            (layout.states(), "a b/ckpt/state"),
            (
                layout.state_file(&name).expect("path"),
                "a b/ckpt/state/3-1",
            ),
        ] {
            assert_eq!(path.as_ref(), text);
        }
    }

    #[test]
    fn a_name_tells_its_run() {
        for (name, run) in [
            (Layout::state_name(BatchId(3), 12), Some(12)),
            (Layout::snapshot_name(BatchId(3), 4, 9), Some(4)),
            ("3-7".to_owned(), Some(7)),
            ("3-7.0.snapshot".to_owned(), Some(7)),
            ("3-7.snapshot".to_owned(), None),
            ("3".to_owned(), None),
            ("3-7.tmp".to_owned(), None),
            ("x-7".to_owned(), None),
        ] {
            assert_eq!(Layout::run_of(&name), run, "{name}");
        }
    }

    #[test]
    fn a_state_file_lies_in_the_checkpoint() {
        let layout = Layout::new(Path::from("ckpt"));
        let error = layout
            .state_file("state/../../secret")
            .expect_err("outside");
        assert_eq!(error.kind(), highwater_core::ErrorKind::Corrupt);
    }
}
