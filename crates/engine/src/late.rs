//! Rows that came too late, on their way to a sink of their own.
//!
//! ```text
//!  operators ─► LateRows ─► their columns, united by name ─► + _operator, _watermark, _batch_id ─► the late sink
//! ```
//!
//! They are written after the result and before the commit, under the number of their micro-batch, so that a
//! replay writes the same rows under the same number.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use highwater_core::{BatchOutput, Error, MicroBatch, OutputMode, Result, Sink, SinkRun};
use highwater_plan::{IncrementalPlan, Late};

use crate::output::Rest;
use crate::run::Run;

/// Where late rows go; it is opened when their columns are known.
#[async_trait]
pub trait LateTarget: Debug + Send + Sync {
    /// The sink for rows of `schema`, which it gets in append mode.
    ///
    /// # Errors
    /// What the sink says.
    async fn open(&self, schema: SchemaRef) -> Result<Arc<dyn Sink>>;
}

/// What an operator is called that put the row aside.
const OPERATOR: &str = "_operator";
/// The watermark that judged late rows in that micro-batch.
const WATERMARK: &str = "_watermark";
/// The micro-batch.
const BATCH_ID: &str = "_batch_id";
/// The option, as errors name it.
const OPTION: &str = "lateRowsTo";

/// The second sink of a run.
#[derive(Debug)]
pub(crate) struct LateSink {
    sink: Arc<dyn Sink>,
    schema: SchemaRef,
}

impl LateSink {
    /// Opens `target` for the late rows of `plan`, which from now on keeps them.
    ///
    /// # Errors
    /// `Invalid` when no row of the query can be late, when two operators have columns of one name and different
    /// types, or when the sink needs a checkpoint and there is none; `Unsupported` when it cannot append.
    pub(crate) async fn open(
        target: &dyn LateTarget,
        plan: &IncrementalPlan,
        durable: bool,
    ) -> Result<Self> {
        let schema = columns(&late_schemas(plan))?;
        let sink = target.open(Arc::clone(&schema)).await?;
        if !sink.supports(OutputMode::Append) {
            let description = sink.description();
            return Err(Error::unsupported(format!(
                "{description} cannot take late rows: it does not support the output mode append"
            ))
            .with_option(OPTION));
        }
        if sink.needs_checkpoint() && !durable {
            let description = sink.description();
            return Err(Error::invalid(format!(
                "{description} for the late rows needs a checkpoint: checkpointLocation must be specified"
            ))
            .with_option("checkpointLocation"));
        }
        plan.late().want();
        Ok(Self { sink, schema })
    }

    /// Begins a run, as the main sink begins it.
    ///
    /// # Errors
    /// What the sink says.
    pub(crate) async fn begin(&self, main: &SinkRun) -> Result<()> {
        let mut run = main.clone();
        run.mode = OutputMode::Append;
        run.schema = Arc::clone(&self.schema);
        self.sink.begin(&run).await.map_err(of_late_rows)
    }
}

fn of_late_rows(error: Error) -> Error {
    error.context("the late rows")
}

impl Run {
    /// Writes the rows that came too late in `batch`, where they are wanted; the sink hears of every micro-batch.
    pub(crate) async fn write_late(&mut self, batch: &MicroBatch) -> Result<()> {
        let Some(late) = &self.late else {
            return Ok(());
        };
        let rows = self.plan.late().take().into_iter();
        let rows = rows
            .map(|rows| labelled(&late.schema, rows, batch))
            .collect::<Result<Vec<_>>>()?;
        let rows = stream::iter(rows.into_iter().map(Ok));
        let schema = Arc::clone(&late.schema);
        let rest = Rest::new();
        let output = BatchOutput {
            id: batch.id,
            query_id: self.query.id(),
            run_id: self.query.run_id(),
            mode: OutputMode::Append,
            schema: Arc::clone(&schema),
            keys: None,
            stream: rest.tap(Box::pin(RecordBatchStreamAdapter::new(schema, rows))),
        };
        late.sink.write(output).await.map_err(of_late_rows)?;
        rest.pull().await
    }
}

