//! A query over a table whose time is marked as event time, run trigger by trigger.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use highwater_core::{BatchId, MicroBatch, OutputMode, Timestamp, Watermark};

use super::super::{StatefulSessionExec, has_session, with_superseded};
use crate::cell::BatchCell;
use crate::event_time::{EventTime, SESSION_KEY};
use crate::operators::StatefulOperator;
use crate::testing::replay::Replay;

const SECOND: i64 = 1_000_000;
/// So small that a trigger goes through in several turns.
const BATCH_SIZE: usize = 8;

/// A row of `t`; times and gaps in seconds.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) ts: Option<i64>,
    pub(super) gap: Option<i64>,
    pub(super) k: Option<String>,
    pub(super) j: Option<i64>,
    pub(super) v: Option<i64>,
}

/// A row at `ts` of `key`, with a gap of 5.
pub(super) fn event(ts: i64, key: &str) -> Row {
    Row {
        id: 0,
        ts: Some(ts),
        gap: Some(5),
        k: Some(key.to_owned()),
        j: None,
        v: None,
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, t: DataType| Field::new(name, t, true);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        field("id", DataType::Int64),
        EventTime::instant().mark(field("ts", time.clone())),
        field("gap", DataType::Int64),
        field("k", DataType::Utf8),
        field("j", DataType::Int64),
        field("v", DataType::Int64),
        field("plain", time),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let longs = |of: fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(rows.iter().map(of)))
    };
    let times: ArrayRef = Arc::new(
        TimestampMicrosecondArray::from_iter(rows.iter().map(|r| r.ts.map(|t| t * SECOND)))
            .with_timezone("UTC"),
    );
    let keys = StringArray::from_iter(rows.iter().map(|r| r.k.as_deref()));
    let columns = vec![
        longs(|r| Some(r.id)),
        Arc::clone(&times),
        longs(|r| r.gap),
        Arc::new(keys),
        longs(|r| r.j),
        longs(|r| r.v),
        times,
    ];
    RecordBatch::try_new(schema(), columns).expect("a batch")
}

