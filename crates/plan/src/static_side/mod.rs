//! The static tables of a streaming query: each part of the plan that reads no stream is read once and kept.
//!
//! ```text
//!  optimized plan         Join ┬ stream           Join ┬ stream             each largest part without a stream
//!                              └ Join ┬ a    ──►       └ StaticSide  ─ ─►   is planned apart (a StaticCell),
//!                                     └ b                                   and planned again when it has changed
//! ```
//! - [`cut`]: which parts; [`cell`](self): one of them; [`watch`](self): what tells that it has changed.
//! - [`scan`](self): the leaf that stands for it in the physical plan; [`held`](self): its memory.
//!
//! Between micro-batches the engine lets each cell look at its tables ([`StaticRefresh`]); in a micro-batch nothing changes.

mod cell;
pub(crate) mod held;
mod scan;
mod watch;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, Subquery, UserDefinedLogicalNodeCore,
};

pub(crate) use cell::{StaticCell, Surroundings};
pub(crate) use scan::StaticScanExec;

use crate::table::reads_stream;

/// Tells whether a table has changed, for kinds of tables that DataFusion does not know.
#[async_trait]
pub trait TableVersions: fmt::Debug + Send + Sync {
    /// A number that is another one when the rows of `table` are others; `None` for a kind of table that is not known.
    ///
    /// # Errors
    /// What the table's store says.
    async fn version_of(&self, table: &dyn TableProvider) -> highwater_core::Result<Option<u64>>;
}

/// When the static tables of a query are read again (`staticRefresh`).
#[derive(Clone, Debug, Default)]
pub struct StaticRefresh {
    /// When.
    pub when: RefreshWhen,
    /// Knows more kinds of tables than DataFusion's tables of files and in memory.
    pub versions: Option<Arc<dyn TableVersions>>,
}

/// When a static table is looked at again; it is always between two micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefreshWhen {
    /// Before each micro-batch, where it can be told whether a table has changed: other files, other rows in memory, or
    /// another version.
    #[default]
    OnChange,
    /// Never.
    Never,
    /// When so much time has passed; where it cannot be told whether a table has changed, it is read again.
    Every(Duration),
}

/// A part of the plan that reads no stream.
#[derive(Clone)]
pub(crate) struct StaticSide {
    /// Tells the sides of one query apart.
    number: usize,
    schema: DFSchemaRef,
    pub(crate) cell: Arc<StaticCell>,
}

impl fmt::Debug for StaticSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticSide({})", self.number)
    }
}

impl PartialEq for StaticSide {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for StaticSide {}

impl PartialOrd for StaticSide {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.number.partial_cmp(&other.number)
    }
}

impl Hash for StaticSide {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for StaticSide {
    fn name(&self) -> &str {
        "StaticSide"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StaticSide: {}", self.cell.name())
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.is_empty() {
            true => Ok(self.clone()),
            false => internal_err!("StaticSide has no input"),
        }
    }
}

/// Puts a [`StaticSide`] in the place of each largest part of `plan` that reads no stream: below joins, and in the
/// subqueries of expressions.
pub(crate) fn cut(
    plan: LogicalPlan,
    around: &Surroundings,
) -> Result<(LogicalPlan, Vec<Arc<StaticCell>>)> {
    let mut sides: Vec<Cut> = Vec::new();
    let plan = plan
        .transform_down_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Subquery(subquery) => {
                    let subquery = with_side(subquery, &mut sides, around);
                    let node = LogicalPlan::Subquery(subquery);
                    Transformed::new(node, true, TreeNodeRecursion::Jump)
                }
                node if reads_stream(&node) => Transformed::no(node),
                node => {
                    let side = new_side(&node, false, &mut sides, around);
                    Transformed::new(side, true, TreeNodeRecursion::Jump)
                }
            })
        })
        .data()?;
    Ok((plan, sides.into_iter().map(|cut| cut.side.cell).collect()))
}

/// A part that was cut out.
struct Cut {
    plan: LogicalPlan,
    side: StaticSide,
    /// It is a subquery: its rows are kept in the cell, and may be read from several places.
    shared: bool,
}

/// The subquery over a side; one that stands in the plan several times is read once.
fn with_side(subquery: Subquery, sides: &mut Vec<Cut>, around: &Surroundings) -> Subquery {
    let plan = &subquery.subquery;
    let known = sides
        .iter()
        .find(|cut| cut.shared && cut.plan == **plan && watch::same_tables(&cut.plan, plan));
    let side = match known {
        Some(cut) => extension(cut.side.clone()),
        None => new_side(plan, true, sides, around),
    };
    Subquery {
        subquery: Arc::new(side),
        ..subquery
    }
}

fn new_side(
    plan: &LogicalPlan,
    shared: bool,
    sides: &mut Vec<Cut>,
    around: &Surroundings,
) -> LogicalPlan {
    let side = StaticSide {
        number: sides.len(),
        schema: Arc::clone(plan.schema()),
        cell: Arc::new(StaticCell::new(plan.clone(), around.clone())),
    };
    sides.push(Cut {
        plan: plan.clone(),
        side: side.clone(),
        shared,
    });
    extension(side)
}

fn extension(side: StaticSide) -> LogicalPlan {
    LogicalPlan::Extension(Extension {
        node: Arc::new(side),
    })
}
