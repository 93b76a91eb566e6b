//! Refusals that several connectors share: what has no meaning for a format is refused, not ignored.

use highwater_core::{Error, Options, Result, SinkSpec, SourceSpec};

/// Refuses a path, for formats that read no place.
///
/// # Errors
/// `Invalid` when there is one.
pub(crate) fn source_path(spec: &SourceSpec) -> Result<()> {
    match &spec.path {
        None => Ok(()),
        Some(path) => Err(Error::invalid(format!(
            "source `{}` reads no path, but was given `{path}`",
            spec.format
        ))
        .with_hint("call `load()` without a path")),
    }
}

/// Refuses a schema of the user's, for formats whose columns are fixed (Spark).
///
/// # Errors
/// `Invalid` when there is one.
pub(crate) fn source_schema(spec: &SourceSpec) -> Result<()> {
    match &spec.schema {
        None => Ok(()),
        Some(_) => Err(Error::invalid(format!(
            "source `{}` does not support a user-specified schema",
            spec.format
        ))
        .with_hint("leave `schema` out: the columns of this source are fixed")),
    }
}

/// Refuses Spark's `numPartitions`.
///
/// # Errors
/// `Unsupported` when it is among the options.
pub(crate) fn num_partitions(options: &Options, format: &str) -> Result<()> {
    const NAME: &str = "numPartitions";
    match options.get(NAME) {
        None => Ok(()),
        Some(_) => Err(Error::unsupported(format!(
            "option `{NAME}` of source `{format}`: parallelism is ours to choose"
        ))
        .with_option(NAME)
        .with_hint("leave it out")),
    }
}

/// Refuses `partition_by` and a path, for sinks that lay out no files.
///
/// # Errors
/// `Unsupported` for `partition_by`, `Invalid` for a path.
pub(crate) fn sink_layout(spec: &SinkSpec) -> Result<()> {
    let format = &spec.format;
    if !spec.partition_by.is_empty() {
        return Err(Error::unsupported(format!(
            "partition_by is not supported by sink `{format}`"
        )));
    }
    match &spec.path {
        None => Ok(()),
        Some(path) => Err(Error::invalid(format!(
            "sink `{format}` writes to no path, but was given `{path}`"
        ))
        .with_hint("call `start()` without a path")),
    }
}
