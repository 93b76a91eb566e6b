//! The four formats on the writing side: their options, the names of their files, what they can hold.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use highwater_core::{Error, Options, Result};

use super::rows::{self, Lines, cannot_hold};
use crate::file::options::wrong;

/// A format and its options.
#[derive(Clone, Debug)]
pub(super) enum Format {
    /// `parquet`
    Parquet {
        /// The compression, and whatever else the writer is told.
        properties: Box<WriterProperties>,
        /// What the compression adds to the names of files: `.snappy`.
        codec: &'static str,
    },
    /// `csv`, `json`, `text`
    Lines {
        /// What files are called in the end: `.csv`.
        ending: &'static str,
        /// What writes the rows.
        lines: Arc<dyn Lines>,
    },
}

impl Format {
    /// Takes the options of the format `name`.
    ///
    /// # Errors
    /// Naming the option that is wrong or not supported.
    pub(super) fn take(name: &str, options: &mut Options) -> Result<Self> {
        let ending = match name {
            "parquet" => return parquet(options),
            "csv" => ".csv",
            "json" => ".json",
            _ => ".txt",
        };
        let lines = rows::take(name, options)?;
        Ok(Self::Lines { ending, lines })
    }

    /// How the names of files end.
    pub(super) fn ending(&self) -> &'static str {
        match self {
            Self::Parquet { .. } => ".parquet",
            Self::Lines { ending, .. } => ending,
        }
    }

    /// What stands before the ending: `.snappy`.
    pub(super) fn codec(&self) -> &'static str {
        match self {
            Self::Parquet { codec, .. } => codec,
            Self::Lines { .. } => "",
        }
    }

    /// Refuses columns that files of the format cannot have.
    ///
    /// # Errors
    /// Naming the column.
    pub(super) fn check(&self, schema: &SchemaRef) -> Result<()> {
        match self {
            Self::Lines { lines, .. } => lines.check(schema),
            Self::Parquet { properties, .. } => {
                for field in schema.fields() {
                    let alone = Arc::new(Schema::new(vec![Arc::clone(field)]));
                    let writer =
                        ArrowWriter::try_new(Vec::new(), alone, Some(properties.as_ref().clone()));
                    if let Err(e) = writer {
                        return Err(cannot_hold("Parquet", field).with_source(e));
                    }
                    if has_interval(field) {
                        return Err(cannot_hold("Parquet", field));
                    }
                }
                Ok(())
            }
        }
    }
}

/// Arrow's writer takes such a column and fails on its first row.
fn has_interval(field: &Field) -> bool {
    match field.data_type() {
        DataType::Interval(_) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_interval(field)),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_interval(item),
        _ => false,
    }
}

fn parquet(options: &mut Options) -> Result<Format> {
    let asked = options.take_str("compression");
    let asked = asked.as_deref().unwrap_or("snappy");
    let (compression, codec) = match asked.to_ascii_lowercase().as_str() {
        "none" | "uncompressed" => (Compression::UNCOMPRESSED, ""),
        "snappy" => (Compression::SNAPPY, ".snappy"),
        "gzip" => (Compression::GZIP(GzipLevel::default()), ".gz"),
        "lz4" => (Compression::LZ4, ".lz4hadoop"),
        "lz4_raw" | "lz4raw" => (Compression::LZ4_RAW, ".lz4raw"),
        // Spark's level.
        "zstd" => (Compression::ZSTD(zstd_level()?), ".zstd"),
        "brotli" => (Compression::BROTLI(BrotliLevel::default()), ".br"),
        _ => {
            let known = "none, uncompressed, snappy, gzip, lz4, lz4_raw, zstd, brotli";
            return Err(wrong("compression", asked, known));
        }
    };
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_created_by(concat!("highwater ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    Ok(Format::Parquet {
        properties: Box::new(properties),
        codec,
    })
}

fn zstd_level() -> Result<ZstdLevel> {
    ZstdLevel::try_new(3)
        .map_err(|e| Error::internal("zstd has no level 3 any more").with_source(e))
}
