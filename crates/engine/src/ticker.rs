//! When the next look at the sources is: the triggers, and the sleep between them.
//!
//! ```text
//!                      ┌──────────── now ────────────┐
//!  decide(trigger, …) ─┼─ at the next multiple ──────┼──► Tick
//!                      ├─ when a source has changed ─┘
//!                      └─ never ──► the run ends
//! ```

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use highwater_core::{Clock, Timestamp, Trigger};

use crate::listen::{Calls, Changes};
use crate::query::QueryCore;
use crate::status::Stage;

/// A query that runs nothing for so long tells its listeners, and again after as long (Spark).
const IDLE_EVENT_EVERY: Duration = Duration::from_secs(10);
/// So many wake-ups in a row that bring nothing are met with a pause.
const FRUITLESS_WAKES: u32 = 3;

/// After a micro-batch that took so long, other tasks of the runtime go first.
const LONG_BATCH: Duration = Duration::from_millis(1);

/// One firing of the trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// When it fired.
    pub(crate) at: Timestamp,
}

/// What came of the last tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    /// When it fired.
    pub(crate) at: Timestamp,
    /// True when there may be more where that came from: a micro-batch ran.
    pub(crate) fruitful: bool,
}

/// When the next tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Now,
    At(Timestamp),
    Changed,
    Never,
}

/// The triggers, as Spark has them; `asked`: somebody waits for all that is there to be processed, and that
/// does not wait for the next multiple.
fn decide(trigger: Trigger, last: Option<Last>, asked: bool, now: Timestamp) -> When {
    let Some(last) = last else {
        return When::Now;
    };
    match trigger {
        Trigger::AvailableNow if last.fruitful => When::Now,
        Trigger::ProcessingTime(_) if asked => When::Now,
        Trigger::ProcessingTime(every) if every.is_zero() && last.fruitful => When::Now,
        Trigger::ProcessingTime(every) if every.is_zero() => When::Changed,
        Trigger::ProcessingTime(every) => match next_multiple(last.at, every) {
            next if next <= now => When::Now,
            next => When::At(next),
        },
        _ => When::Never,
    }
}

/// The first multiple of `every` since 1970 that is later than `after`.
fn next_multiple(after: Timestamp, every: Duration) -> Timestamp {
    let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX).max(1);
    let begun = after.as_micros().div_euclid(every);
    Timestamp::from_micros(begun.saturating_add(1).saturating_mul(every))
}

/// The source of ticks of one run.
#[derive(Debug)]
pub(crate) struct Ticker {
    trigger: Trigger,
    clock: Arc<dyn Clock>,
    query: Arc<QueryCore>,
    changes: Changes,
    idle: Idle,
    polling: Duration,
    last: Option<Last>,
    asked: bool,
    fruitless: u32,
    /// Something is to be done then, even if no source changes.
    deadline: Option<Timestamp>,
}

impl Ticker {
    /// Ticks for `query`, which reads what `changes` listens to; `polling` is the pause after wake-ups that brought nothing.
    pub(crate) fn new(
        trigger: Trigger,
        query: Arc<QueryCore>,
        changes: Changes,
        polling: Duration,
    ) -> Self {
        let clock = Arc::clone(query.clock());
        Self {
            trigger,
            idle: Idle::new(Arc::clone(&clock)),
            clock,
            query,
            changes,
            polling,
            last: None,
            asked: false,
            fruitless: 0,
            deadline: None,
        }
    }

    /// The next tick; `None` when the run is to end.
    pub(crate) async fn next(&mut self) -> Option<Tick> {
        self.let_others_run().await;
        loop {
            if self.calls().is_stopped() {
                return None;
            }
            let now = self.clock.now();
            let asked = self.asked || self.calls().is_asked();
            match decide(self.trigger, self.last, asked, now) {
                When::Never => return None,
                When::Now => return Some(self.tick(now)),
                When::At(next) => {
                    self.query.stage().set(Stage::WaitingForTrigger);
                    self.wait(Some(next), Listen::ToCallsOnly).await;
                }
                When::Changed => {
                    self.query.stage().set(Stage::WaitingForData);
                    if self.wait_for_change(now).await != Woken::Called {
                        return Some(self.tick(self.clock.now()));
                    }
                }
            }
        }
    }

    /// A query whose sources and sink always answer at once would never leave its thread to others.
    async fn let_others_run(&mut self) {
        match self.last {
            Some(last) if self.clock.now().since(last.at) >= LONG_BATCH => {
                tokio::task::yield_now().await;
            }
            _ => tokio::task::consume_budget().await,
        }
    }

    /// Waits for a change or the deadline, after a pause when the last wake-ups brought nothing.
    async fn wait_for_change(&mut self, now: Timestamp) -> Woken {
        if self.fruitless > FRUITLESS_WAKES {
            let pause = now.plus(self.polling);
            if self.wait(Some(pause), Listen::ToCallsOnly).await == Woken::Called {
                return Woken::Called;
            }
        }
        self.wait(self.deadline, Listen::ToSources).await
    }

    /// Begins to listen for changes; called before the sources are asked what they have.
    pub(crate) async fn arm(&mut self) {
        self.changes.arm().await;
    }

