//! Several streams of a source as one, in the source's order.
//!
//! ```text
//!  one stream       polled where it is consumed, no task
//!  several streams  file 1 ─task─► [buffer]──► out, to its end
//!                   file 2 ─task─► [buffer]      then this one
//!                   file 3  waits until there is room
//! ```
//! The same range gives the same rows in the same order, however fast the decoders are.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use highwater_core::{ReadRequest, Source};

use super::LeafCell;

/// Decoded batches that may wait for their turn, per stream.
const BUFFER: usize = 2;

/// The rows of `request`, lazily: the source is asked at the first poll.
pub(super) fn read(
    source: Arc<dyn Source>,
    request: ReadRequest,
    schema: SchemaRef,
    cell: Arc<LeafCell>,
) -> SendableRecordBatchStream {
    let ahead = cell.ahead;
    let of_streams = Arc::clone(&schema);
    let batches = stream::once(async move {
        let streams = source.read(request).await.map_err(DataFusionError::from)?;
        Ok::<_, DataFusionError>(in_order(streams, &of_streams, ahead))
    })
    .try_flatten()
    .inspect_ok(move |batch| cell.count(batch.num_rows()));
    let batches = RecordBatchStreamAdapter::new(schema, Box::pin(batches));
    Box::pin(cooperative(batches))
}

/// One after the other; with several, `ahead` of them are decoded at once.
fn in_order(
    mut streams: Vec<SendableRecordBatchStream>,
    schema: &SchemaRef,
    ahead: usize,
) -> BoxStream<'static, Result<RecordBatch>> {
    if streams.len() <= 1 {
        return streams
            .pop()
            .map_or_else(|| stream::empty().boxed(), StreamExt::boxed);
    }
    let schema = Arc::clone(schema);
    stream::iter(streams)
        .map(move |one| ready(spawned(one, Arc::clone(&schema))))
        .buffered(ahead.saturating_sub(1).max(1))
        .flatten()
        .boxed()
}

/// The same rows, decoded on a task of their own that stops when nobody reads them.
fn spawned(mut rows: SendableRecordBatchStream, schema: SchemaRef) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStream::builder(schema, BUFFER);
    let sender = builder.tx();
    builder.spawn(async move {
        while let Some(batch) = rows.next().await {
            if sender.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    builder.build()
}
