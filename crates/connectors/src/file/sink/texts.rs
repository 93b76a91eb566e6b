//! Values as text, as Spark writes them: in cells of CSV, lines of text, strings of JSON, names of folders.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Utc};
use highwater_core::{Error, Result};

/// How a point in time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// `2024-05-01T00:00:00.000Z`: at least milliseconds, and no digit is lost (Spark cuts after milliseconds).
    InFiles,
    /// `2024-05-01 00:00:00`, with as many digits as are needed.
    InFolders,
}

/// The values of one column, as text.
pub(super) struct Texts<'a> {
    formatter: ArrayFormatter<'a>,
    instants: Option<Instants>,
    float: bool,
}

/// Points in time: counts of a unit since 1970.
struct Instants {
    counts: ArrayRef,
    unit: TimeUnit,
    times: Times,
}

const PLAIN: FormatOptions<'static> = FormatOptions::new();

impl<'a> Texts<'a> {
    /// The texts of `array`'s values.
    ///
    /// # Errors
    /// `Invalid` for a type without text, and for a point in time that no calendar has.
    pub(super) fn new(array: &'a dyn Array, times: Times) -> Result<Self> {
        let instants = match array.data_type() {
            DataType::Timestamp(unit, _) => Some(Instants::new(array, *unit, times)?),
            _ => None,
        };
        Ok(Self {
            formatter: ArrayFormatter::try_new(array, &PLAIN)?,
            instants,
            float: array.data_type().is_floating(),
        })
    }

    /// Appends the text of a value that is not null.
    pub(super) fn write(&self, row: usize, out: &mut String) -> Result<()> {
        if let Some(instants) = &self.instants {
            return instants.write(row, out);
        }
        let start = out.len();
        write!(out, "{}", self.formatter.value(row))
            .map_err(|e| Error::invalid("a value cannot be written as text").with_source(e))?;
        if self.float && out.ends_with("inf") {
            // Java's and so Spark's word for it.
            let word = if out[start..].starts_with('-') {
                "-Infinity"
            } else {
                "Infinity"
            };
            out.replace_range(start.., word);
        }
        Ok(())
    }
}

impl Instants {
    fn new(array: &dyn Array, unit: TimeUnit, times: Times) -> Result<Self> {
        let instants = Self {
            counts: cast(array, &DataType::Int64)?,
            unit,
            times,
        };
        let counts = instants.counts.as_primitive::<Int64Type>();
        match counts.iter().flatten().find(|n| instants.at(*n).is_none()) {
            None => Ok(instants),
            Some(n) => Err(Error::invalid(format!(
                "the timestamp {n} ({unit:?}s since 1970) is in no calendar"
            ))),
        }
    }

    fn at(&self, count: i64) -> Option<DateTime<Utc>> {
        match self.unit {
            TimeUnit::Second => DateTime::from_timestamp(count, 0),
            TimeUnit::Millisecond => DateTime::from_timestamp_millis(count),
            TimeUnit::Microsecond => DateTime::from_timestamp_micros(count),
            TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(count)),
        }
    }

    fn write(&self, row: usize, out: &mut String) -> Result<()> {
        let count = self.counts.as_primitive::<Int64Type>().value(row);
        let time = self.at(count);
        let time = time.ok_or_else(|| Error::internal("a timestamp was not checked"))?;
        let written = match self.times {
            Times::InFiles => {
                let nanos = time.timestamp_subsec_nanos();
                let format = if nanos.is_multiple_of(1_000_000) {
                    "%Y-%m-%dT%H:%M:%S%.3fZ"
                } else if nanos.is_multiple_of(1_000) {
                    "%Y-%m-%dT%H:%M:%S%.6fZ"
                } else {
                    "%Y-%m-%dT%H:%M:%S%.9fZ"
                };
                write!(out, "{}", time.format(format))
            }
            Times::InFolders => {
                let text = time.format("%Y-%m-%d %H:%M:%S%.9f").to_string();
                out.push_str(text.trim_end_matches('0').trim_end_matches('.'));
                Ok(())
            }
        };
        written.map_err(|e| Error::internal("a timestamp cannot be written").with_source(e))
    }
}

/// True for types whose values are text by themselves: no nested ones, no bytes, no lengths of time.
pub(super) fn has_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => value.is_string(),
        DataType::Boolean
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(_, _) => true,
        other => other.is_string() || other.is_numeric(),
    }
}
