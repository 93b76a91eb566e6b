//! The batch answer over the same rows: what a streaming query must come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use highwater::prelude::*;
use highwater::{Result, StreamSession};

use crate::value::{self, Row, Value};

/// Answers `sql` over a table of these rows with DataFusion's batch engine, on one partition, so
/// that aggregates which depend on the order of rows see them in the order given.
///
/// # Errors
/// When DataFusion refuses or fails.
pub async fn batch_answer(
    sql: &str,
    table: &str,
    schema: &SchemaRef,
    rows: &[RecordBatch],
) -> Result<Vec<Row>> {
    let config = SessionConfig::new().with_target_partitions(1);
    let session = StreamSession::from_context(SessionContext::new_with_config(config))?;
    batch_answer_in(session.context(), sql, table, schema, rows).await
}

/// The same in a context of the caller's, whose functions it may use.
///
/// # Errors
/// When DataFusion refuses or fails.
pub async fn batch_answer_in(
    context: &SessionContext,
    sql: &str,
    table: &str,
    schema: &SchemaRef,
    rows: &[RecordBatch],
) -> Result<Vec<Row>> {
    let rows = MemTable::try_new(Arc::clone(schema), vec![rows.to_vec()])?;
    context.deregister_table(table)?;
    context.register_table(table, Arc::new(rows))?;
    let answer = context.sql(sql).await?.collect().await?;
    value::rows(&answer)
}

/// What a reader of an update stream holds at the end: the last row of each key, where the first
/// `keys` columns are the key.
#[must_use]
pub fn fold_updates(batches: &[Vec<Row>], keys: usize) -> Vec<Row> {
    let mut table: BTreeMap<String, &Row> = BTreeMap::new();
    for row in batches.iter().flatten() {
        table.insert(key(&row[..keys]), row);
    }
    table.into_values().cloned().collect()
}

/// The key as text; -0.0 and 0.0 are one key, so are all NaN.
fn key(values: &[Value]) -> String {
    let canonical: Vec<Value> = values
        .iter()
        .map(|value| match value {
            Value::Double(x) if *x == 0.0 => Value::Double(0.0),
            Value::Double(x) if x.is_nan() => Value::Double(f64::NAN),
            other => other.clone(),
        })
        .collect();
    value::show(&canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row;

    #[test]
    fn the_last_row_of_a_key_stays() {
        let batches = [vec![row!["a", 1], row!["b", 1]], vec![row!["a", 2]]];
        let folded = fold_updates(&batches, 1);
        let shown: Vec<String> = folded.iter().map(|row| value::show(row)).collect();
        assert_eq!(shown, ["['a', 2]", "['b', 1]"]);
    }
}
