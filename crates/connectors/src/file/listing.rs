//! One look at the path: which files are there now, and which of them count.
//!
//! Left out are names that begin with `_` or `.` (folders on the way too, unless they are partitions),
//! files being copied (`._COPYING_`), what `pathGlobFilter` does not match, and files in folders below
//! unless `recursiveFileLookup` or partition columns ask for them. Order: (modification time, path).

use futures::TryStreamExt;
use glob::Pattern;
use highwater_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::location::Location;
use super::options::FileSourceOptions;

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
}

impl From<ObjectMeta> for ListedFile {
    fn from(meta: ObjectMeta) -> Self {
        Self {
            path: meta.location,
            size: meta.size,
            modified: meta.last_modified.timestamp_millis(),
            etag: meta.e_tag,
        }
    }
}

/// How a path is listed.
#[derive(Clone, Debug)]
pub(super) struct Lister {
    location: Location,
    /// The path is one file.
    single: bool,
    recursive: bool,
    name_filter: Option<Pattern>,
    /// Files in folders `k=v` count.
    partitioned: bool,
}

impl Lister {
    /// Looks whether the path is there.
    ///
    /// # Errors
    /// `Invalid` with Spark's condition `PATH_NOT_FOUND` when a path without wildcards does not exist.
    pub(super) async fn open(location: Location, options: &FileSourceOptions) -> Result<Self> {
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
        let lister = Self {
            single: location.is_file().await,
            location,
            recursive: options.recursive_file_lookup,
            name_filter,
            partitioned: !options.recursive_file_lookup,
        };
        if lister.exists().await? {
            return Ok(lister);
        }
        let display = &lister.location.display;
        Err(Error::invalid(format!("path does not exist: {display}"))
            .with_condition("PATH_NOT_FOUND")
            .with_hint("make the folder before the query starts, or use wildcards"))
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

    /// The files that are there now, the oldest first.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn list(&self) -> Result<Vec<ListedFile>> {
        let base = &self.location.base;
        let store = &self.location.store;
        let found: Vec<ObjectMeta> = if self.single {
            match store.head(base).await {
                Ok(meta) => vec![meta],
                Err(object_store::Error::NotFound { .. }) => vec![],
                Err(e) => return Err(e.into()),
            }
        } else if self.location.is_flat() && !self.recursive && !self.partitioned {
            store.list_with_delimiter(Some(base)).await?.objects
        } else {
            store.list(Some(base)).try_collect().await?
        };
        let mut files: Vec<ListedFile> = found
            .into_iter()
            .filter(|meta| self.counts(&meta.location))
            .map(ListedFile::from)
            .collect();
        self.refuse_compressed(&files)?;
        files.sort_unstable_by(|a, b| {
            (a.modified, a.path.as_ref()).cmp(&(b.modified, b.path.as_ref()))
        });
        Ok(files)
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
