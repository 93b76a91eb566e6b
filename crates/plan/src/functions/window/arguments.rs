//! The lengths of a `window` call, checked as Spark checks them.

use datafusion::common::ScalarValue;
use highwater_core::{Error, Interval, IntoInterval, Result};

use crate::event_time::Span;

const CONDITION: &str = "DATATYPE_MISMATCH.PARAMETER_CONSTRAINT_VIOLATION";

/// Size, slide and start of windows, in microseconds.
///
/// A window begins at every `start + n × slide` since 1970, UTC, and is `size` long, its end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowArguments {
    /// The length of a window.
    pub size: i64,
    /// The distance between two starts; it is the size when windows do not overlap.
    pub slide: i64,
    /// The shift of the starts, shorter than the slide.
    pub start: i64,
}

impl WindowArguments {
    /// Reads the arguments after the first; each is a text (`10 minutes`) or an INTERVAL literal.
    ///
    /// # Errors
    /// `Invalid` for a length that is none, for months, and for the relations between the three that Spark refuses.
    pub fn parse(arguments: &[Option<&ScalarValue>]) -> Result<Self> {
        if arguments.is_empty() || arguments.len() > 3 {
            return Err(Error::invalid(format!(
                "window takes 2 to 4 arguments, not {}",
                arguments.len() + 1
            ))
            .with_condition("WRONG_NUM_ARGS.WITHOUT_SUGGESTION")
            .with_hint("write window(ts, size[, slide[, start]])"));
        }
        let size = length(arguments[0])?;
        let slide = arguments.get(1).map_or(Ok(size), |slide| length(*slide))?;
        let start = arguments.get(2).map_or(Ok(0), |start| length(*start))?;
        Self { size, slide, start }.checked()
    }

    /// True when a row is in one window only.
    #[must_use]
    pub fn is_tumbling(&self) -> bool {
        self.slide == self.size
    }

    /// The start of the last window that `micros` is in.
    #[must_use]
    pub fn last_start(&self, micros: i64) -> i64 {
        micros.wrapping_sub(micros.wrapping_sub(self.start).rem_euclid(self.slide))
    }

    /// The panes the windows are made of, as windows that do not overlap: a window begins where a pane does
    /// and is a whole number of them.
    #[must_use]
    pub(super) fn panes(&self) -> Self {
        let (mut pane, mut rest) = (self.size, self.slide);
        while rest != 0 {
            (pane, rest) = (rest, pane % rest);
        }
        Self {
            size: pane,
            slide: pane,
            start: self.start,
        }
    }

    /// What a column of starts says of its windows.
    pub(super) fn span(&self, panes: bool) -> Span {
        let Self { size, slide, start } = *self;
        Span {
            size,
            slide,
            start,
            panes,
        }
    }

    fn checked(self) -> Result<Self> {
        let Self { size, slide, start } = self;
        let violated = if size <= 0 {
            Some(format!("the window duration ({size} µs) must be > 0"))
        } else if slide <= 0 {
            Some(format!("the slide duration ({slide} µs) must be > 0"))
        } else if slide > size {
            Some(format!(
                "the slide duration ({slide} µs) must be <= the window duration ({size} µs)"
            ))
        } else if start.unsigned_abs() >= slide.unsigned_abs() {
            Some(format!(
                "the absolute value of the start offset ({start} µs) must be < the slide duration ({slide} µs)"
            ))
        } else {
            None
        };
        match violated {
            None => Ok(self),
            Some(why) => Err(Error::invalid(format!("window: {why}"))
                .with_condition(CONDITION)
                .with_hint(
                    "write window(ts, size[, slide[, start]]) with |start| < slide <= size",
                )),
        }
    }
}

/// A length in microseconds.
fn length(argument: Option<&ScalarValue>) -> Result<i64> {
    let not_literal = || {
        Error::invalid("window: the lengths must be literals")
            .with_hint("write them as `10 minutes` or INTERVAL '10 minutes'")
    };
    literal_length(argument.ok_or_else(not_literal)?)?.ok_or_else(not_literal)
}

/// The microseconds that a text (`10 minutes`) or an INTERVAL literal stands for; `None` for anything else.
///
/// # Errors
/// `Invalid` for a text that is no length, and for months.
pub(in crate::functions) fn literal_length(value: &ScalarValue) -> Result<Option<i64>> {
    match value {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::Utf8View(Some(text))
        | ScalarValue::LargeUtf8(Some(text)) => {
            fixed_micros(text.into_interval()?, || text.clone()).map(Some)
        }
        _ => interval(value)
            .map(|interval| fixed_micros(interval, || value.to_string()))
            .transpose(),
    }
}

