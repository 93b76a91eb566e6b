//! The leaves of a running query: each scan of a streaming source reads the range of the micro-batch that runs.
//!
//! ```text
//!  engine ──open(range, batch time)──► LeafCell ◄──bind(source)── engine, once
//!                                         ▲
//!  LeafTable (logical) ──scan()──► StreamScanExec (physical, made once) ──execute()──► Source::read
//! ```
//! Only the cell changes between two micro-batches; the plan above it stays.

mod read;
mod scan;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::datasource::DefaultTableSource;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use highwater_core::{Error, OffsetRange, Result, Source, Timestamp};
use parking_lot::Mutex;

pub use scan::StreamScanExec;

use crate::table::{StreamTable, stream_table};

/// What one scan of a streaming source reads now.
pub struct LeafCell {
    name: String,
    /// Streams decoded at once when the source gives several.
    ahead: usize,
    binding: Mutex<Binding>,
    rows: AtomicU64,
}

/// The source of a leaf, and what is to be read from it.
#[derive(Clone)]
struct Binding {
    source: Arc<dyn Source>,
    range: Option<OffsetRange>,
    batch_time: Timestamp,
}

impl LeafCell {
    /// A leaf that reads nothing yet.
    #[must_use]
    pub fn new(name: impl Into<String>, source: Arc<dyn Source>) -> Self {
        let ahead = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            name: name.into(),
            ahead,
            binding: Mutex::new(Binding {
                source,
                range: None,
                batch_time: Timestamp::default(),
            }),
            rows: AtomicU64::new(0),
        }
    }

    /// Reads from `source` from now on.
    pub fn bind(&self, source: Arc<dyn Source>) {
        self.binding.lock().source = source;
    }

    /// Sets what the next execution reads.
    pub fn open(&self, range: OffsetRange, batch_time: Timestamp) {
        let mut binding = self.binding.lock();
        binding.range = Some(range);
        binding.batch_time = batch_time;
        self.rows.store(0, Ordering::Relaxed);
    }

    /// The rows the source gave since the last [`open`](Self::open).
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn binding(&self) -> Binding {
        self.binding.lock().clone()
    }

    fn count(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for LeafCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafCell")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A distinct source of a query, with the leaves that read it.
#[derive(Clone, Debug)]
pub(crate) struct BoundSource {
    /// Its identity in the checkpoint.
    pub(crate) name: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) leaves: Vec<Arc<LeafCell>>,
    named: bool,
}

/// Gives each scan of a streaming table in `plan` a leaf of its own; the sources come in plan order.
///
/// # Errors
/// `Invalid` when two different sources were given the same name by the user.
pub(crate) fn bind_leaves(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<BoundSource>)> {
    let mut sources: Vec<BoundSource> = Vec::new();
    let bound = plan
        .transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else {
                return Ok(Transformed::no(node));
            };
            let Some(table) = stream_table(&scan) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let provider = LeafTable {
                schema: table.schema(),
                cell: leaf_of(table, &mut sources)?,
            };
            scan.source = Arc::new(DefaultTableSource::new(Arc::new(provider)));
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        })
        .data()?;
    Ok((bound, sources))
}

/// A new leaf of `table`, which joins the leaves of the same source.
fn leaf_of(table: &StreamTable, sources: &mut Vec<BoundSource>) -> Result<Arc<LeafCell>> {
    let same = |bound: &&mut BoundSource| Arc::ptr_eq(&bound.source, table.source());
    if let Some(bound) = sources.iter_mut().find(same) {
        let cell = Arc::new(LeafCell::new(&bound.name, Arc::clone(table.source())));
        bound.leaves.push(Arc::clone(&cell));
        return Ok(cell);
    }
    let name = unique_name(table, sources)?;
    let cell = Arc::new(LeafCell::new(&name, Arc::clone(table.source())));
    sources.push(BoundSource {
        name,
        source: Arc::clone(table.source()),
        leaves: vec![Arc::clone(&cell)],
        named: table.is_named(),
    });
    Ok(cell)
}

fn unique_name(table: &StreamTable, sources: &[BoundSource]) -> Result<String> {
    let taken = |name: &str| sources.iter().find(|bound| bound.name == name);
    match taken(table.name()) {
        None => Ok(table.name().to_string()),
        Some(other) if other.named && table.is_named() => Err(Error::invalid(format!(
            "two sources of the query have the name `{}`",
            table.name()
        ))
        .with_hint("give each its own with .name(…): the checkpoint tells sources apart by name")),
        Some(_) => Ok((2..)
            .map(|n| format!("{}_{n}", table.name()))
            .find(|name| taken(name).is_none())
            .unwrap_or_default()),
    }
}

/// The table of one leaf: what the physical planner scans.
#[derive(Debug)]
pub(crate) struct LeafTable {
    schema: SchemaRef,
    cell: Arc<LeafCell>,
}

#[async_trait]
impl TableProvider for LeafTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(StreamScanExec::try_new(
            Arc::clone(&self.cell),
            &self.schema,
            projection.cloned(),
            filters.to_vec(),
        )?))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
