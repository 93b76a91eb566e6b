//! Expressions that DataFusion has no sure way to write.

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::logical_expr::{Expr, lit};
use datafusion::scalar::ScalarValue;

use crate::{Error, Interval, IntoInterval, Result};

/// A length of time as an expression: `col("ts") + interval("10 seconds")?`.
///
/// DataFusion's own literals turn a text they cannot read into null.
///
/// # Errors
/// `Invalid` when `length` is no length of time, or is longer than 292 years beside its days and months.
pub fn interval(length: impl IntoInterval) -> Result<Expr> {
    let Interval {
        months,
        days,
        micros,
    } = length.into_interval()?;
    let nanoseconds = micros.checked_mul(1_000).ok_or_else(|| {
        Error::invalid(format!("an interval of {micros} µs is too long"))
            .with_hint("write the long part in days")
    })?;
    Ok(lit(ScalarValue::IntervalMonthDayNano(Some(
        IntervalMonthDayNano {
            months,
            days,
            nanoseconds,
        },
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_an_interval() {
        let expected = ScalarValue::new_interval_mdn(0, 2, 5_000_000_000);
        assert_eq!(interval("2 days 5 seconds").ok(), Some(lit(expected)));
        assert!(interval("soon").is_err());
    }
}
