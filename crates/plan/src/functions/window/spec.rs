//! How a user writes windows in Rust.

use std::time::Duration;

use highwater_core::Interval;

/// A length of time, kept as it was written: a mistake is told where the expression is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowLength(String);

impl WindowLength {
    /// The length as text for SQL.
    pub(in crate::functions) fn into_text(self) -> String {
        self.0
    }
}

impl From<&str> for WindowLength {
    fn from(text: &str) -> Self {
        Self(text.to_string())
    }
}

impl From<String> for WindowLength {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<Duration> for WindowLength {
    fn from(length: Duration) -> Self {
        Self(format!("{} microseconds", length.as_micros()))
    }
}

impl From<Interval> for WindowLength {
    fn from(length: Interval) -> Self {
        let Interval {
            months,
            days,
            micros,
        } = length;
        Self(format!("{months} months {days} days {micros} microseconds"))
    }
}

/// How long windows are, how far apart they start, and where the first one starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    size: WindowLength,
    slide: Option<WindowLength>,
    start: Option<WindowLength>,
}

/// Windows of `size` of which one starts every `slide`: a row is in several when `slide` is shorter.
pub fn sliding(size: impl Into<WindowLength>, slide: impl Into<WindowLength>) -> WindowSpec {
    WindowSpec {
        size: size.into(),
        slide: Some(slide.into()),
        start: None,
    }
}

impl WindowSpec {
    /// Shifts the windows: they start `offset` after the whole multiples of the slide since 1970, UTC.
    #[must_use]
    pub fn starting_at(mut self, offset: impl Into<WindowLength>) -> Self {
        self.start = Some(offset.into());
        self
    }

    /// The arguments after the first, as in SQL.
    pub(super) fn arguments(self) -> Vec<String> {
        let slide = match (&self.slide, &self.start) {
            (None, Some(_)) => Some(self.size.clone()),
            _ => self.slide,
        };
        [Some(self.size), slide, self.start]
            .into_iter()
            .flatten()
            .map(|length| length.0)
            .collect()
    }
}

macro_rules! spec_from {
    ($($length:ty),*) => {
        $(impl From<$length> for WindowSpec {
            /// Windows of this length that do not overlap.
            fn from(length: $length) -> Self {
                Self {
                    size: length.into(),
                    slide: None,
                    start: None,
                }
            }
        })*
    };
}
spec_from!(&str, String, Duration, Interval, WindowLength);
