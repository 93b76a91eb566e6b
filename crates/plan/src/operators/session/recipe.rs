//! What a session aggregation computes: made once from the `AggregateExec` that DataFusion planned.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, PhysicalGroupBy, aggregate_expressions, evaluate_group_by,
};
use highwater_core::{Error, OutputMode};

use super::superseded::is_superseded;
use crate::event_time::{EventTime, SESSION_KEY};

/// What does not change while the query runs.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) mode: OutputMode,
    group_by: PhysicalGroupBy,
    /// The number of the session among the group expressions.
    pub(super) session: usize,
    /// The fields of a session.
    pub(super) window: Fields,
    /// The columns of the keys beside the session.
    pub(super) keys: Vec<FieldRef>,
    /// The session is event time, so a watermark judges it.
    timed: bool,
    pub(super) measures: Vec<Measure>,
    /// What the functions read, as columns.
    inputs: Vec<Arc<dyn PhysicalExpr>>,
    /// The columns of the result: keys and the session in their order, then values.
    pub(super) schema: SchemaRef,
    pub(super) input_schema: SchemaRef,
}

/// A value column of the result.
#[derive(Debug)]
pub(super) enum Measure {
    /// The value of an aggregate function.
    Value(Call),
    /// The sessions that this one replaces.
    Superseded,
}

/// One aggregate function and where its input is among the columns.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) expr: Arc<AggregateFunctionExpr>,
    /// Its arguments, those of its ORDER BY included.
    pub(super) args: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) columns: Range<usize>,
    /// The column of its FILTER.
    pub(super) filter: Option<usize>,
    /// It has an ORDER BY, and relies on rows that come in that order.
    pub(super) ordered: bool,
}

/// The keys and sessions of the rows of a batch.
pub(super) struct Opened {
    pub(super) keys: Vec<ArrayRef>,
    pub(super) starts: Int64Array,
    /// The ends; null where a row opens no session.
    pub(super) ends: Int64Array,
}

impl Recipe {
    /// The recipe of `aggregate`.
    ///
    /// # Errors
    /// `Unsupported` without a key beside the session, with two sessions, with grouping sets, and in
    /// append mode without a watermark; `Internal` when it has no session.
    pub(super) fn try_new(
        aggregate: &AggregateExec,
        name: String,
        mode: OutputMode,
    ) -> highwater_core::Result<Self> {
        let group_by = aggregate.group_expr().clone();
        let schema = Arc::clone(aggregate.cache().equivalence_properties().schema());
        let groups = &schema.fields()[..group_by.num_group_exprs()];
        let session = only_session(groups)?;
        refuse(&group_by, EventTime::of(&groups[session]).is_some(), mode)?;
        let window = window_fields(&groups[session])?;
        let keys = groups.iter().enumerate().filter(|(at, _)| *at != session);
        let keys = keys.map(|(_, field)| unmarked(field)).collect();
        let (measures, inputs) = measures(aggregate)?;
        Ok(Self {
            name,
            mode,
            session,
            window,
            keys,
            timed: EventTime::of(&groups[session]).is_some(),
            measures,
            inputs,
            input_schema: aggregate.input().schema(),
            schema,
            group_by,
        })
    }

    /// True where the session is event time, whether the mode heeds that or not.
    pub(super) fn is_timed(&self) -> bool {
        self.timed
    }

    /// True where a watermark drops late rows and closes sessions: complete mode ignores it (Spark).
    pub(super) fn is_bounded(&self) -> bool {
        self.timed && self.mode != OutputMode::Complete
    }

    /// The aggregate functions.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.measures.iter().filter_map(|measure| match measure {
            Measure::Value(call) => Some(call),
            Measure::Superseded => None,
        })
    }

    /// The type of starts and ends.
    pub(super) fn time(&self) -> &DataType {
        self.window[0].data_type()
    }

    /// The keys and the session of each row.
    pub(super) fn open(&self, batch: &RecordBatch) -> Result<Opened> {
        let mut keys = evaluate_group_by(&self.group_by, batch)?
            .pop()
            .ok_or_else(|| Error::internal("a grouping without its one set"))?;
        let sessions = keys.remove(self.session);
        let sessions = sessions.as_struct();
        let micros = |at: usize| {
            let times = sessions
                .column(at)
                .as_primitive::<TimestampMicrosecondType>();
            times.reinterpret_cast::<Int64Type>()
        };
        let (starts, ends) = (micros(0), micros(1));
        let longer = starts.values().iter().zip(ends.values());
        let longer: NullBuffer = longer.map(|(start, end)| end > start).collect();
        let nulls = [
            Some(&longer),
            sessions.nulls(),
            starts.nulls(),
            ends.nulls(),
        ];
        let nulls = NullBuffer::union_many(nulls);
        Ok(Opened {
            keys,
            ends: Int64Array::new(ends.values().clone(), nulls),
            starts,
        })
    }

    /// The columns that the functions read.
    pub(super) fn inputs(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let inputs = self.inputs.iter();
        let arrays = inputs.map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows()));
        arrays.collect()
    }
}

