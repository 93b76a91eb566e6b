//! The table behind a memory sink: rows in memory that SQL can read while a query writes them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use highwater_core::{BatchId, Result};
use parking_lot::RwLock;

/// So many neighbours of one size class become one batch.
const FAN_IN: usize = 8;

/// A batch of so many rows is large enough to be left alone.
const LARGE: usize = 4096;

/// A table that a memory sink writes and anybody reads.
///
/// A scan sees whole micro-batches: what was committed when it was planned, and nothing later.
#[derive(Debug)]
pub struct MemoryTable {
    schema: SchemaRef,
    content: RwLock<Content>,
}

#[derive(Debug, Default)]
struct Content {
    batches: Vec<RecordBatch>,
    last: Option<BatchId>,
    /// Micro-batches taken in.
    version: u64,
}

impl MemoryTable {
    /// A table without rows.
    #[must_use]
    pub fn new(schema: SchemaRef) -> Self {
        Self {
            schema,
            content: RwLock::default(),
        }
    }

    /// The rows, as they are now.
    #[must_use]
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.content.read().batches.clone()
    }

    /// How often the rows have become others.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.content.read().version
    }

    /// The last micro-batch that is in the table.
    #[must_use]
    pub fn last_batch(&self) -> Option<BatchId> {
        self.content.read().last
    }

    /// Adds the rows of a micro-batch; one that is in the table already is ignored.
    pub(super) fn append(&self, id: BatchId, rows: Vec<RecordBatch>) {
        let mut content = self.content.write();
        if content.last.is_some_and(|last| id <= last) {
            return;
        }
        content.last = Some(id);
        content.version += 1;
        for batch in rows {
            push(&self.schema, &mut content.batches, batch);
        }
    }

    /// Puts the rows of a micro-batch in the place of all others; one that is in the table already is ignored.
    pub(super) fn replace(&self, id: BatchId, rows: Vec<RecordBatch>) {
        let mut content = self.content.write();
        if content.last.is_none_or(|last| id > last) {
            content.last = Some(id);
            content.version += 1;
            content.batches = rows;
        }
    }
}

#[async_trait]
impl TableProvider for MemoryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = Arc::clone(&self.schema);
        let source = MemorySourceConfig::try_new(&[self.batches()], schema, projection.cloned())?;
        Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
    }
}

/// Adds a batch at the end and merges small neighbours.
///
/// As in a log-structured tree, a row is copied once for each factor of [`FAN_IN`] its batch grows by:
/// 10,000 one-row micro-batches are some thirty batches, and each row was copied four times.
fn push(schema: &SchemaRef, batches: &mut Vec<RecordBatch>, batch: RecordBatch) {
    let mut class = size_class(batch.num_rows());
    batches.push(batch);
    while class < size_class(LARGE) {
        let tail = batches.iter().rev();
        let run = tail
            .take_while(|b| size_class(b.num_rows()) <= class)
            .count();
        if run < FAN_IN {
            return;
        }
        let from = batches.len() - run;
        // Rows that together do not fit one batch (2 GiB of text) stay apart.
        let Ok(merged) = merge(schema, &batches[from..]) else {
            return;
        };
        class = size_class(merged.num_rows());
        batches.truncate(from);
        batches.push(merged);
    }
}

/// 0 below 8 rows, 1 below 64, and so on.
fn size_class(rows: usize) -> u32 {
    rows.max(1).ilog(FAN_IN)
}

fn merge(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let merged = concat_batches(schema, batches)?;
    let columns = merged.columns().iter().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(merged.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

/// Text views keep the buffers of all the batches they come from; here they get one of their own.
fn compact(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};
    use datafusion::prelude::SessionContext;
    use highwater_core::testing::contract;

    use super::*;

    fn row(n: i64) -> RecordBatch {
        let keys = StringViewArray::from(vec!["a key that is longer than a view holds"]);
        let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(Int64Array::from(vec![n]))];
        RecordBatch::try_new(contract::sink::schema(), columns).expect("a row")
    }

    #[test]
    fn many_small_batches_become_few_and_keep_their_order() {
        let table = MemoryTable::new(contract::sink::schema());
        for n in 0..10_000 {
            table.append(BatchId(n as u64), vec![row(n)]);
        }
        let batches = table.batches();
        assert!(batches.len() < 40, "{} batches", batches.len());
        let all = concat_batches(&contract::sink::schema(), &batches).expect("one batch");
        let expected = Int64Array::from_iter_values(0..10_000);
        assert_eq!(all.column(1).as_primitive(), &expected);
    }

    #[tokio::test]
    async fn a_scan_sees_what_was_there_when_it_was_planned() {
        let ctx = SessionContext::new();
        let table = Arc::new(MemoryTable::new(contract::sink::schema()));
        let provider = Arc::<MemoryTable>::clone(&table);
        ctx.register_table("t", provider).expect("registered");
        table.append(BatchId(0), vec![row(1)]);
        let plan = ctx.sql("SELECT n FROM t").await.expect("a frame");
        let plan = plan.create_physical_plan().await.expect("a plan");
        table.append(BatchId(1), vec![row(2)]);
        let rows = datafusion::physical_plan::collect(plan, ctx.task_ctx()).await;
        let rows = rows.expect("rows");
        assert_eq!(crate::batches::count(&rows), 1);
        let both = ctx.sql("SELECT n FROM t LIMIT 5").await.expect("a frame");
        assert_eq!(both.count().await.ok(), Some(2));
    }
}
