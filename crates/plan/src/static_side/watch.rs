//! Whether the tables below a static side have changed: the files of a listing table, the rows of one in memory, the
//! version of another.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::{ListingTable, ListingTableUrl};
use datafusion::datasource::{DefaultTableSource, MemTable};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::execution::cache::cache_manager::TableScopedPath;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use futures::TryStreamExt;

use super::TableVersions;

/// The tables below a static side.
#[derive(Debug)]
pub(super) struct Watch {
    tables: Vec<(String, Arc<dyn TableProvider>)>,
    names: Vec<String>,
    /// Something in it is another in each micro-batch: the batch time, or random numbers.
    volatile: bool,
}

/// What was seen of the tables, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(Vec<SeenTable>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum SeenTable {
    Files(Vec<File>),
    Rows(Rows),
    Version(u64),
    /// It cannot be told whether it changes.
    Unknown,
}

/// The batches of each partition of a table in memory. They are held, so that others cannot take their places.
#[derive(Clone, Debug)]
struct Rows(Vec<Vec<RecordBatch>>);

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &[RecordBatch], b: &[RecordBatch]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_columns(a, b))
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| same(a, b))
    }
}

impl Eq for Rows {}

/// True for the same columns, and not only equal ones.
fn same_columns(a: &RecordBatch, b: &RecordBatch) -> bool {
    let mut columns = a.columns().iter().zip(b.columns());
    a.num_rows() == b.num_rows() && columns.all(|(a, b)| Arc::ptr_eq(a, b))
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    path: String,
    size: u64,
    modified_us: i64,
    e_tag: Option<String>,
}

impl Seen {
    /// True when it can be told of each table whether it has changed.
    pub(super) fn tells_all(&self) -> bool {
        !self.0.contains(&SeenTable::Unknown)
    }
}

impl Watch {
    pub(super) fn of(plan: &LogicalPlan) -> Self {
        let mut watch = Self {
            tables: Vec::new(),
            names: Vec::new(),
            volatile: false,
        };
        // The visitor itself never fails.
        let _walked = plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                watch.volatile |= expr.is_volatile();
                Ok(TreeNodeRecursion::Continue)
            })?;
            if let LogicalPlan::TableScan(scan) = node {
                let name = scan.table_name.table().to_owned();
                if !watch.names.contains(&name) {
                    watch.names.push(name.clone());
                }
                watch
                    .tables
                    .extend(provider(scan).map(|table| (name, table)));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        watch
    }

    /// The names of the tables.
    pub(super) fn name(&self) -> String {
        match self.names.is_empty() {
            true => "(no table)".to_owned(),
            false => self.names.join(", "),
        }
    }

    /// How many tables there are.
    pub(super) fn tables(&self) -> usize {
        self.names.len()
    }

    /// True for rows that are written in the query itself.
    pub(super) fn has_no_tables(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// The names of the tables that cannot tell whether they have changed.
    pub(super) fn silent(&self, seen: &Seen) -> Vec<&str> {
        let tables = self.tables.iter().zip(&seen.0);
        let silent = tables.filter(|(_, seen)| **seen == SeenTable::Unknown);
        let mut names: Vec<&str> = silent.map(|((name, _), _)| name.as_str()).collect();
        names.dedup();
        names
    }

    /// Looks at the tables; DataFusion's own listings are forgotten where they may be old.
    ///
    /// # Errors
    /// What an object store says when it is asked for its files.
    pub(super) async fn look(
        &self,
        state: &SessionState,
        versions: Option<&dyn TableVersions>,
    ) -> Result<Seen> {
        let mut seen = Vec::with_capacity(self.tables.len());
        for (_, table) in &self.tables {
            seen.push(seen_of(table.as_ref(), state, versions).await?);
        }
        Ok(Seen(seen))
    }
}

async fn seen_of(
    table: &dyn TableProvider,
    state: &SessionState,
    versions: Option<&dyn TableVersions>,
) -> Result<SeenTable> {
    if let Some(listing) = table.downcast_ref::<ListingTable>() {
        return Ok(SeenTable::Files(files(listing, state).await?));
    }
    if let Some(in_memory) = table.downcast_ref::<MemTable>() {
        let mut rows = Vec::with_capacity(in_memory.batches.len());
        for partition in &in_memory.batches {
            rows.push(partition.read().await.clone());
        }
        return Ok(SeenTable::Rows(Rows(rows)));
    }
    let version = match versions {
        Some(versions) => versions.version_of(table).await?,
        None => None,
    };
    Ok(version.map_or(SeenTable::Unknown, SeenTable::Version))
}

async fn files(table: &ListingTable, state: &SessionState) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for url in table.table_paths() {
        forget_listing(url, state);
        let store = state.runtime_env().object_store(url.object_store())?;
        let extension = &table.options().file_extension;
        let listed = url.list_all_files(state, store.as_ref(), extension).await?;
        let listed = listed.map_ok(|meta| File {
            path: meta.location.to_string(),
            size: meta.size,
            modified_us: meta.last_modified.timestamp_micros(),
            e_tag: meta.e_tag,
        });
        files.extend(listed.try_collect::<Vec<_>>().await?);
    }
    files.sort_unstable();
    Ok(files)
}

fn forget_listing(url: &ListingTableUrl, state: &SessionState) {
    if let Some(cache) = state.runtime_env().cache_manager.get_list_files_cache() {
        cache.remove(&TableScopedPath {
            table: url.get_table_ref().clone(),
            path: url.prefix().clone(),
        });
    }
}

fn provider(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    let source: &DefaultTableSource = scan.source.as_ref().downcast_ref()?;
    Some(Arc::clone(&source.table_provider))
}

/// True when two equal plans read the same tables, and not only tables of the same name.
pub(super) fn same_tables(a: &LogicalPlan, b: &LogicalPlan) -> bool {
    let (a, b) = (Watch::of(a), Watch::of(b));
    let pairs = || a.tables.iter().zip(&b.tables);
    !a.volatile
        && a.tables.len() == b.tables.len()
        && pairs().all(|((_, a), (_, b))| Arc::ptr_eq(a, b))
}
