//! Where a query's checkpoint is: the option, else the session's setting and the query's name, else nowhere.

use datafusion::execution::SessionState;
use highwater_engine::CheckpointLocation;
use uuid::Uuid;

use crate::settings::Settings;
use crate::{Error, Result, Sink};

/// Opens the folder, as Spark resolves it.
///
/// # Errors
/// `Invalid` when there is none and the sink needs one, or when it cannot be opened.
pub(super) fn locate(
    asked: Option<String>,
    settings: &Settings,
    name: Option<&str>,
    sink: &dyn Sink,
    state: &SessionState,
) -> Result<CheckpointLocation> {
    let default = settings.checkpoint_location.as_deref();
    let location = match (asked, default) {
        (Some(asked), _) => asked,
        (None, Some(parent)) => {
            let folder = name.map_or_else(fresh_name, ToString::to_string);
            format!("{}/{folder}", parent.trim_end_matches('/'))
        }
        (None, None) if !sink.needs_checkpoint() => return Ok(CheckpointLocation::Temporary),
        (None, None) => {
            return Err(Error::invalid(format!(
                "{} needs a checkpoint: checkpointLocation must be specified",
                sink.description()
            ))
            .with_option("checkpointLocation")
            .with_hint("call `checkpoint_location(…)`, or set `highwater.checkpoint_location`"));
        }
    };
    let (store, folder) = highwater_storage::open_location(&location, state.runtime_env())
        .map_err(|e| e.context("checkpointLocation"))?;
    Ok(CheckpointLocation::At {
        store,
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
