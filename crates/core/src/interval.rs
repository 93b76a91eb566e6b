//! Lengths of time as Spark writes them: `10 seconds`, `1 hour 30 minutes`, `interval 2 days`.

use std::time::Duration;

use crate::{Error, Result};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A length of time in Spark's three parts; months have no fixed length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interval {
    /// Whole months.
    pub months: i32,
    /// Whole days, of 24 hours.
    pub days: i32,
    /// The rest, in microseconds.
    pub micros: i64,
}

impl Interval {
    /// A length of `micros` microseconds.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self {
            months: 0,
            days: 0,
            micros,
        }
    }

    /// The length in microseconds.
    ///
    /// # Errors
    /// `Invalid` when there are months in it (they have no fixed length), or when it does not fit 64 bits.
    pub fn to_micros(self) -> Result<i64> {
        if self.months != 0 {
            return Err(
                Error::invalid("an interval of months or years has no fixed length")
                    .with_hint("write it in days or shorter units"),
            );
        }
        self.micros_with_months_of(0)
    }

    /// The length in microseconds, a month being 31 days, as Spark counts the delay of a watermark.
    ///
    /// # Errors
    /// `Invalid` when it does not fit 64 bits.
    pub fn to_delay_micros(self) -> Result<i64> {
        self.micros_with_months_of(31)
    }

    /// The length as a `Duration`.
    ///
    /// # Errors
    /// `Invalid` when there are months in it or it is negative.
    pub fn to_duration(self) -> Result<Duration> {
        let micros = self.to_micros()?;
        u64::try_from(micros)
            .map(Duration::from_micros)
            .map_err(|_| Error::invalid(format!("a length of {micros} µs is negative")))
    }

    fn micros_with_months_of(self, days: i64) -> Result<i64> {
        let days = i64::from(self.days) + days * i64::from(self.months);
        days.checked_mul(MICROS_PER_DAY)
            .and_then(|d| d.checked_add(self.micros))
            .ok_or_else(|| {
                Error::invalid("the interval is too long: it does not fit 64 bits of microseconds")
            })
    }
}

/// What stands for a length of time: a [`Duration`], an [`Interval`], or Spark's words.
///
/// Sealed: new spellings are added here, for every call at once.
pub trait IntoInterval: sealed::Sealed {
    /// The length.
    ///
    /// # Errors
    /// `Invalid` when the text is no interval; a bare number is refused.
    fn into_interval(self) -> Result<Interval>;
}

impl IntoInterval for Interval {
    fn into_interval(self) -> Result<Interval> {
        Ok(self)
    }
}

impl IntoInterval for Duration {
    fn into_interval(self) -> Result<Interval> {
        i64::try_from(self.as_micros())
            .map(Interval::from_micros)
            .map_err(|_| Error::invalid(format!("{self:?} is too long for an interval")))
    }
}

impl IntoInterval for &str {
    fn into_interval(self) -> Result<Interval> {
        parse(self)
    }
}

impl IntoInterval for String {
    fn into_interval(self) -> Result<Interval> {
        parse(&self)
    }
}

