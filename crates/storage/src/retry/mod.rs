//! A store that tries again what failed for a moment.
//!
//! | operation | after a failure that may pass |
//! |---|---|
//! | `put` | again; *put if absent* that finds the object there reads it back: our own bytes are a success |
//! | `get` | again; a body that breaks in the middle is read on from there, of the same object |
//! | `list` | again; what was given already is left out |
//! | `delete` | again; what is gone by then is deleted |
//! | upload in parts | all parts again, up to 64 MiB, and 256 MiB for all uploads of a store that are open |
//! | `copy`, `rename` | again; a rename whose source is gone and whose target is there is done |
//!
//! The stores of clouds try again by themselves, too; what they give up on comes here, and is tried more slowly.
//! A *put if absent* of the same bytes by two writers, one of whom had to try again, succeeds for both: entries that
//! must have one owner have its name in them.

mod body;
mod policy;
mod upload;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use highwater_core::Clock;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result,
};

pub use policy::{RetryPolicy, is_transient};

use policy::Tries;
use upload::RetryUpload;

/// So many objects are deleted in one request, where the store can do that.
const DELETED_AT_ONCE: usize = 1_000;

/// An [`ObjectStore`] around another one, which tries again what failed for a moment.
///
/// Each retry is told as a warning, with the path and the attempt; the error after the last one says how often it
/// was tried. Other errors go through at once. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    policy: Arc<RetryPolicy>,
    clock: Arc<dyn Clock>,
    /// Counts the operations, so that no two have the same pauses.
    operations: Arc<AtomicU64>,
    /// The bytes of uploads that are kept to be sent again.
    kept: Arc<AtomicUsize>,
}

impl RetryStore {
    /// Wraps `inner`; with a policy of no attempts it is given back as it is.
    #[must_use]
    pub fn around(
        inner: Arc<dyn ObjectStore>,
        policy: RetryPolicy,
        clock: Arc<dyn Clock>,
    ) -> Arc<dyn ObjectStore> {
        if policy.attempts == 0 {
            return inner;
        }
        Arc::new(Self {
            inner,
            policy: Arc::new(policy),
            clock,
            operations: Arc::default(),
            kept: Arc::default(),
        })
    }

    fn tries(&self, operation: &'static str, path: impl fmt::Display) -> Tries {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        let (policy, clock) = (Arc::clone(&self.policy), Arc::clone(&self.clock));
        Tries::new(policy, clock, operation, path.to_string(), number)
    }

    /// Does `work` until it succeeds, fails for good, or was tried enough.
    async fn run<T, F>(
        &self,
        operation: &'static str,
        path: &Path,
        mut work: impl FnMut() -> F + Send,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let mut tries = self.tries(operation, path);
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// The object is there already, and an earlier try of ours may have put it there: its bytes tell.
    async fn is_ours(
        &self,
        location: &Path,
        payload: &PutPayload,
        refused: Error,
    ) -> Result<PutResult> {
        let there = match self.get_opts(location, GetOptions::default()).await {
            Ok(there) => there,
            Err(Error::NotFound { .. }) => return Err(refused),
            Err(error) => return Err(error),
        };
        let (e_tag, version) = (there.meta.e_tag.clone(), there.meta.version.clone());
        if there.meta.size == payload.content_length() as u64
            && there.bytes().await? == Bytes::from(payload.clone())
        {
            return Ok(PutResult { e_tag, version });
        }
        Err(refused)
    }

    /// Deletes all of `locations`.
    async fn delete_all(&self, locations: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let mut results = Vec::with_capacity(locations.len());
        let mut left = Vec::new();
        for location in locations {
            match location {
                Ok(location) => left.push(location),
                failed => results.push(failed),
            }
        }
        let mut tries = self.tries("delete", left.first().cloned().unwrap_or_default());
        while !left.is_empty() {
            let round = Round::run(&*self.inner, &mut left, &mut results).await;
            let Some(error) = round.passing else {
                if tries.is_again() && round.failed.is_empty() {
                    // What an earlier try deleted is not found any more.
                    results.extend(left.drain(..).map(Ok));
                } else {
                    results.extend(round.failed.into_iter().chain(round.missing).map(Err));
                }
                break;
            };
            if let Err(error) = tries.again(error).await {
                results.push(Err(error));
                break;
            }
        }
        results
    }
}

/// What came of one try to delete several objects, besides those that are deleted.
#[derive(Default)]
struct Round {
    /// The last error that may pass.
    passing: Option<Error>,
    missing: Vec<Error>,
    failed: Vec<Error>,
}

impl Round {
    /// Those that are deleted move from `left` to `results`.
    async fn run(
        store: &dyn ObjectStore,
        left: &mut Vec<Path>,
        results: &mut Vec<Result<Path>>,
    ) -> Self {
        let mut round = Self::default();
        let mut deleted = HashSet::new();
        let locations = stream::iter(left.clone().into_iter().map(Ok)).boxed();
        let mut answers = store.delete_stream(locations);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(location) => {
                    deleted.insert(location.clone());
                    results.push(Ok(location));
                }
                Err(error @ Error::NotFound { .. }) => round.missing.push(error),
                Err(error) if is_transient(&error) => round.passing = Some(error),
                Err(error) => round.failed.push(error),
            }
        }
        left.retain(|location| !deleted.contains(location));
        round
    }
}

