//! How values are written in a case file, and how they become Arrow arrays.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{DataType, SchemaRef};
use chrono::{NaiveDate, NaiveDateTime};
use datafusion::scalar::ScalarValue;
use highwater::{Error, IntoSchema, Result};
use serde_json::Value as Json;

use super::case::ColumnDef;
use crate::value::{Row, Value};

/// The Arrow schema of columns with Spark's types.
///
/// # Errors
/// `Invalid` when a type is not known.
pub fn schema(columns: &[ColumnDef]) -> Result<SchemaRef> {
    let ddl: Vec<String> = columns
        .iter()
        .map(|(name, spark_type)| format!("`{name}` {spark_type}"))
        .collect();
    ddl.join(", ").into_schema()
}

/// The rows of a step as one RecordBatch.
///
/// # Errors
/// `Invalid` when a value does not fit its column.
pub fn batch(schema: &SchemaRef, rows: &[Vec<Json>]) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| column(field.data_type(), rows, index))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

fn column(data_type: &DataType, rows: &[Vec<Json>], index: usize) -> Result<ArrayRef> {
    if rows.is_empty() {
        return Ok(new_empty_array(data_type));
    }
    let scalars = rows
        .iter()
        .map(|row| scalar(row.get(index).unwrap_or(&Json::Null), data_type))
        .collect::<Result<Vec<_>>>()?;
    Ok(ScalarValue::iter_to_array(scalars)?)
}

fn scalar(json: &Json, data_type: &DataType) -> Result<ScalarValue> {
    let scalar = match (parse(json, data_type)?, data_type) {
        (Value::Null, _) => return Ok(ScalarValue::try_from(data_type)?),
        (Value::Decimal(digits, _), DataType::Decimal128(precision, scale)) => {
            return Ok(ScalarValue::Decimal128(Some(digits), *precision, *scale));
        }
        (Value::Time(micros), _) => ScalarValue::TimestampMicrosecond(Some(micros), None),
        (Value::Date(days), _) => ScalarValue::Date32(Some(days)),
        (Value::Bool(b), _) => ScalarValue::Boolean(Some(b)),
        (Value::Double(x), _) => ScalarValue::Float64(Some(x)),
        (Value::Text(s), _) => ScalarValue::Utf8View(Some(s)),
        (Value::Int(n), _) => {
            ScalarValue::Int64(Some(i64::try_from(n).map_err(|_| misfit(json, data_type))?))
        }
        _ => return Err(misfit(json, data_type)),
    };
    Ok(scalar.cast_to(data_type)?)
}

/// The expected rows of a step, read by the result's Spark types.
///
/// # Errors
/// `Invalid` when a value does not fit its column.
pub fn expected(columns: &SchemaRef, rows: &[Vec<Json>]) -> Result<Vec<Row>> {
    rows.iter()
        .map(|row| {
            row.iter()
                .zip(columns.fields())
                .map(|(json, field)| parse(json, field.data_type()))
                .collect()
        })
        .collect()
}

fn parse(json: &Json, data_type: &DataType) -> Result<Value> {
    let value = match (json, data_type) {
        (Json::Null, _) => Some(Value::Null),
        (Json::Bool(b), DataType::Boolean) => Some(Value::Bool(*b)),
        (Json::Number(n), DataType::Float64 | DataType::Float32) => n.as_f64().map(Value::Double),
        (Json::Number(n), _) => n.as_i64().map(|n| Value::Int(i128::from(n))),
        (Json::String(s), DataType::Float64 | DataType::Float32) => special(s),
        (Json::String(s), DataType::Decimal128(_, scale)) => decimal(s, *scale),
        (Json::String(s), DataType::Date32) => date(s),
        (Json::String(s), DataType::Timestamp(_, _)) => timestamp(s).map(Value::Time),
        (Json::String(s), _) => Some(Value::Text(s.clone())),
        _ => None,
    };
    value.ok_or_else(|| misfit(json, data_type))
}

fn misfit(json: &Json, data_type: &DataType) -> Error {
    Error::invalid(format!("{json} does not fit a column of type {data_type}"))
}

fn special(text: &str) -> Option<Value> {
    match text {
        "NaN" => Some(Value::Double(f64::NAN)),
        "Infinity" => Some(Value::Double(f64::INFINITY)),
        "-Infinity" => Some(Value::Double(f64::NEG_INFINITY)),
        _ => None,
    }
}

/// `"-0.60"` with at most `scale` digits after the point.
fn decimal(text: &str, scale: i8) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = usize::try_from(scale).ok()?;
    if fraction.len() > places {
        return None;
    }
    let unscaled: i128 = format!("{whole}{fraction:0<places$}").parse().ok()?;
    Some(Value::Decimal(
        if negative { -unscaled } else { unscaled },
        scale,
    ))
}

fn date(text: &str) -> Option<Value> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(Value::Date(date.to_epoch_days()))
}

/// `YYYY-MM-DD HH:MM:SS[.f]` in microseconds since 1970.
#[must_use]
pub fn timestamp(text: &str) -> Option<i64> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
        .ok()
        .map(|t| t.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_with_their_scale() {
        for (text, digits) in [("0.60", 60), ("-12.3", -1230), ("7", 700)] {
            assert!(
                matches!(decimal(text, 2), Some(Value::Decimal(d, 2)) if d == digits),
                "{text}"
            );
        }
        assert!(decimal("0.123", 2).is_none());
    }

    #[test]
    fn a_batch_takes_the_columns_types() {
        let columns = [
            ("k".to_string(), "string".to_string()),
            ("p".to_string(), "decimal(6,2)".to_string()),
            ("t".to_string(), "timestamp".to_string()),
            ("i".to_string(), "int".to_string()),
        ];
        let schema = schema(&columns).unwrap();
        let rows: Vec<Vec<Json>> = serde_json::from_str(
            r#"[["a", "1.50", "2024-03-01 12:00:00.5", 3], [null, null, null, null]]"#,
        )
        .unwrap();
        let batch = batch(&schema, &rows).unwrap();
        let back = crate::value::rows(&[batch]).unwrap();
        assert_eq!(
            crate::value::show(&back[0]),
            "['a', 1.50, 2024-03-01 12:00:00.500, 3]"
        );
        assert_eq!(crate::value::show(&back[1]), "[null, null, null, null]");
    }
}
