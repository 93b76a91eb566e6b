//! One static side: its plan, which rows of it are kept, and whether it is to be read again.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use highwater_core::{Error, Timestamp};
use parking_lot::Mutex;

use super::held::Held;
use super::scan::{all_partitions, under};
use super::watch::{Seen, Watch};
use super::{RefreshWhen, StaticRefresh};
use crate::cell::BatchCell;
use crate::operators::observe::Observations;
use crate::planner::create_physical_plan;

/// What a static side needs of the query it stands in.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) state: SessionState,
    pub(crate) refresh: StaticRefresh,
    pub(crate) observations: Arc<Observations>,
    pub(crate) batch: BatchCell,
}

/// A part of a query that reads no stream.
pub(crate) struct StaticCell {
    plan: LogicalPlan,
    around: Surroundings,
    watch: Watch,
    now: Mutex<Now>,
}

/// How things stand.
#[derive(Default)]
struct Now {
    physical: Option<Arc<dyn ExecutionPlan>>,
    /// Rises when the side is to be read again.
    epoch: u64,
    seen: Seen,
    looked: Option<Timestamp>,
    /// The join that keeps the rows; without one they are kept here.
    join: Option<String>,
    rows: Option<Rows>,
    size: Option<(usize, usize)>,
}

/// Rows kept here.
#[derive(Clone)]
struct Rows {
    batches: Arc<Vec<RecordBatch>>,
    _held: Arc<Held>,
}

impl StaticCell {
    pub(super) fn new(plan: LogicalPlan, around: Surroundings) -> Self {
        let watch = Watch::of(&plan);
        Self {
            plan,
            around,
            watch,
            now: Mutex::default(),
        }
    }

    /// The names of its tables.
    pub(crate) fn name(&self) -> String {
        self.watch.name()
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    /// It is read again when this has risen.
    pub(crate) fn epoch(&self) -> u64 {
        self.now.lock().epoch
    }

    /// A join keeps the rows, so they are not kept here.
    pub(crate) fn kept_by(&self, join: String) {
        self.now.lock().join = Some(join);
    }

    /// So many rows and bytes are kept.
    pub(crate) fn keeps(&self, rows: usize, bytes: usize) {
        self.now.lock().size = Some((rows, bytes));
    }

    /// Plans the side for the first time.
    ///
    /// # Errors
    /// What DataFusion says about the plan, and an object store about its files.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let seen = self.look().await?;
        let silent = self.watch.silent(&seen).join(", ");
        if self.around.refresh.when == RefreshWhen::OnChange && !silent.is_empty() {
            tracing::info!(
                tables = silent,
                "static tables that cannot tell whether they have changed are read once; \
                 with `staticRefresh` as a length of time they are read again"
            );
        }
        self.plan_again(seen).await
    }

    /// Between two micro-batches: when something has changed, the side is planned again and then read again.
    ///
    /// # Errors
    /// As for [`prepare`](Self::prepare).
    pub(crate) async fn refresh(&self, now: Timestamp) -> Result<()> {
        if !self.is_due(now) {
            return Ok(());
        }
        let seen = self.look().await?;
        let by_time = matches!(self.around.refresh.when, RefreshWhen::Every(_));
        let blind = by_time && !seen.tells_all();
        if blind || self.watch.is_volatile() || self.now.lock().seen != seen {
            self.plan_again(seen).await?;
        }
        Ok(())
    }

    fn is_due(&self, time: Timestamp) -> bool {
        match self.around.refresh.when {
            RefreshWhen::OnChange => true,
            RefreshWhen::Never => false,
            RefreshWhen::Every(length) => {
                let mut now = self.now.lock();
                let due = now.looked.is_some_and(|last| time.since(last) >= length);
                if due || now.looked.is_none() {
                    now.looked = Some(time);
                }
                due
            }
        }
    }

