//! The same files as a static table: what a batch query sees of them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, stream};
use highwater_core::{
    Clock, Error, OffsetRange, Options, ReadRequest, Result, Source, SourceSpec, Timestamp,
};

use super::bad::Ledger;
use super::committed::Mark;
use super::listing::Found;
use super::log::{FileOffset, LoggedFile};
use super::open::Opening;
use super::sink_log;
use super::source::{FileStreamSource, Shared};

/// The files of a path as a DataFusion table: those that are there when a query is planned.
///
/// Format, options, columns and rows are those of the file source. Of a directory that a file sink wrote it reads
/// exactly the files that the sink's log names.
pub struct FileTable {
    format: String,
    path: String,
    options: Options,
    partition_by: Vec<String>,
    /// The directory is a sink's, and the schema was given.
    of_sink: bool,
    shared: Arc<Shared>,
}

impl FileTable {
    /// The files of `spec`. Without a schema it is inferred from them; the columns of CSV are then strings, unless
    /// `inferSchema` is set (Spark).
    ///
    /// # Errors
    /// `Invalid` for a wrong format, path, option or schema.
    pub async fn open(spec: SourceSpec) -> Result<Self> {
        Self::with(spec, &[], false).await
    }

    /// The directory of a file sink, which need not exist yet: the schema of `spec` is given, and `partition_by` of its columns are
    /// written in the path.
    ///
    /// # Errors
    /// `Invalid` for a wrong format, path, option or schema.
    pub async fn of_sink(spec: SourceSpec, partition_by: &[String]) -> Result<Self> {
        Self::with(spec, partition_by, true).await
    }

    async fn with(spec: SourceSpec, partition_by: &[String], of_sink: bool) -> Result<Self> {
        let mut options = spec.options.clone();
        let named = options.take_str("path");
        let path = spec.path.clone().or(named).unwrap_or_default();
        let format = known(&spec.format)?;
        let opening = if of_sink {
            Opening::Table(partition_by)
        } else {
            Opening::Batch
        };
        let shared = opening.open(format, spec).await?;
        Ok(Self {
            format: format.to_owned(),
            path,
            options,
            partition_by: shared
                .layout
                .partitions
                .iter()
                .map(|field| field.name().clone())
                .collect(),
            of_sink,
            shared: Arc::new(shared),
        })
    }

    /// `csv`, `json`, `parquet` or `text`.
    #[must_use]
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The path or URL, as it was given.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The options it was opened with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The columns that are written in the path.
    #[must_use]
    pub fn partition_by(&self) -> &[String] {
        &self.partition_by
    }

    /// True for the directory of a sink.
    #[must_use]
    pub fn is_of_sink(&self) -> bool {
        self.of_sink
    }

    /// True when a file sink has begun to write here: the log says which files count.
    ///
    /// # Errors
    /// What the store says.
    pub async fn has_log(&self) -> Result<bool> {
        let found = self.shared.lister.look_for_log().await?;
        Ok(!matches!(found, Found::Files(_)))
    }

    /// How many files there are now: in the log of a sink, or without one in the folder.
    ///
    /// # Errors
    /// What the store says.
    pub async fn count_files(&self) -> Result<usize> {
        Ok(match self.shared.lister.look_for_log().await? {
            Found::Files(files) => files.len(),
            Found::Log(log) => log.current().len(),
            Found::SameLog => 0,
        })
    }

    /// A number that is another one when the files are others: their names, sizes, times of change, or tags of the store.
    ///
    /// # Errors
    /// What the store says.
    pub async fn version(&self) -> Result<u64> {
        let mut hash = DefaultHasher::new();
        for file in self.shared.lister.list().await? {
            (file.path.as_ref(), file.size, file.modified, &file.etag).hash(&mut hash);
        }
        Ok(hash.finish())
    }

    /// Makes the directory of the sink's log, where the store knows of empty ones: from now on the log says which files count.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be made.
    pub async fn prepare(&self) -> Result<()> {
        let location = self.shared.lister.location();
        location.make_folder(sink_log::FOLDER).await
    }

