//! The frame: a table that may grow.

mod actions;
mod calls;
mod event_time;
mod explain;
mod grouped;
mod joins;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{DFSchema, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use futures::FutureExt;
use highwater_plan::nodes;

pub use grouped::GroupedFrame;

use crate::{DataStreamWriter, Error, IntoSchema, OutputMode, Result, StreamSession};

/// A table that may grow: DataFusion's frame, with streams among its leaves or not.
///
/// Calls that DataFusion's [`DataFrame`] has are here with the same names and arguments; what is not
/// here is reached with [`transform`](Self::transform) or `DataFrame::from`. A frame with a streaming leaf
/// cannot be collected; it is started with [`write_stream`](Self::write_stream).
#[derive(Clone)]
pub struct StreamFrame {
    session: StreamSession,
    frame: DataFrame,
    /// What `EMIT` said in SQL.
    mode: Option<OutputMode>,
}

impl StreamFrame {
    pub(crate) fn new(session: StreamSession, frame: DataFrame) -> Self {
        Self {
            session,
            frame,
            mode: None,
        }
    }

    /// The frame with the output mode that `write_stream` begins with.
    pub(crate) fn emitting(self, mode: Option<OutputMode>) -> Self {
        Self { mode, ..self }
    }

    /// The output mode that the frame's SQL asks for.
    #[must_use]
    pub fn mode(&self) -> Option<OutputMode> {
        self.mode
    }

    /// True when a leaf is a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        highwater_plan::is_streaming(self.frame.logical_plan())
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &DFSchema {
        self.frame.schema()
    }

    /// The logical plan.
    #[must_use]
    pub fn logical_plan(&self) -> &LogicalPlan {
        self.frame.logical_plan()
    }

    /// Groups the rows: [`agg`](GroupedFrame::agg) says what is computed of each group.
    ///
    /// A [`window`](crate::window) among the keys groups by spans of time.
    pub fn group_by(self, keys: impl IntoIterator<Item = Expr>) -> GroupedFrame {
        GroupedFrame::new(self, keys.into_iter().collect())
    }

    /// Aggregates all rows into one.
    ///
    /// # Errors
    /// `Invalid` when an expression does not fit the columns.
    pub fn agg(self, aggregates: impl IntoIterator<Item = Expr>) -> Result<Self> {
        self.group_by([]).agg(aggregates)
    }

    /// Puts figures about the rows that pass here into the query's progress, under `name`.
    ///
    /// # Errors
    /// `Invalid` when one of the expressions is no aggregate; `Unsupported` on a batch frame.
    pub fn observe(
        self,
        name: impl Into<String>,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<Self> {
        self.must_stream("observe")?;
        let aggregates = aggregates.into_iter().collect();
        self.with_plan(|plan| nodes::observe(plan, name.into(), aggregates))
    }

    /// Puts each batch of rows through an async function of yours, which gives batches of `schema`.
    ///
    /// How the rows are cut into batches is not promised.
    ///
    /// # Errors
    /// `Invalid` when `schema` is no DDL; `Unsupported` on a batch frame.
    pub fn map_batches<F, Fut>(self, schema: impl IntoSchema, f: F) -> Result<Self>
    where
        F: Fn(RecordBatch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<RecordBatch>> + Send + 'static,
    {
        self.must_stream("map_batches")?;
        let schema = schema.into_schema()?;
        let f: nodes::MapBatchesFn = Arc::new(move |rows| f(rows).boxed());
        self.with_plan(|plan| nodes::map_batches(plan, schema, f))
    }

    /// Makes the frame known to SQL as `name`, in place of an earlier view of that name.
    ///
    /// # Errors
    /// `Invalid` when there is a table of that name that is no view.
    pub fn create_or_replace_temp_view(&self, name: &str) -> Result<()> {
        let context = self.session.context();
        let name = TableReference::from(name);
        if let Some(before) = context.deregister_table(name.clone())?
            && before.table_type() != TableType::View
        {
            context.register_table(name.clone(), before)?;
            return Err(Error::invalid(format!(
                "there is a table `{name}` already, and it is not a view"
            ))
            .with_condition("TEMP_TABLE_OR_VIEW_ALREADY_EXISTS")
            .with_hint("choose another name"));
        }
        let view: Arc<dyn TableProvider> =
            Arc::new(ViewTable::new(self.logical_plan().clone(), None));
        context.register_table(name, view)?;
        Ok(())
    }

    /// Writes the stream to a sink.
    pub fn write_stream(self) -> DataStreamWriter {
        DataStreamWriter::new(self)
    }

    /// Any call of DataFusion's frame.
    ///
    /// # Errors
    /// What `f` says.
    pub fn transform(
        self,
        f: impl FnOnce(DataFrame) -> datafusion::error::Result<DataFrame>,
    ) -> Result<Self> {
        let Self {
            session,
            frame,
            mode,
        } = self;
        Ok(Self {
            frame: f(frame)?,
            session,
            mode,
        })
    }

    pub(crate) fn session(&self) -> &StreamSession {
        &self.session
    }

    /// The session and the DataFusion frame.
    pub(crate) fn into_inner(self) -> (StreamSession, DataFrame) {
        (self.session, self.frame)
    }

    fn with_plan(self, f: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>) -> Result<Self> {
        let (state, plan) = self.frame.into_parts();
        Ok(Self {
            frame: DataFrame::new(state, f(plan)?),
            session: self.session,
            mode: self.mode,
        })
    }

    fn must_stream(&self, call: &str) -> Result<()> {
        if self.is_streaming() {
            return Ok(());
        }
        Err(Error::unsupported(format!("`{call}` on a batch frame"))
            .with_operator(call)
            .with_hint("aggregate or collect the batch frame instead"))
    }

    /// Batch actions end here on a streaming frame.
    pub(crate) fn must_be_batch(&self, action: &str) -> Result<()> {
        if self.is_streaming() {
            return Err(Error::unsupported(
                "Queries with streaming sources must be executed with write_stream().start()",
            )
            .with_operator(action)
            .with_hint("start the query, for instance into the memory sink, and ask its table"));
        }
        Ok(())
    }
}

impl From<StreamFrame> for DataFrame {
    fn from(frame: StreamFrame) -> Self {
        frame.frame
    }
}

impl fmt::Debug for StreamFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamFrame")
            .field("streaming", &self.is_streaming())
            .field("plan", self.frame.logical_plan())
            .finish_non_exhaustive()
    }
}
