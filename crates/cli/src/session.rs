//! The session of the command: it prints what goes to `console` itself, and opens buckets by itself.

use std::sync::Arc;

use clap::ValueEnum;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater::{Result, SqlSemantics, StreamSession};

use crate::output::Printer;
use crate::sinks::ScreenProvider;
use crate::stores::Stores;

/// Whose meaning SQL has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// DataFusion's.
    #[default]
    Datafusion,
    /// Spark's.
    Spark,
}

/// A session whose streams print with `printer`.
///
/// # Errors
/// When DataFusion cannot take a function of ours.
pub(crate) fn open(printer: &Arc<Printer>, dialect: Dialect) -> Result<StreamSession> {
    let stores = Arc::new(Stores::default());
    let runtime = RuntimeEnvBuilder::new()
        .with_object_store_registry(stores)
        .build_arc()?;
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_information_schema(true))
        .with_runtime_env(runtime)
        .with_default_features()
        .build();
    StreamSession::builder()
        .context(SessionContext::new_with_state(state))
        .semantics(match dialect {
            Dialect::Datafusion => SqlSemantics::DataFusion,
            Dialect::Spark => SqlSemantics::Spark,
        })
        .sink(Arc::new(ScreenProvider(Arc::clone(printer))))
        .build()
}
