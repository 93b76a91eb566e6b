//! Runs the user's function of `map_batches` on every batch.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{FutureExt, TryStreamExt};
use highwater_core::{Error, Result};

use super::unary::UnaryOperator;
use crate::nodes::MapBatchesFn;

/// Calls the function for one batch after the other; a panic in it is an error of the user's.
pub(crate) struct MapBatchesOperator {
    pub(crate) function: MapBatchesFn,
}

impl fmt::Debug for MapBatchesOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapBatchesOperator")
    }
}

impl UnaryOperator for MapBatchesOperator {
    fn name(&self) -> &'static str {
        "MapBatchesExec"
    }

    fn describe(&self) -> String {
        "a function of the user's".to_string()
    }

    fn run(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let promised = Arc::clone(&schema);
        let rows = input.and_then(move |batch| {
            let operator = Arc::clone(&self);
            let promised = Arc::clone(&promised);
            async move {
                let given = call(&operator.function, batch).await?;
                fitted(given, &promised).map_err(DataFusionError::from)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

async fn call(function: &MapBatchesFn, batch: RecordBatch) -> Result<RecordBatch> {
    AssertUnwindSafe(async move { function(batch).await })
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let said = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_string());
    Error::user(format!("the function of map_batches panicked: {said}"))
        .with_operator("map_batches")
}

/// The batch in the schema that was promised.
fn fitted(batch: RecordBatch, promised: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == promised {
        return Ok(batch);
    }
    let columns = batch.columns().to_vec();
    RecordBatch::try_new(Arc::clone(promised), columns).map_err(|cause| {
        Error::user(cause)
            .context("the function of map_batches gave columns other than it promised")
            .with_operator("map_batches")
            .with_hint("tell map_batches the schema that the function gives")
    })
}