/// The columns of late rows, by the operator that may put them aside, from the sources up.
fn late_schemas(plan: &IncrementalPlan) -> Vec<(String, SchemaRef)> {
    let inputs = plan.watermarks().iter().rev();
    let inputs = inputs.filter_map(|input| Some((input.name.clone(), input.late_schema()?)));
    let operators = plan.operators().iter().rev();
    let operators = operators.filter_map(|o| Some((o.name().to_owned(), o.late_schema()?)));
    inputs.chain(operators).collect()
}

/// All columns, each once and nullable, without what the planner notes in them; then the three of ours.
///
/// # Errors
/// `Invalid`, naming the column, when two of one name do not go together; naming the option, when there are none.
fn columns(operators: &[(String, SchemaRef)]) -> Result<SchemaRef> {
    if operators.is_empty() {
        return Err(Error::invalid(
            "no row of this query can be late: it has no operator that looks at the watermark",
        )
        .with_option(OPTION)
        .with_hint(
            "late rows come from aggregates, deduplication and the like above `with_watermark`; leave `late_rows_to` out",
        ));
    }
    let mut fields: Vec<(&str, FieldRef)> = Vec::new();
    for (operator, schema) in operators {
        let own = fields.len();
        for field in schema.fields() {
            let nullable = Arc::new(Field::new(field.name(), field.data_type().clone(), true));
            let known = fields
                .iter()
                .position(|(_, known)| known.name() == field.name());
            match known.map(|at| (at, &fields[at])) {
                None => fields.push((operator, nullable)),
                Some((at, (other, known))) if at >= own || **known != *nullable => {
                    return Err(two_of_a_name(known, other, &nullable, operator));
                }
                Some(_) => {}
            }
        }
    }
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let ours = [
        Field::new(OPERATOR, DataType::Utf8View, false),
        Field::new(WATERMARK, micros, false),
        Field::new(BATCH_ID, DataType::Int64, false),
    ];
    for ours in &ours {
        if let Some((operator, taken)) = fields.iter().find(|(_, f)| f.name() == ours.name()) {
            return Err(two_of_a_name(taken, operator, ours, "every late row"));
        }
    }
    let fields = fields.into_iter().map(|(_, field)| field);
    Ok(Arc::new(Schema::new(
        fields
            .chain(ours.into_iter().map(Arc::new))
            .collect::<Vec<_>>(),
    )))
}

fn two_of_a_name(one: &Field, first: &str, other: &Field, second: &str) -> Error {
    Error::invalid(format!(
        "late rows go into one table, and the column `{}` is {} in those of {first} and {} in those of {second}",
        one.name(),
        one.data_type(),
        other.data_type(),
    ))
    .with_option(OPTION)
    .with_column(one.name())
    .with_hint("give one of the two columns another name, or leave `late_rows_to` out")
}

/// Late rows in the columns of the late sink; a column that they lack is null.
fn labelled(schema: &SchemaRef, late: Late, batch: &MicroBatch) -> Result<RecordBatch> {
    let Late { operator, rows } = late;
    let count = rows.num_rows();
    let id = i64::try_from(batch.id.0).unwrap_or(i64::MAX);
    let watermark = batch.late_watermark.as_timestamp().as_micros();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            OPERATOR => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
                operator.as_str(),
                count,
            ))),
            WATERMARK => Arc::new(TimestampMicrosecondArray::from_value(watermark, count)),
            BATCH_ID => Arc::new(Int64Array::from_value(id, count)),
            name => rows
                .column_by_name(name)
                .map_or_else(|| new_null_array(field.data_type(), count), Arc::clone),
        }
    });
    let columns = columns.collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

#[cfg(test)]
mod tests;
