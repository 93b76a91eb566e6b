//! `window_time(w)`: the instant that stands for a window, to group windows by windows again.

use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use highwater_core::Error;

use super::kernels::micros;
use super::marker::is_window;
use crate::event_time::EventTime;

/// The name of the function.
const WINDOW_TIME: &str = "window_time";
/// The name of the function of [`window_end`].
const WINDOW_END: &str = "window_end_of";

/// The function `window_time`, for registration.
pub(crate) fn window_time_udf() -> Arc<ScalarUDF> {
    udf(false)
}

/// The end of a window itself, event time where the window is: what `TUMBLE(…)` and its kin give as `window_end`.
/// (`window.end` is no event time, as in Spark.)
pub fn window_end(window: Expr) -> Expr {
    udf(true).call(vec![window])
}

fn udf(end: bool) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(WindowTime {
        signature: Signature::any(1, Volatility::Immutable),
        end,
    }))
}

/// The end of a window less a microsecond, as its end is not in it; or the end itself.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowTime {
    signature: Signature,
    end: bool,
}

impl ScalarUDFImpl for WindowTime {
    fn name(&self) -> &str {
        if self.end { WINDOW_END } else { WINDOW_TIME }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let window = &args.arg_fields[0];
        let field = Field::new(self.name(), end_type(window.data_type())?, true);
        Ok(Arc::new(match EventTime::of(window) {
            Some(_) => EventTime::instant().mark(field),
            None => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let windows = args.args[0].to_array(args.number_rows)?;
        let time = end_type(windows.data_type())?;
        let less = i64::from(self.end);
        let times = micros(&windows, &time)?;
        let times: TimestampMicrosecondArray = times.unary(|t| t.wrapping_add(less));
        let times = times.with_data_type(time);
        Ok(ColumnarValue::Array(Arc::new(times)))
    }
}

/// The type of the end of a window.
fn end_type(window: &DataType) -> highwater_core::Result<DataType> {
    match window {
        DataType::Struct(fields) if is_window(fields) => Ok(fields[1].data_type().clone()),
        other => Err(Error::invalid(format!(
            "The input is not a correct window column: {WINDOW_TIME} of {other}"
        ))
        .with_condition("DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE")
        .with_operator(WINDOW_TIME)
        .with_hint("give it the column `window` or `session_window` of an aggregate")),
    }
}
