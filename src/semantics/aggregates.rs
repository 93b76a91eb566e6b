//! `sum`, `avg`, `min` and `max` with Spark's meaning where DataFusion's differs.
//!
//! Sums of integers and decimals are checked, averages of decimals are rounded half up, and NaN is
//! the greatest double. Everything else goes to DataFusion's aggregate of the same name.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int64Type, i256,
};
use datafusion::common::Result;
use datafusion::functions_aggregate::{average, min_max, sum};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};

use super::decimal;
use super::fold::{Fold, Groups, Many, Rows, Single};
use super::operators::{Op, overflow};
use crate::Error;

/// The four aggregates.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    PAIRS.iter().map(|(_, ours)| Arc::clone(ours)).collect()
}

/// Ours, where `udaf` is DataFusion's of that name: for expressions built in Rust.
pub(super) fn instead_of(udaf: &AggregateUDF) -> Option<Arc<AggregateUDF>> {
    PAIRS
        .iter()
        .find(|(theirs, _)| theirs.as_ref() == udaf)
        .map(|(_, ours)| Arc::clone(ours))
}

type Pair = (Arc<AggregateUDF>, Arc<AggregateUDF>);

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    [
        (Kind::Sum, sum::sum_udaf()),
        (Kind::Avg, average::avg_udaf()),
        (Kind::Min, min_max::min_udaf()),
        (Kind::Max, min_max::max_udaf()),
    ]
    .into_iter()
    .map(|(kind, theirs)| {
        let inner = Arc::clone(&theirs);
        let ours = AggregateUDF::new_from_impl(SparkAggregate { kind, inner });
        (theirs, Arc::new(ours))
    })
    .collect()
});

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Avg,
    Min,
    Max,
}

/// DataFusion's aggregate with some of its types done our way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SparkAggregate {
    kind: Kind,
    inner: Arc<AggregateUDF>,
}

impl SparkAggregate {
    /// True where ours differs from DataFusion's.
    fn differs(&self, input: &DataType, distinct: bool) -> bool {
        !distinct
            && match self.kind {
                Kind::Sum => matches!(input, DataType::Int64 | DataType::Decimal128(..)),
                Kind::Avg => matches!(input, DataType::Decimal128(..)),
                Kind::Min | Kind::Max => input.is_floating() && *input != DataType::Float16,
            }
    }

    /// Hands our accumulator for this input to `to`.
    fn build<R>(&self, input: &DataType, result: &DataType, to: impl Build<R>) -> Result<R> {
        let max = self.kind == Kind::Max;
        match (self.kind, input) {
            (Kind::Sum, DataType::Int64) => to
                .build(Fold::<Int64Type>::new(DataType::Int64, |a, b| {
                    a.checked_add(b).ok_or_else(|| overflow(Op::Add).into())
                })),
            (Kind::Sum, _) => to.build(decimal_sum(result.clone())),
            (Kind::Avg, _) => to.build(DecimalAverage::new(input, result)),
            (_, DataType::Float32) => to.build(Fold::<Float32Type>::new(
                DataType::Float32,
                if max {
                    |a, b| Ok(f32_max(a, b))
                } else {
                    |a, b| Ok(f32_min(a, b))
                },
            )),
            _ => to.build(Fold::<Float64Type>::new(
                DataType::Float64,
                if max {
                    |a, b| Ok(f64_max(a, b))
                } else {
                    |a, b| Ok(f64_min(a, b))
                },
            )),
        }
    }
}

impl AggregateUDFImpl for SparkAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let input = args.expr_fields[0].data_type().clone();
        if !self.differs(&input, args.is_distinct) {
            return self.inner.accumulator(args);
        }
        self.build(&input, args.return_type(), ForOne(&input))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let input = args.input_fields[0].data_type();
        if self.kind != Kind::Avg || !self.differs(input, args.is_distinct) {
            return self.inner.state_fields(args);
        }
        let field = |part, data_type| {
            Arc::new(Field::new(
                format_state_name(args.name, part),
                data_type,
                true,
            ))
        };
        Ok(vec![
            field("sum", sum_type(input)),
            field("count", DataType::Int64),
        ])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let input = args.expr_fields[0].data_type().clone();
        self.differs(&input, args.is_distinct) || self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let input = args.expr_fields[0].data_type().clone();
        if !self.differs(&input, args.is_distinct) {
            return self.inner.create_groups_accumulator(args);
        }
        self.build(&input, args.return_type(), ForMany)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.create_sliding_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// What becomes of an accumulator once its type is known.
