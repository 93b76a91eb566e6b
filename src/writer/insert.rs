//! Rows into a table of any kind, by DataFusion's `INSERT INTO`: at least once.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::collect;
use datafusion::physical_plan::empty::EmptyExec;
use futures::TryStreamExt;

use crate::{BatchOutput, Error, Guarantee, OutputMode, Result, Sink, SinkCommit};

/// Inserts each micro-batch into a table, as one insert. A micro-batch that runs again is inserted again.
pub(super) struct InsertSink {
    name: String,
    table: Arc<dyn TableProvider>,
    schema: SchemaRef,
    session: SessionState,
}

impl InsertSink {
    /// A sink into `table`; nothing is inserted yet.
    ///
    /// # Errors
    /// `Unsupported` when the table takes no inserts.
    pub(super) async fn open(
        name: String,
        table: Arc<dyn TableProvider>,
        session: SessionState,
    ) -> Result<Self> {
        let schema = table.schema();
        let nothing = Arc::new(EmptyExec::new(Arc::clone(&schema)));
        let planned = table.insert_into(&session, nothing, InsertOp::Append).await;
        planned.map_err(|e| {
            Error::unsupported(format!("the table `{name}` takes no rows"))
                .with_hint("write to a table of files, or with `foreach_batch`")
                .with_source(e)
        })?;
        Ok(Self {
            name,
            table,
            schema,
            session,
        })
    }
}

impl fmt::Debug for InsertSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertSink")
            .field("table", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for InsertSink {
    fn description(&self) -> String {
        format!("TableSink({})", self.name)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn supports(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append
    }

    fn needs_checkpoint(&self) -> bool {
        false
    }

    /// The rows are gathered first, so that a query that fails inserts nothing; without rows nothing is inserted.
    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let batches: Vec<RecordBatch> = output.stream.try_collect().await?;
        let batches = batches.into_iter().filter(|batch| batch.num_rows() > 0);
        let batches = batches
            .map(|batch| RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::from(e).context(format_args!("table `{}`", self.name)))?;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        if rows > 0 {
            let rows = MemTable::try_new(Arc::clone(&self.schema), vec![batches])?;
            let rows = rows.scan(&self.session, None, &[], None).await?;
            let insert = self
                .table
                .insert_into(&self.session, rows, InsertOp::Append)
                .await?;
            collect(insert, self.session.task_ctx()).await?;
        }
        Ok(SinkCommit::rows(rows))
    }
}
