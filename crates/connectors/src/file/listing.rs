//! One look at the path: which files are there now, and which of them count.
//!
//! Left out are names that begin with `_` or `.` (folders on the way too, unless they are partitions),
//! files being copied (`._COPYING_`), what `pathGlobFilter` does not match, and files in folders below
//! unless `recursiveFileLookup` or partition columns ask for them. Order: (modification time, path).
//!
//! A directory that a file sink wrote is not listed: its files are those that the [log](super::committed) names, in that order. As in
//! Spark only the directory itself counts, not a pattern that matches it, nor a file or folder in it.

use futures::TryStreamExt;
use glob::Pattern;
use highwater_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::committed::Committed;
use super::location::Location;
use super::options::{CleanSource, FileSourceOptions};
use super::sink_log;

/// A file that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedFile {
    /// Where it is in its store.
    pub(super) path: Path,
    /// Its size in bytes.
    pub(super) size: u64,
    /// When it was last modified, in milliseconds since 1970.
    pub(super) modified: i64,
    /// What the store calls this content of it.
    pub(super) etag: Option<String>,
    /// The log of a sink names it.
    pub(super) of_sink: bool,
}

impl From<ObjectMeta> for ListedFile {
    fn from(meta: ObjectMeta) -> Self {
        Self {
            path: meta.location,
            size: meta.size,
            modified: meta.last_modified.timestamp_millis(),
            etag: meta.e_tag,
            of_sink: false,
        }
    }
}

/// What a look at the path finds.
#[derive(Debug)]
pub(super) enum Found {
    /// The files of a folder, the oldest first.
    Files(Vec<ListedFile>),
    /// The log of the sink that wrote the directory.
    Log(Committed),
    /// The log of the sink, without a new entry.
    SameLog,
}

/// How a path is looked at.
#[derive(Clone, Debug)]
pub(super) struct Lister {
    location: Location,
    /// The path is one file.
    single: bool,
    recursive: bool,
    name_filter: Option<Pattern>,
    /// Files in folders `k=v` count.
    partitioned: bool,
    /// Files are to be deleted or moved after they are read.
    cleans: bool,
    /// The path is the directory of a sink, even if that has written nothing yet.
    of_sink: bool,
}

impl Lister {
    /// Looks whether the path is there.
    ///
    /// # Errors
    /// `Invalid` with Spark's condition `PATH_NOT_FOUND` when a path without wildcards does not exist.
    pub(super) async fn open(location: Location, options: &FileSourceOptions) -> Result<Self> {
        let lister = Self::anywhere(location, options).await?;
        if lister.exists().await? {
            return Ok(lister);
        }
        let display = &lister.location.display;
        Err(Error::invalid(format!("path does not exist: {display}"))
            .with_condition("PATH_NOT_FOUND")
            .with_hint("make the folder before the query starts, or use wildcards"))
    }

    /// For the directory of a sink, which need not exist yet.
    ///
    /// # Errors
    /// `Invalid` when the path has wildcards or is a file.
    pub(super) async fn of_sink(location: Location, options: &FileSourceOptions) -> Result<Self> {
        let mut lister = Self::anywhere(location, options).await?;
        if lister.single || lister.location.is_glob() {
            let display = &lister.location.display;
            return Err(Error::invalid(format!("`{display}` is no directory")).with_option("path"));
        }
        lister.of_sink = true;
        Ok(lister)
    }

    async fn anywhere(location: Location, options: &FileSourceOptions) -> Result<Self> {
        let name_filter = options
            .path_glob_filter
            .as_deref()
            .map(Pattern::new)
            .transpose()
            .map_err(|e| {
                Error::invalid("option `pathGlobFilter` is no pattern")
                    .with_option("pathGlobFilter")
                    .with_source(e)
            })?;
        Ok(Self {
            single: location.is_file().await,
            location,
            recursive: options.recursive_file_lookup,
            name_filter,
            partitioned: !options.recursive_file_lookup,
            cleans: options.clean_source != CleanSource::Off,
            of_sink: false,
        })
    }

    async fn exists(&self) -> Result<bool> {
        if self.single || self.location.is_glob() || self.location.is_folder().await {
            return Ok(true);
        }
        let mut all = self.location.store.list(Some(&self.location.base));
        Ok(all.try_next().await?.is_some())
    }

    /// The place that is listed.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// From now on, files in folders `k=v` count only if `partitioned`.
    pub(super) fn set_partitioned(&mut self, partitioned: bool) {
        self.partitioned = partitioned;
    }

