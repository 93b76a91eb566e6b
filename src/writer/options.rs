//! What a query takes of the writer's options for itself, beyond Spark.

use std::time::Duration;

use highwater_engine::QueryOptions;
use highwater_plan::RefreshWhen;

use crate::static_tables::static_refresh;
use crate::{Options, Result};

/// Takes the query's own options; what is left is the sink's.
///
/// # Errors
/// `Invalid`, naming the option, when a value does not parse.
pub(super) fn take(options: &mut Options) -> Result<QueryOptions> {
    Ok(QueryOptions {
        idle_timeout: length(options, "idleTimeout")?,
        flush_on_end: options.take("flushOnEnd")?.unwrap_or_default(),
        max_event_time_skew: length(options, "maxEventTimeSkew")?,
        state_ttl: length(options, "stateTtl")?,
        durability: options.take("durability")?.unwrap_or_default(),
        allow_state_evolution: options.take("allowStateEvolution")?.unwrap_or_default(),
        late_rows: None,
        static_refresh: refresh(options)?,
        table_versions: static_refresh().versions,
    })
}

/// A length of time that has no months and is not negative.
fn length(options: &mut Options, name: &'static str) -> Result<Option<Duration>> {
    let length = options.take_interval(name)?;
    let length = length.map(crate::Interval::to_duration).transpose();
    length.map_err(|e| e.context(format_args!("option `{name}`")).with_option(name))
}

/// `onChange`, `never`, or a length of time.
fn refresh(options: &mut Options) -> Result<Option<RefreshWhen>> {
    const NAME: &str = "staticRefresh";
    let named = [
        ("onchange", RefreshWhen::OnChange),
        ("never", RefreshWhen::Never),
    ];
    let asked = options.get(NAME).map(str::trim).map(str::to_lowercase);
    for (word, when) in named {
        if asked.as_deref() == Some(word) {
            let _known = options.take_str(NAME);
            return Ok(Some(when));
        }
    }
    let every = length(options, NAME).map_err(|e| {
        e.with_hint("say `onChange`, `never`, or a length of time such as `10 minutes`")
    })?;
    Ok(every.map(RefreshWhen::Every))
}
