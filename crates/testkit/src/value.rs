//! Values that compare across engines: numbers by value, timestamps as instants.

use std::fmt;

use arrow::array::{Array, RecordBatch};
use chrono::{DateTime, NaiveDate};
use datafusion::scalar::ScalarValue;
use highwater::{Result, Timestamp};

/// One row of a result.
pub type Row = Vec<Value>;

/// One value of a result, without its engine's type.
#[derive(Clone, Debug)]
pub enum Value {
    /// Null, of any type.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number of any width.
    Int(i128),
    /// A floating point number.
    Double(f64),
    /// A decimal: digits, and how many of them stand after the point.
    Decimal(i128, i8),
    /// A string.
    Text(String),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970, UTC.
    Time(i64),
    /// Anything else, as DataFusion writes it.
    Other(String),
}

impl Value {
    /// The time that `text` tells, `2024-05-01 12:00:00` in UTC; other text stays text and agrees with no time.
    #[must_use]
    pub fn time(text: &str) -> Self {
        let time = text.parse::<Timestamp>();
        time.map_or_else(
            |_| Self::Text(text.to_owned()),
            |t| Self::Time(t.as_micros()),
        )
    }

    /// True when both mean the same.
    ///
    /// Numbers compare by value whatever their types, doubles within 1e-9 of the larger (or of 1),
    /// NaN equals NaN, and -0.0 equals 0.0.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) | (Self::Other(a), Self::Other(b)) => a == b,
            (Self::Date(a), Self::Date(b)) => a == b,
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Double(_), _) | (_, Self::Double(_)) => match (self.float(), other.float()) {
                (Some(a), Some(b)) => near(a, b),
                _ => false,
            },
            _ => match (self.exact(), other.exact()) {
                (Some(a), Some(b)) => same_decimal(a, b),
                _ => false,
            },
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Double(x) => Some(*x),
            Self::Int(n) => Some(*n as f64),
            Self::Decimal(digits, scale) => Some(*digits as f64 / 10_f64.powi(i32::from(*scale))),
            _ => None,
        }
    }

    fn exact(&self) -> Option<(i128, i8)> {
        match self {
            Self::Int(n) => Some((*n, 0)),
            Self::Decimal(digits, scale) => Some((*digits, *scale)),
            _ => None,
        }
    }
}

fn near(a: f64, b: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a.is_infinite() || b.is_infinite() {
        return a == b;
    }
    (a - b).abs() <= 1e-9 * 1_f64.max(a.abs()).max(b.abs())
}

fn same_decimal(a: (i128, i8), b: (i128, i8)) -> bool {
    let (fine, coarse) = if a.1 >= b.1 { (a, b) } else { (b, a) };
    let shift = u32::try_from(i32::from(fine.1) - i32::from(coarse.1)).unwrap_or(0);
    10_i128
        .checked_pow(shift)
        .and_then(|power| coarse.0.checked_mul(power))
        .map_or(coarse.0 == 0 && fine.0 == 0, |digits| digits == fine.0)
}

impl From<&ScalarValue> for Value {
    fn from(scalar: &ScalarValue) -> Self {
        use ScalarValue as S;
        if scalar.is_null() {
            return Self::Null;
        }
        match scalar {
            S::Boolean(Some(b)) => Self::Bool(*b),
            S::Float16(Some(x)) => Self::Double(f64::from(*x)),
            S::Float32(Some(x)) => Self::Double(f64::from(*x)),
            S::Float64(Some(x)) => Self::Double(*x),
            S::Decimal32(Some(d), _, scale) => Self::Decimal(i128::from(*d), *scale),
            S::Decimal64(Some(d), _, scale) => Self::Decimal(i128::from(*d), *scale),
            S::Decimal128(Some(d), _, scale) => Self::Decimal(*d, *scale),
            S::Utf8(Some(s)) | S::LargeUtf8(Some(s)) | S::Utf8View(Some(s)) => {
                Self::Text(s.clone())
            }
            S::Date32(Some(d)) => Self::Date(*d),
            S::TimestampSecond(Some(t), _) => Self::Time(t.saturating_mul(1_000_000)),
            S::TimestampMillisecond(Some(t), _) => Self::Time(t.saturating_mul(1_000)),
            S::TimestampMicrosecond(Some(t), _) => Self::Time(*t),
            S::TimestampNanosecond(Some(t), _) => Self::Time(t.div_euclid(1_000)),
            S::Dictionary(_, inner) => Self::from(inner.as_ref()),
            other => whole(other).map_or_else(|| Self::Other(other.to_string()), Self::Int),
        }
    }
}

