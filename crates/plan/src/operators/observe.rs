//! Computes the figures of `observe` over the rows of one micro-batch, which pass unchanged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use super::unary::UnaryOperator;

/// Figures by the name of their `observe`, each by the name of its column.
pub type Observed = BTreeMap<String, Vec<(String, ScalarValue)>>;

/// What was observed in the running micro-batch.
#[derive(Debug, Default)]
pub(crate) struct Observations(Mutex<Observed>);

impl Observations {
    /// Forgets what the micro-batch before showed.
    pub(crate) fn clear(&self) {
        let mut observed = self.0.lock();
        if !observed.is_empty() {
            observed.clear();
        }
    }

    pub(crate) fn read(&self) -> Observed {
        self.0.lock().clone()
    }

    fn put(&self, name: &str, figures: Vec<(String, ScalarValue)>) {
        self.0.lock().insert(name.to_string(), figures);
    }
}

/// One aggregate and the condition of its FILTER clause.
#[derive(Debug)]
pub(crate) struct Aggregate {
    pub(crate) function: Arc<AggregateFunctionExpr>,
    pub(crate) filter: Option<Arc<dyn PhysicalExpr>>,
}

/// The figures of one `observe`.
pub(crate) struct ObserveOperator {
    pub(crate) name: String,
    pub(crate) aggregates: Vec<Aggregate>,
    /// The columns that the aggregates make, in their order.
    pub(crate) computed: SchemaRef,
    /// Each figure's name, and how it is made from those columns.
    pub(crate) figures: Vec<(String, Arc<dyn PhysicalExpr>)>,
    pub(crate) observations: Arc<Observations>,
}

impl fmt::Debug for ObserveOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveOperator")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl UnaryOperator for ObserveOperator {
    fn name(&self) -> &'static str {
        "ObserveExec"
    }

    fn describe(&self) -> String {
        let figures: Vec<_> = self.figures.iter().map(|(name, _)| name.as_str()).collect();
        format!("name={}, figures=[{}]", self.name, figures.join(", "))
    }

    fn run(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> Result<SendableRecordBatchStream> {
        let running = Running::begin(self)?;
        let rows = stream::try_unfold((input, running), |(mut input, mut running)| async move {
            match input.next().await.transpose()? {
                Some(batch) => {
                    running.update(&batch)?;
                    Ok(Some((batch, (input, running))))
                }
                None => {
                    running.finish()?;
                    Ok(None)
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// The accumulators of one micro-batch. Dropped before its input ended (a limit above has enough), it
/// reports what has passed.
struct Running {
    operator: Arc<ObserveOperator>,
    accumulators: Vec<Box<dyn Accumulator>>,
    finished: bool,
}

impl Running {
    fn begin(operator: Arc<ObserveOperator>) -> Result<Self> {
        let accumulators = operator
            .aggregates
            .iter()
            .map(|aggregate| aggregate.function.create_accumulator())
            .collect::<Result<_>>()?;
        Ok(Self {
            operator,
            accumulators,
            finished: false,
        })
    }

    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let operator = Arc::clone(&self.operator);
        for (aggregate, accumulator) in operator.aggregates.iter().zip(&mut self.accumulators) {
            let passing = match &aggregate.filter {
                None => batch.clone(),
                Some(filter) => {
                    let keep = filter.evaluate(batch)?.into_array(batch.num_rows())?;
                    filter_record_batch(batch, keep.as_boolean())?
                }
            };
            let arguments = aggregate
                .function
                .expressions()
                .iter()
                .map(|expr| expr.evaluate(&passing)?.into_array(passing.num_rows()))
                .collect::<Result<Vec<_>>>()?;
            accumulator.update_batch(&arguments)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.finished = true;
        let columns = self
            .accumulators
            .iter_mut()
            .map(|accumulator| accumulator.evaluate()?.to_array())
            .collect::<Result<Vec<ArrayRef>>>()?;
        let row = RecordBatch::try_new(Arc::clone(&self.operator.computed), columns)?;
        let figures = self
            .operator
            .figures
            .iter()
            .map(|(name, expr)| {
                let value = expr.evaluate(&row)?.into_array(1)?;
                Ok((name.clone(), ScalarValue::try_from_array(&value, 0)?))
            })
            .collect::<Result<_>>()?;
        self.operator.observations.put(&self.operator.name, figures);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody waits for an error here; the figures are then missing.
            let _unseen = self.finish();
        }
    }
}
