//! The watermark of a query: how it is combined and when it moves.

use std::fmt;
use std::str::FromStr;

use highwater_core::{Error, Result, Watermark};

/// How the watermarks of several inputs become one, as Spark's `multipleWatermarkPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WatermarkPolicy {
    /// The slowest input decides: no row is late because another input is ahead.
    #[default]
    Min,
    /// The fastest input decides.
    Max,
}

impl FromStr for WatermarkPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "min" => Ok(Self::Min),
            "max" => Ok(Self::Max),
            _ => Err(Error::invalid(format!("unknown watermark policy `{text}`"))
                .with_hint("the watermark policies are min and max")),
        }
    }
}

impl fmt::Display for WatermarkPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Min => "min",
            Self::Max => "max",
        })
    }
}

/// The watermarks between two micro-batches.
///
/// ```text
///  batch N runs with:   closes = current, judges late rows by = previous
///  after batch N:       previous = current, current = the one computed from N's rows
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// What the next micro-batch closes windows with.
    pub(crate) current: Watermark,
    /// What the last micro-batch ran with; it judges late rows in the next.
    pub(crate) previous: Watermark,
    /// True when it rose with the last micro-batch of this run; a restart forgets that (Spark).
    moved: bool,
}

impl Watermarks {
    /// After a restart: the next micro-batch begins where the last one ended.
    pub(crate) fn resumed(current: Watermark, previous: Watermark) -> Self {
        Self {
            current,
            previous,
            moved: false,
        }
    }

    /// True when the last micro-batch raised it, so that one without data may have something to release.
    pub(crate) fn moved(self) -> bool {
        self.moved
    }

    /// Moves on after a micro-batch in which the inputs were seen up to `observed`; never backwards.
    pub(crate) fn advance(&mut self, observed: Option<Watermark>) -> Watermark {
        self.previous = self.current;
        self.current = self.current.max(observed.unwrap_or_default());
        self.moved = self.current > self.previous;
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_never_falls_and_lags_one_batch() {
        let mut marks = Watermarks::default();
        for (observed, current, previous) in [
            (None, 0, 0),
            (Some(10), 10, 0),
            (Some(5), 10, 10),
            (None, 10, 10),
            (Some(20), 20, 10),
        ] {
            marks.advance(observed.map(Watermark));
            assert_eq!((marks.current.0, marks.previous.0), (current, previous));
            assert_eq!(marks.moved(), current > previous, "after {observed:?}");
        }
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in [WatermarkPolicy::Min, WatermarkPolicy::Max] {
            assert_eq!(
                policy.to_string().parse::<WatermarkPolicy>().unwrap(),
                policy
            );
        }
        assert!("mean".parse::<WatermarkPolicy>().is_err());
    }
}
