//! The schema of the files that are there at the start, when `schemaInference` asks for it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::execution::SessionState;
use highwater_core::{Error, Result};
use object_store::{ObjectMeta, ObjectStoreExt};

use super::format::Format;
use super::listing::ListedFile;
use super::location::Location;

/// What DataFusion infers, with the types that DDL would give.
///
/// # Errors
/// `Invalid` when there is no file to look into, or the files cannot be read.
pub(super) async fn infer(
    format: &Format,
    files: &[ListedFile],
    location: &Location,
    session: &SessionState,
) -> Result<SchemaRef> {
    if files.is_empty() {
        return Err(Error::invalid(format!(
            "the schema of `{}` cannot be inferred: there is no file yet",
            location.display
        ))
        .with_condition("UNABLE_TO_INFER_SCHEMA")
        .with_hint("give the schema"));
    }
    let mut metas: Vec<ObjectMeta> = Vec::with_capacity(files.len());
    for file in files {
        metas.push(location.store.head(&file.path).await?);
    }
    let reader: Arc<dyn FileFormat> = match format {
        Format::Csv(csv) => Arc::new(
            CsvFormat::default()
                .with_has_header(csv.header)
                .with_delimiter(csv.sep)
                .with_quote(csv.quote)
                .with_escape(csv.escape)
                .with_comment(csv.comment),
        ),
        Format::Json(_) => Arc::new(JsonFormat::default()),
        Format::Parquet | Format::Text(_) => Arc::new(ParquetFormat::default()),
    };
    let inferred = reader
        .infer_schema(session, &location.store, &metas)
        .await?;
    let fields = inferred.fields().iter().map(plain);
    Ok(Arc::new(Schema::new(fields.collect::<Fields>())))
}

/// The field with the types that DDL gives, in microseconds and with string views, and nullable.
fn plain(field: &FieldRef) -> FieldRef {
    let data_type = plain_type(field.data_type());
    Arc::new(Field::new(field.name(), data_type, true))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        DataType::Null => DataType::Utf8View,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        DataType::List(item) | DataType::LargeList(item) => DataType::List(plain(item)),
        DataType::Dictionary(_, values) => plain_type(values),
        other => other.clone(),
    }
}