    /// Also where it is looked only once: what the session listed before may be old.
    async fn look(&self) -> Result<Seen> {
        let Surroundings { state, refresh, .. } = &self.around;
        let versions = refresh.versions.as_deref();
        self.watch.look(state, versions).await
    }

    async fn plan_again(&self, seen: Seen) -> Result<()> {
        let Surroundings {
            state,
            observations,
            batch,
            ..
        } = &self.around;
        let physical = create_physical_plan(&self.plan, state, observations, batch).await?;
        let mut now = self.now.lock();
        if now.size.is_some() {
            tracing::debug!(tables = self.watch.name(), "static tables have changed");
        }
        now.physical = Some(physical);
        now.epoch += 1;
        now.seen = seen;
        (now.rows, now.size) = (None, None);
        Ok(())
    }

    /// The rows: as they are kept here, or as they are read for the join that keeps them.
    pub(super) fn stream(
        self: Arc<Self>,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let direct = self.now.lock().join.is_some();
        match direct {
            true => self.read(context),
            false => Ok(super::scan::kept(self, context)),
        }
    }

    fn read(&self, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let physical = self.now.lock().physical.clone();
        let physical = physical.ok_or_else(|| Error::internal("a static side without a plan"))?;
        all_partitions(physical, self.schema(), context)
    }

    /// The rows that are kept here; read now if they have not been.
    pub(super) async fn rows(&self, context: Arc<TaskContext>) -> Result<Arc<Vec<RecordBatch>>> {
        if let Some(rows) = &self.now.lock().rows {
            return Ok(Arc::clone(&rows.batches));
        }
        let held = Held::new(&self.name(), &context);
        let mut rows = self.read(context)?;
        let (mut batches, mut count, mut bytes) = (Vec::new(), 0, 0);
        while let Some(batch) = rows.try_next().await? {
            let size = get_record_batch_memory_size(&batch);
            held.grow(size)?;
            bytes += size;
            count += batch.num_rows();
            batches.push(under(&self.schema(), &batch)?);
        }
        let batches = Arc::new(batches);
        let mut now = self.now.lock();
        now.size = Some((count, bytes));
        now.rows = Some(Rows {
            batches: Arc::clone(&batches),
            _held: Arc::new(held),
        });
        Ok(batches)
    }

    /// One line for `explain`: who reads it, what is kept, and when it is read again.
    pub(crate) fn describe(&self) -> String {
        let now = self.now.lock();
        let by = match &now.join {
            Some(join) => format!("{join}, "),
            None => String::new(),
        };
        let kept = match now.size {
            Some((rows, bytes)) => format!("{rows} rows in {bytes} bytes kept"),
            None => "not read yet".to_owned(),
        };
        format!(
            "{}: {by}{kept}, {}",
            self.watch.name(),
            self.again(&now.seen)
        )
    }

    fn again(&self, seen: &Seen) -> String {
        let when = self.around.refresh.when;
        match when {
            _ if self.watch.has_no_tables() && !self.watch.is_volatile() => {
                "never read again".to_owned()
            }
            RefreshWhen::Never => "never read again".to_owned(),
            RefreshWhen::OnChange if self.watch.is_volatile() => {
                "read again for each micro-batch, as it depends on it".to_owned()
            }
            RefreshWhen::OnChange if seen.tells_all() => {
                "read again when it has changed".to_owned()
            }
            RefreshWhen::OnChange => {
                let silent = self.watch.silent(seen);
                match silent.len() == self.watch.tables() {
                    true => "never read again, as it cannot tell whether it has changed".to_owned(),
                    false => format!(
                        "read again when it has changed, which {} cannot tell",
                        silent.join(", ")
                    ),
                }
            }
            RefreshWhen::Every(length) if seen.tells_all() => {
                format!(
                    "looked at every {} s, read again when it has changed",
                    length.as_secs_f64()
                )
            }
            RefreshWhen::Every(length) => format!("read again every {} s", length.as_secs_f64()),
        }
    }
}

impl fmt::Debug for StaticCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticCell({})", self.describe())
    }
}
