//! The table that a declaration makes: what it was declared to be, and what reading it gives.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::default_table_source::{DefaultTableSource, provider_as_source};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use highwater_connectors::file::FileTable;
use highwater_plan::{StreamTable, nodes};

use crate::{
    DataStreamReader, Error, Interval, Options, Result, Source, SourceSpec, StreamSession,
};

/// What was declared of a table.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    /// Its name, without schema and catalog.
    pub(crate) name: String,
    /// Its format, as it was written.
    pub(crate) format: String,
    /// Its `LOCATION`.
    pub(crate) path: Option<String>,
    /// Its columns, where they are declared.
    pub(crate) columns: Option<SchemaRef>,
    /// Its options.
    pub(crate) options: Options,
    /// The columns that are written in the path.
    pub(crate) partition_by: Vec<String>,
    /// The column of its watermark, and the delay.
    pub(crate) watermark: Option<(String, Interval)>,
    /// It streams when it is named.
    pub(crate) unbounded: bool,
}

impl Declared {
    /// Opens the source, with more options.
    ///
    /// # Errors
    /// What the source says.
    pub(crate) async fn open(
        &self,
        session: &StreamSession,
        more: Options,
    ) -> Result<Arc<dyn Source>> {
        let mut options = self.options.clone();
        options.extend(more);
        let mut reader: DataStreamReader = session.read_stream().format(&self.format);
        if let Some(path) = &self.path {
            reader = reader.path(path);
        }
        if let Some(columns) = &self.columns {
            reader = reader.schema(columns);
        }
        reader.options(options).open_source().await
    }

    /// A stream of the source, with the watermark; `identity` is the source's name in the checkpoint, if one is given.
    ///
    /// # Errors
    /// `Invalid` when the column of the watermark does not fit.
    pub(crate) fn stream(
        &self,
        source: Arc<dyn Source>,
        identity: Option<&str>,
    ) -> Result<LogicalPlan> {
        let plan = stream(&self.name, source, identity)?;
        match &self.watermark {
            Some((column, delay)) => {
                let column = format!("\"{}\"", column.replace('"', "\"\""));
                nodes::watermark(plan, &column, *delay)
            }
            None => Ok(plan),
        }
    }

    /// The directory as the table of a file sink; `None` when the format is none of files.
    ///
    /// # Errors
    /// What the files say.
    pub(crate) async fn sink_table(&self, session: &StreamSession) -> Result<Option<FileTable>> {
        let (Some(columns), true) = (&self.columns, is_of_files(&self.format)) else {
            return Ok(None);
        };
        let mut spec = self.spec(session);
        spec.schema = Some(crate::reader::nullable(columns));
        FileTable::of_sink(spec, &self.partition_by).await.map(Some)
    }

    /// What a batch reads.
    pub(super) fn spec(&self, session: &StreamSession) -> SourceSpec {
        let clock = Arc::clone(session.clock());
        let mut spec = SourceSpec::new(&self.format, clock, session.state_for_files());
        spec.path.clone_from(&self.path);
        spec.schema = self.columns.as_ref().map(|c| crate::reader::nullable(c));
        let options = self.options.iter().filter(|(key, _)| !is_of_streams(key));
        spec.options = options.collect();
        spec
    }
}

/// A scan of `source` under `name`.
///
/// # Errors
/// None that are known.
pub(crate) fn stream(
    name: &str,
    source: Arc<dyn Source>,
    identity: Option<&str>,
) -> Result<LogicalPlan> {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let own: String = name.chars().map(word).collect();
    let named = identity.map_or(own, str::to_owned);
    let table = StreamTable::new(named, source, identity.is_some());
    let source = provider_as_source(Arc::new(table));
    Ok(LogicalPlanBuilder::scan(TableReference::bare(name), source, None)?.build()?)
}

/// True for the formats of files.
pub(crate) fn is_of_files(format: &str) -> bool {
    ["csv", "json", "parquet", "text"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(format))
}

/// True for an option that only says how a stream goes on.
pub(super) fn is_of_streams(key: &str) -> bool {
    const OF_STREAMS: [&str; 9] = [
        "maxfilespertrigger",
        "maxbytespertrigger",
        "latestfirst",
        "maxfileage",
        "filenameonly",
        "cleansource",
        "sourcearchivedir",
        "pollinterval",
        "schemainference",
    ];
    let folded = super::super::cursor::folded(key);
    OF_STREAMS.contains(&folded.as_str())
}

