//! A query as the engine runs it: one physical plan, made once, and the few cells that change per micro-batch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};
use futures::TryStreamExt;
use futures::future::ready;
use highwater_core::{Error, MicroBatch, OutputMode, Result, Source, Timestamp};
use parking_lot::Mutex;

use self::age::bound_by_age;
use crate::analyze::analyze;
use crate::cell::BatchCell;
use crate::event_time::without_marks;
use crate::functions::batch_time::bind_batch_time;
use crate::incrementalize::{
    operators_of, order_for_deduplication, remember_aggregates, remember_limits, watermarks_of,
};
use crate::late::LateRows;
use crate::leaf::{BoundSource, bind_leaves};
use crate::operators::StatefulOperator;
use crate::operators::observe::{Observations, Observed};
use crate::operators::session::with_superseded;
use crate::operators::watermark::WatermarkInput;
use crate::planner::create_physical_plan;
use crate::session::streaming_state;
use crate::static_side::{self, StaticCell, StaticRefresh, Surroundings};

/// A query to be planned.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// How long rows of state are kept that nothing else bounds; `None`: for ever.
    pub state_ttl: Option<Duration>,
    /// What the user wrote, neither analyzed nor optimized.
    pub plan: LogicalPlan,
    /// The user's session.
    pub session: SessionState,
    /// What the sink is to get.
    pub mode: OutputMode,
    /// When its static tables are read again.
    pub refresh: StaticRefresh,
}

/// Checks the query, and makes its one physical plan.
///
/// # Errors
/// `Unsupported` or `Invalid` when the query cannot run as a stream in its mode (see [`analyze`]); what
/// DataFusion says about a plan that is wrong.
pub async fn plan_query(request: PlanRequest) -> Result<IncrementalPlan> {
    let PlanRequest {
        state_ttl,
        plan,
        session,
        mode,
        refresh,
    } = request;
    let state = streaming_state(&session);
    let analyzed = state
        .analyzer()
        .execute_and_check(plan, state.config_options(), |_, _| {})?;
    analyze(&analyzed, mode)?;
    let analyzed = match mode {
        OutputMode::Update => with_superseded(analyzed)?,
        _ => analyzed,
    };

    let cell = BatchCell::default();
    let (bound, sources) = bind_leaves(analyzed)?;
    let timed = bind_batch_time(bound, &cell, state.config_options())?;
    let optimized = state.optimizer().optimize(timed, &state, |_, _| {})?;
    let limited = remember_limits(optimized, mode)?;

    let observations = Arc::new(Observations::default());
    let around = Surroundings {
        state: state.clone(),
        refresh,
        observations: Arc::clone(&observations),
        batch: cell.clone(),
    };
    let (cut, statics) = static_side::cut(limited, &around)?;
    for side in &statics {
        side.prepare().await?;
    }
    let physical = create_physical_plan(&cut, &state, &observations, &cell).await?;
    let physical = remember_aggregates(physical, mode, &cell)?;
    order_for_deduplication(&physical)?;
    let physical = in_one_partition(physical);
    let physical = match state_ttl {
        Some(ttl) => bound_by_age(physical, ttl)?,
        None => physical,
    };
    let (operators, read_by) = operators_of(&physical)?.into_iter().unzip();
    Ok(IncrementalPlan {
        schema: without_marks(&physical.schema()),
        operators,
        read_by,
        watermarks: watermarks_of(&physical)?,
        sources,
        statics,
        running: Mutex::new(Arc::clone(&physical)),
        plan: physical,
        observations,
        cell,
        task: state.task_ctx(),
    })
}

/// The columns that a sink gets from `plan`, a query that can run or not: what the analyzer makes of it, and in update
/// mode the column `superseded` of sessions. Marks that only plans understand are taken off.
///
/// # Errors
/// What DataFusion says about a plan that is wrong; `Unsupported` and `Invalid` for sessions that cannot run in
/// update mode.
pub fn result_schema(
    plan: &LogicalPlan,
    session: &SessionState,
    mode: OutputMode,
) -> Result<SchemaRef> {
    let options = session.config_options();
    let analyzed = session
        .analyzer()
        .execute_and_check(plan.clone(), options, |_, _| {})?;
    let analyzed = match mode {
        OutputMode::Update => with_superseded(analyzed)?,
        _ => analyzed,
    };
    Ok(without_marks(analyzed.schema().inner()))
}

/// A distinct source of a query.
#[derive(Clone, Debug)]
pub struct PlannedSource {
    /// Its identity in the checkpoint, unique in the query.
    pub name: String,
    /// The source, as it was given or bound.
    pub source: Arc<dyn Source>,
    /// How many leaves of the plan read it: two in a self-join, and its rows count twice.
    pub leaves: usize,
}

/// One physical plan for the life of a run.
///
/// For each micro-batch the engine calls [`open`](Self::open), then [`execute`](Self::execute), and reads the
/// stream to its end; then the operators can tell what changed.
pub struct IncrementalPlan {
    sources: Vec<BoundSource>,
    statics: Vec<Arc<StaticCell>>,
    plan: Arc<dyn ExecutionPlan>,
    /// The plan with the one-run state of DataFusion's operators fresh.
    running: Mutex<Arc<dyn ExecutionPlan>>,
    schema: SchemaRef,
    operators: Vec<Arc<dyn StatefulOperator>>,
    /// The sources that each of them reads.
    read_by: Vec<BTreeSet<String>>,
    watermarks: Vec<Arc<WatermarkInput>>,
    observations: Arc<Observations>,
    cell: BatchCell,
    task: Arc<TaskContext>,
}

