//! The rule for when a query runs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Error, IntoInterval, Result};

/// When micro-batches run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// One after the other (zero), or at multiples of the interval since 1970 (Spark); a late one starts at once.
    ProcessingTime(Duration),
    /// Everything there is at the start, in batches under the read limits, then the query ends.
    AvailableNow,
    /// Everything there is at the start in one micro-batch, read limits ignored, then the query ends.
    Once,
}

impl Trigger {
    /// A micro-batch at every multiple of `interval`: a `Duration` or `"5 seconds"`.
    ///
    /// # Errors
    /// `Invalid` when `interval` is negative, has months, or cannot be parsed.
    pub fn processing_time(interval: impl IntoInterval) -> Result<Self> {
        Ok(Self::ProcessingTime(
            interval.into_interval()?.to_duration()?,
        ))
    }
}

impl Default for Trigger {
    fn default() -> Self {
        Self::ProcessingTime(Duration::ZERO)
    }
}

impl FromStr for Trigger {
    type Err = Error;

    /// `available now`, `once`, or an interval such as `5 seconds`.
    fn from_str(text: &str) -> Result<Self> {
        match text
            .trim()
            .to_ascii_lowercase()
            .replace(['_', ' '], "")
            .as_str()
        {
            "availablenow" => Ok(Self::AvailableNow),
            "once" => Ok(Self::Once),
            "continuous" | "realtime" => Err(Error::unsupported(format!("trigger `{text}`"))
                .with_hint("use the default trigger: it runs as soon as there is data")),
            _ => Self::processing_time(text),
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProcessingTime(every) => write!(f, "ProcessingTime({} ms)", every.as_millis()),
            Self::AvailableNow => f.write_str("AvailableNow"),
            Self::Once => f.write_str("Once"),
        }
    }
}