/// Lists with `open`, and again after a failure that may pass, without what was given already.
fn listed(
    tries: Tries,
    mut open: impl FnMut() -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let first = open();
    let given: HashSet<Path> = HashSet::new();
    let state = Some((tries, open, first, given));
    stream::unfold(state, |state| async move {
        let (mut tries, mut open, mut objects, mut given) = state?;
        loop {
            match objects.next().await? {
                Ok(object) if given.contains(&object.location) => {}
                Ok(object) => {
                    tries.came_on();
                    given.insert(object.location.clone());
                    return Some((Ok(object), Some((tries, open, objects, given))));
                }
                Err(error) => match tries.again(error).await {
                    Ok(()) => objects = open(),
                    Err(error) => return Some((Err(error), None)),
                },
            }
        }
    })
    .boxed()
}

impl fmt::Display for RetryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RetryStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let mut tries = self.tries("put", location);
        loop {
            let put = self.inner.put_opts(location, payload.clone(), opts.clone());
            match put.await {
                Ok(done) => return Ok(done),
                Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. }))
                    if tries.is_again() && opts.mode != PutMode::Overwrite =>
                {
                    return self.is_ours(location, &payload, error).await;
                }
                Err(error) => tries.again(error).await?,
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = || self.inner.put_multipart_opts(location, opts.clone());
        let inner = self.run("upload", location, begin).await?;
        let upload = RetryUpload::new(self.clone(), location.clone(), opts, inner);
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = || self.inner.get_opts(location, options.clone());
        let result = self.run("get", location, get).await?;
        Ok(body::resumed(self, location, options, result))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let get = || self.inner.get_ranges(location, ranges);
        self.run("get", location, get).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .chunks(DELETED_AT_ONCE)
            .then(move |locations| {
                let store = store.clone();
                async move { stream::iter(store.delete_all(locations).await) }
            })
            .flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.cloned());
        let tries = self.tries("list", prefix.clone().unwrap_or_default());
        listed(tries, move || inner.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.cloned());
        let offset = offset.clone();
        let tries = self.tries("list", prefix.clone().unwrap_or_default());
        listed(tries, move || {
            inner.list_with_offset(prefix.as_ref(), &offset)
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.cloned().unwrap_or_default();
        let list = || self.inner.list_with_delimiter(prefix);
        self.run("list", &folder, list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = || self.inner.copy_opts(from, to, options.clone());
        self.run("copy", to, copy).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let mut tries = self.tries("rename", to);
        loop {
            match self.inner.rename_opts(from, to, options.clone()).await {
                Ok(()) => return Ok(()),
                Err(gone @ Error::NotFound { .. }) if tries.is_again() => {
                    let head = GetOptions::new().with_head(true);
                    let there = self.get_opts(to, head).await;
                    return there.map(drop).map_err(|_| gone);
                }
                Err(error) => tries.again(error).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests;
