//! The limit of a stream: the first rows of the whole query pass, then nothing ever again (Spark's `globalLimit`).

use std::fmt;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, future};
use highwater_core::{Error, Result};
use parking_lot::Mutex;

use super::unary::UnaryOperator;
use super::{OperatorMetrics, Part, StateSchema, StatefulOperator};

/// The column of the state: how many rows have passed.
const TAKEN: &str = "taken";

/// Counts the rows that have passed; the count is its state.
pub struct LimitOperator {
    name: String,
    fetch: u64,
    /// Something below must see every row, also those that the limit leaves out.
    drains: bool,
    count: Mutex<Count>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    taken: u64,
    /// The running micro-batch let rows through.
    changed: bool,
    /// The last one that is committed did.
    updated: bool,
}

impl LimitOperator {
    /// A limit of `fetch` rows, called `name` in the checkpoint.
    #[must_use]
    pub fn new(name: impl Into<String>, fetch: u64) -> Self {
        Self {
            name: name.into(),
            fetch,
            drains: false,
            count: Mutex::new(Count::default()),
        }
    }

    /// Reads its input to the end although the limit is reached: what stands below has state, or moves the watermark.
    #[must_use]
    pub fn draining(self, drains: bool) -> Self {
        Self { drains, ..self }
    }

    /// The rows of `batch` that may still pass.
    fn take(&self, batch: &RecordBatch) -> RecordBatch {
        let mut count = self.count.lock();
        let left = self.fetch.saturating_sub(count.taken);
        let rows =
            usize::try_from(left).map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
        count.taken += rows as u64;
        count.changed |= rows > 0;
        batch.slice(0, rows)
    }

    fn is_exhausted(&self) -> bool {
        self.count.lock().taken >= self.fetch
    }

    fn state_schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new(TAKEN, DataType::Int64, false)]))
    }
}

impl Count {
    fn record(self) -> Result<Vec<RecordBatch>> {
        let taken = i64::try_from(self.taken).unwrap_or(i64::MAX);
        let column = Arc::new(Int64Array::from(vec![taken]));
        let schema = LimitOperator::state_schema();
        Ok(vec![RecordBatch::try_new(schema, vec![column])?])
    }
}

impl fmt::Debug for LimitOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitOperator")
            .field("name", &self.name)
            .field("fetch", &self.fetch)
            .finish_non_exhaustive()
    }
}

impl UnaryOperator for LimitOperator {
    fn name(&self) -> &'static str {
        "StreamLimitExec"
    }

    fn describe(&self) -> String {
        format!("name={}, fetch={}", self.name, self.fetch)
    }

    fn run(
        self: Arc<Self>,
        input: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        if self.drains {
            let rows = input.map(move |batch| batch.map(|batch| self.take(&batch)));
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)));
        }
        if self.is_exhausted() {
            return Ok(Box::pin(EmptyRecordBatchStream::new(schema)));
        }
        let rows = input.scan(self, |limit, batch| {
            // Asked before the batch is taken: the one that fills the limit still comes out.
            future::ready(if limit.is_exhausted() {
                None
            } else {
                Some(batch.map(|batch| limit.take(&batch)))
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

impl StatefulOperator for LimitOperator {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "globalLimit"
    }

    fn state_schema(&self) -> StateSchema {
        StateSchema {
            keys: Arc::new(Schema::empty()),
            values: Self::state_schema(),
            pane: None,
        }
    }

    fn changes(&self) -> Result<Vec<RecordBatch>> {
        let count = *self.count.lock();
        if !count.changed {
            return Ok(Vec::new());
        }
        count.record()
    }

    fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        let count = *self.count.lock();
        if part.number > 0 || count.taken == 0 {
            return Ok(Vec::new());
        }
        count.record()
    }

    fn commit(&self) {
        let mut count = self.count.lock();
        count.updated = count.changed;
        count.changed = false;
    }

    fn restore(&self, records: &RecordBatch) -> Result<()> {
        let column = records
            .column_by_name(TAKEN)
            .and_then(|column| column.as_any().downcast_ref::<Int64Array>())
            .ok_or_else(|| {
                Error::corrupt(format!(
                    "the state of `{}` is not a count of rows",
                    self.name
                ))
                .with_operator(&self.name)
                .with_column(TAKEN)
            })?;
        if let Some(taken) = column.values().last() {
            self.count.lock().taken = u64::try_from(*taken).unwrap_or(0);
        }
        Ok(())
    }

    fn metrics(&self) -> OperatorMetrics {
        let count = *self.count.lock();
        OperatorMetrics {
            rows_total: u64::from(count.taken > 0),
            rows_updated: u64::from(count.updated),
            memory_bytes: size_of::<Self>() as u64,
            ..OperatorMetrics::default()
        }
    }

    fn describe(&self) -> String {
        format!(
            "{}: the first {} rows of the query; state: one count",
            self.name, self.fetch
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let column = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_new(LimitOperator::state_schema(), vec![column]).expect("a batch")
    }

    #[test]
    fn rows_are_counted_over_batches_and_restarts() {
        let first = LimitOperator::new("limit", 3);
        assert_eq!(first.take(&batch(2)).num_rows(), 2);
        let records = first.changes().expect("changes");
        first.commit();
        assert_eq!(StatefulOperator::metrics(&first).rows_updated, 1);
        assert!(first.changes().expect("changes").is_empty());

        let second = LimitOperator::new("limit", 3);
        second.restore(&records[0]).expect("restored");
        assert_eq!(second.take(&batch(2)).num_rows(), 1);
        assert!(second.is_exhausted());
    }

    #[tokio::test]
    async fn a_limit_above_what_remembers_reads_to_the_end() {
        // Where nothing remembers, it stops at the batch after the one that fills it.
        for (drains, seen) in [(false, 3), (true, 4)] {
            let limit = Arc::new(LimitOperator::new("limit", 3).draining(drains));
            let pulled = Arc::new(Mutex::new(0));
            let counter = Arc::clone(&pulled);
            let input = futures::stream::iter((0..4).map(|_| Ok(batch(2))))
                .inspect(move |_| *counter.lock() += 1);
            let schema = LimitOperator::state_schema();
            let input = RecordBatchStreamAdapter::new(Arc::clone(&schema), input);
            let rows = limit.run(Box::pin(input), schema).expect("a stream");
            let rows: Vec<_> = rows
                .map(|batch| batch.expect("rows").num_rows())
                .collect()
                .await;
            assert_eq!(rows.into_iter().sum::<usize>(), 3, "draining: {drains}");
            assert_eq!(*pulled.lock(), seen, "draining: {drains}");
        }
    }

    #[test]
    fn state_of_something_else_is_refused() {
        let limit = LimitOperator::new("limit", 3);
        let other = RecordBatch::new_empty(Arc::new(Schema::empty()));
        assert!(limit.restore(&other).is_err());
    }
}
