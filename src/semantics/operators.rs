//! `+ - * / %` as Spark computes them in ANSI mode: checked, `/` never on integers, no division by zero.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr_common::datum;

use super::decimal;
use crate::Error;

/// One of Spark's arithmetic operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Op {
    const ALL: [Self; 5] = [
        Self::Add,
        Self::Subtract,
        Self::Multiply,
        Self::Divide,
        Self::Remainder,
    ];

    /// The operator of a DataFusion expression, where it is one of these.
    pub(super) fn of(operator: Operator) -> Option<Self> {
        match operator {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            Operator::Divide => Some(Self::Divide),
            Operator::Modulo => Some(Self::Remainder),
            _ => None,
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Add => "spark_add",
            Self::Subtract => "spark_subtract",
            Self::Multiply => "spark_multiply",
            Self::Divide => "spark_divide",
            Self::Remainder => "spark_remainder",
        }
    }
}

/// True when Spark's operator serves these types: numbers, or a number and a text or null.
pub(super) fn applies(left: &DataType, right: &DataType) -> bool {
    let text = |t: &DataType| t.is_null() || is_text(t);
    (left.is_numeric() && (right.is_numeric() || text(right))) || (right.is_numeric() && text(left))
}

/// True for the types of texts.
pub(super) fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The call that computes `left op right`.
pub(super) fn call(op: Op, left: Expr, right: Expr) -> Expr {
    static UDFS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
        Op::ALL
            .iter()
            .map(|op| Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(*op))))
            .collect()
    });
    let udf = Arc::clone(&UDFS[op as usize]);
    Expr::ScalarFunction(ScalarFunction::new_udf(udf, vec![left, right]))
}

/// The function behind an operator.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    op: Op,
    signature: Signature,
}

impl Arithmetic {
    fn new(op: Op) -> Self {
        Self {
            op,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.op.name()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("({left} {} {right})", self.op.symbol())),
            _ => plan_err!("{} takes two arguments", self.name()),
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!(
                "({} {} {})",
                left.schema_name(),
                self.op.symbol(),
                right.schema_name()
            )),
            _ => plan_err!("{} takes two arguments", self.name()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [left, right] => coerce(self.op, left, right),
            _ => plan_err!("{} takes two arguments", self.name()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)] => {
                let (p, s) = decimal::result_type(self.op, (*p1, *s1), (*p2, *s2));
                Ok(DataType::Decimal128(p, s))
            }
            [left, _] => Ok(left.clone()),
            _ => plan_err!("{} takes two arguments", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return plan_err!("{} takes two arguments", self.name());
        };
        if let DataType::Decimal128(p, s) = args.return_field.data_type() {
            return decimal::apply(self.op, left, right, (*p, *s));
        }
        let op = self.op;
        datum::apply(left, right, |l, r| compute(op, l, r)).map_err(|e| explain(op, e))
    }
}

/// Spark's common types of the two sides, in ANSI mode.
fn coerce(op: Op, left: &DataType, right: &DataType) -> Result<Vec<DataType>> {
    let left = &decimal::narrow_kind(left);
    let right = &decimal::narrow_kind(right);
    let both = |t: DataType| Ok(vec![t.clone(), t]);
    match (left, right) {
        (l, r) if is_text(l) || l.is_null() => coerce(op, &text_becomes(r), r),
        (l, r) if is_text(r) || r.is_null() => coerce(op, l, &text_becomes(l)),
        (DataType::Float32, DataType::Float32) => both(DataType::Float32),
        (l, r) if l.is_floating() || r.is_floating() => both(DataType::Float64),
        (DataType::Decimal128(..), r) if !matches!(r, DataType::Decimal128(..)) => {
            Ok(vec![left.clone(), decimal::of_integer(r)])
        }
        (l, DataType::Decimal128(..)) if !matches!(l, DataType::Decimal128(..)) => {
            Ok(vec![decimal::of_integer(l), right.clone()])
        }
        (DataType::Decimal128(..), DataType::Decimal128(..)) => {
            Ok(vec![left.clone(), right.clone()])
        }
        _ if op == Op::Divide => both(DataType::Float64),
        (l, r) if width(l) > 0 && width(r) > 0 => both(if width(l) >= width(r) {
            l.clone()
        } else {
            r.clone()
        }),
        _ => plan_err!("no operator `{}` on {left} and {right}", op.symbol()),
    }
}

/// What a text (or a null) beside a number is read as: a bigint beside an integer, else a double.
pub(super) fn text_becomes(other: &DataType) -> DataType {
    match other {
        t if t.is_integer() => DataType::Int64,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => DataType::Float64,
        t => t.clone(),
    }
}

fn width(t: &DataType) -> u8 {
    match t {
        DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 => 4,
        DataType::Int64 => 8,
        _ => 0,
    }
}

fn compute(op: Op, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    match op {
        Op::Add => numeric::add(left, right),
        Op::Subtract => numeric::sub(left, right),
        Op::Multiply => numeric::mul(left, right),
        Op::Divide | Op::Remainder => {
            match right.get().0.data_type() {
                DataType::Float32 => refuse_zero::<Float32Type>(left, right)?,
                DataType::Float64 => refuse_zero::<Float64Type>(left, right)?,
                _ => {}
            }
            if op == Op::Divide {
                numeric::div(left, right)
            } else {
                numeric::rem(left, right)
            }
        }
    }
}

/// Spark refuses a zero divisor for doubles too; a row whose other side is null is null.
fn refuse_zero<T: ArrowPrimitiveType>(left: &dyn Datum, right: &dyn Datum) -> Result<(), ArrowError>
where
    T::Native: PartialEq + Default,
{
    let ((left, left_scalar), (right, right_scalar)) = (left.get(), right.get());
    let divisors = right.as_primitive::<T>();
    let rows = if right_scalar {
        left.len()
    } else {
        right.len()
    };
    let zero = (0..rows).any(|row| {
        let l = if left_scalar { 0 } else { row };
        let r = if right_scalar { 0 } else { row };
        divisors.is_valid(r) && divisors.value(r) == T::Native::default() && left.is_valid(l)
    });
    if zero {
        return Err(ArrowError::DivideByZero);
    }
    Ok(())
}

/// Puts Spark's condition on an error of a kernel.
fn explain(
    op: Op,
    error: datafusion::error::DataFusionError,
) -> datafusion::error::DataFusionError {
    let message = error.strip_backtrace();
    let ours = if message.contains("by zero") {
        divided_by_zero(op)
    } else if message.to_ascii_lowercase().contains("overflow") {
        overflow(op)
    } else {
        return error;
    };
    ours.with_source(error).into()
}

/// The error for a zero divisor.
pub(super) fn divided_by_zero(op: Op) -> Error {
    if op == Op::Remainder {
        Error::invalid("remainder by zero in `%`")
            .with_condition("REMAINDER_BY_ZERO")
            .with_hint("filter the zeros out, or use `nullif(divisor, 0)`")
    } else {
        Error::invalid("division by zero in `/`")
            .with_condition("DIVIDE_BY_ZERO")
            .with_hint("filter the zeros out, or use `nullif(divisor, 0)`")
    }
}

/// The error for a result that its type cannot hold.
pub(super) fn overflow(op: Op) -> Error {
    Error::invalid(format!("arithmetic overflow in `{}`", op.symbol()))
        .with_condition("ARITHMETIC_OVERFLOW")
        .with_hint("cast to a wider type first")
}
