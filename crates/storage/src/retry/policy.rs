//! When an operation is tried again: which errors pass by themselves, how often, after which pause.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use datafusion::prelude::SessionConfig;
use highwater_core::{Clock, Timestamp};
use object_store::{Error, Result};

/// How often, and how patiently, an operation of a store is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often an operation is tried again after it failed; 0: never.
    pub attempts: u32,
    /// The longest pause before the first retry; it doubles from one retry to the next.
    pub first_delay: Duration,
    /// No pause is longer than this.
    pub longest_delay: Duration,
    /// No retry is begun so long after the first try.
    pub give_up_after: Duration,
    /// The pauses are random; two processes must not have the same ones.
    pub seed: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(10),
            give_up_after: Duration::from_secs(60),
            seed: u64::from(std::process::id()),
        }
    }
}

impl RetryPolicy {
    /// The policy that a session has as an extension, or the default.
    #[must_use]
    pub fn of(config: &SessionConfig) -> Self {
        config
            .get_extension::<Self>()
            .map_or_else(Self::default, |policy| policy.as_ref().clone())
    }
}

/// The tries of one operation.
#[derive(Debug)]
pub(super) struct Tries {
    policy: Arc<RetryPolicy>,
    clock: Arc<dyn Clock>,
    operation: &'static str,
    path: String,
    begun: Timestamp,
    failed: u32,
    random: u64,
}

impl Tries {
    pub(super) fn new(
        policy: Arc<RetryPolicy>,
        clock: Arc<dyn Clock>,
        operation: &'static str,
        path: String,
        number: u64,
    ) -> Self {
        Self {
            random: policy.seed ^ number.rotate_left(32),
            begun: clock.now(),
            failed: 0,
            policy,
            clock,
            operation,
            path,
        }
    }

    /// True when an earlier try failed: it may have been done all the same.
    pub(super) fn is_again(&self) -> bool {
        self.failed > 0
    }

    /// The operation has come on: its tries are counted anew.
    pub(super) fn came_on(&mut self) {
        if self.failed > 0 {
            self.failed = 0;
            self.begun = self.clock.now();
        }
    }

    /// Waits when `error` may pass by itself, and gives it back when it does not, or it has been tried enough.
    pub(super) async fn again(&mut self, error: Error) -> Result<()> {
        if !is_transient(&error) {
            return Err(error);
        }
        self.failed += 1;
        let (pause, now) = (self.pause(), self.clock.now());
        let last = self.begun.plus(self.policy.give_up_after);
        if self.failed > self.policy.attempts || now.plus(pause) > last {
            return Err(gave_up(error, self.failed));
        }
        tracing::warn!(
            operation = self.operation,
            path = self.path,
            attempt = self.failed,
            attempts = self.policy.attempts,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            %error,
            "the object store failed; it is tried again"
        );
        self.clock.sleep_until(now.plus(pause)).await;
        Ok(())
    }

    /// A random length up to the bound, which doubles with each failure ("full jitter").
    fn pause(&mut self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failed - 1).unwrap_or(u32::MAX);
        let bound = self.policy.first_delay.saturating_mul(doubled);
        let bound = bound.min(self.policy.longest_delay).as_micros();
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).saturating_add(1);
        Duration::from_micros(self.next_random() % bound)
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The last error of an operation that was tried several times.
#[derive(Debug)]
struct GaveUp {
    tries: u32,
    cause: Error,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tries, times) = (self.tries, if self.tries == 1 { "time" } else { "times" });
        write!(f, "tried {tries} {times}: {}", self.cause)
    }
}

impl StdError for GaveUp {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

fn gave_up(cause: Error, tries: u32) -> Error {
    let store = match &cause {
        Error::Generic { store, .. } => store,
        _ => "RetryStore",
    };
    let source = Box::new(GaveUp { tries, cause });
    Error::Generic { store, source }
}

/// True for an error that may pass by itself: a connection that broke, a time-out, a server that is too busy.
///
/// What the store says of the object itself (it is not there, it is there already, it is not allowed) never passes.
#[must_use]
pub fn is_transient(error: &Error) -> bool {
    let Error::Generic { source, .. } = error else {
        return false;
    };
    let mut cause: Option<&(dyn StdError + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        if error.is::<GaveUp>() {
            return false;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return passes(error.kind()) || error.get_ref().is_some_and(|e| says_busy(e));
        }
        if says_busy(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn passes(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        Interrupted, NetworkDown, NetworkUnreachable, NotConnected, ResourceBusy,
        StaleNetworkFileHandle, TimedOut, UnexpectedEof, WouldBlock,
    };
    matches!(
        kind,
        BrokenPipe
            | ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | ResourceBusy
            | StaleNetworkFileHandle
            | TimedOut
            | UnexpectedEof
            | WouldBlock
    )
}

/// What the HTTP stores say of an answer is a type of their own only when they are compiled in: their text is read.
fn says_busy(error: &(dyn StdError + 'static)) -> bool {
    const BUSY: [&str; 5] = ["429", "500", "502", "503", "504"];
    let text = error.to_string();
    let status = text.split_once("status code: ").map(|(_, rest)| rest);
    status.is_some_and(|status| BUSY.iter().any(|busy| status.starts_with(busy)))
        || text.starts_with("HTTP error: ")
        || text == "operation timed out"
}
