//! What the expansion of `session_window` computes with.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, StructArray, TimestampMicrosecondArray};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::gap::{self, Gap};
use super::{SESSION_WINDOW, marker};
use crate::event_time::SESSION_KEY;
use crate::functions::window::{micros, time_type_in, window_type};

/// The session that each row opens by itself: from `time` to `gap` later. Null without a time, and where the gap
/// is null or not above zero.
pub(super) fn session_of_row(time: Expr, gap: &Expr) -> highwater_core::Result<Expr> {
    let kind = Gap::of(gap)?;
    let args = match kind {
        Gap::Fixed(_) => vec![time],
        Gap::PerRow => vec![time, gap.clone()],
    };
    let kernel = SessionOfRow {
        gap: kind,
        signature: Signature::any(args.len(), Volatility::Immutable),
    };
    Ok(ScalarUDF::new_from_impl(kernel).call(args))
}

/// The merged sessions as they are. A filter on them is not pushed below: there they are not merged yet.
pub(super) fn merged(sessions: Expr) -> Expr {
    ScalarUDF::new_from_impl(Merged {
        signature: Signature::any(1, Volatility::Volatile),
    })
    .call(vec![sessions])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionOfRow {
    gap: Gap,
    signature: Signature,
}

impl ScalarUDFImpl for SessionOfRow {
    fn name(&self) -> &str {
        "session_of_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let time = &args.arg_fields[0];
        let times = time_type_in(SESSION_WINDOW, time.data_type())?;
        let key = [(SESSION_KEY.to_owned(), "1".to_owned())];
        let field = Field::new(self.name(), window_type(times), true).with_metadata(key.into());
        Ok(Arc::new(marker::marked_like(time, field)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let input = args.args[0].to_array(rows)?;
        let time = time_type_in(SESSION_WINDOW, input.data_type())?;
        let times = micros(&input, &time)?;
        let sessions = match self.gap {
            Gap::Fixed(gap) => {
                let ends = times.values().iter().map(|t| t.saturating_add(gap));
                let (ends, nulls) = (ends.collect(), times.nulls().cloned());
                sessions(&times, ends, nulls, &time)?
            }
            Gap::PerRow => {
                let gaps = gap::micros(&args.args[1].to_array(rows)?)?;
                with_gaps(&times, &gaps, &time)?
            }
        };
        Ok(ColumnarValue::Array(Arc::new(sessions)))
    }
}

fn with_gaps(
    times: &TimestampMicrosecondArray,
    gaps: &Int64Array,
    time: &DataType,
) -> Result<StructArray> {
    let ends = times.values().iter().zip(gaps.values());
    let ends = ends.map(|(t, gap)| t.saturating_add(*gap)).collect();
    let above_zero = gaps.iter().map(|gap| gap.is_some_and(|gap| gap > 0));
    let nulls = NullBuffer::union(times.nulls(), Some(&above_zero.collect()));
    sessions(times, ends, nulls, time)
}

fn sessions(
    starts: &TimestampMicrosecondArray,
    ends: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
    time: &DataType,
) -> Result<StructArray> {
    let DataType::Struct(fields) = window_type(time.clone()) else {
        return internal_err!("a session is a struct");
    };
    // The fields carry the nulls too: DataFusion reads a field without looking at its struct.
    let column = |values: ScalarBuffer<i64>| {
        let column = TimestampMicrosecondArray::new(values, nulls.clone());
        Arc::new(column.with_data_type(time.clone())) as _
    };
    let columns = vec![column(starts.values().clone()), column(ends)];
    Ok(StructArray::try_new(fields, columns, nulls)?)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Merged {
    signature: Signature,
}

impl ScalarUDFImpl for Merged {
    fn name(&self) -> &str {
        "merged_session"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    /// Event time as the key is, but the key of no session any more.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let key = &args.arg_fields[0];
        let field = Field::new(self.name(), key.data_type().clone(), true);
        Ok(Arc::new(marker::marked_like(key, field)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}
