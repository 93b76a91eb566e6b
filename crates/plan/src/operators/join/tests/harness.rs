//! A query with one join of the tables `l` and `r`, run trigger by trigger, and the rows of a plain reference.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use highwater_core::{BatchId, MicroBatch, Timestamp, Watermark};

use super::super::StreamJoinExec;
use super::super::bounds::Bound;
use super::super::operator::JoinSide;
use super::super::recipe::{Recipe, Side};
use crate::cell::BatchCell;
use crate::event_time::EventTime;
use crate::operators::StatefulOperator;
use crate::testing::replay::Replay;

/// Random numbers that are the same everywhere (SplitMix64), from a seed that failures print.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// From `low` to `high`, `high` not included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.roll() % (high - low) as u64) as i64
    }

    /// True `percent` times in a hundred.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }
}

/// A row of either table: an event time in milliseconds, a key, a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) ts: Option<i64>,
    pub(super) k: Option<i64>,
    pub(super) v: Option<i64>,
}

pub(super) fn row(ts: i64, k: i64, v: i64) -> Row {
    Row {
        ts: Some(ts),
        k: Some(k),
        v: Some(v),
    }
}

fn schema(marked: bool) -> SchemaRef {
    let time = Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true);
    let time = match marked {
        true => EventTime::instant().mark(time),
        false => time,
    };
    Arc::new(Schema::new(vec![
        time,
        Field::new("k", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
        Field::new("d", DataType::Float64, true),
    ]))
}

/// The rows as a table without a watermark.
pub(super) fn table(rows: &[Row]) -> RecordBatch {
    batch(rows, &schema(false))
}

fn batch(rows: &[Row], schema: &SchemaRef) -> RecordBatch {
    let times = rows.iter().map(|row| row.ts.map(|ms| ms * 1_000));
    let keys = rows.iter().map(|row| row.k.map(|k| format!("k{k}")));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter(times)),
        Arc::new(StringArray::from_iter(keys)),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.v))),
        Arc::new(Float64Array::from_iter(rows.iter().map(double))),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("a batch")
}

/// Zeros of both signs, and NaN: what must be told to be the same.
fn double(row: &Row) -> Option<f64> {
    let sign = if row.v.is_some_and(|v| v % 2 == 0) {
        1.0
    } else {
        -1.0
    };
    row.k.map(|k| match k {
        0 => 0.0 * sign,
        1 => f64::NAN * sign,
        k => k as f64,
    })
}

/// Watermarks of a trigger, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) late: i64,
    pub(super) closes: i64,
}

/// A query with one join.
pub(super) struct Query {
    tables: [Replay; 2],
    context: SessionContext,
    pub(super) cell: BatchCell,
    plan: Arc<dyn ExecutionPlan>,
    pub(super) sides: [JoinSide; 2],
    triggers: u64,
    /// The batch time.
    now_ms: i64,
    recipe: Arc<Recipe>,
}

impl Query {
    /// Both tables have a watermark.
    pub(super) async fn new(sql: &str) -> Self {
        Self::try_new(sql, [true, true], 8).await.expect("planned")
    }

    /// With `stateTtl`, in microseconds.
    pub(super) async fn aged(sql: &str, marked: [bool; 2], ttl_us: i64) -> Self {
        let query = Self::planned(sql, marked, 8, Some(ttl_us)).await;
        query.expect("planned")
    }

    /// `marked`: which tables have a watermark. Batches have at most `size` rows.
    pub(super) async fn try_new(sql: &str, marked: [bool; 2], size: usize) -> Result<Self> {
        Self::planned(sql, marked, size, None).await
    }

    async fn planned(
        sql: &str,
        marked: [bool; 2],
        size: usize,
        ttl_us: Option<i64>,
    ) -> Result<Self> {
        let tables = marked.map(|marked| Replay::new(schema(marked)));
        let config = SessionConfig::new().with_target_partitions(1);
        let mut config = config.with_batch_size(size);
        config
            .options_mut()
            .optimizer
            .enable_dynamic_filter_pushdown = false;
        config
            .options_mut()
            .optimizer
            .enable_join_dynamic_filter_pushdown = false;
        let context = SessionContext::new_with_config(config);
        context.register_table("l", Arc::new(tables[0].clone()))?;
        context.register_table("r", Arc::new(tables[1].clone()))?;
        let plan = context.sql(sql).await?.create_physical_plan().await?;
        let cell = BatchCell::default();
        let mut joins = Vec::new();
        let plan = plan.transform_up(|node| match node.downcast_ref::<HashJoinExec>() {
            Some(join) => {
                let join = StreamJoinExec::try_new(join, "join".to_owned(), cell.clone())?;
                let join = match ttl_us {
                    Some(ttl_us) => join.by_age(ttl_us).expect("a side without a bound"),
                    None => join,
                };
                joins.push((Arc::clone(&join.operator), Arc::clone(&join.recipe)));
                Ok(Transformed::yes(Arc::new(join) as Arc<dyn ExecutionPlan>))
            }
            None => Ok(Transformed::no(node)),
        });
        let plan = plan.data()?;
        let (join, recipe) = joins.pop().expect("a join");
        let side = |side| JoinSide::new(Arc::clone(&join), side);
        Ok(Self {
            tables,
            context,
            cell,
            plan,
            sides: [side(Side::Left), side(Side::Right)],
            triggers: 0,
            now_ms: 0,
            recipe,
        })
    }

