//! A position in one source, and a range between two positions.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, Result};

/// A position in one source: a JSON value that only its source can read.
///
/// Two offsets are equal when their JSON is; there is no order between them that the engine knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(Value);

impl Offset {
    /// The offset that stands for `position`.
    ///
    /// # Errors
    /// `Internal` when `position` cannot be written as JSON.
    pub fn new(position: &impl Serialize) -> Result<Self> {
        serde_json::to_value(position)
            .map(Self)
            .map_err(|e| Error::internal("an offset cannot be written as JSON").with_source(e))
    }

    /// The position this offset stands for.
    ///
    /// # Errors
    /// `Corrupt` when the JSON is not what the source wrote.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.0).map_err(|e| {
            Error::corrupt(format!("the offset {self} is not of this source")).with_source(e)
        })
    }

    /// The JSON itself.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl From<Value> for Offset {
    fn from(json: Value) -> Self {
        Self(json)
    }
}

impl From<u64> for Offset {
    fn from(n: u64) -> Self {
        Self(Value::from(n))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The rows after `start` up to and including `end`: `(start, end]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// Where the micro-batch before ended; its rows are not in the range.
    pub start: Offset,
    /// Where this micro-batch ends; its last row is in the range.
    pub end: Offset,
}

impl OffsetRange {
    /// The range `(start, end]`.
    #[must_use]
    pub fn new(start: Offset, end: Offset) -> Self {
        Self { start, end }
    }

    /// True when there is no row in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}
