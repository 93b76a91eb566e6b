//! How the console shows rows: every cell as text, cut to a length if asked.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_schema;
use highwater_core::Result;

/// The most characters of a cell (Spark).
const CELL: usize = 20;

/// `batches` as a table with a header, also when there are none.
///
/// # Errors
/// `Invalid` when a value cannot be shown as text.
pub(super) fn table(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    truncate: bool,
) -> Result<impl Display + use<>> {
    let fields = schema.fields().iter();
    let text: Vec<Field> = fields
        .map(|field| Field::new(field.name(), DataType::Utf8, true))
        .collect();
    let text: SchemaRef = Arc::new(Schema::new(text));
    let cells = batches.iter().map(|batch| cells(&text, batch, truncate));
    let cells = cells.collect::<Result<Vec<_>>>()?;
    Ok(pretty_format_batches_with_schema(text, &cells)?)
}

fn cells(schema: &SchemaRef, batch: &RecordBatch, truncate: bool) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| texts(column, truncate));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

fn texts(column: &ArrayRef, truncate: bool) -> Result<ArrayRef> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let text = |row: usize| {
        let text = formatter.value(row).try_to_string()?;
        Ok(Some(if truncate { cut(text) } else { text }))
    };
    let texts = (0..column.len()).map(text);
    let texts = texts.collect::<Result<StringArray, ArrowError>>()?;
    Ok(Arc::new(texts))
}

/// Seventeen characters and three dots for a text of more than twenty.
fn cut(text: String) -> String {
    if text.chars().nth(CELL).is_none() {
        return text;
    }
    let mut kept: String = text.chars().take(CELL - 3).collect();
    kept.push_str("...");
    kept
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn only_long_texts_are_cut() {
        for (text, shown) in [
            ("", ""),
            ("twenty characters  .", "twenty characters  ."),
            ("twenty-one characters", "twenty-one charac..."),
            ("ääääääääääääääääääääää", "äääääääääääääääää..."),
        ] {
            assert_eq!(cut(text.into()), shown);
        }
    }
}
