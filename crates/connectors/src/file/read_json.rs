//! Lines of JSON, by the reader that DataFusion uses (arrow's), a block at a time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use highwater_core::{Error, Result};

use super::blocks::{Block, Cut};
use super::drift;
use super::format_options::JsonSourceOptions;
use super::json_scan::{self, Names};
use super::layout::{Layout, ReadPlan};
use super::rows::{RowReader, RowShape};
use super::tolerant_json;

/// The reader of one request.
#[derive(Debug)]
pub(super) struct JsonReader {
    shape: RowShape,
    /// The columns that are decoded.
    decoded: SchemaRef,
    names: Names,
    batch_size: usize,
}

impl JsonReader {
    /// A reader of `layout`'s files for `plan`.
    ///
    /// # Errors
    /// `Internal` when the plan names a column that is not there.
    pub(super) fn new(
        options: &JsonSourceOptions,
        layout: &Layout,
        plan: &ReadPlan,
        batch_size: usize,
    ) -> Result<Self> {
        let corrupt = layout
            .schema
            .fields()
            .iter()
            .find(|field| *field.name() == options.column_name_of_corrupt_record);
        let shape = RowShape::new(&layout.file_schema, plan, options.mode, corrupt);
        let decoded = if shape.judges_rows() {
            Arc::clone(&shape.file)
        } else if shape.wanted.is_empty() {
            // Rows are only counted; without any column they could not be.
            Arc::new(shape.file.project(&[0])?)
        } else {
            Arc::new(shape.file.project(&shape.wanted)?)
        };
        Ok(Self {
            names: Names::new(&decoded),
            shape,
            decoded,
            batch_size,
        })
    }

    /// What is asked for.
    pub(super) fn shape(&self) -> &RowShape {
        &self.shape
    }

    /// The columns that are decoded.
    pub(super) fn decoded(&self) -> &SchemaRef {
        &self.decoded
    }

    /// The most rows in a batch.
    pub(super) fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Decodes; it fails on the first line that is not as it should be.
    pub(super) fn strict(
        &self,
        bytes: &[u8],
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        self.run(bytes, schema, false)
    }

    /// Decodes valid objects into one batch; a value of another type is null.
    pub(super) fn lenient(&self, bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
        let batches = self.run(bytes, &self.decoded, true)?;
        concat_batches(&self.decoded, &batches)
    }

    fn run(
        &self,
        bytes: &[u8],
        schema: &SchemaRef,
        lenient: bool,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        // A line has at least three bytes, so short files need no large buffers.
        let most = bytes.len() / 3 + 1;
        let mut decoder = ReaderBuilder::new(Arc::clone(schema))
            .with_batch_size(self.batch_size.min(most))
            .with_coerce_primitive(true)
            .with_ignore_type_conflicts(lenient)
            .build_decoder()?;
        let mut rest = bytes;
        let mut batches = Vec::new();
        loop {
            let read = decoder.decode(rest)?;
            rest = &rest[read..];
            match decoder.flush()? {
                Some(batch) => batches.push(batch),
                None => return Ok(batches),
            }
        }
    }
}

impl RowReader for JsonReader {
    fn cut(&self) -> Cut {
        Cut::After(vec![b'\n'])
    }

    fn decode(&self, block: &Block, file: &str) -> Result<Vec<RecordBatch>> {
        if let Some(spelling) = json_scan::scan(&block.bytes, &self.names) {
            let schema = json_scan::respell(&self.decoded, &spelling);
            if let Ok(batches) = self.strict(&block.bytes, &schema) {
                return batches
                    .into_iter()
                    .map(|batch| self.shape.give(&self.rename(batch, &spelling)?, None))
                    .collect();
            }
        }
        tolerant_json::decode(self, block, file)
    }
}

impl JsonReader {
    /// Gives the columns the schema's names back.
    fn rename(&self, batch: RecordBatch, spelling: &json_scan::Spelling) -> Result<RecordBatch> {
        if spelling.is_empty() {
            return Ok(batch);
        }
        let columns = batch
            .columns()
            .iter()
            .zip(self.decoded.fields())
            .map(|(column, field)| drift::rename(column, field.data_type()))
            .collect::<Result<Vec<_>, ArrowError>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.decoded), columns)?)
    }
}

/// Refuses columns whose type arrow's JSON reader cannot decode.
///
/// # Errors
/// `Unsupported`, naming the column.
pub(super) fn check_types(schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        let alone = Arc::new(Schema::new(vec![Arc::clone(field)]));
        ReaderBuilder::new(alone).build_decoder().map_err(|e| {
            Error::unsupported(format!(
                "column `{}` is {}, which cannot be read from JSON",
                field.name(),
                field.data_type()
            ))
            .with_column(field.name())
            .with_source(e)
        })?;
    }
    Ok(())
}