impl Call {
    /// Its FILTER among the columns.
    pub(super) fn filter<'a>(&self, columns: &'a [ArrayRef]) -> Result<Option<&'a BooleanArray>> {
        let Some(at) = self.filter else {
            return Ok(None);
        };
        let mask = columns[at].as_boolean_opt();
        let mask = mask.ok_or_else(|| Error::internal("the FILTER of an aggregate is no boolean"));
        Ok(Some(mask?))
    }
}

/// True when an aggregate groups by a session.
pub(crate) fn has_session(aggregate: &AggregateExec) -> bool {
    let groups = aggregate.group_expr().num_group_exprs();
    let schema = aggregate.cache().equivalence_properties().schema();
    schema.fields()[..groups]
        .iter()
        .any(|field| is_session(field))
}

pub(super) fn is_session(field: &Field) -> bool {
    field.metadata().contains_key(SESSION_KEY)
}

fn only_session(groups: &[FieldRef]) -> highwater_core::Result<usize> {
    let mut sessions = groups.iter().enumerate().filter(|(_, f)| is_session(f));
    match (sessions.next(), sessions.next()) {
        (Some((at, _)), None) => Ok(at),
        (Some(_), Some(_)) => Err(Error::unsupported(
            "multiple time/session window expressions would result in a cartesian product of rows, therefore they are currently not supported",
        )
        .with_hint("group by one session_window; count the other in a query of its own")),
        (None, _) => Err(Error::internal("a session aggregation without a session")),
    }
}

fn refuse(group_by: &PhysicalGroupBy, timed: bool, mode: OutputMode) -> highwater_core::Result<()> {
    if group_by.has_grouping_set() {
        return Err(Error::unsupported(
            "session_window in CUBE, ROLLUP or GROUPING SETS over a stream",
        )
        .with_hint("group by the session and plain keys; one query for each grouping set"));
    }
    if group_by.num_group_exprs() < 2 {
        return Err(Error::unsupported(
            "Global aggregation with session window in streaming query is not supported.",
        )
        .with_hint("group by a column beside session_window"));
    }
    if mode == OutputMode::Append && !timed {
        return Err(
            Error::unsupported("append output mode for sessions without a watermark")
                .with_condition("STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION")
                .with_hint(
                    "put a watermark on the time of session_window, or use another output mode",
                ),
        );
    }
    Ok(())
}

fn window_fields(session: &Field) -> highwater_core::Result<Fields> {
    let micros = |field: &FieldRef| {
        matches!(
            field.data_type(),
            DataType::Timestamp(TimeUnit::Microsecond, _)
        )
    };
    match session.data_type() {
        DataType::Struct(fields) if fields.len() == 2 && fields.iter().all(micros) => {
            Ok(fields.clone())
        }
        other => Err(Error::internal(format!("a session of type {other}"))),
    }
}

fn unmarked(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(
        field.name(),
        field.data_type().clone(),
        field.is_nullable(),
    ))
}

type Measures = (Vec<Measure>, Vec<Arc<dyn PhysicalExpr>>);

/// The value columns of the result, and what they read.
fn measures(aggregate: &AggregateExec) -> highwater_core::Result<Measures> {
    let exprs = aggregate.aggr_expr();
    let arguments = aggregate_expressions(exprs, &AggregateMode::Single, 0)?;
    let filters = aggregate.filter_expr();
    let (mut measures, mut inputs) = (Vec::new(), Vec::new());
    for ((expr, args), filter) in exprs.iter().zip(arguments).zip(filters) {
        if is_superseded(expr) {
            measures.push(Measure::Superseded);
            continue;
        }
        let first = inputs.len();
        inputs.extend(args.iter().cloned());
        let columns = first..inputs.len();
        inputs.extend(filter.iter().cloned());
        measures.push(Measure::Value(Call {
            expr: Arc::clone(expr),
            args,
            filter: filter.as_ref().map(|_| columns.end),
            columns,
            ordered: !expr.order_bys().is_empty(),
        }));
    }
    Ok((measures, inputs))
}

/// The columns of the state: the keys and the start, then the end and the states of the functions.
pub(super) fn state_schemas(recipe: &Recipe, states: &[FieldRef]) -> (Schema, Schema) {
    let time = |name: &str, nullable| Arc::new(Field::new(name, recipe.time().clone(), nullable));
    let keys = recipe.keys.iter().cloned();
    let keys: Vec<_> = keys.chain([time("session_start", false)]).collect();
    let values = [time("session_end", true)].into_iter();
    let values: Vec<_> = values.chain(states.iter().cloned()).collect();
    (Schema::new(keys), Schema::new(values))
}