impl IncrementalPlan {
    /// The sources, one for each distinct source object, in plan order.
    #[must_use]
    pub fn sources(&self) -> Vec<PlannedSource> {
        self.sources
            .iter()
            .map(|bound| PlannedSource {
                name: bound.name.clone(),
                source: Arc::clone(&bound.source),
                leaves: bound.leaves.len(),
            })
            .collect()
    }

    /// Reads from `source` in place of the one called `name`: its instance for this query.
    /// It is called before the first micro-batch; an unknown name changes nothing.
    pub fn bind(&mut self, name: &str, source: Arc<dyn Source>) {
        if let Some(bound) = self.sources.iter_mut().find(|bound| bound.name == name) {
            for leaf in &bound.leaves {
                leaf.bind(Arc::clone(&source));
            }
            bound.source = source;
        }
    }

    /// The columns the sink gets.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The names of the sources below an operator with state.
    #[must_use]
    pub fn read_by(&self, operator: &str) -> Vec<String> {
        let placed = self.operators.iter().zip(&self.read_by);
        let mut found = placed.filter(|(one, _)| one.name() == operator);
        found
            .next()
            .map_or(Vec::new(), |(_, sources)| sources.iter().cloned().collect())
    }

    /// The operators with state, from the top of the plan down.
    #[must_use]
    pub fn operators(&self) -> &[Arc<dyn StatefulOperator>] {
        &self.operators
    }

    /// The places where the query looks at event time, from the top of the plan down; none without `with_watermark`.
    #[must_use]
    pub fn watermarks(&self) -> &[Arc<WatermarkInput>] {
        &self.watermarks
    }

    /// From now on rows whose event time is more than `micros` microseconds after the batch time do not pass a
    /// watermark: they go to the late rows where those are wanted, and fail the micro-batch where not.
    pub fn limit_skew(&self, micros: i64) {
        for watermark in &self.watermarks {
            watermark.limit_skew(micros);
        }
    }

    /// The rows that came too late in the micro-batch that ran.
    #[must_use]
    pub fn late(&self) -> &LateRows {
        self.cell.late()
    }

    /// True when the query reads static tables beside its streams.
    #[must_use]
    pub fn has_static_tables(&self) -> bool {
        !self.statics.is_empty()
    }

    /// Looks at the static tables, as [`StaticRefresh`] says: those that have changed are read again in the next
    /// micro-batch. It is called between two of them, at the time `now`.
    ///
    /// # Errors
    /// What an object store says when it is asked for its files, and DataFusion when it plans.
    pub async fn refresh(&self, now: Timestamp) -> Result<()> {
        for side in &self.statics {
            side.refresh(now).await?;
        }
        Ok(())
    }

    /// Prepares the plan for `batch`: leaves get their ranges, operators its numbers.
    ///
    /// # Errors
    /// `Internal` when a source has no range in the micro-batch.
    pub fn open(&self, batch: &MicroBatch) -> Result<()> {
        self.cell.open(batch);
        for bound in &self.sources {
            let range = batch.ranges.get(&bound.name).ok_or_else(|| {
                Error::internal(format!(
                    "micro-batch {} has no range for the source `{}`",
                    batch.id, bound.name
                ))
            })?;
            for leaf in &bound.leaves {
                leaf.open(range.clone(), batch.time);
            }
        }
        self.observations.clear();
        for watermark in &self.watermarks {
            watermark.begin();
        }
        *self.running.lock() = reset_plan_states(Arc::clone(&self.plan))?;
        Ok(())
    }

    /// Starts the micro-batch that was opened: the rows for the sink.
    ///
    /// # Errors
    /// What an operator says when it cannot start.
    pub fn execute(&self) -> Result<SendableRecordBatchStream> {
        let plan = Arc::clone(&self.running.lock());
        let rows = plan.execute(0, Arc::clone(&self.task))?;
        if rows.schema() == self.schema {
            return Ok(rows);
        }
        let schema = self.schema();
        let unmarked = rows.and_then(move |batch| {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            // Not `with_schema`, which lets no mark be taken off.
            let columns = batch.columns().to_vec();
            let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options);
            ready(batch.map_err(Into::into))
        });
        let unmarked = RecordBatchStreamAdapter::new(self.schema(), unmarked);
        Ok(Box::pin(unmarked))
    }

    /// The rows each source gave since [`open`](Self::open); a source scanned twice counts twice.
    #[must_use]
    pub fn input_rows(&self) -> BTreeMap<String, u64> {
        self.sources
            .iter()
            .map(|bound| {
                let rows = bound.leaves.iter().map(|leaf| leaf.rows()).sum();
                (bound.name.clone(), rows)
            })
            .collect()
    }

    /// What `observe` saw in the micro-batch that ran, by its name.
    #[must_use]
    pub fn observed(&self) -> Observed {
        self.observations.read()
    }

    /// The physical plan, a line for each operator with state: its key, and what bounds the state; and a line for each
    /// static side: what is kept of it, and when it is read again.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = displayable(self.plan.as_ref()).indent(false).to_string();
        if !self.operators.is_empty() {
            text.push_str("\nState:\n");
        }
        for operator in self.operators.iter().filter(|operator| operator.shows()) {
            text.push_str("  ");
            text.push_str(&operator.describe());
            text.push_str(&self.below(operator.as_ref()));
            text.push('\n');
        }
        if self.has_static_tables() {
            text.push_str("\nStatic tables:\n");
        }
        for side in &self.statics {
            text.push_str("  ");
            text.push_str(&side.describe());
            text.push('\n');
        }
        text
    }
}

impl fmt::Debug for IncrementalPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.explain())
    }
}

fn in_one_partition(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if plan.output_partitioning().partition_count() == 1 {
        plan
    } else {
        Arc::new(CoalescePartitionsExec::new(plan))
    }
}

mod age;
mod explain;
#[cfg(test)]
mod tests;
