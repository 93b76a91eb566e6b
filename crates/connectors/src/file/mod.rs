//! Files: `csv`, `json` (a JSON object a line), `parquet` and `text`. The sink has a folder of its own, `sink`;
//! the rest is the source.
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
//! A directory that a file sink wrote is exactly what the sink's log names: `committed` has the rules. The same files
//! as a static table are a [`FileTable`].
//!
//! Reading order: `source`, `location`, `listing`, `committed`, `seen`, `admission`, `log`, `layout`,
//! `format`, `blocks`, `rows`, then the readers, `bad`; `open`, `table`.

mod admission;
mod bad;
mod blocks;
mod cells;
mod clean;
mod committed;
mod drift;
mod format;
mod format_options;
mod infer;
mod json_scan;
mod layout;
mod listing;
mod location;
mod log;
mod open;
mod options;
mod partitions;
mod read_csv;
mod read_json;
mod read_parquet;
mod read_text;
mod rows;
mod seen;
mod sink;
mod sink_log;
mod source;
mod table;
mod tolerant_csv;
mod tolerant_json;

use std::sync::Arc;

use async_trait::async_trait;
use highwater_core::{Result, Source, SourceProvider, SourceSpec};

pub use format_options::{
    CsvSourceOptions, JsonSourceOptions, ParquetSourceOptions, TextSourceOptions,
};
pub use options::{CleanSource, FileSourceOptions, ParseMode};
pub use sink::{CsvSinkProvider, JsonSinkProvider, ParquetSinkProvider, TextSinkProvider};
pub use table::FileTable;

use open::Opening;
use source::FileStreamSource;

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
                let clock = Arc::clone(&spec.clock);
                let shared = Opening::Stream.open($format, spec).await?;
                Ok(Arc::new(FileStreamSource::new(Arc::new(shared), clock)))
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

#[cfg(test)]
mod tests;
