//! What of the result table a micro-batch gives to the sink.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// What a sink receives at each micro-batch, with Spark's meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputMode {
    /// Rows that will never change again; the default.
    #[default]
    Append,
    /// Rows that are new or were touched by this micro-batch.
    Update,
    /// The whole result table, each time.
    Complete,
}

impl FromStr for OutputMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "append" => Ok(Self::Append),
            "update" => Ok(Self::Update),
            "complete" => Ok(Self::Complete),
            _ => Err(Error::invalid(format!("unknown output mode `{text}`"))
                .with_condition("STREAMING_OUTPUT_MODE.INVALID")
                .with_hint("the output modes are append, update and complete")),
        }
    }
}

impl fmt::Display for OutputMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append => "append",
            Self::Update => "update",
            Self::Complete => "complete",
        })
    }
}
