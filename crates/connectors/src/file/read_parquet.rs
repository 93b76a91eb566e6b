//! Parquet, by DataFusion's own scan: projection, row-group and page pruning, the session's settings.
//!
//! The footer is read first, through the session's metadata cache, so that the file's own schema can be
//! compared with ours before a row is decoded; the scan then finds the footer in the cache.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::conjunction;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use highwater_core::{Error, Result};
use object_store::{ObjectMeta, ObjectStoreExt};

use super::drift;
use super::layout::ReadPlan;
use super::location::Location;
use super::rows::FileRead;

/// What the streams of one request share.
#[derive(Debug)]
pub(super) struct ParquetReader {
    location: Location,
    file_schema: SchemaRef,
    plan: Arc<ReadPlan>,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    task: Arc<TaskContext>,
}

impl ParquetReader {
    /// A reader of files in `location`; `filters` that the reader cannot use are left out.
    pub(super) fn new(
        location: &Location,
        file_schema: &SchemaRef,
        plan: &Arc<ReadPlan>,
        filters: &[Expr],
        task: &Arc<TaskContext>,
    ) -> Self {
        Self {
            location: location.clone(),
            file_schema: Arc::clone(file_schema),
            plan: Arc::clone(plan),
            predicate: predicate(filters, file_schema),
            task: Arc::clone(task),
        }
    }

    /// The rows of one file; nothing is opened before the first poll.
    pub(super) fn stream(self: &Arc<Self>, read: FileRead) -> SendableRecordBatchStream {
        let reader = Arc::clone(self);
        let batches =
            stream::once(async move { reader.open(read).await.map_err(DataFusionError::from) });
        let schema = Arc::clone(&self.plan.schema);
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            batches.try_flatten().boxed(),
        ))
    }

    async fn open(self: Arc<Self>, read: FileRead) -> Result<SendableRecordBatchStream> {
        let file = &read.file;
        let store = &self.location.store;
        let path = self.location.path_of(&file.path)?;
        let meta = store.head(&path).await.map_err(|e| file.gone(e))?;
        file.check(&meta, &self.location)?;
        let found = self.footer(&meta, &file.path).await?;
        let aligned = drift::align(&self.file_schema, &found, &file.path)?;
        let rows = self.scan(meta, &aligned)?;
        let schema = Arc::clone(&self.plan.schema);
        let batches = rows.map(move |rows| {
            let rows =
                rows.map_err(|e| Error::from(e).context(format_args!("file {}", read.file.path)))?;
            let rows = self.renamed(&rows)?;
            Ok(self.plan.assemble(&rows, &read.constants)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// The schema in the file's footer.
    async fn footer(&self, meta: &ObjectMeta, file: &str) -> Result<Schema> {
        let cache = self
            .task
            .runtime_env()
            .cache_manager
            .get_file_metadata_cache();
        let damaged = |e: DataFusionError| {
            Error::corrupt(format!("file {file} has no readable Parquet footer"))
                .with_hint(
                    "write it under a name that begins with `_`, and rename it when it is complete",
                )
                .with_source(e)
        };
        let metadata = DFParquetMetadata::new(&*self.location.store, meta)
            .with_file_metadata_cache(Some(cache))
            .fetch_metadata()
            .await
            .map_err(damaged)?;
        let metadata = metadata.file_metadata();
        parquet_to_arrow_schema(metadata.schema_descr(), metadata.key_value_metadata())
            .map_err(|e| damaged(e.into()))
    }

    fn scan(&self, meta: ObjectMeta, aligned: &SchemaRef) -> Result<SendableRecordBatchStream> {
        let runtime = self.task.runtime_env();
        let factory = CachedParquetFileReaderFactory::new(
            Arc::clone(&self.location.store),
            runtime.cache_manager.get_file_metadata_cache(),
        );
        let session = self.task.session_config();
        let options = TableParquetOptions {
            global: session.options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let mut source = ParquetSource::new(Arc::clone(aligned))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(factory));
        let types = |schema: &SchemaRef| -> Vec<_> {
            let fields = schema.fields().iter();
            fields.map(|field| field.data_type().clone()).collect()
        };
        // Names inside a column may be literals in the predicate: those are not respelled.
        if let Some(predicate) = &self.predicate
            && types(aligned) == types(&self.file_schema)
        {
            source = source.with_predicate(respell(predicate, aligned)?);
        }
        let config = FileScanConfigBuilder::new(self.location.url.clone(), Arc::new(source))
            .with_file(PartitionedFile::new_from_meta(meta))
            .with_projection_indices(Some(self.plan.file_columns.clone()))?
            .with_batch_size(Some(session.batch_size()))
            .build();
        Ok(DataSourceExec::from_data_source(config).execute(0, Arc::clone(&self.task))?)
    }

    /// Gives the columns the schema's names back.
    fn renamed(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let fields = self.file_schema.project(&self.plan.file_columns)?;
        let columns = rows
            .columns()
            .iter()
            .zip(fields.fields())
            .map(|(column, field)| drift::rename(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::new(fields),
            columns,
            &options,
        )?)
    }
}

/// The filters that read columns of the file only, as one predicate.
fn predicate(filters: &[Expr], file_schema: &SchemaRef) -> Option<Arc<dyn PhysicalExpr>> {
    let in_file = |filter: &&Expr| {
        let mut columns = filter.column_refs().into_iter();
        !filter.is_volatile()
            && columns.all(|column| file_schema.field_with_name(column.name()).is_ok())
    };
    let usable = filters.iter().filter(in_file).cloned().map(unnormalize_col);
    let filter = conjunction(usable)?;
    let schema = DFSchema::try_from(Arc::clone(file_schema)).ok()?;
    create_physical_expr(
        &filter,
        &schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .ok()
}

/// Columns are found by name: the predicate takes over the file's spelling.
fn respell(
    predicate: &Arc<dyn PhysicalExpr>,
    aligned: &SchemaRef,
) -> Result<Arc<dyn PhysicalExpr>> {
    let respelled = Arc::clone(predicate).transform(|expr| {
        let Some(column) = expr.downcast_ref::<Column>() else {
            return Ok(Transformed::no(expr));
        };
        let name = aligned.field(column.index()).name();
        let column = Column::new(name, column.index());
        Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
    })?;
    Ok(respelled.data)
}
