//! The folder of a proof, and what can be read from it: where a kill hit, and how much there is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use highwater::Result;

use super::queries::{Query, SinkKind};

/// The folder of a proof: `in/`, `out/<query>/`, `ckpt/<query>/`.
#[derive(Clone, Debug)]
pub struct Place(PathBuf);

impl Place {
    /// The place in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// All of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// The files of the load.
    #[must_use]
    pub fn input(&self) -> PathBuf {
        self.0.join("in")
    }

    /// What `query` writes.
    #[must_use]
    pub fn output(&self, query: Query) -> PathBuf {
        self.0.join("out").join(query.name())
    }

    /// The checkpoint of `query`.
    #[must_use]
    pub fn checkpoint(&self, query: Query) -> PathBuf {
        self.0.join("ckpt").join(query.name())
    }

    /// Where in a micro-batch `query` was, from what it left.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn step(&self, query: Query, sink: SinkKind) -> Result<(Option<u64>, Step)> {
        let checkpoint = self.checkpoint(query);
        let intended = last(&checkpoint.join("offsets"))?;
        let done = last(&checkpoint.join("commits"))?;
        let Some(batch) = intended else {
            return Ok((None, Step::Before));
        };
        if done == Some(batch) {
            return Ok((intended, Step::Between));
        }
        let output = self.output(query);
        let written = match sink.of(query) {
            SinkKind::Foreach => output.join(format!("{batch}.jsonl")).exists(),
            SinkKind::Parquet => {
                let log = output.join("_spark_metadata");
                log.join(batch.to_string()).exists()
                    || log.join(format!("{batch}.compact")).exists()
            }
        };
        let state = names(&checkpoint.join("state"))?;
        let saved = state
            .iter()
            .any(|name| name.starts_with(&format!("{batch}-")));
        let step = match (written, saved) {
            (false, _) => Step::Intended,
            (true, false) => Step::Written,
            (true, true) => Step::Saved,
        };
        Ok((intended, step))
    }

    /// Files and bytes of each folder, by its path in the place.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn sizes(&self) -> Result<BTreeMap<String, Size>> {
        let mut sizes = BTreeMap::new();
        measure(&self.0, &self.0, &mut sizes)?;
        Ok(sizes)
    }
}

/// How far a micro-batch had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Nothing was ever intended.
    Before,
    /// The last micro-batch is done.
    Between,
    /// `offsets/N` is there, and the sink has nothing of N.
    Intended,
    /// The sink has N.
    Written,
    /// The sink has N, and so has the state.
    Saved,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before the first micro-batch",
            Self::Between => "between micro-batches",
            Self::Intended => "intended, not written",
            Self::Written => "written, state not saved",
            Self::Saved => "state saved, not committed",
        })
    }
}

/// How much is in a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Files directly in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn measure(root: &Path, folder: &Path, sizes: &mut BTreeMap<String, Size>) -> Result<()> {
    let mut size = Size::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            measure(root, &entry.path(), sizes)?;
        } else {
            size.files += 1;
            size.bytes += meta.len();
        }
    }
    if size.files > 0 {
        let name = folder.strip_prefix(root).unwrap_or(folder);
        sizes.insert(name.display().to_string(), size);
    }
    Ok(())
}

/// The highest number that is the name of a file.
fn last(folder: &Path) -> Result<Option<u64>> {
    let names = names(folder)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).max())
}

/// The names in a folder; none when there is no folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}
