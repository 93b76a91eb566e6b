//! The bytes of an object, read on where the connection broke.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, Result,
};

use super::RetryStore;
use super::policy::Tries;

/// Gives `result` a body that goes on after a failure; a local file is given as it is.
pub(super) fn resumed(
    store: &RetryStore,
    location: &Path,
    options: GetOptions,
    result: GetResult,
) -> GetResult {
    let stream = match result.payload {
        GetResultPayload::Stream(stream) if !options.head => stream,
        payload => return GetResult { payload, ..result },
    };
    let body = Body {
        tries: store.tries("get", location),
        store: store.clone(),
        location: location.clone(),
        options,
        meta: result.meta.clone(),
        rest: result.range.clone(),
        stream,
    };
    let chunks = stream::unfold(Some(body), |body| async move {
        let mut body = body?;
        match body.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(body))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    GetResult {
        payload: GetResultPayload::Stream(chunks.boxed()),
        ..result
    }
}

struct Body {
    store: RetryStore,
    location: Path,
    options: GetOptions,
    /// The object as it was when the reading began.
    meta: ObjectMeta,
    /// The bytes that are still to come.
    rest: Range<u64>,
    stream: BoxStream<'static, Result<Bytes>>,
    tries: Tries,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let mut error = match self.stream.next().await {
                Some(Ok(chunk)) => {
                    self.rest.start += chunk.len() as u64;
                    self.tries.came_on();
                    return Ok(Some(chunk));
                }
                _ if self.rest.is_empty() => return Ok(None),
                Some(Err(error)) => error,
                None => cut_off(&self.rest),
            };
            loop {
                self.tries.again(error).await?;
                match self.reopen().await {
                    Ok(()) => break,
                    Err(again) => error = again,
                }
            }
        }
    }

    /// Asks for the rest of the same object.
    async fn reopen(&mut self) -> Result<()> {
        let strong = |etag: &&String| !etag.starts_with("W/");
        let etag = self.meta.e_tag.as_ref().filter(strong);
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.rest.clone())),
            if_match: self.options.if_match.clone().or_else(|| etag.cloned()),
            version: self.options.version.clone(),
            extensions: self.options.extensions.clone(),
            ..GetOptions::default()
        };
        let result = self.store.inner.get_opts(&self.location, options).await?;
        let same = |then: &ObjectMeta, now: &ObjectMeta| {
            (then.size, then.last_modified) == (now.size, now.last_modified)
        };
        if etag.is_none() && !same(&self.meta, &result.meta) || result.range != self.rest {
            return Err(Error::Precondition {
                path: self.location.to_string(),
                source: "the object has changed while it was read".into(),
            });
        }
        self.stream = result.into_stream();
        Ok(())
    }
}

fn cut_off(rest: &Range<u64>) -> Error {
    let left = rest.end - rest.start;
    let why = format!("the answer ends {left} bytes early");
    Error::Generic {
        store: "RetryStore",
        source: std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why).into(),
    }
}
