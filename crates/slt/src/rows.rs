//! Rows as texts, and the letters of their types.

use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::record_batch::RecordBatch;
use highwater::Result;
use sqllogictest::{DBOutput, DefaultColumnType};

/// What sqllogictest compares: null is `NULL`, the empty text is `(empty)`.
pub(crate) fn output(batches: &[RecordBatch]) -> Result<DBOutput<DefaultColumnType>> {
    let Some(first) = batches.first().filter(|b| b.num_columns() > 0) else {
        return Ok(DBOutput::StatementComplete(0));
    };
    let schema = first.schema();
    let types = schema.fields().iter().map(|f| letter(f.data_type()));
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(texts(batch)?);
    }
    Ok(DBOutput::Rows {
        types: types.collect(),
        rows,
    })
}

fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.columns().iter();
    let columns = columns
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let text = |row: usize| {
        let cells = columns
            .iter()
            .map(|column| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_owned(),
                text => text,
            });
        cells.collect()
    };
    Ok((0..batch.num_rows()).map(text).collect())
}

fn letter(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_floating() => DefaultColumnType::FloatingPoint,
        DataType::Decimal128(..) | DataType::Decimal256(..) => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        _ => DefaultColumnType::Any,
    }
}
