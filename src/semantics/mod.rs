//! Whose meaning SQL and expressions have where the dialects differ.
//!
//! What streams (event time, state, output modes) has Spark's meaning in both. `docs/dialect.md`
//! lists every difference. Spark's meaning is installed once, on the session's state: functions and
//! aggregates that replace DataFusion's by name, a planner for SQL operators, and an analyzer rule
//! that gives the same meaning to expressions built in Rust.

#[cfg(feature = "spark-functions")]
mod aggregates;
#[cfg(feature = "spark-functions")]
mod analyzer;
#[cfg(feature = "spark-functions")]
mod casts;
#[cfg(feature = "spark-functions")]
mod decimal;
#[cfg(feature = "spark-functions")]
mod distinct;
#[cfg(feature = "spark-functions")]
mod doubles;
#[cfg(feature = "spark-functions")]
mod fold;
#[cfg(feature = "spark-functions")]
mod functions;
#[cfg(feature = "spark-functions")]
mod operators;
#[cfg(feature = "spark-functions")]
mod planner;
#[cfg(feature = "spark-functions")]
mod spark;
#[cfg(all(test, feature = "spark-functions"))]
mod tests;
#[cfg(feature = "spark-functions")]
mod text;
#[cfg(feature = "spark-functions")]
mod unary;

use std::fmt;
use std::str::FromStr;

use datafusion::execution::SessionState;

use crate::{Error, Result};

/// Whose meaning SQL has: `/` on integers, null order, overflow, `concat` with a null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SqlSemantics {
    /// DataFusion's, as the session is shared with batch SQL; the default.
    #[default]
    DataFusion,
    /// Spark's, with its ANSI mode on (Spark's default). Needs the feature `spark-functions`.
    Spark,
}

impl SqlSemantics {
    /// The state with this meaning installed.
    pub(crate) fn install(self, state: SessionState) -> Result<SessionState> {
        match self {
            Self::DataFusion => Ok(state),
            #[cfg(feature = "spark-functions")]
            Self::Spark => Ok(spark::install(state)),
            #[cfg(not(feature = "spark-functions"))]
            Self::Spark => Err(Error::unsupported(
                "Spark's SQL semantics without the feature `spark-functions`",
            )
            .with_hint("enable the feature `spark-functions` of `highwater`")),
        }
    }
}

impl FromStr for SqlSemantics {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "datafusion" => Ok(Self::DataFusion),
            "spark" => Ok(Self::Spark),
            _ => Err(Error::invalid(format!("unknown SQL semantics `{text}`"))
                .with_hint("it is `datafusion` or `spark`")),
        }
    }
}

impl fmt::Display for SqlSemantics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DataFusion => "datafusion",
            Self::Spark => "spark",
        })
    }
}