/// What reading a declared table gives.
#[derive(Clone, Debug)]
pub(super) enum Reads {
    /// A stream, whenever it is named.
    Stream(Box<LogicalPlan>),
    /// What is there now.
    Batch(Arc<dyn TableProvider>),
    /// Nothing, and why.
    Nothing(Error),
    /// Nothing yet: the path is not there.
    Missing(Error),
}

/// A table that `CREATE EXTERNAL TABLE` made, where it is not DataFusion's.
#[derive(Clone)]
pub(crate) struct DeclaredTable {
    declared: Declared,
    reads: Reads,
    schema: SchemaRef,
}

impl DeclaredTable {
    pub(super) fn new(declared: Declared, reads: Reads) -> Self {
        let schema = match &reads {
            Reads::Stream(plan) => Arc::clone(plan.schema().inner()),
            Reads::Batch(table) => table.schema(),
            Reads::Nothing(_) | Reads::Missing(_) => {
                let columns = declared.columns.as_ref();
                columns.map_or_else(|| Arc::new(Schema::empty()), |c| crate::reader::nullable(c))
            }
        };
        Self {
            declared,
            reads,
            schema,
        }
    }

    /// What was declared.
    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The same table, read from other files.
    #[must_use]
    pub(crate) fn with_files(&self, files: Arc<FileTable>) -> Self {
        match &self.reads {
            Reads::Stream(_) => self.clone(),
            _ if self.declared.unbounded => self.clone(),
            _ => Self::new(self.declared.clone(), Reads::Batch(files)),
        }
    }

    /// Why it cannot be read.
    fn refusal(&self) -> Option<&Error> {
        match &self.reads {
            Reads::Nothing(error) | Reads::Missing(error) => Some(error),
            Reads::Stream(_) | Reads::Batch(_) => None,
        }
    }

    /// The declared table behind a provider.
    pub(crate) fn of(table: &Arc<dyn TableProvider>) -> Option<Arc<Self>> {
        let any: Arc<dyn Any + Send + Sync> = Arc::<dyn TableProvider>::clone(table);
        any.downcast().ok()
    }

    /// Refuses a plan that reads a declared table which cannot be read.
    ///
    /// # Errors
    /// What that table says.
    pub(in crate::sql) fn must_be_readable(plan: &LogicalPlan) -> Result<()> {
        let mut refused = None;
        let _walked = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(source) = scan.source.downcast_ref::<DefaultTableSource>()
                && let Some(table) = source.table_provider.downcast_ref::<Self>()
                && let Some(error) = table.refusal()
            {
                refused = Some(error.clone());
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        refused.map_or(Ok(()), Err)
    }
}

impl fmt::Debug for DeclaredTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeclaredTable")
            .field("declared", &self.declared)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for DeclaredTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        match &self.reads {
            Reads::Stream(plan) => Some(Cow::Borrowed(plan)),
            _ => None,
        }
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match &self.reads {
            Reads::Batch(table) => table.scan(state, projection, filters, limit).await,
            Reads::Nothing(error) | Reads::Missing(error) => Err(error.clone().into()),
            Reads::Stream(_) => Err(Error::unsupported(
                "Queries with streaming sources must be executed with write_stream().start()",
            )
            .with_operator(&self.declared.name)
            .into()),
        }
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        match &self.reads {
            Reads::Batch(table) => table.supports_filters_pushdown(filters),
            _ => Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()]),
        }
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if let Reads::Batch(table) = &self.reads
            && !is_of_files(&self.declared.format)
        {
            return table.insert_into(state, input, op).await;
        }
        Err(Error::unsupported(format!(
            "the table `{}` takes the rows of streams only",
            self.declared.name
        ))
        .with_operator("insert")
        .with_hint("insert from a stream, or write files into its directory with COPY")
        .into())
    }
}

/// The table with its source opened again, when its path was not there at first and is now.
pub(crate) async fn reopened(
    session: &StreamSession,
    table: &DeclaredTable,
) -> Option<DeclaredTable> {
    if !matches!(table.reads, Reads::Missing(_)) {
        return None;
    }
    let reads = super::open::reads(session, &table.declared).await.ok()?;
    if matches!(reads, Reads::Missing(_)) {
        return None;
    }
    Some(DeclaredTable::new(table.declared.clone(), reads))
}