    /// The tick brought a micro-batch; `asked`: somebody still waits for more.
    pub(crate) fn ran(&mut self, asked: bool) {
        self.look_again();
        self.asked = asked;
        if let Some(last) = self.last {
            self.idle.rest_from(last.at);
        }
    }

    /// The tick brought no micro-batch, but not all was looked at.
    pub(crate) fn look_again(&mut self) {
        self.asked = false;
        self.fruitless = 0;
        if let Some(last) = &mut self.last {
            last.fruitful = true;
        }
    }

    /// The tick brought nothing; `deadline`: when something is to be done all the same.
    pub(crate) fn nothing(&mut self, deadline: Option<Timestamp>) {
        self.asked = false;
        self.deadline = deadline;
        self.fruitless = self.fruitless.saturating_add(1);
    }

    fn tick(&mut self, at: Timestamp) -> Tick {
        if self.last.is_none() {
            self.idle.rest_from(at);
        }
        self.last = Some(Last {
            at,
            fruitful: false,
        });
        Tick { at }
    }

    fn calls(&self) -> &Calls {
        self.query.calls()
    }

    /// Sleeps until `due`, or until a source changes when it is listened to, or until a handle calls.
    async fn wait(&mut self, due: Option<Timestamp>, listen: Listen) -> Woken {
        let query = Arc::clone(&self.query);
        let mut heard = pin!(query.calls().heard());
        let mut due = due.map(|due| sleep(&self.clock, due));
        poll_fn(|cx| {
            if heard.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::Called);
            }
            if listen == Listen::ToSources && self.changes.poll(cx).is_ready() {
                return Poll::Ready(Woken::Changed);
            }
            let woken = match &mut due {
                Some(due) => due.poll_unpin(cx).map(|()| Woken::Due),
                None => Poll::Pending,
            };
            if woken.is_pending() && self.idle.poll(cx).is_ready() {
                query.idle(self.clock.now());
            }
            woken
        })
        .await
    }
}

/// What may end a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listen {
    ToCallsOnly,
    ToSources,
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Called,
    Changed,
    Due,
}

fn sleep(clock: &Arc<dyn Clock>, until: Timestamp) -> BoxFuture<'static, ()> {
    let clock = Arc::clone(clock);
    async move { clock.sleep_until(until).await }.boxed()
}

/// Notices that nothing has run for a while. Its timer outlives triggers, so a busy query sets none.
struct Idle {
    clock: Arc<dyn Clock>,
    since: Timestamp,
    timer: Option<BoxFuture<'static, ()>>,
}

impl Idle {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            since: Timestamp::default(),
            timer: None,
        }
    }

    /// Something ran at `at`.
    fn rest_from(&mut self, at: Timestamp) {
        self.since = at;
    }

    /// Ready each time another while has passed with nothing run.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut passed = Poll::Pending;
        loop {
            let due = self.since.plus(IDLE_EVENT_EVERY);
            let timer = self.timer.get_or_insert_with(|| sleep(&self.clock, due));
            if timer.poll_unpin(cx).is_pending() {
                return passed;
            }
            self.timer = None;
            let now = self.clock.now();
            if now >= due {
                self.since = now;
                passed = Poll::Ready(());
            }
        }
    }
}

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("since", &self.since).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn processing_time_is_aligned_to_multiples_since_1970() {
        for (after, every, next) in [
            (0, 10, 10),
            (1, 10, 10),
            (10, 10, 20),
            (25, 10, 30),
            (-5, 10, 0),
        ] {
            let next_at = next_multiple(Timestamp::from_millis(after), ms(every));
            assert_eq!(next_at, Timestamp::from_millis(next), "after {after}");
        }
    }

    #[test]
    fn triggers_decide_as_spark() {
        let at = |fruitful| {
            Some(Last {
                at: Timestamp::from_millis(12),
                fruitful,
            })
        };
        let (every, none) = (Trigger::ProcessingTime(ms(10)), Trigger::default());
        for (name, trigger, last, asked, now, expected) in [
            ("first at once", every, None, false, 12, When::Now),
            (
                "then aligned",
                every,
                at(true),
                false,
                13,
                When::At(Timestamp::from_millis(20)),
            ),
            ("overrun: at once", every, at(true), false, 25, When::Now),
            ("asked: at once", every, at(false), true, 13, When::Now),
            (
                "default, more may come",
                none,
                at(true),
                false,
                13,
                When::Now,
            ),
            ("default, idle", none, at(false), false, 13, When::Changed),
            ("default, asked", none, at(false), true, 13, When::Now),
            ("once, first", Trigger::Once, None, false, 12, When::Now),
            (
                "once, after",
                Trigger::Once,
                at(true),
                true,
                13,
                When::Never,
            ),
            (
                "available now, more",
                Trigger::AvailableNow,
                at(true),
                false,
                13,
                When::Now,
            ),
            (
                "available now, done",
                Trigger::AvailableNow,
                at(false),
                true,
                13,
                When::Never,
            ),
        ] {
            let when = decide(trigger, last, asked, Timestamp::from_millis(now));
            assert_eq!(when, expected, "{name}");
        }
    }
}