/// The kernel of session_window: `session_of_row(ts, gap in seconds)`.
pub(super) fn session_of_row() -> ScalarUDF {
    ScalarUDF::new_from_impl(SessionOfRow(Signature::any(2, Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionOfRow(Signature);

fn bounds(time: &DataType) -> Fields {
    let bound = |name: &str| Field::new(name, time.clone(), false);
    vec![bound("start"), bound("end")].into()
}

impl ScalarUDFImpl for SessionOfRow {
    fn name(&self) -> &str {
        "session_of_row"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(bounds(&args[0])))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let time = &args.arg_fields[0];
        let data_type = DataType::Struct(bounds(time.data_type()));
        let field = Field::new(self.name(), data_type, true);
        let field = field.with_metadata([(SESSION_KEY.to_owned(), "1".to_owned())].into());
        Ok(Arc::new(match EventTime::of(time) {
            Some(mark) => mark.mark(field),
            None => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let starts = arrays[0].as_primitive::<TimestampMicrosecondType>();
        let gaps = arrays[1].as_primitive::<Int64Type>();
        let ends = starts.iter().zip(gaps);
        let ends = ends.map(|(start, gap)| Some(start? + gap.filter(|gap| *gap > 0)? * SECOND));
        let ends: TimestampMicrosecondArray = ends.collect();
        let valid = ends.nulls().cloned();
        let time = starts.data_type();
        let bare = |times: &TimestampMicrosecondArray| -> ArrayRef {
            let times = TimestampMicrosecondArray::new(times.values().clone(), None);
            Arc::new(times.with_data_type(time.clone()))
        };
        let columns = vec![bare(starts), bare(&ends)];
        let sessions = StructArray::try_new(bounds(time), columns, valid)?;
        Ok(ColumnarValue::Array(Arc::new(sessions)))
    }
}

/// A query with one session aggregation.
pub(super) struct Query {
    replay: Replay,
    context: SessionContext,
    cell: BatchCell,
    plan: Arc<dyn ExecutionPlan>,
    pub(super) operator: Arc<dyn StatefulOperator>,
}

impl Query {
    pub(super) async fn try_new(sql: &str, mode: OutputMode) -> Result<Self> {
        let replay = Replay::new(schema());
        let config = SessionConfig::new().with_target_partitions(1);
        let context = SessionContext::new_with_config(config.with_batch_size(BATCH_SIZE));
        context.remove_optimizer_rule("single_distinct_aggregation_to_group_by");
        context.register_udf(session_of_row());
        context.register_table("t", Arc::new(replay.clone()))?;
        let state = context.state();
        let plan = state.create_logical_plan(sql).await?;
        let options = state.config_options();
        let plan = state
            .analyzer()
            .execute_and_check(plan, options, |_, _| {})?;
        let plan = match mode {
            OutputMode::Update => with_superseded(plan)?,
            _ => plan,
        };
        let plan = state.optimizer().optimize(plan, &state, |_, _| {})?;
        let planner = Arc::clone(state.query_planner());
        let plan = planner.create_physical_plan(&plan, &state).await?;
        let cell = BatchCell::default();
        let mut operators = Vec::new();
        let plan = plan.transform_up(|node| match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) if has_session(aggregate) => {
                let (name, cell) = ("session".to_owned(), cell.clone());
                let stateful = StatefulSessionExec::try_new(aggregate, name, mode, cell)?;
                operators.push(stateful.operator());
                let stateful: Arc<dyn ExecutionPlan> = Arc::new(stateful);
                Ok(Transformed::yes(stateful))
            }
            _ => Ok(Transformed::no(node)),
        });
        Ok(Self {
            replay,
            cell,
            plan: plan.data()?,
            context,
            operator: operators.pop().expect("an aggregate by session"),
        })
    }

    /// Runs one trigger over these rows, with the watermarks in seconds.
    pub(super) async fn run(
        &mut self,
        rows: &[Row],
        late: i64,
        closes: i64,
    ) -> Result<Vec<RecordBatch>> {
        let half = rows.len() / 2;
        let batches = [&rows[..half], &rows[half..]].map(batch);
        self.replay.put(batches.into());
        self.cell.open(&MicroBatch {
            id: BatchId(0),
            ranges: [].into(),
            time: Timestamp::from_millis(0),
            watermark: Watermark(closes * 1_000),
            late_watermark: Watermark(late * 1_000),
        });
        self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        let output = collect(Arc::clone(&self.plan), self.context.task_ctx()).await?;
        let schema = self.plan.schema();
        assert!(output.iter().all(|rows| rows.schema() == schema));
        assert!(output.iter().all(|rows| rows.num_rows() <= BATCH_SIZE));
        Ok(output)
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    pub(super) fn want_late(&self) {
        self.cell.late().want();
    }

    pub(super) fn late(&self) -> Vec<RecordBatch> {
        let late = self.cell.late().take();
        assert!(late.iter().all(|late| late.operator == "session"));
        late.into_iter().map(|late| late.rows).collect()
    }
}

/// Starts and ends in seconds.
pub(super) fn spans(column: &ArrayRef) -> Vec<(i64, i64)> {
    let sessions = column.as_struct();
    let times = |at: usize| {
        let times = sessions.column(at);
        times
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .clone()
    };
    let (starts, ends) = (times(0), times(1));
    let spans = starts.iter().zip(ends.iter());
    spans
        .map(|(start, end)| (start / SECOND, end / SECOND))
        .collect()
}

/// What each row replaces; `None` without such a column.
pub(super) fn superseded(batch: &RecordBatch) -> Option<Vec<Vec<(i64, i64)>>> {
    let lists = batch.column_by_name("superseded")?.as_list::<i32>();
    Some(
        (0..lists.len())
            .map(|row| spans(&lists.value(row)))
            .collect(),
    )
}

/// `key start..end count < start..end …`, a line each row, in their order.
pub(super) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let keys = batch.column(0).as_string::<i32>();
        let spans = spans(batch.column(1));
        let counts = batch.column(2).as_primitive::<Int64Type>();
        let superseded = superseded(batch);
        for row in 0..batch.num_rows() {
            let (start, end) = spans[row];
            let mut line = format!("{} {start}..{end} {}", keys.value(row), counts.value(row));
            if let Some(superseded) = &superseded {
                line += " <";
                for (start, end) in &superseded[row] {
                    line += &format!(" {start}..{end}");
                }
            }
            lines.push(line);
        }
    }
    lines
}
