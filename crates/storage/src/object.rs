//! The few things that are done with one object of a store, with errors that name it.

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use highwater_core::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::durable::Deferred;

/// Writes an object that must not exist yet; of several writers exactly one succeeds.
///
/// # Errors
/// `Fenced`, naming the path, when the object exists; `Unsupported` when the store cannot put if absent.
pub async fn put_new(store: &dyn ObjectStore, path: &Path, bytes: Vec<u8>) -> Result<()> {
    let options = PutOptions::from(PutMode::Create);
    let Err(error) = store.put_opts(path, bytes.into(), options).await else {
        return Ok(());
    };
    Err(match error {
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            taken(path).with_source(error)
        }
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            failed("writing", path, error).with_hint(format!(
                "logs need a store that can put an object if it is absent, and {store} cannot"
            ))
        }
        error => failed("writing", path, error),
    })
}

/// Writes an object, whether it exists or not.
///
/// # Errors
/// The store's error, naming the path.
pub async fn put(store: &dyn ObjectStore, path: &Path, bytes: Vec<u8>) -> Result<()> {
    match store.put(path, bytes.into()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("writing", path, error)),
    }
}

/// As [`put`], but with `durability=fsync` it may be lost with the power until something is written by [`put_new`].
///
/// # Errors
/// The store's error, naming the path.
pub async fn put_deferred(store: &dyn ObjectStore, path: &Path, bytes: Vec<u8>) -> Result<()> {
    let mut options = PutOptions::default();
    options.extensions.insert(Deferred);
    match store.put_opts(path, bytes.into(), options).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("writing", path, error)),
    }
}

/// Reads an object; `None` when there is none.
///
/// # Errors
/// The store's error, naming the path.
pub async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>> {
    let found = match store.get(path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed("reading", path, error)),
    };
    match found.bytes().await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => Err(failed("reading", path, error)),
    }
}

/// Tells whether an object exists.
///
/// # Errors
/// The store's error, naming the path.
pub async fn exists(store: &dyn ObjectStore, path: &Path) -> Result<bool> {
    match store.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(failed("looking up", path, error)),
    }
}

/// The names of the objects that lie directly in `folder`, in no order; none when there is no folder.
///
/// # Errors
/// The store's error, naming the folder.
pub async fn names(store: &dyn ObjectStore, folder: &Path) -> Result<Vec<String>> {
    match store.list_with_delimiter(Some(folder)).await {
        Ok(listed) => Ok(listed
            .objects
            .iter()
            .filter_map(|object| object.location.filename().map(str::to_owned))
            .collect()),
        Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(failed("listing", folder, error)),
    }
}

/// Deletes objects; one that is gone already is no error.
///
/// # Errors
/// The store's first error.
pub async fn remove(store: &dyn ObjectStore, paths: Vec<Path>) -> Result<()> {
    let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
    let mut removed = store.delete_stream(paths);
    loop {
        match removed.try_next().await {
            Ok(Some(_)) | Err(object_store::Error::NotFound { .. }) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(Error::from(error).context("deleting old entries")),
        }
    }
}

fn taken(path: &Path) -> Error {
    Error::fenced(format!("`{path}` is already there: another run wrote it"))
        .with_condition("CONCURRENT_STREAM_LOG_UPDATE")
        .with_hint("stop the other run of this query, or give this query a location of its own")
}

fn failed(doing: &str, path: &Path, error: object_store::Error) -> Error {
    Error::from(error).context(format_args!("{doing} `{path}`"))
}
