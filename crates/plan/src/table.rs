//! The table that stands for a streaming source in a logical plan.
//!
//! A [`StreamTable`] can be named in SQL and used in frames like any table, but it cannot be scanned:
//! only a running query knows which range of the source is wanted. At start each scan of it is given a
//! [leaf](crate::leaf) of its own.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::DefaultTableSource;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    Expr, LogicalPlan, TableProviderFilterPushDown, TableScan, TableSource, TableType,
};
use datafusion::physical_plan::ExecutionPlan;
use highwater_core::{Error, Source};

use crate::leaf::LeafTable;

/// A streaming source as a DataFusion table.
#[derive(Clone)]
pub struct StreamTable {
    name: String,
    source: Arc<dyn Source>,
    named: bool,
    schema: SchemaRef,
}

impl StreamTable {
    /// The table of `source`. `name` is its identity in the checkpoint; `named` tells that the user chose it,
    /// so that two different sources of that name are a mistake and not told apart by a number.
    pub fn new(name: impl Into<String>, source: Arc<dyn Source>, named: bool) -> Self {
        let schema = source.schema();
        Self {
            name: name.into(),
            source,
            named,
            schema,
        }
    }

    /// The source's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True when the user chose the name.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }
}

impl fmt::Debug for StreamTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTable")
            .field("name", &self.name)
            .field("source", &self.source.description())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Err(must_be_started().with_operator(&self.name).into())
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// True when a leaf of `plan` is a streaming source, also in the subqueries of its expressions and in views.
#[must_use]
pub fn is_streaming(plan: &LogicalPlan) -> bool {
    any_scan(plan, true)
}

/// What whoever runs a streaming plan like a batch one is told.
pub(crate) fn must_be_started() -> Error {
    Error::unsupported(
        "Queries with streaming sources must be executed with write_stream().start()",
    )
    .with_hint("start the query, or read the data as a static table")
}

/// True when a leaf of `plan` itself, not of its subqueries, is a streaming source.
pub(crate) fn reads_stream(plan: &LogicalPlan) -> bool {
    any_scan(plan, false)
}

/// The streaming table a scan reads, before the query's own leaves are put in.
pub(crate) fn stream_table(scan: &TableScan) -> Option<&StreamTable> {
    let source: &DefaultTableSource = scan.source.as_ref().downcast_ref()?;
    source.table_provider.downcast_ref()
}

fn any_scan(plan: &LogicalPlan, subqueries: bool) -> bool {
    let mut found = false;
    let mut visit = |node: &LogicalPlan| {
        found = found
            || matches!(node, LogicalPlan::TableScan(scan) if source_streams(scan.source.as_ref()));
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    };
    // The visitor itself never fails.
    let _walked = if subqueries {
        plan.apply_with_subqueries(&mut visit)
    } else {
        plan.apply(&mut visit)
    };
    found
}

/// True when the source of a table is a stream, or a view of one.
pub(crate) fn source_streams(source: &dyn TableSource) -> bool {
    source
        .downcast_ref::<DefaultTableSource>()
        .is_some_and(|table| {
            table.table_provider.is::<StreamTable>() || table.table_provider.is::<LeafTable>()
        })
        || source
            .get_logical_plan()
            .is_some_and(|view| is_streaming(&view))
}
