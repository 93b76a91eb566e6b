//! Which format name stands for which source and sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::{Error, Result, SinkProvider, SourceProvider};

/// The formats of a session.
#[derive(Debug)]
pub(crate) struct Registry {
    sources: Formats<dyn SourceProvider>,
    sinks: Formats<dyn SinkProvider>,
}

type Formats<P> = RwLock<BTreeMap<String, Arc<P>>>;

impl Registry {
    /// The built-in formats.
    pub(crate) fn new() -> Self {
        let sources = highwater_connectors::source_providers().into_iter();
        let sinks = highwater_connectors::sink_providers().into_iter();
        Self {
            sources: RwLock::new(sources.map(|p| (fold(p.format()), p)).collect()),
            sinks: RwLock::new(sinks.map(|p| (fold(p.format()), p)).collect()),
        }
    }

    /// Makes a source known.
    ///
    /// # Errors
    /// `Invalid` when the format has a source already.
    pub(crate) fn add_source(&self, provider: Arc<dyn SourceProvider>) -> Result<()> {
        let format = provider.format().to_string();
        add(&self.sources, &format, provider, "source")
    }

    /// Makes a sink known.
    ///
    /// # Errors
    /// `Invalid` when the format has a sink already.
    pub(crate) fn add_sink(&self, provider: Arc<dyn SinkProvider>) -> Result<()> {
        let format = provider.format().to_string();
        add(&self.sinks, &format, provider, "sink")
    }

    /// Makes a sink known, in place of the one that its format has.
    pub(crate) fn replace_sink(&self, provider: Arc<dyn SinkProvider>) {
        let format = fold(provider.format());
        self.sinks.write().insert(format, provider);
    }

    /// The source of `format`.
    ///
    /// # Errors
    /// `Unsupported` for formats of Spark that are not here, `Invalid` for unknown ones.
    pub(crate) fn source(&self, format: &str) -> Result<Arc<dyn SourceProvider>> {
        find(&self.sources, format, "source")
            .map_err(|e| only_the_other_way(e, format, &self.sinks, "sink"))
    }

    /// The sink of `format`.
    ///
    /// # Errors
    /// As for [`source`](Self::source).
    pub(crate) fn sink(&self, format: &str) -> Result<Arc<dyn SinkProvider>> {
        find(&self.sinks, format, "sink")
            .map_err(|e| only_the_other_way(e, format, &self.sources, "source"))
    }
}

fn add<P: ?Sized>(formats: &Formats<P>, format: &str, provider: Arc<P>, what: &str) -> Result<()> {
    let mut formats = formats.write();
    if formats.contains_key(&fold(format)) {
        return Err(
            Error::invalid(format!("the format `{format}` has a {what} already"))
                .with_option("format")
                .with_hint("register it under another name"),
        );
    }
    formats.insert(fold(format), provider);
    Ok(())
}

fn find<P: ?Sized>(formats: &Formats<P>, format: &str, what: &str) -> Result<Arc<P>> {
    let formats = formats.read();
    let wanted = fold(format);
    if let Some(provider) = formats.get(&wanted) {
        return Ok(Arc::clone(provider));
    }
    if matches!(wanted.as_str(), "orc" | "xml") {
        return Err(Error::unsupported(format!("the format `{format}`"))
            .with_option("format")
            .with_hint("convert the files to parquet, json or csv"));
    }
    let near = formats
        .keys()
        .map(|known| (strsim::damerau_levenshtein(known, &wanted), known))
        .min()
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 4));
    let error = Error::invalid(format!(
        "unknown format `{format}`: no {what} has that name"
    ))
    .with_condition("DATA_SOURCE_NOT_FOUND")
    .with_option("format");
    Err(match near {
        Some((_, known)) => error.with_hint(format!("did you mean `{known}`?")),
        None => {
            let known = formats.keys().map(String::as_str).collect::<Vec<_>>();
            error.with_hint(format!("the formats are {}", known.join(", ")))
        }
    })
}

/// Says so where the format exists, but in the other direction.
fn only_the_other_way<P: ?Sized>(
    error: Error,
    format: &str,
    others: &Formats<P>,
    what: &str,
) -> Error {
    if others.read().contains_key(&fold(format)) {
        error.with_hint(format!("`{format}` is a {what} only"))
    } else {
        error
    }
}

fn fold(format: &str) -> String {
    format.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn unknown_formats_are_told_with_the_way_out() {
        let registry = Registry::new();
        for (format, kind, hint) in [
            ("orc", ErrorKind::Unsupported, "convert the files"),
            ("XML", ErrorKind::Unsupported, "convert the files"),
            ("rte", ErrorKind::Invalid, "did you mean `rate`?"),
            ("console", ErrorKind::Invalid, "`console` is a sink only"),
        ] {
            let error = registry.source(format).expect_err(format);
            assert_eq!(error.kind(), kind, "{format}");
            let told = error.hint().unwrap_or_default();
            assert!(told.contains(hint), "{format}: {told}");
        }
        assert!(registry.source("Rate").is_ok());
        assert!(registry.sink("noop").is_ok());
    }
}
