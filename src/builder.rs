//! How a session is made: context, settings, clock, threads, meaning of SQL.

use std::fmt;
use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater_engine::SystemClock;
use tokio::runtime::Handle;

use crate::settings::{Settings, canonical_key};
use crate::sql::StreamRelations;
use crate::{Clock, OptionValue, Result, SinkProvider, SqlSemantics, StreamSession};

/// Makes a [`StreamSession`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct StreamSessionBuilder {
    context: Option<SessionContext>,
    config: Vec<(String, OptionValue)>,
    clock: Option<Arc<dyn Clock>>,
    runtime: Option<Handle>,
    semantics: SqlSemantics,
    sinks: Vec<Arc<dyn SinkProvider>>,
}

impl StreamSessionBuilder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Shares the tables, functions and object stores of `context` instead of making a new one.
    pub fn context(mut self, context: SessionContext) -> Self {
        self.context = Some(context);
        self
    }

    /// Sets `highwater.…`, `datafusion.…` or one of Spark's `spark.sql.streaming.…`; told wrong by `build`.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<OptionValue>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Where the time comes from; the machine's clock by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The runtime that queries run on; threads of the session's own by default.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Whose meaning SQL has; DataFusion's by default.
    ///
    /// With [`SqlSemantics::Spark`] and a [`context`](Self::context) of your own, Spark's functions and settings
    /// are installed in that context.
    pub fn semantics(mut self, semantics: SqlSemantics) -> Self {
        self.semantics = semantics;
        self
    }

    /// Makes a sink known as a format of `write_stream`, in place of a built-in one of that name: a program that draws
    /// its own screen prints what goes to `console` itself.
    pub fn sink(mut self, provider: Arc<dyn SinkProvider>) -> Self {
        self.sinks.push(provider);
        self
    }

    /// The session.
    ///
    /// # Errors
    /// `Invalid` for a setting that is unknown or has a wrong value; `Unsupported` when the semantics need a feature
    /// that is off.
    pub fn build(self) -> Result<StreamSession> {
        let context = self.context.unwrap_or_else(new_context);
        prepare(&context, self.semantics)?;
        for (key, OptionValue(value)) in &self.config {
            let key = canonical_key(key)?;
            let state = context.state_ref();
            let mut state = state.write();
            state.config_mut().options_mut().set(&key, value)?;
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let session = StreamSession::assemble(context, clock, self.runtime);
        for sink in self.sinks {
            session.registry().replace_sink(sink);
        }
        Ok(session)
    }
}

impl fmt::Debug for StreamSessionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSessionBuilder")
            .field("config", &self.config)
            .field("semantics", &self.semantics)
            .finish_non_exhaustive()
    }
}

/// DataFusion's defaults, with the tables that tell of settings (`SHOW`).
pub(crate) fn new_context() -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_information_schema(true))
        .with_default_features()
        .build();
    SessionContext::new_with_state(state)
}

/// Adds our functions, planners and settings to `context`, once.
pub(crate) fn prepare(context: &SessionContext, semantics: SqlSemantics) -> Result<()> {
    let shared = context.state_ref();
    let known = {
        let mut state = shared.write();
        let extensions = &mut state.config_mut().options_mut().extensions;
        let known = extensions.get::<Settings>().is_some();
        if !known {
            extensions.insert(Settings::default());
        }
        known
    };
    if !known {
        highwater_plan::register_functions(context)?;
        context.register_relation_planner(Arc::new(StreamRelations))?;
    }
    let mut state = shared.write();
    *state = semantics.install(state.clone())?;
    Ok(())
}
