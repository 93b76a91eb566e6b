//! Which columns the source has, where each comes from, and how a batch is put together.
//!
//! ```text
//!  | columns in the file, by the user's schema (_corrupt_record among them) | partitions | _metadata |
//!    └── decoded ──────────────────────────────────────────────────────────┘ └── the same for all rows of a file ──┘
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::common::scalar::ScalarStructBuilder;
use highwater_core::{Error, Result};

use super::log::LoggedFile;

/// The columns of a file source.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// All columns.
    pub(super) schema: SchemaRef,
    /// The columns that are in the files, without the corrupt-record column.
    pub(super) file_schema: SchemaRef,
    /// The partition columns.
    pub(super) partitions: Vec<FieldRef>,
    origins: Vec<Origin>,
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The column of this number in the file.
    File(usize),
    Corrupt,
    Partition(usize),
    Metadata,
}

impl Layout {
    /// No columns.
    pub(super) fn empty() -> Self {
        Self {
            schema: Arc::new(Schema::empty()),
            file_schema: Arc::new(Schema::empty()),
            partitions: vec![],
            origins: vec![],
        }
    }

    /// `data` is the user's schema; partition columns move to its end (Spark), all become nullable.
    ///
    /// # Errors
    /// `Invalid` when the corrupt-record column is no string.
    pub(super) fn new(
        data: &SchemaRef,
        partitions: Vec<FieldRef>,
        corrupt: Option<&str>,
        metadata: bool,
    ) -> Result<Self> {
        let mut fields: Vec<FieldRef> = Vec::new();
        let mut in_file: Vec<FieldRef> = Vec::new();
        let mut origins = Vec::new();
        for field in data.fields() {
            if partitions
                .iter()
                .any(|p| p.name().eq_ignore_ascii_case(field.name()))
            {
                continue;
            }
            let field = nullable(field);
            if corrupt.is_some_and(|corrupt| corrupt == field.name()) {
                check_corrupt(&field)?;
                origins.push(Origin::Corrupt);
            } else {
                origins.push(Origin::File(in_file.len()));
                in_file.push(Arc::clone(&field));
            }
            fields.push(field);
        }
        for (number, column) in partitions.iter().enumerate() {
            origins.push(Origin::Partition(number));
            fields.push(nullable(column));
        }
        if metadata {
            origins.push(Origin::Metadata);
            fields.push(Arc::new(metadata_field()));
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            file_schema: Arc::new(Schema::new(in_file)),
            partitions,
            origins,
        })
    }

    /// What has to be decoded, and how it is put together, to answer `projection`.
    ///
    /// # Errors
    /// `Internal` when the projection names a column that is not there.
    pub(super) fn plan(&self, projection: Option<&[usize]>) -> Result<ReadPlan> {
        let all: Vec<usize> = (0..self.origins.len()).collect();
        let columns = projection.unwrap_or(&all);
        let mut plan = ReadPlan {
            schema: Arc::new(self.schema.project(columns)?),
            file_columns: Vec::new(),
            corrupt: false,
            utf8_only: false,
            slots: Vec::new(),
        };
        for column in columns {
            let slot = match self.origins[*column] {
                Origin::File(number) => {
                    let known = plan.file_columns.iter().position(|c| *c == number);
                    Slot::File(known.unwrap_or_else(|| {
                        plan.file_columns.push(number);
                        plan.file_columns.len() - 1
                    }))
                }
                Origin::Corrupt => {
                    plan.corrupt = true;
                    Slot::Corrupt
                }
                Origin::Partition(number) => Slot::Partition(number),
                Origin::Metadata => Slot::Metadata,
            };
            plan.slots.push(slot);
        }
        Ok(plan)
    }
}

/// One request's columns.
#[derive(Clone, Debug)]
pub(super) struct ReadPlan {
    /// The columns asked for, in their order.
    pub(super) schema: SchemaRef,
    /// The columns of the file that must be decoded, in the order in which decoding gives them.
    pub(super) file_columns: Vec<usize>,
    /// Decoding gives the corrupt-record column after them.
    pub(super) corrupt: bool,
    /// Text that is not UTF-8 is an error; else its odd bytes are read as `U+FFFD` (Spark).
    pub(super) utf8_only: bool,
    slots: Vec<Slot>,
}

