//! `map_batches(f)`: a user's async function on every RecordBatch.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, DFSchemaRef, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use futures::future::BoxFuture;
use highwater_core::Result;

/// A user's function from one RecordBatch to another.
pub type MapBatchesFn =
    Arc<dyn Fn(RecordBatch) -> BoxFuture<'static, Result<RecordBatch>> + Send + Sync>;

/// Each batch of `input` put through `f`, which gives batches of `output_schema`.
///
/// How rows are cut into batches is not promised.
///
/// # Errors
/// When the schema has the same column twice.
pub fn map_batches(
    input: LogicalPlan,
    output_schema: SchemaRef,
    f: MapBatchesFn,
) -> Result<LogicalPlan> {
    let schema = DFSchema::try_from(Arc::unwrap_or_clone(output_schema))?;
    let node = MapBatches {
        input,
        schema: Arc::new(schema),
        function: Function(f),
    };
    Ok(LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    }))
}

/// The logical node of [`map_batches`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapBatches {
    pub(crate) input: LogicalPlan,
    pub(crate) schema: DFSchemaRef,
    pub(crate) function: Function,
}

/// The user's function; it equals only itself.
#[derive(Clone)]
pub(crate) struct Function(pub(crate) MapBatchesFn);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("function")
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl PartialOrd for MapBatches {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for MapBatches {
    fn name(&self) -> &str {
        "MapBatches"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("MapBatches")
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return internal_err!("MapBatches has one input");
        };
        Ok(Self {
            input,
            ..self.clone()
        })
    }
}
