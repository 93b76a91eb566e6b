//! The gap of a session: one for all rows, or one for each.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit,
};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use highwater_core::{Error, Interval, IntoInterval, Result};

use super::SESSION_WINDOW;
use crate::functions::window::{fixed_micros, literal_length};

/// The gap of a `session_window` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gap {
    /// In microseconds, above zero.
    Fixed(i64),
    /// A second argument.
    PerRow,
}

impl Gap {
    /// The gap that `argument` is.
    ///
    /// # Errors
    /// `Invalid` for a text that is no length, and for months.
    pub(super) fn of(argument: &Expr) -> Result<Self> {
        let fixed = match argument {
            Expr::Literal(value, _) => literal_length(value)?,
            _ => None,
        };
        // One that is not above zero drops every row, as it does where it is one row's (Spark).
        Ok(match fixed {
            Some(micros) if micros > 0 => Self::Fixed(micros),
            _ => Self::PerRow,
        })
    }
}

/// Checks the type of a gap, and its value where it is a literal.
///
/// # Errors
/// `Invalid` for what is no length of time.
pub(super) fn check(data_type: &DataType, literal: Option<&ScalarValue>) -> Result<()> {
    if let Some(value) = literal {
        literal_length(value)?;
    }
    let text = match data_type {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    match text {
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Interval(_)
        | DataType::Duration(_)
        | DataType::Null => Ok(()),
        other => Err(Error::invalid(format!(
            "Gap duration expression used in session window must be CalendarIntervalType, but got {other}"
        ))
        .with_condition("DATATYPE_MISMATCH.UNEXPECTED_INPUT_TYPE")
        .with_operator(SESSION_WINDOW)
        .with_hint("write it as '5 minutes', INTERVAL '5 minutes', or an expression of such values")),
    }
}

/// The gaps of rows in microseconds; null where there is none. A text that is no length is none (Spark).
///
/// # Errors
/// `Invalid` for months, and for what does not fit 64 bits.
pub(super) fn micros(gaps: &ArrayRef) -> Result<Int64Array> {
    let arrow = |e| Error::internal(format!("gaps of sessions: {e}"));
    match gaps.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => lengths(
            gaps.as_primitive::<IntervalMonthDayNanoType>().iter(),
            |v| Interval {
                months: v.months,
                days: v.days,
                micros: v.nanoseconds / 1_000,
            },
        ),
        DataType::Interval(IntervalUnit::DayTime) => {
            lengths(gaps.as_primitive::<IntervalDayTimeType>().iter(), |v| {
                Interval {
                    months: 0,
                    days: v.days,
                    micros: i64::from(v.milliseconds) * 1_000,
                }
            })
        }
        DataType::Interval(IntervalUnit::YearMonth) => lengths(
            gaps.as_primitive::<IntervalYearMonthType>().iter(),
            |months| Interval {
                months,
                days: 0,
                micros: 0,
            },
        ),
        DataType::Duration(_) => {
            let gaps = cast(gaps, &DataType::Duration(TimeUnit::Microsecond)).map_err(arrow)?;
            Ok(gaps
                .as_primitive::<DurationMicrosecondType>()
                .reinterpret_cast())
        }
        DataType::Null => Ok(Int64Array::new_null(gaps.len())),
        _ => of_texts(
            cast(gaps, &DataType::Utf8)
                .map_err(arrow)?
                .as_string::<i32>(),
        ),
    }
}

fn lengths<T>(
    gaps: impl Iterator<Item = Option<T>>,
    interval: impl Fn(T) -> Interval,
) -> Result<Int64Array> {
    gaps.map(|gap| {
        gap.map(&interval)
            .map(|gap| fixed_micros(gap, || format!("{gap:?}")))
            .transpose()
    })
    .collect()
}

/// Each distinct text is read once.
fn of_texts(texts: &StringArray) -> Result<Int64Array> {
    let mut known: HashMap<&str, Option<i64>> = HashMap::new();
    texts
        .iter()
        .map(|text| {
            let Some(text) = text else {
                return Ok(None);
            };
            if let Some(known) = known.get(text) {
                return Ok(*known);
            }
            let gap = match text.into_interval() {
                Ok(gap) => Some(fixed_micros(gap, || text.to_string())?),
                Err(_) => None,
            };
            known.insert(text, gap);
            Ok(gap)
        })
        .collect()
}
