//! The options of `socket`, with Spark's names and defaults.

use highwater_core::{Error, Options, Result};

/// The options of the source `socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketSourceOptions {
    /// The host to connect to.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether there is a column `timestamp` with the time each line came; false.
    pub include_timestamp: bool,
}

impl SocketSourceOptions {
    /// Lines from `host`:`port`, without timestamps.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            include_timestamp: false,
        }
    }

    /// Sets whether there is a column `timestamp`.
    #[must_use]
    pub fn include_timestamp(mut self, include: bool) -> Self {
        self.include_timestamp = include;
        self
    }
}

impl TryFrom<Options> for SocketSourceOptions {
    type Error = Error;

    /// # Errors
    /// `Invalid`, naming an option that is missing, unknown or of a wrong type.
    fn try_from(mut options: Options) -> Result<Self> {
        let host = options.take_str("host");
        let port = options.take("port")?;
        let include_timestamp = options.take("includeTimestamp")?.unwrap_or(false);
        options.finish("source `socket`")?;
        Ok(Self {
            host: host.ok_or_else(|| missing("host"))?,
            port: port.ok_or_else(|| missing("port"))?,
            include_timestamp,
        })
    }
}

impl From<SocketSourceOptions> for Options {
    fn from(options: SocketSourceOptions) -> Self {
        let mut map = Self::new();
        map.set("host", options.host);
        map.set("port", u32::from(options.port));
        map.set("includeTimestamp", options.include_timestamp);
        map
    }
}

fn missing(name: &'static str) -> Error {
    Error::invalid(format!("source `socket` needs the option `{name}`")).with_option(name)
}