    /// The same files as a stream, with the same columns; `options` are those of the file source, beside the table's own.
    ///
    /// # Errors
    /// As for the file source.
    pub async fn stream(
        &self,
        options: Options,
        clock: Arc<dyn Clock>,
        session: Arc<SessionState>,
    ) -> Result<Arc<dyn Source>> {
        let mut spec = SourceSpec::new(self.format.clone(), Arc::clone(&clock), session);
        spec.path = Some(self.path.clone());
        spec.schema = Some(self.given()?);
        spec.options = self.options.clone();
        spec.options.extend(options);
        let opening = if self.of_sink {
            Opening::Table(&self.partition_by)
        } else {
            Opening::Stream
        };
        let shared = opening.open(known(&self.format)?, spec).await?;
        Ok(Arc::new(FileStreamSource::new(Arc::new(shared), clock)))
    }

    /// The columns without `_metadata`, which the option adds.
    fn given(&self) -> Result<SchemaRef> {
        let schema = self.schema();
        if !self.shared.options.metadata_column {
            return Ok(schema);
        }
        let columns: Vec<usize> = (0..schema.fields().len().saturating_sub(1)).collect();
        Ok(Arc::new(schema.project(&columns)?))
    }

    /// The files of now, in `parts` lists of about the same length.
    async fn files(&self, parts: usize) -> Result<Vec<Vec<LoggedFile>>> {
        let location = self.shared.lister.location();
        let files = self.shared.lister.list().await?;
        let length = files.len().div_ceil(parts.max(1)).max(1);
        let files = files.into_iter().map(|file| {
            let mark = Mark::of(&file);
            LoggedFile::new(file, location, mark)
        });
        let files: Vec<LoggedFile> = files.collect();
        Ok(files.chunks(length).map(<[_]>::to_vec).collect())
    }
}

impl fmt::Debug for FileTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTable")
            .field("format", &self.format)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shared.layout.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema().project(columns)?),
            None => self.schema(),
        };
        let parts = self.files(state.config().target_partitions()).await?;
        let parts = parts.into_iter().map(|files| {
            Arc::new(Part {
                shared: Arc::clone(&self.shared),
                schema: Arc::clone(&schema),
                projection: projection.cloned(),
                filters: filters.to_vec(),
                files,
            }) as Arc<dyn PartitionStream>
        });
        let parts = parts.collect();
        let scan = StreamingTableExec::try_new(schema, parts, None, [], false, None)?;
        Ok(Arc::new(scan))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// Some of the files, one after the other.
struct Part {
    shared: Arc<Shared>,
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
    filters: Vec<Expr>,
    files: Vec<LoggedFile>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        f.debug_struct("Part")
            .field("files", &files)
            .finish_non_exhaustive()
    }
}

impl Part {
    fn streams(&self, task: Arc<TaskContext>) -> Result<Vec<SendableRecordBatchStream>> {
        let request = ReadRequest {
            range: OffsetRange::new(FileOffset::at(-1)?, FileOffset::at(0)?),
            projection: self.projection.clone(),
            filters: self.filters.clone(),
            batch_time: Timestamp::default(),
            task,
        };
        let ledger = Arc::new(Ledger::default());
        self.shared.streams(self.files.clone(), &request, &ledger)
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = match self.streams(task) {
            Ok(streams) => stream::iter(streams).flatten().boxed(),
            Err(error) => stream::iter([Err(DataFusionError::from(error))]).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            batches,
        ))
    }
}

fn known(format: &str) -> Result<&'static str> {
    let formats = ["csv", "json", "parquet", "text"].into_iter();
    let mut same = formats.filter(|known| known.eq_ignore_ascii_case(format.trim()));
    same.next().ok_or_else(|| {
        Error::invalid(format!(
            "unknown format `{format}`: it is no format of files"
        ))
        .with_condition("DATA_SOURCE_NOT_FOUND")
        .with_option("format")
        .with_hint("the formats of files are csv, json, parquet and text")
    })
}
