//! Rows as a test writes them: tuples of values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, SchemaRef};
use datafusion::scalar::ScalarValue;

use crate::{Error, Result};

/// A row: a tuple of up to sixteen values, or a vector of [`ScalarValue`]s.
///
/// Sealed: new spellings are added here.
pub trait IntoRow: sealed::Sealed {
    /// The values, column by column.
    fn into_row(self) -> Vec<ScalarValue>;
}

impl IntoRow for Vec<ScalarValue> {
    fn into_row(self) -> Vec<ScalarValue> {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for Vec<datafusion::scalar::ScalarValue> {}
}

macro_rules! tuples {
    ($(($($t:ident $i:tt),+);)+) => {
        $(
            impl<$($t: Into<ScalarValue>),+> sealed::Sealed for ($($t,)+) {}
            impl<$($t: Into<ScalarValue>),+> IntoRow for ($($t,)+) {
                fn into_row(self) -> Vec<ScalarValue> {
                    vec![$(self.$i.into()),+]
                }
            }
        )+
    };
}
tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14, P 15);
}

/// The rows as a batch of `schema`; values are cast to the columns' types.
///
/// # Errors
/// `Invalid` for a row of the wrong length and for a value that its column cannot hold.
pub(crate) fn batch_of(
    schema: &SchemaRef,
    rows: impl IntoIterator<Item = impl IntoRow>,
) -> Result<RecordBatch> {
    let width = schema.fields().len();
    let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::new(); width];
    let mut count = 0;
    for row in rows {
        let row = row.into_row();
        if row.len() != width {
            return Err(Error::invalid(format!(
                "row {count} has {} values, but there are {width} columns",
                row.len()
            )));
        }
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
        count += 1;
    }
    let arrays = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(values, field)| column_of(values, field))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        arrays,
        &options,
    )?)
}

fn column_of(mut values: Vec<ScalarValue>, field: &Field) -> Result<ArrayRef> {
    let wanted = field.data_type();
    let Some(first) = values.iter().find(|v| !v.is_null()) else {
        return Ok(new_null_array(wanted, values.len()));
    };
    let given = first.data_type();
    let uniform = values.iter().all(|v| v.is_null() || v.data_type() == given);
    if !uniform {
        for value in &mut values {
            *value = value.cast_to(wanted).map_err(|e| misfit(field, e))?;
        }
    }
    let element = if uniform { &given } else { wanted };
    let null = ScalarValue::try_from(element)?;
    let values = values.into_iter();
    let array =
        ScalarValue::iter_to_array(values.map(|v| if v.is_null() { null.clone() } else { v }))?;
    if array.data_type() == wanted {
        return Ok(array);
    }
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(&array, wanted, &strict).map_err(|e| misfit(field, e))
}

fn misfit(field: &Field, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let cause = cause.into();
    Error::invalid(format!(
        "a value of the column `{}` does not fit its type {}",
        field.name(),
        field.data_type()
    ))
    .with_column(field.name())
    .with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_schema;

    fn schema() -> SchemaRef {
        Arc::new(parse_schema("ts TIMESTAMP, k STRING, v BIGINT, d DECIMAL(6,2)").expect("schema"))
    }

    #[test]
    fn values_are_cast_to_the_columns_types() {
        let rows = [
            ("2024-05-01 00:00:03", Some("a"), 7, "1.5"),
            ("2024-05-01T00:00:04.5", None, 8, "2.25"),
        ];
        let batch = batch_of(&schema(), rows).expect("fits");
        assert_eq!((batch.num_rows(), batch.num_columns()), (2, 4));
        assert_eq!(batch.column(1).null_count(), 1);
    }

    #[test]
    fn nulls_and_no_rows_are_fine() {
        let null = || ScalarValue::Null;
        let batch = batch_of(&schema(), [vec![null(), null(), null(), null()]]).expect("fits");
        assert_eq!(batch.column(0).null_count(), 1);
        let none: [(i64, i64, i64, i64); 0] = [];
        assert_eq!(batch_of(&schema(), none).expect("fits").num_rows(), 0);
    }

    #[test]
    fn misfits_are_named() {
        let error = batch_of(&schema(), [("soon", "a", 1, "1")]).expect_err("no time");
        assert_eq!(error.column(), Some("ts"));
        let error = batch_of(&schema(), [("2024-05-01", 1)]).expect_err("too short");
        assert_eq!(
            error.message(),
            "row 0 has 2 values, but there are 4 columns"
        );
    }
}
