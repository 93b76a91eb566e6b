//! Files as a source: `csv`, `json` (a JSON object a line), `parquet` and `text`.
//!
//! ```text
//!  load(path) ─► location ─► listing ─► seen? ─► admission ─► log     latest_offset: which files come next
//!                                                              │
//!            layout ◄── format: csv · json · text · parquet ◄──┘      read: their rows, in that order
//! ```
//!
//! New files are found by listing the path; each is read once, in the order (modification time, path).
//! Which files an offset stands for is written to the source's own log before the query logs the offset,
//! so that a micro-batch that runs again reads the same files; a file that is gone or has changed by then
//! is an error that names it.
//!
//! **Architecture invariant:** rows come from the readers that DataFusion uses. The tolerant readers
//! (`tolerant_csv`, `tolerant_json`) see a block of a file only after the strict one refused it, and
//! nothing of a block is handed on before all of it is decoded: no row comes out twice.
//!
//! Reading order: `source`, `location`, `listing`, `seen`, `admission`, `log`, `layout`,
//! `format`, `blocks`, `rows`, then the readers.

mod admission;
mod blocks;
mod cells;
mod clean;
mod drift;
mod format;
mod format_options;
mod infer;
mod json_scan;
mod layout;
mod listing;
mod location;
mod log;
mod options;
mod partitions;
mod read_csv;
mod read_json;
mod read_parquet;
mod read_text;
mod rows;
mod seen;
mod source;
mod tolerant_csv;
mod tolerant_json;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use highwater_core::{Error, Result, Source, SourceProvider, SourceSpec};

pub use format_options::{
    CsvSourceOptions, JsonSourceOptions, ParquetSourceOptions, TextSourceOptions,
};
pub use options::{CleanSource, FileSourceOptions, ParseMode};

use clean::Cleaner;
use format::Format;
use layout::Layout;
use listing::Lister;
use location::Location;
use source::{FileStreamSource, Shared};

macro_rules! providers {
    ($($provider:ident $format:literal $doc:literal)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $provider;

        #[async_trait]
        impl SourceProvider for $provider {
            fn format(&self) -> &str {
                $format
            }

            async fn open(&self, spec: SourceSpec) -> Result<Arc<dyn Source>> {
                open($format, spec).await
            }
        }
    )*};
}
providers! {
    CsvProvider "csv" "CSV files: columns by position, see [`CsvSourceOptions`]."
    JsonProvider "json" "Files with a JSON object a line, see [`JsonSourceOptions`]."
    ParquetProvider "parquet" "Parquet files, see [`ParquetSourceOptions`]."
    TextProvider "text" "Text files: a column `value`, see [`TextSourceOptions`]."
}

/// Opens a file source of format `name`.
async fn open(name: &'static str, spec: SourceSpec) -> Result<Arc<dyn Source>> {
    let mut options = spec.options;
    let path = options.take_str("path");
    let (format, files) = Format::take(name, &mut options)?;
    let path = spec.path.or(path).ok_or_else(|| {
        Error::invalid(format!("source `{name}` needs a path"))
            .with_option("path")
            .with_hint("give one with `load(path)`")
    })?;
    let runtime = spec.session.runtime_env();
    let location = Location::parse(&path, runtime)?;
    let cleaner = Cleaner::new(&files.clean_source, &location, runtime)?;
    let base_path = match &files.base_path {
        Some(base) => Some(base_of(base, &location, &Location::parse(base, runtime)?)?),
        None => None,
    };
    let mut lister = Lister::open(location, &files).await?;
    let (layout, look_below) = {
        let found = lister.list().await?;
        let given = spec.schema.or_else(|| format.own_schema());
        let partitions = if files.recursive_file_lookup {
            vec![]
        } else {
            let folders = found
                .iter()
                .map(|file| lister.folders(&file.path, base_path.as_ref()));
            partitions::discover(&folders.collect::<Vec<_>>(), given.as_ref())?
        };
        let data: SchemaRef = match given {
            Some(schema) => schema,
            None if files.schema_inference => {
                infer::infer(&format, &found, lister.location(), &spec.session).await?
            }
            None => return Err(no_schema(name)),
        };
        // Without a file it is too early to say: partitions that come later must not go unnoticed.
        let look_below = !partitions.is_empty() || found.is_empty();
        let corrupt = format.corrupt_column();
        let layout = Layout::new(&data, partitions, corrupt, files.metadata_column)?;
        (layout, look_below)
    };
    format.check(&layout.file_schema)?;
    lister.set_partitioned(look_below);
    let base = lister.location();
    let shared = Shared {
        description: format!("FileStreamSource[{}]", base.shown()),
        format,
        options: files,
        layout,
        cleaner,
        base_path,
        lister,
    };
    Ok(Arc::new(FileStreamSource::new(
        Arc::new(shared),
        spec.clock,
    )))
}

fn no_schema(name: &str) -> Error {
    Error::invalid(format!("source `{name}` needs a schema")).with_hint(
        "give one with `schema(\"id BIGINT, name STRING\")`, or set `schemaInference` to true",
    )
}

fn base_of(text: &str, location: &Location, base: &Location) -> Result<object_store::path::Path> {
    let inside = base.url == location.url && location.base.prefix_matches(&base.base);
    if base.is_glob() || !inside {
        return Err(Error::invalid(format!(
            "option `basePath` is `{text}`: it must be a folder above `{}`",
            location.display
        ))
        .with_option("basePath"));
    }
    Ok(base.base.clone())
}

#[cfg(test)]
mod tests;
