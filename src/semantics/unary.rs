//! One-argument functions behind Spark's operators: checked negation, and doubles made comparable.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::Error;

/// `-expr`, which refuses to overflow.
pub(super) fn negate(expr: Expr) -> Expr {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Unary::udf(Kind::Negate));
    call(&UDF, expr)
}

/// A double of which −0.0 equals 0.0 and every NaN is the same; the identity otherwise.
pub(super) fn comparable(expr: Expr) -> Expr {
    static UDF: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Unary::udf(Kind::Comparable));
    call(&UDF, expr)
}

/// True for a call of [`comparable`].
pub(super) fn is_comparable(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.func.name() == Kind::Comparable.name())
}

fn call(udf: &Arc<ScalarUDF>, expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(udf), vec![expr]))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Negate,
    Comparable,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Negate => "spark_negative",
            Self::Comparable => "spark_comparable_double",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unary {
    kind: Kind,
    signature: Signature,
}

impl Unary {
    fn udf(kind: Kind) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self {
            kind,
            signature: Signature::any(1, Volatility::Immutable),
        }))
    }

    fn text(&self, inner: &str) -> String {
        match self.kind {
            Kind::Negate => format!("(- {inner})"),
            Kind::Comparable => inner.to_string(),
        }
    }
}

impl ScalarUDFImpl for Unary {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [arg] => Ok(self.text(&arg.to_string())),
            _ => plan_err!("{} takes one argument", self.name()),
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [arg] => Ok(self.text(&arg.schema_name().to_string())),
            _ => plan_err!("{} takes one argument", self.name()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let apply = |array: &ArrayRef| match self.kind {
            Kind::Negate => numeric::neg(array).map_err(|e| {
                Error::invalid("arithmetic overflow in `-`")
                    .with_condition("ARITHMETIC_OVERFLOW")
                    .with_hint("cast to a wider type first")
                    .with_source(e)
                    .into()
            }),
            Kind::Comparable => Ok(canonical(array)),
        };
        match &args.args[0] {
            ColumnarValue::Array(array) => apply(array).map(ColumnarValue::Array),
            ColumnarValue::Scalar(scalar) => {
                let array = apply(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                    &array, 0,
                )?))
            }
        }
    }
}

fn canonical(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float32 => Arc::new(
            array
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|x| if x.is_nan() { f32::NAN } else { x + 0.0 }),
        ),
        DataType::Float64 => Arc::new(
            array
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(|x| if x.is_nan() { f64::NAN } else { x + 0.0 }),
        ),
        _ => Arc::clone(array),
    }
}