    /// The files that are there now, in the order in which they are taken.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn list(&self) -> Result<Vec<ListedFile>> {
        Ok(match self.look(None).await? {
            Found::Files(files) => files,
            Found::Log(log) => log.current(),
            Found::SameLog => vec![],
        })
    }

    /// What is there now, also in the directory of a sink that has no log yet.
    ///
    /// # Errors
    /// As for [`look`](Self::look).
    pub(super) async fn look_for_log(&self) -> Result<Found> {
        let lister = Self {
            of_sink: false,
            ..self.clone()
        };
        lister.look(None).await
    }

    /// What is there now; `known` is the latest entry of the sink's log that was seen before.
    ///
    /// # Errors
    /// What the store says; `Unsupported` when files of a sink are to be deleted or moved.
    pub(super) async fn look(&self, known: Option<u64>) -> Result<Found> {
        let may_have_log = !self.single && !self.location.is_glob();
        if self.of_sink || (may_have_log && self.location.has_folder(sink_log::FOLDER).await) {
            return self.log(known).await;
        }
        let (found, has_log) = self.objects().await?;
        if may_have_log && has_log {
            return self.log(known).await;
        }
        let counting = found.into_iter().filter(|meta| self.counts(&meta.location));
        let mut files: Vec<ListedFile> = counting.map(ListedFile::from).collect();
        self.refuse_compressed(&files)?;
        files.sort_unstable_by(|a, b| {
            (a.modified, a.path.as_ref()).cmp(&(b.modified, b.path.as_ref()))
        });
        Ok(Found::Files(files))
    }

    async fn log(&self, known: Option<u64>) -> Result<Found> {
        if self.cleans {
            return Err(Error::unsupported(format!(
                "clean up of source files in `{}`, the output directory of a file sink",
                self.location.display
            ))
            .with_option("cleanSource")
            .with_hint("the sink looks after its files itself, see its option `retention`"));
        }
        if known.is_some() && Committed::latest_in(&self.location).await? == known {
            return Ok(Found::SameLog);
        }
        let mut log = Committed::read(&self.location).await?;
        if let Some(filter) = &self.name_filter {
            log.retain(|path| filter.matches(path.filename().unwrap_or_default()));
        }
        self.refuse_compressed(&log.current())?;
        Ok(Found::Log(log))
    }

    /// All objects below the base, and whether the log of a sink is among them.
    async fn objects(&self) -> Result<(Vec<ObjectMeta>, bool)> {
        let base = &self.location.base;
        let store = &self.location.store;
        if self.single {
            return match store.head(base).await {
                Ok(meta) => Ok((vec![meta], false)),
                Err(object_store::Error::NotFound { .. }) => Ok((vec![], false)),
                Err(e) => Err(e.into()),
            };
        }
        let log = base.clone().join(sink_log::FOLDER);
        if self.location.is_flat() && !self.recursive && !self.partitioned {
            let listed = store.list_with_delimiter(Some(base)).await?;
            let has_log = listed.common_prefixes.contains(&log);
            return Ok((listed.objects, has_log));
        }
        let found: Vec<ObjectMeta> = store.list(Some(base)).try_collect().await?;
        let has_log = found.iter().any(|meta| meta.location.prefix_matches(&log));
        Ok((found, has_log))
    }

    /// Compressed files would only be read as garbage.
    fn refuse_compressed(&self, files: &[ListedFile]) -> Result<()> {
        const ENDINGS: [&str; 7] = ["gz", "bz2", "xz", "zst", "lz4", "snappy", "deflate"];
        let compressed = |file: &&ListedFile| {
            let ending = file.path.extension();
            ending.is_some_and(|ending| ENDINGS.contains(&ending))
        };
        match files.iter().find(compressed) {
            Some(file) => Err(Error::unsupported(format!(
                "file {} is compressed, which is not supported",
                self.location.url_of(&file.path)
            ))
            .with_hint("unpack it first, or leave it out with `pathGlobFilter`")),
            None => Ok(()),
        }
    }

    /// True when a file of this path is one of ours.
    fn counts(&self, path: &Path) -> bool {
        let name = path.filename().unwrap_or_default();
        if self
            .name_filter
            .as_ref()
            .is_some_and(|filter| !filter.matches(name))
        {
            return false;
        }
        if self.single {
            return true;
        }
        let Some(below) = path.prefix_match(&self.location.base) else {
            return false;
        };
        let below: Vec<_> = below.collect();
        let below: Vec<&str> = below.iter().map(AsRef::as_ref).collect();
        if below.is_empty() || below.iter().any(|part| is_hidden(part)) {
            return false;
        }
        let Some(matched) = self.location.matched(&below) else {
            return false;
        };
        let folders = &below[matched.min(below.len() - 1)..below.len() - 1];
        self.recursive
            || folders.is_empty()
            || (self.partitioned && folders.iter().all(|folder| folder.contains('=')))
    }

    /// The folders of `path` that may be partitions: those after what the user's path names.
    pub(super) fn folders<'a>(&self, path: &'a Path, base: Option<&Path>) -> Vec<&'a str> {
        let all: Vec<&str> = path.as_ref().split('/').collect();
        let folders = &all[..all.len() - 1];
        let start = match base {
            Some(base) => base.parts().count(),
            None => {
                let root = self.location.base.parts().count();
                let below = all.get(root..).unwrap_or_default();
                root + self.location.matched(below).unwrap_or(0)
            }
        };
        folders.get(start..).unwrap_or_default().to_vec()
    }
}

/// Spark's rule; `_col=1` is a partition, not a hidden folder.
fn is_hidden(name: &str) -> bool {
    (name.starts_with('_') && !name.contains('='))
        || name.starts_with('.')
        || name.ends_with("._COPYING_")
}