fn whole(scalar: &ScalarValue) -> Option<i128> {
    use ScalarValue as S;
    match scalar {
        S::Int8(n) => n.map(i128::from),
        S::Int16(n) => n.map(i128::from),
        S::Int32(n) => n.map(i128::from),
        S::Int64(n) => n.map(i128::from),
        S::UInt8(n) => n.map(i128::from),
        S::UInt16(n) => n.map(i128::from),
        S::UInt32(n) => n.map(i128::from),
        S::UInt64(n) => n.map(i128::from),
        _ => None,
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => b.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Double(x) => write!(f, "{x:?}"),
            Self::Decimal(digits, scale) => decimal(*digits, *scale, f),
            Self::Text(s) => write!(f, "'{s}'"),
            Self::Date(days) => match NaiveDate::from_epoch_days(*days) {
                Some(date) => date.fmt(f),
                None => write!(f, "day {days}"),
            },
            Self::Time(micros) => match DateTime::from_timestamp_micros(*micros) {
                Some(t) => write!(f, "{}", t.format("%Y-%m-%d %H:%M:%S%.f")),
                None => write!(f, "{micros} µs"),
            },
            Self::Other(text) => f.write_str(text),
        }
    }
}

fn decimal(digits: i128, scale: i8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let places = usize::try_from(scale).unwrap_or(0);
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = places + 1);
    let (whole, fraction) = text.split_at(text.len() - places);
    match fraction {
        "" => write!(f, "{sign}{whole}"),
        _ => write!(f, "{sign}{whole}.{fraction}"),
    }
}

macro_rules! from_value {
    ($($from:ty => $to:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                $to(value)
            }
        })*
    };
}
from_value!(
    bool => Self::Bool,
    i32 => |n: i32| Self::Int(i128::from(n)),
    i64 => |n: i64| Self::Int(i128::from(n)),
    u64 => |n: u64| Self::Int(i128::from(n)),
    f64 => Self::Double,
    &str => |s: &str| Self::Text(s.to_owned()),
    String => Self::Text,
    Timestamp => |t: Timestamp| Self::Time(t.as_micros()),
);

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The rows of `batches`, in order.
///
/// # Errors
/// When a column has a type that has no scalar form.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in batches {
        for index in 0..batch.num_rows() {
            rows.push(row(batch, index)?);
        }
    }
    Ok(rows)
}

fn row(batch: &RecordBatch, index: usize) -> Result<Row> {
    batch
        .columns()
        .iter()
        .map(|column| value(column, index))
        .collect()
}

fn value(column: &dyn Array, index: usize) -> Result<Value> {
    Ok(Value::from(&ScalarValue::try_from_array(column, index)?))
}

/// A row on one line: `['a', 2]`.
#[must_use]
pub fn show(row: &[Value]) -> String {
    let values: Vec<String> = row.iter().map(Value::to_string).collect();
    format!("[{}]", values.join(", "))
}

/// The row made of the values given: `row!["a", 2, None::<i64>]`.
#[macro_export]
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::Value::from($value)),*]
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_by_value() {
        for (a, b, same) in [
            (Value::Int(3), Value::Double(3.0), true),
            (Value::Int(3), Value::Decimal(300, 2), true),
            (Value::Decimal(60, 2), Value::Decimal(6, 1), true),
            (Value::Decimal(61, 2), Value::Decimal(6, 1), false),
            (Value::Double(f64::NAN), Value::Double(f64::NAN), true),
            (Value::Double(0.0), Value::Double(-0.0), true),
            (Value::Double(1.0), Value::Double(1.0 + 1e-10), true),
            (Value::Double(1.0), Value::Double(1.001), false),
            (Value::Null, Value::Int(0), false),
            (Value::Int(1), Value::Bool(true), false),
        ] {
            assert_eq!(a.agrees(&b), same, "{a} and {b}");
        }
    }

    #[test]
    fn a_decimal_shows_its_scale() {
        assert_eq!(Value::Decimal(-5, 2).to_string(), "-0.05");
        assert_eq!(Value::Decimal(1234, 2).to_string(), "12.34");
    }
}