/// The length in microseconds; `text` is how it was written.
///
/// # Errors
/// `Invalid` when there are months in it (Spark).
pub(in crate::functions) fn fixed_micros(
    interval: Interval,
    text: impl FnOnce() -> String,
) -> Result<i64> {
    if interval.months != 0 {
        return Err(Error::invalid(format!(
            "Intervals greater than a month is not supported ({})",
            text()
        ))
        .with_hint("write the length in weeks, days or shorter units"));
    }
    interval.to_micros()
}

/// The length an INTERVAL literal stands for; nanoseconds are cut off.
fn interval(value: &ScalarValue) -> Option<Interval> {
    let of_micros = Interval::from_micros;
    Some(match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) => Interval {
            months: v.months,
            days: v.days,
            micros: v.nanoseconds / 1_000,
        },
        ScalarValue::IntervalDayTime(Some(v)) => Interval {
            months: 0,
            days: v.days,
            micros: i64::from(v.milliseconds) * 1_000,
        },
        ScalarValue::IntervalYearMonth(Some(months)) => Interval {
            months: *months,
            days: 0,
            micros: 0,
        },
        ScalarValue::DurationSecond(Some(s)) => of_micros(s.checked_mul(1_000_000)?),
        ScalarValue::DurationMillisecond(Some(ms)) => of_micros(ms.checked_mul(1_000)?),
        ScalarValue::DurationMicrosecond(Some(us)) => of_micros(*us),
        ScalarValue::DurationNanosecond(Some(ns)) => of_micros(ns / 1_000),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<WindowArguments> {
        let values: Vec<_> = texts.iter().map(|t| ScalarValue::from(*t)).collect();
        WindowArguments::parse(&values.iter().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn windows_begin_where_spark_begins_them() {
        for (texts, micros, start) in [
            (&["10 us"][..], 0, 0),
            (&["10 us"], 9, 0),
            (&["10 us"], 10, 10),
            (&["10 us"], -1, -10),
            (&["10 us"], -10, -10),
            (&["10 us", "10 us", "4 us"], 3, -6),
            (&["10 us", "10 us", "4 us"], 4, 4),
            (&["10 us", "10 us", "-4 us"], 5, -4),
            (&["10 us", "10 us", "-4 us"], 6, 6),
            (&["10 us", "5 us"], 7, 5),
            (&["12 us", "4 us", "1 us"], 4, 1),
        ] {
            let arguments = parse(texts).expect("valid");
            assert_eq!(arguments.last_start(micros), start, "{texts:?} at {micros}");
        }
    }

    #[test]
    fn lengths_spark_refuses_are_refused() {
        for (texts, why) in [
            (&["1 month"][..], "Intervals greater than a month"),
            (&["0 seconds"], "the window duration (0 µs) must be > 0"),
            (&["-5 seconds"], "must be > 0"),
            (
                &["10 seconds", "15 seconds"],
                "must be <= the window duration",
            ),
            (
                &["10 seconds", "0 s"],
                "the slide duration (0 µs) must be > 0",
            ),
            (
                &["10 seconds", "5 seconds", "5 seconds"],
                "must be < the slide duration",
            ),
            (&["soon"], "unable to parse `soon`"),
            (&[], "2 to 4 arguments"),
        ] {
            let error = parse(texts).expect_err(why);
            assert!(error.message().contains(why), "{texts:?}: {error}");
        }
    }

    #[test]
    fn a_window_is_made_of_whole_panes() {
        // (size, slide, start) and the length of a pane: the greatest common divisor of size and slide.
        for (texts, pane) in [
            (["60 us", "5 us", "0 us"], 5),
            (["10 us", "4 us", "1 us"], 2),
            (["12 us", "5 us", "-3 us"], 1),
            (["10 us", "10 us", "0 us"], 10),
        ] {
            let arguments = parse(&texts).expect("valid");
            let panes = arguments.panes();
            assert_eq!(panes.size, pane, "{texts:?}");
            for micros in -40..40 {
                let from = panes.last_start(micros);
                assert!((from..from + pane).contains(&micros), "{texts:?}: {micros}");
                // The times of a pane are in the same windows, and these begin and end with a pane.
                let last = arguments.last_start(from);
                assert_eq!(arguments.last_start(micros), last, "{texts:?}: {micros}");
                assert_eq!((from - last) % pane, 0, "{texts:?}: {micros}");
                assert_eq!(arguments.size % pane, 0, "{texts:?}");
            }
        }
    }

    #[test]
    fn interval_literals_are_lengths() {
        let ten_minutes = ScalarValue::new_interval_mdn(0, 0, 600_000_000_000);
        let parsed = WindowArguments::parse(&[Some(&ten_minutes)]).expect("valid");
        assert_eq!((parsed.size, parsed.slide), (600_000_000, 600_000_000));
    }
}
