//! The join of a stream with static tables: the static side is read once, and its rows are kept with their index.
//!
//! Made from the join that DataFusion planned, whatever its kind and whichever side the stream is on:
//!
//! ```text
//!  HashJoinExec ┐  stream ─────────────────────► each row meets the table: pairs, with nulls, semi, anti, mark
//!  NestedLoop…  ├►                                     ▲
//!  CrossJoin…   ┘  static side ─ read once ─► table ───┘   until the side is planned again
//! ```
//! Rows come out in the order of the stream. NOT IN, where a null matches everything, needs no other way: rows with a
//! null key meet the rows that they may be equal to.
//!
//! - [`recipe`](self): what is computed; [`table`](self): what is kept; [`probe`](self): rows of the stream meet it.

mod keys;
mod probe;
mod recipe;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, SchedulingType, reset_plan_states,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    apply_expression_roots,
};
use futures::{StreamExt, stream};
use highwater_core::Error;
use parking_lot::Mutex;

use self::probe::{Probe, Step};
use self::recipe::Recipe;
use self::table::{Table, breathe};
use crate::static_side::held::Held;
use crate::static_side::{StaticCell, StaticScanExec};

/// Steps without a result before other tasks get their turn.
const STEPS_A_TURN: usize = 8;

/// A join of a stream with a static side: each execution is one micro-batch.
pub(crate) struct StaticJoinExec {
    stream: Arc<dyn ExecutionPlan>,
    /// For display; what is read is in `kept`.
    static_side: Arc<dyn ExecutionPlan>,
    recipe: Arc<Recipe>,
    kept: Arc<Kept>,
    properties: Arc<PlanProperties>,
}

/// The table, shared by all copies of the node.
struct Kept {
    side: Arc<dyn ExecutionPlan>,
    cells: Vec<Arc<StaticCell>>,
    table: Mutex<Option<(u64, Arc<Table>)>>,
}

impl StaticJoinExec {
    /// The form of `node` that keeps its static side; `None` when it is no join, or one of a kind that DataFusion runs
    /// over the kept rows each time. `stream_left` tells on which side the stream is.
    ///
    /// # Errors
    /// `Unsupported` for a join that would have to wait for the end of the stream.
    pub(crate) fn of(
        node: &Arc<dyn ExecutionPlan>,
        stream_left: bool,
    ) -> highwater_core::Result<Option<Self>> {
        let Some(recipe) = Recipe::of(node, stream_left)? else {
            return Ok(None);
        };
        let (Some(left), Some(right)) = (
            node.children().first().copied(),
            node.children().get(1).copied(),
        ) else {
            return Err(Error::internal("a join has two inputs"));
        };
        let (streaming, side) = if stream_left {
            (left, right)
        } else {
            (right, left)
        };
        let cells = cells_of(side)?;
        cells
            .iter()
            .for_each(|cell| cell.kept_by(recipe.describe()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&recipe.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Some(Self {
            stream: Arc::clone(streaming),
            static_side: Arc::clone(side),
            kept: Arc::new(Kept {
                side: Arc::clone(side),
                cells,
                table: Mutex::default(),
            }),
            recipe: Arc::new(recipe),
            properties: Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative)),
        }))
    }
}

fn cells_of(side: &Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<StaticCell>>> {
    let mut cells = Vec::new();
    side.apply(|node| {
        if let Some(scan) = node.downcast_ref::<StaticScanExec>() {
            cells.push(Arc::clone(&scan.cell));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(cells)
}

impl Kept {
    /// The table; read now if it was not, or if its side was planned again since.
    async fn table(&self, recipe: &Recipe, context: Arc<TaskContext>) -> Result<Arc<Table>> {
        let epoch = self.cells.iter().map(|cell| cell.epoch()).sum();
        {
            let mut table = self.table.lock();
            match &*table {
                Some((read, table)) if *read == epoch => return Ok(Arc::clone(table)),
                // The old one is let go before the new one is read.
                _ => *table = None,
            }
        }
        let names = self.cells.iter().map(|cell| cell.name());
        let held = Held::new(&names.collect::<Vec<_>>().join(", "), &context);
        let side = reset_plan_states(Arc::clone(&self.side))?;
        let rows = side.execute(0, context)?;
        let table = Arc::new(Table::read(recipe, rows, held).await?);
        if let [cell] = self.cells.as_slice() {
            cell.keeps(table.rows.num_rows(), table.bytes);
        }
        *self.table.lock() = Some((epoch, Arc::clone(&table)));
        Ok(table)
    }
}

/// One micro-batch of the join.
struct Running {
    recipe: Arc<Recipe>,
    kept: Arc<Kept>,
    context: Arc<TaskContext>,
    stream: SendableRecordBatchStream,
    table: Option<Arc<Table>>,
    probe: Option<Probe>,
}

impl Running {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let table = match &self.table {
            Some(table) => Arc::clone(table),
            None => {
                let context = Arc::clone(&self.context);
                let table = self.kept.table(&self.recipe, context).await?;
                self.table = Some(Arc::clone(&table));
                table
            }
        };
        let size = self.context.session_config().batch_size().max(1);
        let mut steps = 0;
        loop {
            let Some(probe) = &mut self.probe else {
                match self.stream.next().await.transpose()? {
                    None => return Ok(None),
                    Some(rows) if rows.num_rows() == 0 => {}
                    Some(rows) => self.probe = Some(Probe::new(&self.recipe, rows, &table)?),
                }
                continue;
            };
            match probe.step(&self.recipe, &table, size)? {
                Step::Rows(rows) => return Ok(Some(rows)),
                Step::Done => self.probe = None,
                Step::More => {}
            }
            steps += 1;
            if steps % STEPS_A_TURN == 0 {
                breathe().await;
            }
        }
    }
}

impl ExecutionPlan for StaticJoinExec {
    fn name(&self) -> &'static str {
        "StaticJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.stream, &self.static_side]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.recipe.expressions(), f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 2]>::try_from(children) {
            Ok([stream, static_side]) => Ok(Arc::new(Self {
                stream,
                static_side,
                recipe: Arc::clone(&self.recipe),
                kept: Arc::clone(&self.kept),
                properties: Arc::clone(&self.properties),
            })),
            Err(_) => Err(Error::internal("a join has two inputs").into()),
        }
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let running = Running {
            recipe: Arc::clone(&self.recipe),
            kept: Arc::clone(&self.kept),
            stream: self.stream.execute(partition, Arc::clone(&context))?,
            context,
            table: None,
            probe: None,
        };
        let rows = Box::pin(stream::try_unfold(running, |mut running| async move {
            let next = running.next().await?;
            Ok(next.map(|rows| (rows, running)))
        }));
        let rows = RecordBatchStreamAdapter::new(self.schema(), rows);
        Ok(Box::pin(cooperative(rows)))
    }
}

impl DisplayAs for StaticJoinExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticJoinExec: {}", self.recipe.describe())
    }
}

impl fmt::Debug for StaticJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticJoinExec")
            .field("join", &self.recipe.describe())
            .field("stream", &self.stream)
            .field("static_side", &self.static_side)
            .finish_non_exhaustive()
    }
}
