//! State that can be looked at: what a checkpoint remembers, as tables.
//!
//! ```text
//!  StateReader ─ open, choose ─► Looked ─ scan ─► rebuilt.rs: records put on top of each other ─► rows
//!   SQL: sql/state.rs            table.rs         columns.rs: what a row has
//! ```
//! The folder is only read: nothing is claimed, and a query that runs there does not notice. What can be said without
//! the state (the columns, which micro-batches there are) is said when the frame is made; the state is read when rows
//! are wanted, and again each time.

mod columns;
mod log;
mod rebuilt;
mod table;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlanBuilder;
use highwater_checkpoint::{Checkpoint, OperatorIdentity, ReadOnly};

use self::table::{Look, Looked};
use crate::{BatchId, Error, QueryId, Result, StreamFrame, StreamSession};

/// Describes what of a checkpoint's state to read; see [`StreamSession::read_state`].
#[derive(Clone, Debug)]
#[must_use = "nothing is read until `load`"]
pub struct StateReader {
    session: StreamSession,
    request: StateRequest,
}

/// A stateful operator of a checkpoint: its name, or its number from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateOperator {
    /// Its name, as progress and [`StateReader::metadata`] tell it.
    Name(String),
    /// Its number, as [`StateReader::metadata`] tells it.
    Number(i64),
}

/// What was asked for, in Rust or in SQL.
#[derive(Clone, Debug)]
pub(crate) struct StateRequest {
    pub(crate) location: String,
    pub(crate) operator: StateOperator,
    pub(crate) batch: Option<u64>,
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
}

impl StreamSession {
    /// Reads the state that a query keeps in its checkpoint, whether the query runs or not. Nothing is written there.
    ///
    /// ```
    /// # use highwater::prelude::*;
    /// # #[tokio::main] async fn main() -> highwater::Result<()> {
    /// # let session = StreamSession::new();
    /// let rows = MemoryStream::new(&session, "k STRING, v BIGINT")?;
    /// let query = rows.to_frame()
    ///     .group_by([col("k")]).count()?
    ///     .write_stream().output_mode(OutputMode::Update).format("noop")
    ///     .checkpoint_location("memory:///ckpt")
    ///     .start().await?;
    /// rows.add_data([("a", 1), ("a", 2), ("b", 3)])?;
    /// query.process_all_available().await?;
    /// let state = session.read_state("memory:///ckpt").operator("aggregate").load().await?;
    /// assert_eq!(state.count().await?, 2);
    /// # query.stop().await
    /// # }
    /// ```
    pub fn read_state(&self, checkpoint: impl Into<String>) -> StateReader {
        StateReader {
            session: self.clone(),
            request: StateRequest::new(checkpoint.into()),
        }
    }
}

impl StateReader {
    /// The operator, by its name or its number; the first by default.
    pub fn operator(mut self, operator: impl Into<StateOperator>) -> Self {
        self.request.operator = operator.into();
        self
    }

    /// The micro-batch after which the state is shown; the last committed one by default.
    pub fn batch(mut self, batch: u64) -> Self {
        self.request.batch = Some(batch);
        self
    }

    /// Shows what the micro-batches `from` to `to` changed, both included, and not the state.
    pub fn changes(mut self, from: u64, to: u64) -> Self {
        (self.request.from, self.request.to) = (Some(from), Some(to));
        self
    }

    /// The state, or the changes, as a batch frame.
    ///
    /// The state has the key columns, the value columns, `bucket` (where the key lies in memory: the first six bits of
    /// its hash, 0 to 63) and `pane` (when the record is over by the watermark; null if never). The changes have
    /// `batch_id`, `change` (`put`, `remove` or `evict`), the key columns and the value columns.
    /// All of the operator's state is held in memory while it is read.
    ///
    /// # Errors
    /// `Invalid` when there is no checkpoint, no such operator, or the micro-batch is not there: the error says
    /// what there is. `Corrupt`, naming the file, for one that is damaged; of state files the frame's actions say so.
    pub async fn load(self) -> Result<StreamFrame> {
        let state = self.session.state();
        let table = match self.request.from {
            Some(_) => self.request.changes(&state).await?,
            None => self.request.state(&state).await?,
        };
        self.frame("state", table)
    }

    /// What there is to read, a row for each operator: `operator` (its number), `name`, `kind` (Spark's name for such an
    /// operator), `keys` and `values` (the names of its columns), `rows` after the last micro-batch, and `min_batch` and
    /// `max_batch`, which can be read.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn metadata(self) -> Result<StreamFrame> {
        let table = self.request.metadata(&self.session.state()).await?;
        self.frame("state_metadata", table)
    }

    /// The log of micro-batches, a row for each of the sources of each micro-batch that the checkpoint still tells of.
    ///
    /// | column | what |
    /// |---|---|
    /// | `batch_id`, `batch_time` | the micro-batch, and what `current_timestamp()` answers in it |
    /// | `committed` | it is done; the last one may only be intended |
    /// | `source`, `start_offset`, `end_offset` | what it reads: after the start, up to and including the end; the offsets are JSON |
    /// | `watermark`, `late_watermark` | what closes windows in it, and what judges late rows; null until there is one |
    /// | `next_watermark` | what the micro-batch after it runs with, or a later one |
    /// | `output_rows` | rows the sink has counted |
    /// | `state_file` | what changed in the state, relative to the checkpoint |
    /// | `final` | the last micro-batch of `flushOnEnd` |
    ///
    /// # Errors
    /// `Invalid` when there is no checkpoint; `Corrupt`, naming the entry, for one that is damaged.
    pub async fn batches(self) -> Result<StreamFrame> {
        let checkpoint = self.request.look(&self.session.state()).await?;
        let rows = log::rows(&checkpoint).await?;
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        self.frame("batches", Arc::new(table))
    }

    /// The identity of the query that the checkpoint belongs to.
    ///
    /// # Errors
    /// `Invalid` when there is no checkpoint.
    pub async fn query_id(self) -> Result<QueryId> {
        Ok(self.request.look(&self.session.state()).await?.query_id())
    }

    fn frame(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<StreamFrame> {
        let source = provider_as_source(table);
        let plan = LogicalPlanBuilder::scan(TableReference::bare(name), source, None)?.build()?;
        let frame = DataFrame::new(self.session.state(), plan);
        Ok(self.session.frame(frame))
    }
}

