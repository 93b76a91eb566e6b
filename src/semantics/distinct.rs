//! `collect_list(DISTINCT x)` and `try_sum(DISTINCT x)`: datafusion-spark's accumulators leave DISTINCT out.
//!
//! A batch query with one DISTINCT hides that, as DataFusion removes the duplicates below; a stream must
//! remember them itself. A distinct list is a set; a distinct `try_sum` is refused rather than wrong.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion_spark::function::aggregate;

use crate::Error;

/// The two aggregates.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let of = |plain, distinct| {
        Arc::new(AggregateUDF::new_from_impl(MindsDistinct {
            plain,
            distinct,
        }))
    };
    vec![
        of(aggregate::collect_list(), Some(aggregate::collect_set())),
        of(aggregate::try_sum(), None),
    ]
}

/// `plain`, and another aggregate in its place where DISTINCT was said.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MindsDistinct {
    plain: Arc<AggregateUDF>,
    distinct: Option<Arc<AggregateUDF>>,
}

impl MindsDistinct {
    fn for_rows(&self, distinct: bool) -> Result<&AggregateUDF> {
        if !distinct {
            return Ok(&self.plain);
        }
        self.distinct.as_deref().ok_or_else(|| {
            Error::unsupported(format!("{}(DISTINCT …)", self.plain.name()))
                .with_operator("aggregate")
                .with_hint("use `sum(DISTINCT …)`")
                .into()
        })
    }
}

impl AggregateUDFImpl for MindsDistinct {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn aliases(&self) -> &[String] {
        self.plain.aliases()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.plain.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.for_rows(args.is_distinct)?.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.for_rows(args.is_distinct)?.state_fields(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.plain.default_value(data_type)
    }
}
