//! From what a user writes as a location to a store and a folder in it.

use std::path;
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use highwater_core::{Error, Result};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, path::Path};
use url::{Position, Url};

use crate::durable::DurableStore;

/// Opens the folder that `location` names.
///
/// - `data/ckpt`, `/data/ckpt`, `file:///data/ckpt`: a folder of the local disk, made if it is not there.
///   A relative path starts at the working directory.
/// - `memory:///ckpt`, `memory://name/ckpt`: a folder in memory. It lives as long as `runtime` does, so
///   another query of the same session finds it again.
/// - any other URL: a folder of the object store that is registered in `runtime` for the URL.
///
/// # Errors
/// `Invalid` when no store is registered for the URL, the URL cannot be read, or the folder cannot be made.
pub fn open_location(location: &str, runtime: &RuntimeEnv) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let Some(url) = parse_url(location)? else {
        return open_local(path::Path::new(location), location);
    };
    match url.scheme() {
        "file" => match url.to_file_path() {
            Ok(path) => open_local(&path, location),
            Err(()) => Err(
                Error::invalid(format!("`{location}` is on another machine"))
                    .with_hint("write a local folder as `file:///data/ckpt`, with three slashes"),
            ),
        },
        "memory" => Ok((memory_store(&url, runtime), folder_of(&url)?)),
        _ => Ok((registered_store(&url, runtime)?, folder_of(&url)?)),
    }
}

/// Opens the folder that `location` names, in a store whose answers survive the loss of power.
///
/// A folder of the local disk is opened with [`DurableStore`]; the stores of clouds acknowledge a write only when it
/// is durable, and are used as they are. Whether that holds for a store that the user registered is the user's to know.
///
/// # Errors
/// `Unsupported` for a folder in memory; else as [`open_location`].
pub async fn open_durable(
    location: &str,
    runtime: &RuntimeEnv,
) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let url = parse_url(location)?;
    if url.as_ref().is_some_and(|url| url.scheme() == "memory") {
        return Err(Error::unsupported(format!(
            "`{location}` is in memory, which no flush makes durable"
        ))
        .with_hint("choose a folder of a disk or of an object store"));
    }
    let (store, folder) = open_location(location, runtime)?;
    if url.is_some_and(|url| url.scheme() != "file") {
        return Ok((store, folder));
    }
    let on_disk = LocalFileSystem::new().path_to_filesystem(&folder)?;
    let durable = DurableStore::open(on_disk).await.map_err(|e| {
        Error::from(e).context(format_args!(
            "folder `{location}` cannot be flushed to the disk"
        ))
    })?;
    Ok((Arc::new(durable), folder))
}

/// Opens the folder that `location` names, for a run that flushes nothing.
///
/// What [`open_durable`] left to be written again after a loss of power is written, and its journal ends.
///
/// # Errors
/// As [`open_location`].
pub async fn open_undurable(
    location: &str,
    runtime: &RuntimeEnv,
) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let (store, folder) = open_location(location, runtime)?;
    if parse_url(location)?.is_none_or(|url| url.scheme() == "file") {
        let on_disk = LocalFileSystem::new().path_to_filesystem(&folder)?;
        DurableStore::release(on_disk).await.map_err(|e| {
            Error::from(e).context(format_args!(
                "the journal of folder `{location}` cannot be ended"
            ))
        })?;
    }
    Ok((store, folder))
}

/// The URL that `location` is; `None` when it is a path. `C:\data` is a path.
fn parse_url(location: &str) -> Result<Option<Url>> {
    if location.trim().is_empty() {
        return Err(Error::invalid("a location must not be empty"));
    }
    let scheme = location.split_once(':').map_or("", |(scheme, _)| scheme);
    if !location.contains("://") && scheme != "file" {
        return Ok(None);
    }
    Url::parse(location)
        .map(Some)
        .map_err(|e| Error::invalid(format!("`{location}` is no URL")).with_source(e))
}

/// A folder of the local disk, in a store that begins at the root of the disk.
fn open_local(folder: &path::Path, location: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let made = path::absolute(folder).and_then(|folder| {
        std::fs::create_dir_all(&folder)?;
        folder.canonicalize()
    });
    let folder = made.map_err(|e| {
        Error::invalid(format!("folder `{location}` cannot be made")).with_source(e)
    })?;
    let path = Path::from_absolute_path(&folder).map_err(|e| bad_folder(location, e))?;
    Ok((Arc::new(LocalFileSystem::new()), path))
}

/// The store in memory that `runtime` has for the URL, or a new one that it will have from now on.
fn memory_store(url: &Url, runtime: &RuntimeEnv) -> Arc<dyn ObjectStore> {
    runtime
        .object_store_registry
        .get_store(url)
        .unwrap_or_else(|_| {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            runtime.register_object_store(url, Arc::clone(&store));
            store
        })
}