impl StateRequest {
    pub(crate) fn new(location: String) -> Self {
        Self {
            location,
            operator: StateOperator::Number(0),
            batch: None,
            from: None,
            to: None,
        }
    }

    /// The state after a micro-batch.
    pub(crate) async fn state(&self, state: &SessionState) -> Result<Arc<dyn TableProvider>> {
        let (checkpoint, there) = self.open(state).await?;
        let batch = self.batch.map_or(*there.end(), BatchId);
        retained("batch", batch, &there)?;
        let operator = self.operator(&checkpoint, batch).await?;
        let look = Look::State { operator, batch };
        Ok(Arc::new(Looked::new(checkpoint, look)))
    }

    /// What micro-batches changed.
    pub(crate) async fn changes(&self, state: &SessionState) -> Result<Arc<dyn TableProvider>> {
        let (checkpoint, there) = self.open(state).await?;
        if self.batch.is_some() {
            return Err(invalid(
                "batch",
                "`batch` has no meaning for changes: they have `from` and `to`",
            ));
        }
        // What was evicted is known from the state before.
        let first = match *there.start() {
            BatchId(0) => BatchId(0),
            oldest => oldest.next(),
        };
        let there = first..=*there.end();
        let from = self.from.map_or(first, BatchId);
        let to = self.to.map_or(*there.end(), BatchId);
        retained("from", from, &there)?;
        retained("to", to, &there)?;
        if from > to {
            let said = format!("the changes from micro-batch {from} to {to}: there are none");
            return Err(invalid("from", &said));
        }
        let operator = self.operator(&checkpoint, to).await?;
        let look = Look::Changes { operator, from, to };
        Ok(Arc::new(Looked::new(checkpoint, look)))
    }

    /// What there is to read.
    pub(crate) async fn metadata(&self, state: &SessionState) -> Result<Arc<dyn TableProvider>> {
        let (checkpoint, there) = self.open(state).await?;
        let operators = checkpoint.operators(*there.end()).await?;
        let look = Look::Metadata { operators, there };
        Ok(Arc::new(Looked::new(checkpoint, look)))
    }

    /// The checkpoint, and the micro-batches there are.
    async fn open(&self, state: &SessionState) -> Result<(ReadOnly, RangeInclusive<BatchId>)> {
        let checkpoint = self.look(state).await?;
        match checkpoint.readable().await? {
            Some(there) => Ok((checkpoint, there)),
            None => Err(Error::invalid(format!(
                "no micro-batch is committed in the checkpoint `{}`",
                self.location
            ))
            .with_condition("STDS_COMMITTED_BATCH_UNAVAILABLE")
            .with_hint("let the query finish a micro-batch first")),
        }
    }

    /// The checkpoint, whatever is in it.
    async fn look(&self, state: &SessionState) -> Result<ReadOnly> {
        let context = || format!("reading the state of the checkpoint `{}`", self.location);
        let opened = highwater_storage::open_location(&self.location, state.runtime_env());
        let (store, folder) = opened.map_err(|e| e.context(context()))?;
        let checkpoint = Checkpoint::read_only(store, folder).await;
        checkpoint.map_err(|e| e.context(context()))
    }

    async fn operator(&self, checkpoint: &ReadOnly, batch: BatchId) -> Result<OperatorIdentity> {
        let mut operators = checkpoint.operators(batch).await?;
        let place = match &self.operator {
            StateOperator::Name(name) => operators.iter().position(|o| o.name == *name),
            StateOperator::Number(number) => usize::try_from(*number).ok(),
        };
        match place.filter(|place| *place < operators.len()) {
            Some(place) => Ok(operators.swap_remove(place)),
            None => Err(unknown(&self.operator, &operators)),
        }
    }
}

/// A micro-batch whose state cannot be read.
fn retained(option: &'static str, batch: BatchId, there: &RangeInclusive<BatchId>) -> Result<()> {
    if there.contains(&batch) {
        return Ok(());
    }
    let (start, end) = (there.start(), there.end());
    Err(invalid(
        option,
        &format!(
            "micro-batch {batch} cannot be read from the checkpoint: it has those of {start} to {end}"
        ),
    ))
}

fn unknown(asked: &StateOperator, operators: &[OperatorIdentity]) -> Error {
    let known = operators.iter().enumerate();
    let known = known.map(|(number, o)| format!("{number} `{}`", o.name));
    let known = known.collect::<Vec<_>>().join(", ");
    let said = match known.as_str() {
        "" => format!("there is no stateful operator {asked}: the query has no state"),
        known => format!("there is no stateful operator {asked}; there are {known}"),
    };
    invalid("operator", &said)
}

fn invalid(option: &'static str, said: &str) -> Error {
    Error::invalid(said)
        .with_condition("STDS_INVALID_OPTION_VALUE.WITH_MESSAGE")
        .with_option(option)
}

impl fmt::Display for StateOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl From<&str> for StateOperator {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for StateOperator {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<i32> for StateOperator {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for StateOperator {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
