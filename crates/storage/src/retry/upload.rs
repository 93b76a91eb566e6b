//! An upload in parts that is begun anew when a part of it failed for a moment.
//!
//! A part cannot be sent twice within one upload: the store counts the parts. So the parts are kept until the
//! upload is complete, and all of them are sent again. Above [`MOST_KEPT`] they are let go, as memory is limited:
//! then a failure is told as it is.

use std::sync::Arc;

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

#[derive(Debug)]
pub(super) struct RetryUpload {
    store: RetryStore,
    location: Path,
    options: PutMultipartOptions,
    inner: Box<dyn MultipartUpload>,
    /// The parts so far; `None` when they are too many to be kept.
    parts: Option<Vec<PutPayload>>,
    length: usize,
    /// A part has failed: only a new upload can be completed.
    broken: Arc<Mutex<Option<Error>>>,
}

impl RetryUpload {
    pub(super) fn new(
        store: RetryStore,
        location: Path,
        options: PutMultipartOptions,
        inner: Box<dyn MultipartUpload>,
    ) -> Self {
        Self {
            store,
            location,
            options,
            inner,
            parts: Some(Vec::new()),
            length: 0,
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
        self.length += data.content_length();
        match &mut self.parts {
            Some(parts) if self.length <= MOST_KEPT => parts.push(data.clone()),
            _ => self.parts = None,
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
        let Some(parts) = self.parts.take() else {
            return Err(error);
        };
        let mut tries = self.store.tries("upload", &self.location);
        loop {
            tries.again(error).await?;
            match self.anew(&parts).await {
                Ok(done) => return Ok(done),
                Err(again) => error = again,
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
