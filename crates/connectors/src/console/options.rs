//! The options of `console`, with Spark's names and defaults.

use highwater_core::{Error, Options, Result};

/// The options of the sink `console`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsoleSinkOptions {
    /// How many rows of a micro-batch are shown; 20.
    pub num_rows: usize,
    /// Whether cells are cut to 20 characters; true.
    pub truncate: bool,
}

impl Default for ConsoleSinkOptions {
    fn default() -> Self {
        Self {
            num_rows: 20,
            truncate: true,
        }
    }
}

impl ConsoleSinkOptions {
    /// Spark's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many rows of a micro-batch are shown.
    #[must_use]
    pub fn num_rows(mut self, rows: usize) -> Self {
        self.num_rows = rows;
        self
    }

    /// Sets whether cells are cut to 20 characters.
    #[must_use]
    pub fn truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }
}

impl TryFrom<Options> for ConsoleSinkOptions {
    type Error = Error;

    /// # Errors
    /// `Invalid`, naming an option that is unknown or of a wrong type.
    fn try_from(mut options: Options) -> Result<Self> {
        let default = Self::default();
        let parsed = Self {
            num_rows: options.take("numRows")?.unwrap_or(default.num_rows),
            truncate: options.take("truncate")?.unwrap_or(default.truncate),
        };
        options.finish("sink `console`")?;
        Ok(parsed)
    }
}

impl From<ConsoleSinkOptions> for Options {
    fn from(options: ConsoleSinkOptions) -> Self {
        let mut map = Self::new();
        map.set("numRows", options.num_rows);
        map.set("truncate", options.truncate);
        map
    }
}
