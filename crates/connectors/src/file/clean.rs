//! What becomes of files after the micro-batch that read them is committed: `cleanSource`.
//!
//! Best effort, as in Spark: a file that cannot be moved or deleted stays, and a warning is logged.

use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use highwater_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::location::Location;
use super::log::LoggedFile;
use super::options::CleanSource;

/// Does what `cleanSource` says.
#[derive(Clone, Debug)]
pub(super) enum Cleaner {
    /// Nothing.
    Off,
    /// Deletes.
    Delete,
    /// Moves below this folder of the same store.
    Archive(Path),
}

impl Cleaner {
    /// The cleaner for `clean`.
    ///
    /// # Errors
    /// `Invalid` when the archive is in another store, or where the source would find the files again.
    pub(super) fn new(
        clean: &CleanSource,
        location: &Location,
        runtime: &RuntimeEnv,
    ) -> Result<Self> {
        let folder = match clean {
            CleanSource::Off => return Ok(Self::Off),
            CleanSource::Delete => return Ok(Self::Delete),
            CleanSource::Archive(folder) => folder,
        };
        let wrong = |why: &str| {
            Error::invalid(format!("option `sourceArchiveDir` is `{folder}`: {why}"))
                .with_option("sourceArchiveDir")
        };
        let archive = Location::parse(folder, runtime)?;
        if archive.is_glob() {
            return Err(wrong("it must not have wildcards"));
        }
        if archive.url != location.url {
            return Err(wrong("it must be in the same store as the source"));
        }
        if location.overlaps(&archive.base) {
            return Err(wrong("the source would read the archived files again")
                .with_hint("choose a folder outside the source's path"));
        }
        Ok(Self::Archive(archive.base))
    }

    /// Moves or deletes `files`.
    pub(super) async fn clean(&self, files: &[LoggedFile], location: &Location) {
        for file in files {
            let done = match location.path_of(&file.path) {
                Ok(path) => self.one(&location.store, &path).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::warn!(file = %file.path, %error, "a file that was read cannot be cleaned up");
            }
        }
    }

    async fn one(&self, store: &Arc<dyn ObjectStore>, path: &Path) -> Result<()> {
        let done = match self {
            Self::Off => return Ok(()),
            Self::Delete => store.delete(path).await,
            Self::Archive(folder) => {
                let to = folder.parts().chain(path.parts()).collect();
                store.rename(path, &to).await
            }
        };
        match done {
            // An earlier run was here, or the user.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
