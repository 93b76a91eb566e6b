//! What row formats (csv, json, text) have in common: blocks in, batches out, one stream a file.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use highwater_core::{Error, Result};
use object_store::ObjectStoreExt;

use super::blocks::{Block, Blocks, Cut, newlines};
use super::layout::{Constants, ReadPlan};
use super::location::Location;
use super::log::LoggedFile;
use super::options::ParseMode;

/// Decodes the blocks of one row format, for one request.
pub(super) trait RowReader: Debug + Send + Sync {
    /// Where files may be cut into blocks.
    fn cut(&self) -> Cut;

    /// The rows of a block: the columns that the request's plan wants decoded.
    ///
    /// # Errors
    /// `Corrupt`, naming the file and the line, when a row is malformed and the mode is FAILFAST.
    fn decode(&self, block: &Block, file: &str) -> Result<Vec<RecordBatch>>;
}

/// A file that is to be read.
#[derive(Debug)]
pub(super) struct FileRead {
    /// The file.
    pub(super) file: LoggedFile,
    /// Its partition values and metadata.
    pub(super) constants: Constants,
}

/// The rows of one file; nothing is opened before the first poll.
pub(super) fn stream(
    read: FileRead,
    location: &Location,
    reader: &Arc<dyn RowReader>,
    plan: &Arc<ReadPlan>,
) -> SendableRecordBatchStream {
    let schema = Arc::clone(&plan.schema);
    let rows = Rows {
        read,
        location: location.clone(),
        reader: Arc::clone(reader),
        plan: Arc::clone(plan),
        blocks: None,
        ready: VecDeque::new(),
    };
    let batches = stream::unfold(Some(rows), |rows| async move {
        let mut rows = rows?;
        match rows.next().await {
            Ok(Some(batch)) => Some((Ok(batch), Some(rows))),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), None)),
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches.boxed()))
}

struct Rows {
    read: FileRead,
    location: Location,
    reader: Arc<dyn RowReader>,
    plan: Arc<ReadPlan>,
    blocks: Option<Blocks>,
    ready: VecDeque<RecordBatch>,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return self.plan.assemble(&batch, &self.read.constants).map(Some);
            }
            if self.blocks.is_none() {
                self.blocks = Some(self.open().await?);
            }
            let Some(blocks) = &mut self.blocks else {
                return Ok(None);
            };
            let file = &self.read.file.path;
            let block = blocks
                .next()
                .await
                .map_err(|e| e.context(format_args!("file {file}")))?;
            let Some(block) = block else {
                return Ok(None);
            };
            if self.plan.utf8_only {
                must_be_utf8(&block, file)?;
            }
            let batches = self.reader.decode(&block, file)?;
            self.ready
                .extend(batches.into_iter().filter(|batch| batch.num_rows() > 0));
        }
    }

    async fn open(&mut self) -> Result<Blocks> {
        let file = &self.read.file;
        let path = self.location.path_of(&file.path)?;
        let result = self
            .location
            .store
            .get(&path)
            .await
            .map_err(|e| file.gone(e))?;
        file.check(&result.meta, &self.location)?;
        Ok(Blocks::new(result, self.reader.cut()))
    }
}

fn must_be_utf8(block: &Block, file: &str) -> Result<()> {
    match std::str::from_utf8(&block.bytes) {
        Ok(_) => Ok(()),
        Err(e) => {
            let line = block.line + newlines(&block.bytes[..e.valid_up_to()]);
            Err(Error::corrupt(format!("file {file}, line {line}: it is not UTF-8")).with_source(e))
        }
    }
}

/// What a row reader decodes, and what it gives: the part of a plan that csv and json share.
#[derive(Clone, Debug)]
pub(super) struct RowShape {
    /// All columns of the file.
    pub(super) file: SchemaRef,
    /// The columns wanted, by their number in `file`.
    pub(super) wanted: Vec<usize>,
    /// The corrupt-record column is wanted after them.
    pub(super) corrupt: bool,
    /// What happens to a malformed row.
    pub(super) mode: ParseMode,
    /// The wanted columns, and the corrupt-record column.
    given: SchemaRef,
}

impl RowShape {
    /// The shape of `plan`; `corrupt` is the type of the corrupt-record column, where the schema has one.
    pub(super) fn new(
        file: &SchemaRef,
        plan: &ReadPlan,
        mode: ParseMode,
        corrupt: Option<&FieldRef>,
    ) -> Self {
        let mut fields: Vec<FieldRef> = plan
            .file_columns
            .iter()
            .map(|column| Arc::clone(&file.fields()[*column]))
            .collect();
        if let Some(corrupt) = corrupt.filter(|_| plan.corrupt) {
            fields.push(Arc::clone(corrupt));
        }
        Self {
            file: Arc::clone(file),
            wanted: plan.file_columns.clone(),
            corrupt: plan.corrupt,
            mode,
            given: Arc::new(Schema::new(fields)),
        }
    }

    /// True when every column must be parsed, wanted or not, to know which rows are malformed.
    ///
    /// So the rows that a query sees do not depend on the columns that it asks for.
    pub(super) fn judges_rows(&self) -> bool {
        self.corrupt || self.mode != ParseMode::Permissive
    }

    /// Makes a batch of what was decoded: all columns of the file, or the wanted ones.
    ///
    /// `raw` holds the text of each malformed row, null for the others; none when no row is malformed.
    ///
    /// # Errors
    /// `Internal` when a column is not of its type.
    pub(super) fn give(
        &self,
        decoded: &RecordBatch,
        raw: Option<StringArray>,
    ) -> Result<RecordBatch> {
        let rows = decoded.num_rows();
        let all = decoded.num_columns() == self.file.fields().len() && self.judges_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.given.fields().len());
        for (place, number) in self.wanted.iter().enumerate() {
            let column = decoded.column(if all { *number } else { place });
            columns.push(as_type(column, &self.given.fields()[place])?);
        }
        if self.corrupt {
            let field = &self.given.fields()[self.wanted.len()];
            columns.push(match raw {
                Some(raw) => as_type(&(Arc::new(raw) as ArrayRef), field)?,
                None => new_null_array(field.data_type(), rows),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.given), columns, &options)
            .map_err(|e| Error::internal("decoded rows do not fit the schema").with_source(e))
    }
}

fn as_type(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    cast(column, field.data_type())
        .map_err(|e| Error::from(e).context(format_args!("column `{}`", field.name())))
}

/// The error for a malformed row under FAILFAST.
pub(super) fn malformed(file: &str, line: u64, why: &str) -> Error {
    Error::corrupt(format!("file {file}, line {line}: {why}"))
        .with_condition("MALFORMED_RECORD_IN_PARSING")
        .with_hint("mode PERMISSIVE reads bad fields as null, DROPMALFORMED leaves the row out")
}
