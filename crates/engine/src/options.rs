//! What a query may be told beyond Spark: all of it is off by default, and then no row differs from Spark's.

use std::sync::Arc;
use std::time::Duration;

use highwater_core::{Error, Result, Trigger};

use crate::late::LateTarget;
use crate::manager::StartRequest;

/// The options of a query that Spark does not have.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// `idleTimeout`: an input of the watermark that had no row for so long is left out of the min, so that the
    /// others go on; rounded up to milliseconds.
    pub idle_timeout: Option<Duration>,
    /// `flushOnEnd`: after the last micro-batch a final one runs in which every window closes.
    pub flush_on_end: bool,
    /// `maxEventTimeSkew`: an event time more than so long after the batch time is a mistake: the row goes to the late
    /// rows where those are wanted, else it fails the micro-batch.
    pub max_event_time_skew: Option<Duration>,
    /// `late_rows_to`: where rows go that came too late; without it they are only counted.
    pub late_rows: Option<Arc<dyn LateTarget>>,
}

impl QueryOptions {
    /// The time of silence, in whole milliseconds as batch times are.
    pub(crate) fn idle_after(&self) -> Option<Duration> {
        let round = |length: Duration| {
            let millis = length.as_micros().div_ceil(1_000);
            Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
        };
        self.idle_timeout.map(round)
    }
}

/// Refuses options that cannot mean anything for this query.
///
/// # Errors
/// `Invalid`, naming the option.
pub(crate) fn check(request: &StartRequest, has_watermark: bool) -> Result<()> {
    let QueryOptions {
        idle_timeout,
        flush_on_end,
        max_event_time_skew,
        late_rows: _,
    } = &request.options;
    if idle_timeout.is_some_and(|length| length.is_zero()) {
        return Err(
            Error::invalid("`idleTimeout` is 0: every input would be idle at once")
                .with_option("idleTimeout")
                .with_hint("give a length of time, such as `1 minute`"),
        );
    }
    for (option, given) in [
        ("idleTimeout", idle_timeout.is_some()),
        ("flushOnEnd", *flush_on_end),
        ("maxEventTimeSkew", max_event_time_skew.is_some()),
    ] {
        if given && !has_watermark {
            return Err(Error::invalid(format!(
                "`{option}` is about the watermark, and the query has none"
            ))
            .with_option(option)
            .with_hint("call `with_watermark`, or leave the option out"));
        }
    }
    if *flush_on_end && matches!(request.trigger, Trigger::ProcessingTime(_)) {
        return Err(Error::invalid(format!(
            "`flushOnEnd` is for a run that ends by itself, and with the trigger {} it does not",
            request.trigger
        ))
        .with_option("flushOnEnd")
        .with_hint("use `Trigger::AvailableNow` or `Trigger::Once`"));
    }
    Ok(())
}
