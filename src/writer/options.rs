//! What a query takes of the writer's options for itself, beyond Spark.

use std::time::Duration;

use highwater_engine::QueryOptions;

use crate::{Error, Options, Result};

/// Takes the query's own options; what is left is the sink's.
///
/// # Errors
/// `Invalid`, naming the option, when a value does not parse; `Unsupported` for one that a later version takes.
pub(super) fn take(options: &mut Options) -> Result<QueryOptions> {
    refuse_later(options)?;
    Ok(QueryOptions {
        idle_timeout: length(options, "idleTimeout")?,
        flush_on_end: options.take("flushOnEnd")?.unwrap_or_default(),
        max_event_time_skew: length(options, "maxEventTimeSkew")?,
        durability: options.take("durability")?.unwrap_or_default(),
        allow_state_evolution: options.take("allowStateEvolution")?.unwrap_or_default(),
        late_rows: None,
    })
}

/// A length of time that has no months and is not negative.
fn length(options: &mut Options, name: &'static str) -> Result<Option<Duration>> {
    let length = options.take_interval(name)?;
    let length = length.map(crate::Interval::to_duration).transpose();
    length.map_err(|e| e.context(format_args!("option `{name}`")).with_option(name))
}

/// The query's options that a later version takes.
fn refuse_later(options: &Options) -> Result<()> {
    const LATER: [&str; 2] = ["stateTtl", "staticRefresh"];
    match LATER.iter().find(|name| options.get(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(format!("the option `{name}`"))
            .with_option(*name)
            .with_hint("this version does not have it yet: leave it out")),
    }
}