/// Where a column asked for is found.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// The decoded column of this number.
    File(usize),
    Corrupt,
    Partition(usize),
    Metadata,
}

impl ReadPlan {
    /// The values that all rows of `file` share.
    ///
    /// # Errors
    /// `Internal` when the metadata cannot be made a value.
    pub(super) fn constants(
        &self,
        file: &LoggedFile,
        partitions: Vec<ScalarValue>,
    ) -> Result<Constants> {
        let wanted = self.slots.iter().any(|slot| matches!(slot, Slot::Metadata));
        let metadata = if wanted {
            Some(metadata_of(file)?)
        } else {
            None
        };
        Ok(Constants {
            partitions,
            metadata,
        })
    }

    /// Puts decoded columns and constants together into the columns asked for.
    ///
    /// # Errors
    /// `Internal` when a decoded column is not of the type of the schema.
    pub(super) fn assemble(
        &self,
        rows: &RecordBatch,
        constants: &Constants,
    ) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let columns = self
            .slots
            .iter()
            .zip(self.schema.fields())
            .map(|(slot, field)| self.column(*slot, field, rows, constants))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(
            |e| Error::internal("a batch of a file does not fit the schema").with_source(e),
        )
    }

    fn column(
        &self,
        slot: Slot,
        field: &Field,
        rows: &RecordBatch,
        constants: &Constants,
    ) -> Result<ArrayRef> {
        let constant = match slot {
            Slot::File(number) => return Ok(Arc::clone(rows.column(number))),
            Slot::Corrupt => return Ok(Arc::clone(rows.column(self.file_columns.len()))),
            Slot::Partition(number) => constants.partitions.get(number),
            Slot::Metadata => constants.metadata.as_ref(),
        };
        let constant = constant.ok_or_else(|| {
            Error::internal("a column of the path has no value").with_column(field.name())
        })?;
        Ok(constant.to_array_of_size(rows.num_rows())?)
    }
}

/// Values that all rows of a file share.
#[derive(Clone, Debug)]
pub(super) struct Constants {
    partitions: Vec<ScalarValue>,
    metadata: Option<ScalarValue>,
}

fn nullable(field: &FieldRef) -> FieldRef {
    if field.is_nullable() {
        return Arc::clone(field);
    }
    Arc::new(field.as_ref().clone().with_nullable(true))
}

fn check_corrupt(field: &Field) -> Result<()> {
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(()),
        other => Err(Error::invalid(format!(
            "the column of corrupt records, `{}`, is {other}; it must be a STRING",
            field.name()
        ))
        .with_column(field.name())),
    }
}

/// `_metadata`: path, name, size and modification time of the file, as Spark has it.
fn metadata_field() -> Field {
    Field::new("_metadata", DataType::Struct(metadata_fields()), true)
}

fn metadata_fields() -> Fields {
    Fields::from(vec![
        Field::new("file_path", DataType::Utf8View, true),
        Field::new("file_name", DataType::Utf8View, true),
        Field::new("file_size", DataType::Int64, true),
        Field::new(
            "file_modification_time",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            true,
        ),
    ])
}

fn metadata_of(file: &LoggedFile) -> Result<ScalarValue> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let values = [
        ScalarValue::Utf8View(Some(file.path.to_string())),
        ScalarValue::Utf8View(Some(name.to_owned())),
        ScalarValue::Int64(Some(i64::try_from(file.size).unwrap_or(i64::MAX))),
        ScalarValue::TimestampMicrosecond(Some(file.timestamp.saturating_mul(1_000)), None),
    ];
    metadata_fields()
        .iter()
        .zip(values)
        .fold(ScalarStructBuilder::new(), |builder, (field, value)| {
            builder.with_scalar(Arc::clone(field), value)
        })
        .build()
        .map_err(Into::into)
}
