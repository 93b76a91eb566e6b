//! What a streaming aggregation computes: it does not change while the query runs.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, PhysicalGroupBy, aggregate_expressions, evaluate_many,
};
use highwater_core::{Error, OutputMode, Pane};

use super::event::EventKey;
use super::shared::SharedPanes;
use crate::cell::BatchCell;
use crate::event_time::{Span, event_time_of};

/// What an aggregation computes.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) mode: OutputMode,
    pub(super) group_by: PhysicalGroupBy,
    /// The arguments of each function, those of its ORDER BY included.
    pub(super) arguments: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// The columns of the result: keys, then values.
    pub(super) schema: SchemaRef,
    pub(super) input_schema: SchemaRef,
    /// The number of key columns.
    pub(super) keys: usize,
    /// The key that tells the time of a group.
    pub(super) event: Option<EventKey>,
    /// Where the running micro-batch is looked up.
    pub(super) cell: BatchCell,
}

impl Recipe {
    pub(super) fn try_new(
        aggregate: &AggregateExec,
        name: String,
        mode: OutputMode,
        cell: BatchCell,
    ) -> Result<Self> {
        let group_by = aggregate.group_expr().clone();
        let schema = Arc::clone(aggregate.cache().equivalence_properties().schema());
        let keys = group_by.num_group_exprs();
        let key_schema = schema.project(&(0..keys).collect::<Vec<_>>())?;
        let event = EventKey::of(&key_schema);
        let pieces = |field: &FieldRef| Span::of(field).is_some_and(|span| span.panes);
        let pieces = key_schema.fields().iter().filter(|f| pieces(f)).count();
        let shared = usize::from(event.as_ref().is_some_and(|e| e.shared.is_some()));
        if pieces > shared || (pieces > 0 && group_by.has_grouping_set()) {
            // Another key would judge the rows; a total counts a row once for each of its windows (Spark).
            return Err(Error::internal("windows cannot share panes under these keys").into());
        }
        Ok(Self {
            name,
            mode,
            arguments: aggregate_expressions(aggregate.aggr_expr(), &AggregateMode::Single, 0)?,
            filters: aggregate.filter_expr().to_vec(),
            schema,
            input_schema: aggregate.input().schema(),
            keys,
            group_by,
            event,
            cell,
        })
    }

    /// True for an aggregation without GROUP BY: it has one row, always.
    pub(super) fn is_global(&self) -> bool {
        self.group_by.is_true_no_grouping()
    }

    /// The key by which rows are late and groups are over, where the mode heeds the watermark.
    pub(super) fn closing(&self) -> Option<&EventKey> {
        let heeds = self.mode != OutputMode::Complete;
        self.event.as_ref().filter(|event| heeds && event.marked)
    }

    /// The key by which records are put into panes: to be evicted, or to be made into windows in order.
    pub(super) fn paned(&self) -> Option<&EventKey> {
        let shared = self.event.as_ref().filter(|event| event.shared.is_some());
        self.closing().or(shared)
    }

    /// What tells when a record is over by the watermark, whether the mode heeds that or not: an earlier run's may.
    pub(super) fn pane(&self) -> Option<Pane> {
        let event = self.event.as_ref().filter(|event| event.marked)?;
        let column = event.column;
        let add_us = event.until_end(self.schema.field(column).data_type());
        Some(Pane { column, add_us })
    }

    /// What bounds the state.
    pub(super) fn bound(&self) -> String {
        let Some(event) = self.closing() else {
            return "unbounded state".to_owned();
        };
        // The columns that DataFusion and the windows make for themselves mean nothing to the reader.
        let of_input = event_time_of(&self.input_schema);
        let name = match of_input {
            Some((column, mark)) if mark.span.is_none() => self.input_schema.field(column).name(),
            _ => self.schema.field(event.column).name(),
        };
        match name.starts_with("__") {
            true => "closed by the watermark".to_owned(),
            false => format!("closed by the watermark of `{name}`"),
        }
    }

    /// How windows are made of the records, where they share panes.
    pub(super) fn shared(&self) -> Option<SharedPanes> {
        self.event.as_ref().and_then(|event| event.shared)
    }

    /// The arguments of all functions over the rows of `batch`.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        Ok(Rows {
            arguments: evaluate_many(&self.arguments, batch)?,
            filters: evaluate_filters(&self.filters, batch)?,
        })
    }
}

/// The rows of one input batch, ready for the functions.
pub(super) struct Rows {
    pub(super) arguments: Vec<Vec<ArrayRef>>,
    pub(super) filters: Vec<Option<BooleanArray>>,
}

impl Rows {
    /// The rows that `mask` tells.
    pub(super) fn only(&self, mask: &BooleanArray) -> Result<Self> {
        let filter = arrow::compute::FilterBuilder::new(mask).optimize().build();
        let column = |column: &ArrayRef| Ok(filter.filter(column)?);
        let columns = |columns: &Vec<ArrayRef>| columns.iter().map(column).collect::<Result<_>>();
        let boolean = |mask: &Option<BooleanArray>| -> Result<Option<BooleanArray>> {
            let mask = mask.as_ref().map(|mask| filter.filter(mask)).transpose()?;
            Ok(mask.map(|mask| mask.as_boolean().clone()))
        };
        Ok(Self {
            arguments: self.arguments.iter().map(columns).collect::<Result<_>>()?,
            filters: self.filters.iter().map(boolean).collect::<Result<_>>()?,
        })
    }
}

fn evaluate_filters(
    filters: &[Option<Arc<dyn PhysicalExpr>>],
    batch: &RecordBatch,
) -> Result<Vec<Option<BooleanArray>>> {
    let evaluate = |filter: &Arc<dyn PhysicalExpr>| -> Result<BooleanArray> {
        let mask = filter.evaluate(batch)?.into_array(batch.num_rows())?;
        mask.as_boolean_opt()
            .cloned()
            .ok_or_else(|| Error::internal("the FILTER of an aggregate is no boolean").into())
    };
    filters
        .iter()
        .map(|filter| filter.as_ref().map(evaluate).transpose())
        .collect()
}
