//! The one error type: what went wrong, whose fault it is, and the way out.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::{BatchId, QueryId, RunId};

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller must do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The query, mode or option is understood but not supported: change the query.
    Unsupported,
    /// An argument, an option, or a row is wrong: fix it.
    Invalid,
    /// Something outside does not answer: try again.
    Unavailable,
    /// Another run owns the checkpoint: let it, or stop it.
    Fenced,
    /// A checkpoint or a source is damaged: restore it.
    Corrupt,
    /// The user's own code failed or panicked.
    User,
    /// A mistake of ours: please report it.
    Internal,
}

/// Where in the user's SQL text something is, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// Which query failed, and how far it had come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryContext {
    /// The query.
    pub id: QueryId,
    /// The run that failed.
    pub run_id: RunId,
    /// The query's name.
    pub name: Option<String>,
    /// The micro-batch it was in.
    pub batch: Option<BatchId>,
    /// The ranges of that micro-batch, by source: `events: (3, 5]`.
    pub offsets: String,
}

impl QueryContext {
    /// A query that has not begun a micro-batch.
    #[must_use]
    pub fn new(id: QueryId, run_id: RunId, name: Option<String>) -> Self {
        Self {
            id,
            run_id,
            name,
            batch: None,
            offsets: String::new(),
        }
    }
}

/// An error of Highwater. Cloning is cheap, so that every waiter gets the same one.
#[derive(Clone)]
pub struct Error(Arc<Parts>);

type Cause = Arc<dyn StdError + Send + Sync>;

#[derive(Clone)]
struct Parts {
    kind: ErrorKind,
    message: String,
    condition: Option<&'static str>,
    option: Option<String>,
    operator: Option<String>,
    column: Option<String>,
    position: Option<Position>,
    hint: Option<String>,
    query: Option<QueryContext>,
    source: Option<Cause>,
}

macro_rules! constructors {
    ($($name:ident $kind:ident $doc:literal),* $(,)?) => {
        $(#[doc = $doc]
        #[must_use]
        pub fn $name(message: impl Into<String>) -> Self {
            Self::new(ErrorKind::$kind, message)
        })*
    };
}

macro_rules! text_parts {
    ($($with:ident $get:ident $doc:literal),* $(,)?) => {
        $(#[doc = concat!("Adds ", $doc, ".")]
        #[must_use]
        pub fn $with(self, text: impl Into<String>) -> Self {
            let text = text.into();
            self.change(|parts| parts.$get = Some(text))
        }

        #[doc = concat!("Tells ", $doc, ".")]
        #[must_use]
        pub fn $get(&self) -> Option<&str> {
            self.0.$get.as_deref()
        })*
    };
}

