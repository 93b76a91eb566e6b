//! The only door to time: a clock is passed in, so tests own it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A point in time: microseconds since 1970-01-01 00:00:00 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The whole millisecond this time lies in.
    #[must_use]
    pub const fn floor_to_millis(self) -> Self {
        Self::from_millis(self.as_millis())
    }

    /// The time that passed since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time plus `length`.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// ISO 8601 with milliseconds, as Spark writes times in its progress: `2024-05-01T12:00:00.000Z`.
    #[must_use]
    pub fn to_iso(self) -> String {
        DateTime::from_timestamp_micros(self.0).map_or_else(
            || self.0.to_string(),
            |t| t.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp_micros(self.0) {
            Some(t) => write!(f, "{}", t.format("%Y-%m-%d %H:%M:%S%.f")),
            None => write!(f, "{} µs", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// `2024-05-01 12:00:00[.f]` or with a `T` between, UTC.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim().trim_end_matches('Z');
        ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
            .map(|t| Self(t.and_utc().timestamp_micros()))
            .ok_or_else(|| {
                Error::invalid(format!("`{text}` is no timestamp"))
                    .with_hint("write it as `2024-05-01 12:00:00`, in UTC")
            })
    }
}

/// Where the time comes from.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Comes back when the time is `until` or later.
    async fn sleep_until(&self, until: Timestamp);
}