trait Build<R> {
    fn build<G: Groups>(self, groups: G) -> Result<R>;
}

struct ForMany;

impl Build<Box<dyn GroupsAccumulator>> for ForMany {
    fn build<G: Groups>(self, groups: G) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Many(groups)))
    }
}

struct ForOne<'a>(&'a DataType);

impl Build<Box<dyn Accumulator>> for ForOne<'_> {
    fn build<G: Groups>(self, groups: G) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single::new(groups, std::slice::from_ref(self.0))?))
    }
}

/// Spark's type of the sum of `input`: ten digits more.
fn sum_type(input: &DataType) -> DataType {
    match input {
        DataType::Decimal128(p, s) => DataType::Decimal128(p.saturating_add(10).min(38), *s),
        other => other.clone(),
    }
}

fn decimal_sum(result: DataType) -> Fold<Decimal128Type> {
    Fold::new(result, |a: i128, b: i128| {
        a.checked_add(b)
            .filter(|sum: &i128| sum.unsigned_abs() < 10_u128.pow(38))
            .ok_or_else(|| overflow(Op::Add).into())
    })
}

/// Adds decimals and divides once, half up.
#[derive(Debug)]
struct DecimalAverage {
    sums: Fold<Decimal128Type>,
    counts: Vec<i64>,
    /// The scale of the sum, and the type of the result.
    scale: i8,
    result: (u8, i8),
}

impl DecimalAverage {
    fn new(input: &DataType, result: &DataType) -> Self {
        let of = |t: &DataType| match t {
            DataType::Decimal128(p, s) => (*p, *s),
            _ => (38, 0),
        };
        Self {
            sums: decimal_sum(sum_type(input)),
            counts: Vec::new(),
            scale: of(input).1,
            result: of(result),
        }
    }

    fn divide(&self, sum: i128, count: i64) -> Result<i128, Error> {
        let raise = u32::try_from(i32::from(self.result.1) - i32::from(self.scale)).unwrap_or(0);
        i256::from_i128(sum)
            .checked_mul(decimal::power(raise)?)
            .and_then(|sum| decimal::divide(sum, i256::from_i128(i128::from(count))))
            .filter(|average| {
                decimal::power(u32::from(self.result.0))
                    .is_ok_and(|limit| average.wrapping_abs() < limit)
            })
            .and_then(i256::to_i128)
            .ok_or_else(|| overflow(Op::Divide))
    }
}

impl Groups for DecimalAverage {
    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.counts.resize(rows.total(), 0);
        self.sums.update(values, rows)?;
        rows.each(&values[0], |_, group| {
            self.counts[group] += 1;
            Ok(())
        })
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.counts.resize(rows.total(), 0);
        self.sums.merge(&states[..1], rows)?;
        let counts = states[1].as_primitive::<Int64Type>();
        rows.each(counts, |row, group| {
            self.counts[group] += counts.value(row);
            Ok(())
        })
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self {
            sums: self.sums.take(emit),
            counts: emit.take_needed(&mut self.counts),
            scale: self.scale,
            result: self.result,
        }
    }

    fn fresh(&self) -> Self {
        Self {
            sums: self.sums.fresh(),
            counts: Vec::new(),
            scale: self.scale,
            result: self.result,
        }
    }

    fn result(&self) -> Result<ArrayRef> {
        let sums = self.sums.array();
        let averages = (0..sums.len())
            .map(|group| {
                if sums.is_null(group) || self.counts[group] == 0 {
                    return Ok(None);
                }
                self.divide(sums.value(group), self.counts[group]).map(Some)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let array = Decimal128Array::from(averages)
            .with_precision_and_scale(self.result.0, self.result.1)?;
        Ok(Arc::new(array))
    }

    fn state(&self) -> Result<Vec<ArrayRef>> {
        Ok(vec![
            Arc::new(self.sums.array()),
            Arc::new(Int64Array::from(self.counts.clone())),
        ])
    }

    fn bytes(&self) -> usize {
        self.sums.bytes() + self.counts.capacity() * size_of::<i64>()
    }
}

macro_rules! extremes {
    ($t:ty, $max:ident, $min:ident) => {
        fn $max(a: $t, b: $t) -> $t {
            if a.is_nan() || (!b.is_nan() && a >= b) {
                a
            } else {
                b
            }
        }

        fn $min(a: $t, b: $t) -> $t {
            if b.is_nan() || (!a.is_nan() && a <= b) {
                a
            } else {
                b
            }
        }
    };
}
extremes!(f32, f32_max, f32_min);
extremes!(f64, f64_max, f64_min);
