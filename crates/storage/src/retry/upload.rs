//! An upload in parts that is begun anew when a part of it failed for a moment.
//!
//! A part cannot be sent twice within one upload: the store counts the parts. So the parts are kept until the
//! upload is complete, and all of them are sent again. Above [`MOST_KEPT`], or [`MOST_KEPT_BY_ALL`] for all uploads of a
//! store that are open at once, they are let go, as memory is limited: then a failure is told as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use parking_lot::Mutex;

use super::RetryStore;
use super::policy::is_transient;

/// Uploads of up to so many bytes are tried again.
const MOST_KEPT: usize = 64 << 20;
/// All uploads of a store that are open at once keep at most so many bytes.
const MOST_KEPT_BY_ALL: usize = 256 << 20;

#[derive(Debug)]
pub(super) struct RetryUpload {
    store: RetryStore,
    location: Path,
    options: PutMultipartOptions,
    inner: Box<dyn MultipartUpload>,
    /// The parts so far; `None` when they are too many to be kept.
    parts: Option<Kept>,
    /// A part has failed: only a new upload can be completed.
    broken: Arc<Mutex<Option<Error>>>,
}

/// The parts of an upload, in memory.
#[derive(Debug)]
struct Kept {
    parts: Vec<PutPayload>,
    length: usize,
    /// The bytes that all uploads of the store keep.
    by_all: Arc<AtomicUsize>,
}

impl Kept {
    /// Keeps one more part; false when it would be too much.
    fn keep(&mut self, part: &PutPayload) -> bool {
        let bytes = part.content_length();
        self.length += bytes;
        let by_all = self.by_all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.parts.push(part.clone());
        self.length <= MOST_KEPT && by_all <= MOST_KEPT_BY_ALL
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.by_all.fetch_sub(self.length, Ordering::Relaxed);
    }
}

impl RetryUpload {
    pub(super) fn new(
        store: RetryStore,
        location: Path,
        options: PutMultipartOptions,
        inner: Box<dyn MultipartUpload>,
    ) -> Self {
        let by_all = Arc::clone(&store.kept);
        Self {
            store,
            location,
            options,
            inner,
            parts: Some(Kept {
                parts: Vec::new(),
                length: 0,
                by_all,
            }),
            broken: Arc::default(),
        }
    }

    /// Sends all parts in a new upload.
    async fn anew(&mut self, parts: &[PutPayload]) -> Result<PutResult> {
        // What the broken upload left is the store's to forget, when this fails, too.
        drop(self.inner.abort().await);
        let store = &self.store.inner;
        self.inner = store
            .put_multipart_opts(&self.location, self.options.clone())
            .await?;
        for part in parts {
            self.inner.put_part(part.clone()).await?;
        }
        self.inner.complete().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for RetryUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if self.parts.as_mut().is_some_and(|kept| !kept.keep(&data)) {
            self.parts = None;
        }
        let kept = self.parts.is_some();
        let broken = Arc::clone(&self.broken);
        let sent = self.inner.put_part(data);
        async move {
            match sent.await {
                Err(error) if kept && is_transient(&error) => {
                    broken.lock().get_or_insert(error);
                    Ok(())
                }
                sent => sent,
            }
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let broken = self.broken.lock().take();
        let first = match broken {
            Some(error) => Err(error),
            None => self.inner.complete().await,
        };
        let mut error = match first {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(kept) = self.parts.take() else {
            return Err(error);
        };
        let mut tries = self.store.tries("upload", &self.location);
        loop {
            tries.again(error).await?;
            match self.anew(&kept.parts).await {
                Ok(done) => return Ok(done),
                Err(again) => error = again,
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// One MiB, whose copies share their bytes.
    fn part() -> PutPayload {
        Bytes::from(vec![0; 1 << 20]).into()
    }

    fn kept(by_all: &Arc<AtomicUsize>) -> Kept {
        Kept {
            parts: Vec::new(),
            length: 0,
            by_all: Arc::clone(by_all),
        }
    }

    #[test]
    fn one_upload_and_all_together_keep_so_much_and_no_more() {
        let by_all = Arc::default();
        let part = part();
        let mut uploads: Vec<Kept> = (0..5).map(|_| kept(&by_all)).collect();
        // Four uploads of 63 MiB fit into 256 MiB, and of a fifth 4 MiB.
        for upload in &mut uploads[..4] {
            assert!((0..63).all(|_| upload.keep(&part)));
        }
        let fits = (0..63).take_while(|_| uploads[4].keep(&part)).count();
        assert_eq!(fits, 4);
        drop(uploads);
        assert_eq!(by_all.load(Ordering::Relaxed), 0);
        let mut one = kept(&by_all);
        assert_eq!((0..100).take_while(|_| one.keep(&part)).count(), 64);
    }
}
