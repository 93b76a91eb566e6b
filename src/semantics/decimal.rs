//! Decimal arithmetic with Spark's result types and Spark's rounding (half up).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, i256};
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr_common::datum;
use datafusion::scalar::ScalarValue;

use super::operators::{Op, divided_by_zero, overflow};
use crate::Error;

const MAX: i32 = DECIMAL128_MAX_PRECISION as i32;

/// Spark's result type of an operator on two decimals, each `(precision, scale)`.
///
/// Beyond 38 digits the scale gives way, but not below six digits (Spark's `adjustPrecisionScale`).
pub(super) fn result_type(op: Op, left: (u8, i8), right: (u8, i8)) -> (u8, i8) {
    let (p, s) = ideal_type(op, left, right);
    if p <= MAX {
        return pair(p, s);
    }
    let whole = p - s;
    let scale = (MAX - whole).max(s.min(6));
    pair(MAX, scale)
}

fn ideal_type(op: Op, left: (u8, i8), right: (u8, i8)) -> (i32, i32) {
    let (p1, s1) = (i32::from(left.0), i32::from(left.1));
    let (p2, s2) = (i32::from(right.0), i32::from(right.1));
    match op {
        Op::Add | Op::Subtract => {
            let s = s1.max(s2);
            ((p1 - s1).max(p2 - s2) + s + 1, s)
        }
        Op::Multiply => (p1 + p2 + 1, s1 + s2),
        Op::Divide => {
            let s = (s1 + p2 + 1).max(6);
            (p1 - s1 + s2 + s, s)
        }
        Op::Remainder => {
            let s = s1.max(s2);
            ((p1 - s1).min(p2 - s2) + s, s)
        }
    }
}

fn pair(precision: i32, scale: i32) -> (u8, i8) {
    (
        u8::try_from(precision.clamp(1, MAX)).unwrap_or(DECIMAL128_MAX_PRECISION),
        i8::try_from(scale).unwrap_or(0),
    )
}

/// The decimal that holds every value of an integer type (Spark's `DecimalType.forType`).
pub(super) fn of_integer(t: &DataType) -> DataType {
    DataType::Decimal128(
        match t {
            DataType::Int8 => 3,
            DataType::Int16 => 5,
            DataType::Int32 => 10,
            _ => 20,
        },
        0,
    )
}

/// Arrow's narrow decimals and unsigned integers, as the types that Spark knows.
pub(super) fn narrow_kind(t: &DataType) -> DataType {
    match t {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        other => other.clone(),
    }
}

/// Computes `left op right` into a decimal of `(precision, scale)`.
pub(super) fn apply(
    op: Op,
    left: &ColumnarValue,
    right: &ColumnarValue,
    result: (u8, i8),
) -> Result<ColumnarValue> {
    let target = DataType::Decimal128(result.0, result.1);
    let fast = match op {
        Op::Add => Some(datum::apply(left, right, |l, r| numeric::add(l, r))),
        Op::Subtract => Some(datum::apply(left, right, |l, r| numeric::sub(l, r))),
        Op::Multiply => Some(datum::apply(left, right, |l, r| numeric::mul(l, r))),
        Op::Divide | Op::Remainder => None,
    };
    if let Some(Ok(value)) = fast
        && value.data_type() == target
        && result.0 < DECIMAL128_MAX_PRECISION
    {
        return Ok(value);
    }
    exactly(op, left, right, result)
}

/// The same row by row in 256 bits, where Arrow's kernels have other types or would lose digits.
fn exactly(
    op: Op,
    left: &ColumnarValue,
    right: &ColumnarValue,
    (precision, scale): (u8, i8),
) -> Result<ColumnarValue> {
    let scalars = matches!(
        (left, right),
        (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_))
    );
    let arrays = ColumnarValue::values_to_arrays(&[left.clone(), right.clone()])?;
    let (l, r) = (
        arrays[0].as_primitive::<Decimal128Type>(),
        arrays[1].as_primitive::<Decimal128Type>(),
    );
    let scales = (i32::from(l.scale()), i32::from(r.scale()), i32::from(scale));
    let limit = power(u32::from(precision))?;
    let values = (0..l.len())
        .map(|row| {
            if l.is_null(row) || r.is_null(row) {
                return Ok(None);
            }
            let value = one(op, l.value(row), r.value(row), scales)?;
            match value.to_i128() {
                Some(small) if value.wrapping_abs() < limit => Ok(Some(small)),
                _ => Err(overflow(op)),
            }
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let array = Decimal128Array::from(values).with_precision_and_scale(precision, scale)?;
    if scalars {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
            &array, 0,
        )?));
    }
    Ok(ColumnarValue::Array(Arc::new(array) as ArrayRef))
}

/// One value; the scales are left, right, result.
fn one(op: Op, l: i128, r: i128, (s1, s2, scale): (i32, i32, i32)) -> Result<i256, Error> {
    let (l, r) = (i256::from_i128(l), i256::from_i128(r));
    let common = s1.max(s2);
    let raised = |value: i256, by: i32| shift(value, by).ok_or_else(|| overflow(op));
    let (value, from) = match op {
        Op::Add => (
            raised(l, common - s1)?.checked_add(raised(r, common - s2)?),
            common,
        ),
        Op::Subtract => (
            raised(l, common - s1)?.checked_sub(raised(r, common - s2)?),
            common,
        ),
        Op::Multiply => (l.checked_mul(r), s1 + s2),
        Op::Divide | Op::Remainder if r == i256::ZERO => return Err(divided_by_zero(op)),
        Op::Divide => (divide(raised(l, scale - s1 + s2)?, r), scale),
        Op::Remainder => (
            raised(l, common - s1)?.checked_rem(raised(r, common - s2)?),
            common,
        ),
    };
    let value = value.ok_or_else(|| overflow(op))?;
    shift(value, scale - from).ok_or_else(|| overflow(op))
}

/// `value × 10^by`, rounded half up where `by` is negative.
fn shift(value: i256, by: i32) -> Option<i256> {
    let factor = i256::from_i128(10).checked_pow(by.unsigned_abs())?;
    if by >= 0 {
        value.checked_mul(factor)
    } else {
        divide(value, factor)
    }
}

/// `value ÷ by`, rounded half up (away from zero).
pub(super) fn divide(value: i256, by: i256) -> Option<i256> {
    let quotient = value.checked_div(by)?;
    let rest = value.checked_rem(by)?.wrapping_abs();
    let twice = rest.checked_mul(i256::from_i128(2))?;
    if twice < by.wrapping_abs() {
        return Some(quotient);
    }
    let negative = (value < i256::ZERO) != (by < i256::ZERO);
    let step = if negative { i256::MINUS_ONE } else { i256::ONE };
    quotient.checked_add(step)
}

/// `10^n`.
pub(super) fn power(n: u32) -> Result<i256, Error> {
    i256::from_i128(10)
        .checked_pow(n)
        .ok_or_else(|| Error::internal(format!("10^{n} does not fit 256 bits")))
}

/// The literal `value` as the smallest decimal that holds it (Spark's `DecimalType.fromLiteral`).
pub(super) fn literal(value: i64) -> ScalarValue {
    let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
    ScalarValue::Decimal128(
        Some(i128::from(value)),
        u8::try_from(digits).unwrap_or(20),
        0,
    )
}
