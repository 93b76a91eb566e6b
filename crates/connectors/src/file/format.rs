//! The four formats: which reader reads which, and what a schema may hold in each.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use highwater_core::{Error, Options, ReadRequest, Result};

use super::format_options::{
    CsvSourceOptions, JsonSourceOptions, ParquetSourceOptions, TextSourceOptions,
};
use super::layout::{Layout, ReadPlan};
use super::location::Location;
use super::options::FileSourceOptions;
use super::read_csv::{self, CsvReader};
use super::read_json::{self, JsonReader};
use super::read_parquet::ParquetReader;
use super::read_text::{self, TextReader};
use super::rows::{self, FileRead, RowReader};

/// A format and its options.
#[derive(Clone, Debug)]
pub(super) enum Format {
    /// `csv`
    Csv(Arc<CsvSourceOptions>),
    /// `json`
    Json(JsonSourceOptions),
    /// `parquet`
    Parquet,
    /// `text`
    Text(TextSourceOptions),
}

impl Format {
    /// The format `name` and the shared options; every option must be taken.
    ///
    /// # Errors
    /// `Invalid`, naming the option that is wrong or unknown.
    pub(super) fn take(name: &str, options: &mut Options) -> Result<(Self, FileSourceOptions)> {
        let (format, files) = match name {
            "csv" => {
                let csv = CsvSourceOptions::take(options)?;
                let files = csv.files.clone();
                (Self::Csv(Arc::new(csv)), files)
            }
            "json" => {
                let json = JsonSourceOptions::take(options)?;
                let files = json.files.clone();
                (Self::Json(json), files)
            }
            "parquet" => (Self::Parquet, ParquetSourceOptions::take(options)?.files),
            _ => {
                let text = TextSourceOptions::take(options)?;
                let files = text.files.clone();
                (Self::Text(text), files)
            }
        };
        options.finish(&format!("source `{name}`"))?;
        Ok((format, files))
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Csv(_) => "csv",
            Self::Json(_) => "json",
            Self::Parquet => "parquet",
            Self::Text(_) => "text",
        }
    }

    /// The schema without one of the user's, where the format has one.
    pub(super) fn own_schema(&self) -> Option<SchemaRef> {
        matches!(self, Self::Text(_)).then(read_text::schema)
    }

    /// The name of the corrupt-record column, where the format has one.
    pub(super) fn corrupt_column(&self) -> Option<&str> {
        match self {
            Self::Csv(csv) => Some(&csv.column_name_of_corrupt_record),
            Self::Json(json) => Some(&json.column_name_of_corrupt_record),
            Self::Parquet | Self::Text(_) => None,
        }
    }

    /// Refuses columns that files of the format cannot have.
    ///
    /// # Errors
    /// Naming the column.
    pub(super) fn check(&self, file_schema: &SchemaRef) -> Result<()> {
        if file_schema.fields().is_empty() {
            return Err(Error::invalid(
                "the schema has no column that is in the files",
            ));
        }
        match self {
            Self::Csv(_) => read_csv::check_types(file_schema),
            Self::Json(_) => read_json::check_types(file_schema),
            Self::Text(_) => read_text::check_types(file_schema),
            Self::Parquet => Ok(()),
        }
    }

    /// One stream for each file, in their order.
    ///
    /// # Errors
    /// When the request asks for what is not there.
    pub(super) fn streams(
        &self,
        reads: Vec<FileRead>,
        location: &Location,
        layout: &Layout,
        plan: &Arc<ReadPlan>,
        request: &ReadRequest,
    ) -> Result<Vec<SendableRecordBatchStream>> {
        let batch_size = request.task.session_config().batch_size();
        let reader: Arc<dyn RowReader> = match self {
            Self::Csv(csv) => Arc::new(CsvReader::new(csv, layout, plan, batch_size)?),
            Self::Json(json) => Arc::new(JsonReader::new(json, layout, plan, batch_size)?),
            Self::Text(text) => Arc::new(TextReader::new(text, layout, plan, batch_size)?),
            Self::Parquet => {
                let file_schema = &layout.file_schema;
                let reader = ParquetReader::new(
                    location,
                    file_schema,
                    plan,
                    &request.filters,
                    &request.task,
                );
                let reader = Arc::new(reader);
                return Ok(reads.into_iter().map(|read| reader.stream(read)).collect());
            }
        };
        let streams = reads.into_iter();
        Ok(streams
            .map(|read| rows::stream(read, location, &reader, plan))
            .collect())
    }
}
