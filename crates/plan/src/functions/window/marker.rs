//! The function `window` itself: it checks its arguments and has a type, and is expanded before it ever runs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use highwater_core::Error;

use super::{WINDOW, WindowArguments};
use crate::event_time::EventTime;

/// Stands for the windows of a time in a logical plan.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Window {
    signature: Signature,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Window {
    fn name(&self) -> &str {
        WINDOW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let lengths: &[Option<&ScalarValue>] = args.scalar_arguments.get(1..).unwrap_or(&[]);
        WindowArguments::parse(lengths)?;
        let time = time_type(args.arg_fields[0].data_type())?;
        let field = Field::new(WINDOW, window_type(time), true);
        Ok(Arc::new(match EventTime::of(&args.arg_fields[0]) {
            Some(_) => EventTime::instant().mark(field),
            None => field,
        }))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::unsupported(
            "window(…) cannot be computed here: it is expanded in SELECT, WHERE and GROUP BY",
        )
        .with_operator(WINDOW)
        .into())
    }
}

/// The type of a window whose times are of type `time`.
pub(in crate::functions) fn window_type(time: DataType) -> DataType {
    DataType::Struct(Fields::from(vec![
        Field::new("start", time.clone(), false),
        Field::new("end", time, false),
    ]))
}

/// The type of the starts of windows over `column`: microseconds in the column's zone.
///
/// # Errors
/// `Invalid` when the column is neither a time nor a window.
pub(super) fn time_type(column: &DataType) -> highwater_core::Result<DataType> {
    time_type_in(WINDOW, column)
}

/// The same for the first argument of `function`.
pub(in crate::functions) fn time_type_in(
    function: &str,
    column: &DataType,
) -> highwater_core::Result<DataType> {
    let micros = |zone| DataType::Timestamp(TimeUnit::Microsecond, zone);
    match column {
        DataType::Timestamp(_, zone) => Ok(micros(zone.clone())),
        DataType::Date32 | DataType::Null => Ok(micros(None)),
        DataType::Struct(fields) if is_window(fields) => Ok(fields[1].data_type().clone()),
        other => Err(Error::invalid(format!(
            "{function}: its first argument must be a timestamp or a window, not {other}"
        ))
        .with_condition("DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE")
        .with_hint("cast it to TIMESTAMP")),
    }
}

/// A struct of `start` and `end`, both times in microseconds: the column of a window below.
pub(crate) fn is_window(fields: &Fields) -> bool {
    let is_time =
        |f: &FieldRef| matches!(f.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _));
    fields.len() == 2
        && fields[0].name() == "start"
        && fields[1].name() == "end"
        && fields.iter().all(is_time)
}
