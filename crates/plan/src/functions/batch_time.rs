//! `now()` and its kin in a streaming query: the batch time; and `current_watermark()` bound to the query.
//!
//! DataFusion replaces them by a literal when it plans; a query that is planned once would stand still.
//! Here each becomes a volatile function that reads the query's cell, so that a micro-batch that runs
//! again sees the same time again (Spark).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use super::current_watermark;
use crate::cell::BatchCell;

/// The functions whose answer is the time of the query.
const NAMES: [&str; 7] = [
    "now",
    "current_timestamp",
    "current_date",
    "today",
    "current_time",
    "localtimestamp",
    "curdate",
];

/// Replaces the functions that tell the time, or the watermark, by ones that read `cell`, in all of `plan`.
pub(crate) fn bind_batch_time(
    plan: LogicalPlan,
    cell: &BatchCell,
    config: &ConfigOptions,
) -> Result<LogicalPlan> {
    let zone: Arc<str> = Arc::from(config.execution.time_zone.as_deref().unwrap_or("UTC"));
    plan.transform_up_with_subqueries(|node| {
        node.map_expressions(|expr| expr.transform_up(|expr| replace(expr, cell, &zone)))
    })
    .data()
}

fn replace(expr: Expr, cell: &BatchCell, zone: &Arc<str>) -> Result<Transformed<Expr>> {
    match &expr {
        Expr::ScalarFunction(ScalarFunction { func, args })
            if args.is_empty() && NAMES.contains(&func.name()) =>
        {
            let field = func.return_field_from_args(ReturnFieldArgs {
                arg_fields: &[],
                scalar_arguments: &[],
            })?;
            let bound = ScalarUDF::new_from_impl(BatchTime {
                name: func.name().to_string(),
                field,
                zone: Arc::clone(zone),
                cell: cell.clone(),
                signature: Signature::nullary(Volatility::Volatile),
            });
            Ok(Transformed::yes(bound.call(Vec::new())))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if args.is_empty() => {
            Ok(match current_watermark::bound(func, cell) {
                Some(bound) => Transformed::yes(bound.call(Vec::new())),
                None => Transformed::no(expr),
            })
        }
        _ => Ok(Transformed::no(expr)),
    }
}

/// A function without arguments that answers the batch time, in the type of the function it stands for.
#[derive(Debug)]
struct BatchTime {
    name: String,
    field: FieldRef,
    zone: Arc<str>,
    cell: BatchCell,
    signature: Signature,
}

impl ScalarUDFImpl for BatchTime {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let micros = Some(self.cell.numbers().time.as_micros());
        // A date or a time of day is the one of the session's zone; an instant is the same everywhere.
        let zone = match self.field.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => Some(Arc::clone(&self.zone)),
        };
        let time = ScalarValue::TimestampMicrosecond(micros, zone);
        Ok(ColumnarValue::Scalar(time.cast_to(self.field.data_type())?))
    }
}

impl PartialEq for BatchTime {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.field, &self.zone) == (&other.name, &other.field, &other.zone)
    }
}

impl Eq for BatchTime {}

impl Hash for BatchTime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.field).hash(state);
    }
}