    /// Starts a trigger over these rows.
    pub(super) fn start(
        &mut self,
        left: &[Row],
        right: &[Row],
        marks: Marks,
    ) -> SendableRecordBatchStream {
        for (at, rows) in [left, right].into_iter().enumerate() {
            let batches = rows.chunks(rows.len().div_ceil(2).max(1));
            let schema = schema_of(&self.tables[at]);
            self.tables[at].put(batches.map(|rows| batch(rows, &schema)).collect());
        }
        self.triggers += 1;
        self.cell.open(&MicroBatch {
            id: BatchId(self.triggers),
            ranges: [].into(),
            time: Timestamp::from_millis(self.now_ms),
            watermark: Watermark(marks.closes),
            late_watermark: Watermark(marks.late),
        });
        self.plan = reset_plan_states(Arc::clone(&self.plan)).expect("reset");
        let plan = Arc::clone(&self.plan);
        plan.execute(0, self.context.task_ctx()).expect("a stream")
    }

    /// Runs a trigger; the rows that come out, in text, sorted.
    pub(super) async fn run(&mut self, left: &[Row], right: &[Row], marks: Marks) -> Vec<String> {
        let stream = self.start(left, right, marks);
        let batches: Vec<RecordBatch> = stream.try_collect().await.expect("a trigger");
        lines(&batches)
    }

    /// The same at a batch time in milliseconds, that of the triggers to come too.
    pub(super) async fn run_at(
        &mut self,
        now_ms: i64,
        left: &[Row],
        right: &[Row],
        marks: Marks,
    ) -> Vec<String> {
        self.now_ms = now_ms;
        self.run(left, right, marks).await
    }

    /// The sides that rows leave by their age.
    pub(super) fn bound_by_age(&self) -> Vec<Side> {
        let by_age = |side: &Side| {
            let bound = self.recipe.side(*side).bound.as_ref();
            bound.is_some_and(|bound| bound.age_us.is_some())
        };
        [Side::Left, Side::Right]
            .into_iter()
            .filter(by_age)
            .collect()
    }

    /// What the trigger changed, of both sides; and it is committed.
    pub(super) fn commit(&self) -> [Vec<RecordBatch>; 2] {
        let changes = [0, 1].map(|at| self.sides[at].changes().expect("changes"));
        self.sides.iter().for_each(StatefulOperator::commit);
        changes
    }

    /// Puts records back, as a restart does.
    pub(super) fn restore(&self, records: &[Vec<RecordBatch>; 2]) {
        for (side, records) in self.sides.iter().zip(records) {
            for batch in records {
                side.restore(batch).expect("restored");
            }
        }
    }

    /// The whole state in parts.
    pub(super) fn parts(&self, of: u32) -> [Vec<RecordBatch>; 2] {
        [0, 1].map(|at| {
            let parts = (0..of).map(|number| self.sides[at].records_of_part(number, of));
            parts.flat_map(|part| part.expect("a part")).collect()
        })
    }

    pub(super) fn rows_total(&self) -> u64 {
        self.sides[0].metrics().rows_total
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.sides[0].metrics().memory_bytes
    }

    /// What is added to the watermark for each side, in milliseconds.
    pub(super) fn shifts(&self) -> (Option<i64>, Option<i64>) {
        let of = |bound: &Option<Bound>| bound.as_ref().map(|bound| bound.shift_ms);
        (of(&self.recipe.left.bound), of(&self.recipe.right.bound))
    }

    pub(super) fn describe(&self) -> String {
        self.sides[0].describe()
    }

    /// The join's node, as explain shows it.
    pub(super) fn shown(&self) -> String {
        let mut shown = String::new();
        self.plan
            .apply(|node| {
                if node.is::<StreamJoinExec>() {
                    let node = datafusion::physical_plan::displayable(node.as_ref());
                    shown = node.one_line().to_string();
                }
                Ok(TreeNodeRecursion::Continue)
            })
            .expect("walked");
        shown.trim().to_owned()
    }
}

fn schema_of(table: &Replay) -> SchemaRef {
    datafusion::datasource::TableProvider::schema(table)
}

/// The rows as text, sorted.
pub(super) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let mut lines = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("shown"))
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
            lines.push(values.join(" "));
        }
    }
    lines.sort();
    lines
}
