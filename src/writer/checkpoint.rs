//! Where a query's checkpoint is: the option, else the session's setting and the query's name, else nowhere.

use std::sync::Arc;

use datafusion::execution::SessionState;
use highwater_engine::{CheckpointLocation, Durability};
use highwater_storage::{RetryPolicy, RetryStore, open_durable, open_undurable};
use uuid::Uuid;

use crate::settings::Settings;
use crate::{Clock, Error, Result, Sink};

/// The location, as Spark resolves it; `None`: the query keeps nothing.
///
/// # Errors
/// `Invalid` when there is none and the sink needs one.
pub(super) fn locate(
    asked: Option<String>,
    settings: &Settings,
    name: Option<&str>,
    sink: &dyn Sink,
) -> Result<Option<String>> {
    let default = settings.checkpoint_location.as_deref();
    match (asked, default) {
        (Some(asked), _) => Ok(Some(asked)),
        (None, Some(parent)) => {
            let folder = name.map_or_else(fresh_name, ToString::to_string);
            Ok(Some(format!("{}/{folder}", parent.trim_end_matches('/'))))
        }
        (None, None) if !sink.needs_checkpoint() => Ok(None),
        (None, None) => Err(Error::invalid(format!(
            "{} needs a checkpoint: checkpointLocation must be specified",
            sink.description()
        ))
        .with_option("checkpointLocation")
        .with_hint("call `checkpoint_location(…)`, or set `highwater.checkpoint_location`")),
    }
}

/// Opens the folder, in a store that tries again what failed for a moment.
///
/// # Errors
/// `Invalid` when it cannot be opened; `Unsupported` when it cannot be as durable as it must.
pub(super) async fn open(
    location: Option<String>,
    durability: Durability,
    state: &SessionState,
    clock: &Arc<dyn Clock>,
) -> Result<CheckpointLocation> {
    let Some(location) = location else {
        return Ok(CheckpointLocation::Temporary);
    };
    let runtime = state.runtime_env();
    let opened = match durability {
        Durability::Fsync => open_durable(&location, runtime)
            .await
            .map_err(|e| e.with_option("durability")),
        _ => open_undurable(&location, runtime).await,
    };
    let (store, folder) = opened.map_err(|e| e.context("checkpointLocation"))?;
    let retries = RetryPolicy::of(state.config());
    Ok(CheckpointLocation::At {
        store: RetryStore::around(store, retries, Arc::clone(clock)),
        folder,
        display: location,
    })
}

/// A query without a name gets a folder that no other query has (Spark).
#[expect(
    clippy::disallowed_methods,
    reason = "the name must be one that was never used"
)]
fn fresh_name() -> String {
    Uuid::new_v4().to_string()
}
