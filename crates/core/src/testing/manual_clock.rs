//! A clock that moves only when a test says so.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Clock, IntoInterval, Result, Timestamp};

/// A [`Clock`] that stands still until [`advance`](Self::advance) moves it.
///
/// Clones share one time. Whoever sleeps wakes as soon as the time has reached its hour, and no earlier.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<watch::Sender<Timestamp>>,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self {
            now: Arc::new(watch::Sender::new(start)),
        }
    }

    /// A clock that shows `start`, written as `2024-05-01 12:00:00` in UTC.
    ///
    /// # Errors
    /// `Invalid` when the text is no timestamp.
    pub fn at(start: &str) -> Result<Self> {
        start.parse().map(Self::new)
    }

    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    /// Moves the time forward by `length` and wakes those whose hour has come.
    ///
    /// # Errors
    /// `Invalid` when `length` is no length of time, has months or is negative.
    pub fn advance(&self, length: impl IntoInterval) -> Result<()> {
        let length = length.into_interval()?.to_duration()?;
        self.now.send_modify(|now| *now = now.plus(length));
        Ok(())
    }

    /// How many sleepers wait for their hour.
    ///
    /// A test that moves the time waits for this first, so that it moves past a sleeper, not before it.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.now.receiver_count()
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.now()
    }

    async fn sleep_until(&self, until: Timestamp) {
        let mut times = self.now.subscribe();
        // The sender lives in `self`, so the wait ends only when the time has come.
        drop(times.wait_for(|now| *now >= until).await);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn it_stands_still_until_it_is_moved() {
        let clock = ManualClock::at("2024-05-01 12:00:00").expect("a timestamp");
        let other = clock.clone();
        clock.advance("1 minute").expect("an interval");
        assert_eq!(other.now().to_string(), "2024-05-01 12:01:00");
        assert!(clock.advance("-1 minute").is_err());
    }

    #[test]
    fn a_sleeper_wakes_when_its_hour_has_come_and_no_earlier() {
        let clock = ManualClock::new(Timestamp::from_millis(0));
        let mut sleeper = clock.sleep_until(Timestamp::from_millis(1_000));
        assert!(sleeper.as_mut().now_or_never().is_none());
        assert_eq!(clock.sleepers(), 1);
        clock.advance("999 ms").expect("an interval");
        assert!(sleeper.as_mut().now_or_never().is_none());
        clock.advance("1 ms").expect("an interval");
        assert!(sleeper.as_mut().now_or_never().is_some());
        drop(sleeper);
        assert_eq!(clock.sleepers(), 0);
    }
}
