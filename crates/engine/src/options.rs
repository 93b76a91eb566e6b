//! What a query may be told beyond Spark: all of it is off by default, and then no row differs from Spark's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use highwater_core::{Error, Result, Trigger};
use highwater_plan::{IncrementalPlan, RefreshWhen, StaticRefresh, TableVersions};

use crate::late::LateTarget;
use crate::manager::{CheckpointLocation, StartRequest};

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
    /// `stateTtl`: rows of inner joins leave after so long where nothing else bounds them.
    pub state_ttl: Option<Duration>,
    /// `durability`: what the checkpoint, and the files of a file sink, outlive.
    pub durability: Durability,
    /// `allowStateEvolution`: aggregate functions that the checkpoint does not know may be added; they begin empty.
    pub allow_state_evolution: bool,
    /// `late_rows_to`: where rows go that came too late; without it they are only counted.
    pub late_rows: Option<Arc<dyn LateTarget>>,
    /// `staticRefresh`: when static tables are read again; by default when they have changed.
    pub static_refresh: Option<RefreshWhen>,
    /// Tells whether static tables have changed, beside those that DataFusion knows.
    pub table_versions: Option<Arc<dyn TableVersions>>,
}

/// What a write outlives once it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The death of the process: the operating system has the bytes.
    #[default]
    Process,
    /// The loss of power: the disk has the bytes.
    Fsync,
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "process" => Ok(Self::Process),
            "fsync" => Ok(Self::Fsync),
            _ => Err(Error::invalid("it must be one of process, fsync")),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Fsync => "fsync",
        })
    }
}

impl QueryOptions {
    /// When the static tables of the query are read again.
    pub(crate) fn refresh(&self) -> StaticRefresh {
        StaticRefresh {
            when: self.static_refresh.unwrap_or_default(),
            versions: self.table_versions.clone(),
        }
    }

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
pub(crate) fn check(request: &StartRequest, plan: &IncrementalPlan) -> Result<()> {
    let has_watermark = !plan.watermarks().is_empty();
    let QueryOptions {
        idle_timeout,
        flush_on_end,
        max_event_time_skew,
        state_ttl: _,
        durability,
        allow_state_evolution,
        late_rows: _,
        static_refresh,
        table_versions: _,
    } = &request.options;
    let temporary = matches!(request.checkpoint, CheckpointLocation::Temporary);
    if *durability == Durability::Fsync && temporary {
        return Err(Error::invalid(
            "`durability` is about the checkpoint, and the query has none that lasts",
        )
        .with_option("durability")
        .with_hint("call `checkpoint_location(…)`, or leave the option out"));
    }
    if *allow_state_evolution && temporary {
        return Err(Error::invalid(
            "`allowStateEvolution` is about the state in a checkpoint, and the query has none",
        )
        .with_option("allowStateEvolution")
        .with_hint("give it a checkpoint location, or leave the option out"));
    }
    check_refresh(*static_refresh, plan)?;
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

fn check_refresh(refresh: Option<RefreshWhen>, plan: &IncrementalPlan) -> Result<()> {
    let refuse = |message: &str, hint: &str| {
        let error = Error::invalid(message).with_option("staticRefresh");
        Err(error.with_hint(hint))
    };
    match refresh {
        Some(_) if !plan.has_static_tables() => refuse(
            "`staticRefresh` is about the static tables of a query, and the query reads none",
            "leave the option out, or join a static table",
        ),
        Some(RefreshWhen::Every(length)) if length.is_zero() => refuse(
            "`staticRefresh` is 0: every table would be read again in each micro-batch",
            "give a length of time such as `1 minute`, or `onChange`",
        ),
        _ => Ok(()),
    }
}
