//! The table behind a look into a checkpoint: the I/O is done when it is scanned.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use highwater_checkpoint::{OperatorIdentity, ReadOnly};

use super::columns;
use super::rebuilt::{Change, Rebuilt, Records};
use crate::{BatchId, Result};

/// What is looked at.
#[derive(Debug)]
pub(super) enum Look {
    /// The state of an operator after a micro-batch.
    State {
        operator: OperatorIdentity,
        batch: BatchId,
    },
    /// What micro-batches changed, the first and the last included.
    Changes {
        operator: OperatorIdentity,
        from: BatchId,
        to: BatchId,
    },
    /// The operators, and the micro-batches there are.
    Metadata {
        operators: Vec<OperatorIdentity>,
        there: RangeInclusive<BatchId>,
    },
}

/// A look into a checkpoint.
#[derive(Debug)]
pub(super) struct Looked {
    checkpoint: ReadOnly,
    look: Look,
    schema: SchemaRef,
}

impl Looked {
    pub(super) fn new(checkpoint: ReadOnly, look: Look) -> Self {
        let schema = match &look {
            Look::State { operator, .. } => columns::of_state(operator),
            Look::Changes { operator, .. } => columns::of_changes(operator),
            Look::Metadata { .. } => columns::of_metadata(),
        };
        Self {
            checkpoint,
            look,
            schema,
        }
    }

    async fn rows(&self) -> Result<Vec<RecordBatch>> {
        match &self.look {
            Look::State { operator, batch } => {
                let state = self.rebuilt([operator], Some(*batch)).await?;
                state[0].rows(&self.schema)
            }
            Look::Changes { operator, from, to } => self.changes(operator, *from, *to).await,
            Look::Metadata { operators, there } => self.metadata(operators, there).await,
        }
    }

    /// The state of operators after a micro-batch; empty before the first one.
    async fn rebuilt(
        &self,
        operators: impl IntoIterator<Item = &OperatorIdentity>,
        upto: Option<BatchId>,
    ) -> Result<Vec<Rebuilt>> {
        let operators = operators.into_iter().cloned();
        let mut states = operators
            .map(Rebuilt::try_new)
            .collect::<Result<Vec<_>>>()?;
        let Some(upto) = upto else {
            return Ok(states);
        };
        let mut apply = |name: &str, records: RecordBatch| match states
            .iter_mut()
            .find(|state| state.name() == name)
        {
            Some(state) => state.apply(&records),
            None => Ok(()),
        };
        self.checkpoint.restore_state(upto, &mut apply).await?;
        Ok(states)
    }

    async fn changes(
        &self,
        operator: &OperatorIdentity,
        from: BatchId,
        to: BatchId,
    ) -> Result<Vec<RecordBatch>> {
        let mut state = self.rebuilt([operator], from.previous()).await?.remove(0);
        let mut rows = Vec::new();
        for id in (from.0..=to.0).map(BatchId) {
            let changes = self.checkpoint.changes_of(id).await?;
            let ours = changes
                .iter()
                .filter(|change| change.operator == operator.name);
            let mut watch = |change: Change, records: Records| {
                rows.push(changed(id, change, records, &self.schema)?);
                Ok(())
            };
            let ours = ours.flat_map(|change| &change.records);
            state.apply_all(ours, Some(&mut watch))?;
        }
        Ok(rows)
    }

    async fn metadata(
        &self,
        operators: &[OperatorIdentity],
        there: &RangeInclusive<BatchId>,
    ) -> Result<Vec<RecordBatch>> {
        let states = self.rebuilt(operators, Some(*there.end())).await?;
        let count = operators.len();
        let text = |of: fn(&OperatorIdentity) -> &str| -> ArrayRef {
            Arc::new(
                operators
                    .iter()
                    .map(|o| Some(of(o)))
                    .collect::<StringArray>(),
            )
        };
        let big = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let all = |id: &BatchId| -> ArrayRef {
            Arc::new(Int64Array::from(vec![
                i64::try_from(id.0)
                    .unwrap_or(i64::MAX);
                count
            ]))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new((0..).take(count).map(Some).collect::<Int32Array>()),
            text(|operator| &operator.name),
            text(|operator| &operator.kind),
            names(operators.iter().map(|operator| &operator.keys)),
            names(operators.iter().map(|operator| &operator.values)),
            Arc::new(
                states
                    .iter()
                    .map(|state| Some(big(state.len())))
                    .collect::<Int64Array>(),
            ),
            all(there.start()),
            all(there.end()),
        ];
        Ok(vec![RecordBatch::try_new(
            Arc::clone(&self.schema),
            columns,
        )?])
    }
}

/// A list of names for each of the schemas.
fn names<'a>(schemas: impl Iterator<Item = &'a SchemaRef>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for schema in schemas {
        lists.append_value(schema.fields().iter().map(|field| Some(field.name())));
    }
    Arc::new(lists.finish())
}

fn changed(
    id: BatchId,
    change: Change,
    records: Records,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let rows = records.rows;
    let said = match change {
        Change::Put => "put",
        Change::Remove => "remove",
        Change::Evict => "evict",
    };
    let id = i64::try_from(id.0).unwrap_or(i64::MAX);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![id; rows]));
    let said: ArrayRef = Arc::new(StringArray::from(vec![said; rows]));
    let columns = [ids, said].into_iter().chain(records.columns).collect();
    Records { columns, rows }.batch(schema)
}

#[async_trait]
impl TableProvider for Looked {
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
        let rows = self.rows().await?;
        let schema = Arc::clone(&self.schema);
        let source = MemorySourceConfig::try_new(&[rows], schema, projection.cloned())?;
        Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
    }
}
