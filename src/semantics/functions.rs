//! Functions of Spark that neither DataFusion nor datafusion-spark has.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use datafusion::common::{Result, plan_err};
use datafusion::functions;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_spark::function as spark;

use super::operators::{Op, overflow};

/// `year`, `month`, `day` and their like, and the conversions from numbers to timestamps.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let part = |name, part| {
        Arc::new(ScalarUDF::new_from_impl(Simple::new(
            name,
            Kind::Part(part),
        )))
    };
    let instant = |name, per_second| {
        Arc::new(ScalarUDF::new_from_impl(Simple::new(
            name,
            Kind::Instant(per_second),
        )))
    };
    vec![
        part("year", Part::Year),
        part("quarter", Part::Quarter),
        part("month", Part::Month),
        part("weekofyear", Part::Week),
        part("day", Part::Day),
        part("dayofmonth", Part::Day),
        part("dayofyear", Part::DayOfYear),
        part("dayofweek", Part::DayOfWeek),
        instant("timestamp_seconds", 1_000_000),
        instant("timestamp_millis", 1_000),
        instant("timestamp_micros", 1),
    ]
}

/// Spark's function, where `udf` is DataFusion's of that name: for expressions built in Rust.
pub(super) fn instead_of(udf: &ScalarUDF) -> Option<Arc<ScalarUDF>> {
    static PAIRS: LazyLock<Vec<(Arc<ScalarUDF>, Arc<ScalarUDF>)>> = LazyLock::new(|| {
        vec![
            (functions::math::abs(), spark::math::abs()),
            (functions::math::ceil(), spark::math::ceil()),
            (functions::math::floor(), spark::math::floor()),
            (functions::math::round(), spark::math::round()),
            (functions::string::concat(), spark::string::concat()),
        ]
    });
    PAIRS
        .iter()
        .find(|(theirs, _)| theirs.as_ref() == udf)
        .map(|(_, ours)| Arc::clone(ours))
}

/// A part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    DayOfYear,
    DayOfWeek,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A part of a date or timestamp, as an int.
    Part(Part),
    /// A number of which so many microseconds are one, as a timestamp.
    Instant(i64),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Simple {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl Simple {
    fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for Simple {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [only] = types else {
            return plan_err!("`{}` takes one argument, not {}", self.name, types.len());
        };
        Ok(vec![match (self.kind, only) {
            (Kind::Part(_), DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)) => {
                only.clone()
            }
            (Kind::Part(_), DataType::Null) => DataType::Date32,
            (Kind::Part(_), t) if super::operators::is_text(t) => DataType::Date32,
            (Kind::Instant(_), t) if t.is_integer() || t.is_null() => DataType::Int64,
            (Kind::Instant(1_000_000), t) if t.is_numeric() => DataType::Float64,
            (_, t) => return plan_err!("`{}` does not take {t}", self.name),
        }])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Part(_) => DataType::Int32,
            Kind::Instant(_) => MICROS,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let array = args.args[0].to_array(args.number_rows)?;
        let result = match self.kind {
            Kind::Part(part) => date_part(&array, part)?,
            Kind::Instant(factor) => instants(&array, factor)?,
        };
        Ok(ColumnarValue::Array(result))
    }
}

fn date_part(array: &ArrayRef, part: Part) -> Result<ArrayRef, ArrowError> {
    use compute::DatePart;
    let of = |part| compute::date_part(array, part);
    match part {
        Part::Year => of(DatePart::Year),
        Part::Quarter => of(DatePart::Quarter),
        Part::Month => of(DatePart::Month),
        Part::Week => of(DatePart::Week),
        Part::Day => of(DatePart::Day),
        Part::DayOfYear => of(DatePart::DayOfYear),
        Part::DayOfWeek => {
            // Spark counts from 1 on Sunday.
            let days = of(DatePart::DayOfWeekSunday0)?;
            let days = days.as_primitive::<Int32Type>();
            Ok(Arc::new(days.unary::<_, Int32Type>(|day| day + 1)))
        }
    }
}

fn instants(array: &ArrayRef, factor: i64) -> Result<ArrayRef> {
    let too_big = || overflow(Op::Multiply).into();
    if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
        return Ok(Arc::new(
            numbers.try_unary::<_, TimestampMicrosecondType, datafusion::error::DataFusionError>(
                |n| n.checked_mul(factor).ok_or_else(too_big),
            )?,
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let micros = |x: f64| {
        let micros = x * 1e6;
        if micros.abs() < 9.2e18 {
            Ok(micros as i64)
        } else {
            Err(too_big())
        }
    };
    Ok(Arc::new(
        array
            .as_primitive::<Float64Type>()
            .try_unary::<_, TimestampMicrosecondType, datafusion::error::DataFusionError>(micros)?,
    ))
}
