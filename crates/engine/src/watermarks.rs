//! The watermark of a query: how it is combined of its inputs', and when it moves.
//!
//! ```text
//!  with_watermark        its own mark = greatest event time − delay, never falling; 0 before its first row
//!  with_watermark  ──┐
//!                    ├─ min or max ─► the query's watermark, never falling, in force from the next micro-batch on
//!  with_watermark  ──┘  (inputs that are idle are left out of the min)
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use highwater_core::{Error, MicroBatch, Result, Timestamp, Watermark};
use highwater_plan::operators::watermark::EventTimes;

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

/// The two watermarks that a micro-batch runs with.
///
/// ```text
///  batch N runs with:   closes = current, judges late rows by = what batch N−1 ran with
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// It closes windows and evicts state.
    pub(crate) closes: Watermark,
    /// It judges late rows.
    pub(crate) late: Watermark,
}

/// The watermarks of a run, between its micro-batches.
#[derive(Debug)]
pub(crate) struct Watermarks {
    policy: WatermarkPolicy,
    inputs: Vec<Mark>,
    /// An input that had no row for so long is left out of the min.
    idle_after: Option<Duration>,
    /// When the first micro-batch of this run was constructed: silence is counted from here at the earliest.
    since: Option<Timestamp>,
    /// What the next micro-batch runs with.
    next: InForce,
    /// True when it rose with the last micro-batch of this run; a restart forgets that (Spark).
    moved: bool,
}

/// The own watermark of one input; a restart forgets it (Spark).
#[derive(Clone, Copy, Debug)]
struct Mark {
    delay_ms: i64,
    at: Watermark,
    /// The batch time of its last row.
    heard: Option<Timestamp>,
}

impl Watermarks {
    /// The watermarks of a run that begins with `next`; its inputs, with these delays in milliseconds, have not
    /// spoken yet.
    pub(crate) fn new(
        next: InForce,
        delays: impl IntoIterator<Item = i64>,
        policy: WatermarkPolicy,
        idle_after: Option<Duration>,
    ) -> Self {
        let inputs = delays.into_iter().map(|delay_ms| Mark {
            delay_ms,
            at: Watermark::default(),
            heard: None,
        });
        Self {
            policy,
            inputs: inputs.collect(),
            idle_after: idle_after.filter(|_| policy == WatermarkPolicy::Min),
            since: None,
            next,
            moved: false,
        }
    }

    /// The watermark that the next micro-batch runs with, idle inputs apart; `None` for a query without one.
    pub(crate) fn current(&self) -> Option<Watermark> {
        (!self.inputs.is_empty()).then_some(self.next.closes)
    }

    /// True when the last micro-batch raised it, so that one without data may have something to release.
    pub(crate) fn moved(&self) -> bool {
        self.moved
    }

    /// What a micro-batch that is constructed at `time` runs with.
    pub(crate) fn in_force(&self, time: Timestamp) -> InForce {
        InForce {
            closes: self.next.closes.max(self.combined(time)),
            late: self.next.late,
        }
    }

    /// True when inputs that have fallen silent by `time` no longer hold the watermark back.
    pub(crate) fn released(&self, time: Timestamp) -> bool {
        self.in_force(time).closes > self.next.closes
    }

    /// When silence alone will have moved the watermark; `None`: never.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let mut deadlines: Vec<_> = self.inputs.iter().filter_map(|m| self.idle_at(m)).collect();
        deadlines.sort_unstable();
        deadlines.into_iter().find(|time| self.released(*time))
    }

    /// A micro-batch begins at `time`.
    pub(crate) fn begin(&mut self, time: Timestamp) {
        self.since.get_or_insert(time);
    }

    /// Moves on after `batch`, in which the inputs saw these event times; never backwards.
    ///
    /// The final micro-batch of `flushOnEnd` runs with a watermark of its own, and leaves the ordinary one.
    pub(crate) fn advance(
        &mut self,
        batch: &MicroBatch,
        seen: impl IntoIterator<Item = EventTimes>,
    ) -> Watermark {
        for (mark, seen) in self.inputs.iter_mut().zip(seen) {
            mark.follow(seen, batch.time);
        }
        let before = match batch.is_final() {
            true => self.next.closes,
            false => self.next.closes.max(batch.watermark),
        };
        let closes = before.max(self.combined(batch.time));
        self.moved = closes > before;
        self.next = InForce {
            closes,
            late: before,
        };
        closes
    }

    /// The own watermark of each input, in order.
    pub(crate) fn own(&self) -> impl Iterator<Item = Watermark> {
        self.inputs.iter().map(|mark| mark.at)
    }

    /// The policy over the inputs that are not idle at `time`; 0 when all are.
    fn combined(&self, time: Timestamp) -> Watermark {
        let awake = self
            .inputs
            .iter()
            .filter(|mark| self.idle_at(mark).is_none_or(|idle| time < idle))
            .map(|mark| mark.at);
        let chosen = match self.policy {
            WatermarkPolicy::Min => awake.min(),
            WatermarkPolicy::Max => awake.max(),
        };
        chosen.unwrap_or_default()
    }

    /// From when on an input that stays silent is idle.
    fn idle_at(&self, mark: &Mark) -> Option<Timestamp> {
        let since = self.since?;
        let silent = mark.heard.map_or(since, |heard| heard.max(since));
        Some(silent.plus(self.idle_after?))
    }
}

impl Mark {
    /// Follows the event times of a micro-batch; the greatest is cut to milliseconds (Spark).
    fn follow(&mut self, seen: EventTimes, batch_time: Timestamp) {
        if seen.count == 0 {
            return;
        }
        let greatest = Timestamp::from_micros(seen.max).as_millis();
        let mark = Watermark(greatest.saturating_sub(self.delay_ms));
        self.at = self.at.max(mark);
        self.heard = Some(batch_time);
    }
}

#[cfg(test)]
mod tests;