fn registered_store(url: &Url, runtime: &RuntimeEnv) -> Result<Arc<dyn ObjectStore>> {
    runtime.object_store_registry.get_store(url).map_err(|e| {
        let root = format!(
            "{}://{}",
            url.scheme(),
            &url[Position::BeforeHost..Position::AfterPort]
        );
        Error::invalid(format!("no object store is registered for `{root}`"))
            .with_hint(format!(
                "register one before: `register_object_store(&Url::parse(\"{root}\")?, store)`"
            ))
            .with_source(e)
    })
}

fn folder_of(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path()).map_err(|e| bad_folder(url.as_str(), e))
}

fn bad_folder(location: &str, cause: object_store::path::Error) -> Error {
    Error::invalid(format!("`{location}` cannot be used as a folder")).with_source(cause)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    async fn write(location: &str, runtime: &RuntimeEnv) {
        let (store, folder) = open_location(location, runtime).expect(location);
        let put = store.put(&folder.clone().join("x"), "v1".into()).await;
        put.expect("put");
    }

    #[tokio::test]
    async fn a_path_and_a_file_url_are_the_same_folder() {
        let runtime = RuntimeEnv::default();
        let base = tempfile::tempdir().expect("folder");
        let folder = base.path().join("a b").join("ckpt%20#1");
        let url = Url::from_file_path(&folder).expect("url");
        let by_path = open_location(&folder.to_string_lossy(), &runtime).expect("path");
        let by_url = open_location(url.as_str(), &runtime).expect("url");
        let short = url.as_str().replace("file://", "file:");
        let by_short = open_location(&short, &runtime).expect("short url");
        assert_eq!(by_path.1, by_url.1);
        assert_eq!(by_path.1, by_short.1);
        assert!(folder.is_dir());
        write(url.as_str(), &runtime).await;
        assert!(folder.join("x").is_file());
    }

    #[test]
    fn a_relative_path_starts_at_the_working_directory() {
        let (_, folder) = open_location("../storage/./src", &RuntimeEnv::default()).expect("path");
        let here = Path::from_filesystem_path("src").expect("path");
        assert_eq!(folder, here);
    }

    #[tokio::test]
    async fn memory_is_kept_by_the_session() {
        let runtime = RuntimeEnv::default();
        for location in ["memory:///ckpt", "memory://one/ckpt"] {
            write(location, &runtime).await;
            let (store, folder) = open_location(location, &runtime).expect("again");
            assert!(
                store.head(&folder.clone().join("x")).await.is_ok(),
                "{location}"
            );
        }
        let (store, folder) = open_location("memory://two/ckpt", &runtime).expect("another");
        assert!(store.head(&folder.clone().join("x")).await.is_err());
    }

    #[test]
    fn any_registered_store_will_do() {
        let runtime = RuntimeEnv::default();
        let url = Url::parse("s3://bucket").expect("url");
        runtime.register_object_store(&url, Arc::new(InMemory::new()));
        let (_, folder) = open_location("s3://bucket/a%20b/ckpt/", &runtime).expect("opened");
        assert_eq!(folder.as_ref(), "a b/ckpt");
    }

    #[tokio::test]
    async fn a_durable_folder_is_on_a_disk_or_in_a_store_of_its_own() {
        let runtime = RuntimeEnv::default();
        let base = tempfile::tempdir().expect("folder");
        let folder = base.path().join("a b/ckpt");
        let (store, path) = open_durable(&folder.to_string_lossy(), &runtime)
            .await
            .expect("opened");
        assert!(store.to_string().starts_with("DurableStore"), "{store}");
        let put = store.put(&path.clone().join("x"), "v1".into()).await;
        put.expect("put");
        assert!(folder.join("x").is_file());
        let error = open_durable("memory:///ckpt", &runtime)
            .await
            .expect_err("in memory");
        assert_eq!(error.kind(), highwater_core::ErrorKind::Unsupported);
        let url = Url::parse("s3://bucket").expect("url");
        runtime.register_object_store(&url, Arc::new(InMemory::new()));
        let (store, _) = open_durable("s3://bucket/ckpt", &runtime)
            .await
            .expect("as it is");
        assert_eq!(store.to_string(), "InMemory");
    }

    #[test]
    fn what_cannot_be_opened_says_the_way_out() {
        let runtime = RuntimeEnv::default();
        let file = tempfile::NamedTempFile::new().expect("file");
        let file = file.path().to_string_lossy().into_owned();
        for (location, message) in [
            (
                "s3://user:secret@bucket/ckpt",
                "no object store is registered for `s3://bucket`",
            ),
            ("", "a location must not be empty"),
            ("s3://[bad/ckpt", "`s3://[bad/ckpt` is no URL"),
            (
                "file://host/ckpt",
                "`file://host/ckpt` is on another machine",
            ),
            (&file, &format!("folder `{file}` cannot be made")),
        ] {
            let error = open_location(location, &runtime).expect_err(location);
            assert_eq!(error.kind(), highwater_core::ErrorKind::Invalid);
            assert_eq!(error.message(), message);
        }
    }
}
