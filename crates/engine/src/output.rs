//! The rows of a micro-batch on their way to the sink: pulling them is what runs the query.
//!
//! A sink may return before the last row: one that knows the batch id already, or one that has seen enough.
//! The operators must see every row all the same, so what a sink leaves is pulled here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use highwater_core::{Error, Result};
use parking_lot::Mutex;

/// What the sink has left of the rows of one micro-batch.
pub(crate) struct Rest(Arc<Mutex<Left>>);

enum Left {
    /// The sink has the stream.
    Out,
    /// The sink gave the stream back before its end.
    Rows(SendableRecordBatchStream),
    /// The stream ended.
    Nothing,
    /// The stream failed.
    Failed(Error),
}

impl Rest {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Left::Out)))
    }

    /// `rows`, watched.
    pub(crate) fn tap(&self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        Box::pin(Tap {
            schema: rows.schema(),
            rows: Some(rows),
            left: Arc::clone(&self.0),
        })
    }

    /// Pulls what is left.
    ///
    /// # Errors
    /// The failure of the rows, also when the sink has kept quiet about it.
    pub(crate) async fn pull(self) -> Result<()> {
        let left = std::mem::replace(&mut *self.0.lock(), Left::Nothing);
        match left {
            Left::Nothing => Ok(()),
            Left::Failed(error) => Err(error),
            Left::Out => Err(Error::internal(
                "the sink came back and still holds the rows of the micro-batch",
            )),
            Left::Rows(mut rows) => {
                while let Some(batch) = rows.next().await {
                    batch?;
                }
                Ok(())
            }
        }
    }
}

/// The stream a sink gets.
struct Tap {
    schema: SchemaRef,
    rows: Option<SendableRecordBatchStream>,
    left: Arc<Mutex<Left>>,
}

impl Tap {
    fn end(&mut self, left: Left) {
        self.rows = None;
        *self.left.lock() = left;
    }
}

impl Stream for Tap {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(rows) = &mut self.rows else {
            return Poll::Ready(None);
        };
        let polled = rows.poll_next_unpin(cx);
        match polled {
            Poll::Ready(None) => {
                self.end(Left::Nothing);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let error = Error::from(error);
                self.end(Left::Failed(error.clone()));
                Poll::Ready(Some(Err(DataFusionError::from(error))))
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => polled,
        }
    }
}

impl RecordBatchStream for Tap {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(rows) = self.rows.take() {
            *self.left.lock() = Left::Rows(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::executor::block_on;
    use futures::stream;

    use super::*;

    fn rows(last: DataFusionResult<()>) -> SendableRecordBatchStream {
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::new_empty(Arc::clone(&schema));
        let items = [Ok(batch.clone()), Ok(batch.clone()), last.map(|()| batch)];
        Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(items)))
    }

    fn broken() -> DataFusionResult<()> {
        Err(DataFusionError::from(Error::user("no more")))
    }

    /// What the engine hears when a sink takes `taken` items and comes back well.
    fn after(taken: usize, last: DataFusionResult<()>) -> Result<()> {
        let rest = Rest::new();
        let mut tapped = rest.tap(rows(last));
        for _ in 0..taken {
            drop(block_on(tapped.next()));
        }
        drop(tapped);
        block_on(rest.pull())
    }

    #[test]
    fn what_a_sink_leaves_is_pulled() {
        for taken in 0..5 {
            assert!(after(taken, Ok(())).is_ok(), "{taken} taken");
            let failed = after(taken, broken());
            assert_eq!(failed.unwrap_err().message(), "no more", "{taken} taken");
        }
    }

    #[test]
    fn a_sink_that_keeps_the_rows_is_told() {
        let rest = Rest::new();
        let kept = rest.tap(rows(Ok(())));
        assert!(block_on(rest.pull()).is_err());
        drop(kept);
    }
}