impl Error {
    /// An error of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Parts {
            kind,
            message: message.into(),
            condition: None,
            option: None,
            operator: None,
            column: None,
            position: None,
            hint: None,
            query: None,
            source: None,
        }))
    }

    constructors! {
        unsupported Unsupported "Something that is understood but not supported.",
        invalid Invalid "A wrong argument, option or row.",
        unavailable Unavailable "Something outside that does not answer.",
        fenced Fenced "Another run owns the checkpoint.",
        corrupt Corrupt "A damaged checkpoint or source.",
        internal Internal "A mistake of ours.",
    }

    text_parts! {
        with_option option "the option it is about",
        with_operator operator "the operator it is about",
        with_column column "the column it is about",
        with_hint hint "the way out",
    }

    /// The failure of the user's own code.
    #[must_use]
    pub fn user(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause = cause.into();
        let message = cause.to_string();
        let mut error = Self::new(ErrorKind::User, message);
        Arc::make_mut(&mut error.0).source = Some(Arc::from(cause));
        error
    }

    /// Adds Spark's name of the condition: `STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION`.
    #[must_use]
    pub fn with_condition(self, condition: &'static str) -> Self {
        self.change(|parts| parts.condition = Some(condition))
    }

    /// Adds the place in the SQL text.
    #[must_use]
    pub fn with_position(self, position: Position) -> Self {
        self.change(|parts| parts.position = Some(position))
    }

    /// Adds the query it happened in.
    #[must_use]
    pub fn with_query(self, query: QueryContext) -> Self {
        self.change(|parts| parts.query = Some(query))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let cause: Cause = Arc::from(cause.into());
        self.change(|parts| parts.source = Some(cause))
    }

    /// Says it in other words.
    #[must_use]
    pub fn with_message(self, message: impl Into<String>) -> Self {
        let message = message.into();
        self.change(|parts| parts.message = message)
    }

    /// Puts `what` before the message: `reading a.csv: …`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        self.change(|parts| parts.message = format!("{what}: {}", parts.message))
    }

    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, in a sentence, without the hint and the causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Spark's name of the condition, where there is one.
    #[must_use]
    pub fn condition(&self) -> Option<&'static str> {
        self.0.condition
    }

    /// The place in the SQL text.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// The query it happened in, and how far it had come.
    #[must_use]
    pub fn query(&self) -> Option<&QueryContext> {
        self.0.query.as_ref()
    }

    fn change(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(Position { line, column }) = self.0.position {
            write!(f, " (line {line}, column {column})")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// Message, hint, query and causes, so that `main` may return it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.condition {
            Some(condition) => write!(f, "{:?} [{condition}]: {self}", self.0.kind)?,
            None => write!(f, "{:?}: {self}", self.0.kind)?,
        }
        if let Some(query) = &self.0.query {
            let name = query.name.as_deref().unwrap_or("unnamed");
            write!(
                f,
                "\n  in query {name} (id {}, run {})",
                query.id, query.run_id
            )?;
            if let Some(batch) = query.batch {
                write!(f, ", batch {batch}, {}", query.offsets)?;
            }
        }
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|cause| cause as &(dyn StdError + 'static))
    }
}

impl From<DataFusionError> for Error {
    /// An error of ours comes out as it went in; DataFusion's own becomes one of ours with it as its cause.
    fn from(error: DataFusionError) -> Self {
        match unwrap_ours(&error) {
            Some(ours) => ours,
            None => {
                Self::new(kind_of(&error), strip(&error).message().into_owned()).with_source(error)
            }
        }
    }
}

/// Follows the causes to an error of ours that crossed DataFusion as `External`.
fn unwrap_ours(error: &DataFusionError) -> Option<Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours.clone());
        }
        cause = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::ArrowError(inner, _)) => match inner.as_ref() {
                ArrowError::ExternalError(inner) => Some(inner.as_ref()),
                _ => None,
            },
            _ => error.source(),
        };
    }
    None
}

/// Takes contexts, diagnostics and sharing off.
fn strip(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => strip(inner),
        DataFusionError::Shared(inner) => strip(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, strip),
        _ => error,
    }
}

fn kind_of(error: &DataFusionError) -> ErrorKind {
    match strip(error) {
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::Internal(_) => ErrorKind::Internal,
        DataFusionError::IoError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::ResourcesExhausted(_) => ErrorKind::Unavailable,
        DataFusionError::External(_) | DataFusionError::ExecutionJoin(_) => ErrorKind::User,
        _ => ErrorKind::Invalid,
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<Error> for ArrowError {
    fn from(error: Error) -> Self {
        Self::ExternalError(Box::new(error))
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let kind = match &error {
            object_store::Error::NotFound { .. }
            | object_store::Error::InvalidPath { .. }
            | object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => ErrorKind::Invalid,
            object_store::Error::NotSupported { .. }
            | object_store::Error::NotImplemented { .. } => ErrorKind::Unsupported,
            object_store::Error::AlreadyExists { .. } => ErrorKind::Fenced,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string()).with_source(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorKind::Unavailable, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_crosses_datafusion_unchanged() {
        let ours = Error::unsupported("Top-N in append mode").with_operator("limit");
        let crossed = DataFusionError::from(ours).context("while planning");
        let back = Error::from(crossed);
        assert_eq!(
            (back.kind(), back.operator()),
            (ErrorKind::Unsupported, Some("limit"))
        );
    }

    #[test]
    fn an_error_of_datafusion_keeps_its_cause() {
        let error = Error::from(DataFusionError::Plan("no field named x".into()));
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(StdError::source(&error).is_some());
    }
}
