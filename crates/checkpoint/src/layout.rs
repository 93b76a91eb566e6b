//! Every path of a checkpoint, once.

use highwater_core::{BatchId, Error, Result};
use object_store::path::Path;

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
            (
                layout.state_file(&name).expect("path"),
                "a b/ckpt/state/3-1",
            ),
        ] {
            assert_eq!(path.as_ref(), text);
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
