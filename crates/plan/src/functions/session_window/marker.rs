//! The function `session_window` itself: it checks its arguments and has a type, and is expanded before it ever runs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use highwater_core::Error;

use super::{SESSION_WINDOW, gap};
use crate::event_time::EventTime;
use crate::functions::window::{time_type_in, window_type};

/// Stands for the sessions of a time in a logical plan.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionWindow {
    signature: Signature,
}

impl SessionWindow {
    pub(super) fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for SessionWindow {
    fn name(&self) -> &str {
        SESSION_WINDOW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [time, gap] = args.arg_fields else {
            return Err(Error::invalid(format!(
                "session_window takes 2 arguments, not {}",
                args.arg_fields.len()
            ))
            .with_condition("WRONG_NUM_ARGS.WITHOUT_SUGGESTION")
            .with_operator(SESSION_WINDOW)
            .with_hint("write session_window(ts, gap)")
            .into());
        };
        gap::check(gap.data_type(), args.scalar_arguments[1])?;
        let times = time_type_in(SESSION_WINDOW, time.data_type())?;
        let field = Field::new(SESSION_WINDOW, window_type(times), true);
        Ok(Arc::new(marked_like(time, field)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(super::expand::not_a_key().into())
    }
}

/// `field`, which holds windows, as event time where `time` is.
pub(super) fn marked_like(time: &Field, field: Field) -> Field {
    match EventTime::of(time) {
        Some(_) => EventTime::instant().mark(field),
        None => field,
    }
}