impl IntoInterval for &String {
    fn into_interval(self) -> Result<Interval> {
        parse(self)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Interval {}
    impl Sealed for std::time::Duration {}
    impl Sealed for &str {}
    impl Sealed for String {}
    impl Sealed for &String {}
}

/// Reads `[interval] NUMBER UNIT [NUMBER UNIT …]`, case-insensitive.
fn parse(text: &str) -> Result<Interval> {
    let bad = |why: &str| {
        Error::invalid(format!("unable to parse `{text}` as an interval: {why}"))
            .with_condition("CANNOT_PARSE_INTERVAL")
            .with_hint("write a number and a unit, such as `10 seconds` or `1 hour 30 minutes`")
    };
    let lower = text.trim().to_ascii_lowercase();
    let mut rest = match lower.strip_prefix("interval") {
        Some(rest) if rest.starts_with([' ', '\t', '\'', '-', '+']) => rest.trim(),
        _ => lower.as_str(),
    };
    let mut total = Interval::default();
    if rest.is_empty() {
        return Err(bad("it is empty"));
    }
    while !rest.is_empty() {
        let split = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
            .ok_or_else(|| bad("a number has no unit"))?;
        let (number, after) = rest.split_at(split);
        let after = after.trim_start();
        let end = after
            .find(|c: char| !(c.is_alphabetic() || c == 'µ'))
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if number.is_empty() || unit.is_empty() {
            return Err(bad("expected a number and a unit"));
        }
        total = add(total, number, unit).map_err(|why| bad(&why))?;
        rest = next.trim_start_matches([' ', '\t', ',']);
    }
    Ok(total)
}

fn add(mut total: Interval, number: &str, unit: &str) -> std::result::Result<Interval, String> {
    let whole = || {
        number
            .parse::<i64>()
            .map_err(|_| format!("`{number}` is no whole number of {unit}"))
    };
    let too_long = || "it is too long".to_string();
    let months = |n: i64, per: i64| {
        n.checked_mul(per)
            .and_then(|m| i32::try_from(m).ok())
            .ok_or_else(too_long)
    };
    match unit
        .strip_suffix('s')
        .filter(|u| !matches!(*u, "m" | "u" | "µ" | ""))
        .unwrap_or(unit)
    {
        "year" | "yr" | "y" => {
            total.months = total
                .months
                .checked_add(months(whole()?, 12)?)
                .ok_or_else(too_long)?
        }
        "month" | "mon" => {
            total.months = total
                .months
                .checked_add(months(whole()?, 1)?)
                .ok_or_else(too_long)?
        }
        "week" | "w" => {
            total.days = total
                .days
                .checked_add(months(whole()?, 7)?)
                .ok_or_else(too_long)?
        }
        "day" | "d" => {
            total.days = total
                .days
                .checked_add(months(whole()?, 1)?)
                .ok_or_else(too_long)?
        }
        "hour" | "hr" | "h" => {
            total.micros = plus(total.micros, number, 3_600 * MICROS_PER_SECOND)?
        }
        "minute" | "min" | "m" => {
            total.micros = plus(total.micros, number, 60 * MICROS_PER_SECOND)?
        }
        "second" | "sec" | "s" => total.micros = plus(total.micros, number, MICROS_PER_SECOND)?,
        "millisecond" | "milli" | "msec" | "ms" => {
            total.micros = plus(total.micros, number, 1_000)?
        }
        "microsecond" | "micro" | "usec" | "us" | "µs" => {
            total.micros = plus(total.micros, number, 1)?
        }
        other => return Err(format!("`{other}` is no unit of time")),
    }
    Ok(total)
}

/// `base + number × unit`, with up to six digits after the point.
fn plus(base: i64, number: &str, unit: i64) -> std::result::Result<i64, String> {
    let bad = || format!("`{number}` is no number");
    let negative = number.starts_with('-');
    let digits = number.trim_start_matches(['-', '+']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| bad())?
    };
    let scaled = if fraction.is_empty() {
        0
    } else {
        let kept = &fraction[..fraction.len().min(9)];
        let value: i128 = kept.parse().map_err(|_| bad())?;
        let power = 10_i128.pow(u32::try_from(kept.len()).map_err(|_| bad())?);
        i64::try_from(value * i128::from(unit) / power).map_err(|_| bad())?
    };
    let magnitude = whole.checked_mul(unit).and_then(|w| w.checked_add(scaled));
    magnitude
        .map(|m| if negative { -m } else { m })
        .and_then(|m| base.checked_add(m))
        .ok_or_else(|| "it is too long".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        for (text, micros) in [
            ("10 seconds", 10_000_000),
            ("interval 10 seconds", 10_000_000),
            ("1 hour 30 minutes", 5_400_000_000),
            ("5s", 5_000_000),
            ("250 ms", 250_000),
            ("7 us", 7),
            ("3 m", 180_000_000),
            ("1.5 seconds", 1_500_000),
            ("2 days", 172_800_000_000),
            ("1 WEEK", 604_800_000_000),
            ("-5 seconds", -5_000_000),
        ] {
            let read = text.into_interval().and_then(Interval::to_micros);
            assert_eq!(read.ok(), Some(micros), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "soon enough",
            "10",
            "seconds",
            "3 fortnights",
            "  ",
            "1.2.3 s",
        ] {
            let error = text.into_interval().expect_err(text);
            assert_eq!(error.condition(), Some("CANNOT_PARSE_INTERVAL"), "{text}");
        }
    }

    #[test]
    fn a_month_has_no_length_but_as_a_delay_it_has_31_days() {
        let month = "1 month".into_interval().expect("parsed");
        assert!(month.to_micros().is_err());
        assert_eq!(month.to_delay_micros().ok(), Some(31 * MICROS_PER_DAY));
    }
}
