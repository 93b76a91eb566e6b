//! `with_watermark(column, delay)`: a column is event time, and the watermark follows it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, DFSchemaRef, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use highwater_core::{Error, Interval, Result};

use crate::event_time::EventTime;
use crate::table::reads_stream;

/// `input` with `column` marked as event time. The watermark follows the column's greatest value less `delay`;
/// it moves at the end of a micro-batch and is in force from the next one on (Spark). A static table has no
/// watermark: it comes back as it is.
///
/// # Errors
/// `Invalid` when the column is not a top-level timestamp (or window) of the input, and when the delay is negative.
pub fn watermark(input: LogicalPlan, column: &str, delay: Interval) -> Result<LogicalPlan> {
    let delay_ms = delay_ms(delay)?;
    let column = top_level(&input, column)?;
    if !reads_stream(&input) {
        return Ok(input);
    }
    let schema = marked(input.schema(), &column)?;
    let node = EventTimeWatermark {
        identity: Identity::default(),
        name: String::new(),
        column,
        delay_ms,
        schema,
        input,
    };
    Ok(LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    }))
}

/// The delay of the watermark that rows of `plan` follow; of several, as below a union, that of the first (Spark).
pub(crate) fn watermark_delay_ms(plan: &LogicalPlan) -> Option<i64> {
    if let LogicalPlan::Extension(Extension { node }) = plan
        && let Some(watermark) = node.as_any().downcast_ref::<EventTimeWatermark>()
    {
        return Some(watermark.delay_ms);
    }
    plan.inputs().into_iter().find_map(watermark_delay_ms)
}

/// A delay in milliseconds; a month is 31 days (Spark).
fn delay_ms(delay: Interval) -> Result<i64> {
    let micros = delay.to_delay_micros()?;
    if micros < 0 {
        return Err(Error::invalid(format!(
            "delay threshold ({} ms) should not be negative",
            micros / 1_000
        ))
        .with_operator("watermark")
        .with_hint("give the watermark a delay of 0 or more"));
    }
    Ok(micros / 1_000)
}

/// The column of that name.
fn top_level(input: &LogicalPlan, name: &str) -> Result<Column> {
    let schema = input.schema();
    let asked = Column::from_qualified_name(name);
    let found = match schema.index_of_column(&asked) {
        Ok(at) => at,
        Err(_) => schema
            .index_of_column(&Column::from_name(name))
            .map_err(|e| no_top_level(schema, &asked, name).with_source(e))?,
    };
    let (qualifier, field) = schema.qualified_field(found);
    let is_time = match field.data_type() {
        DataType::Timestamp(_, _) => true,
        DataType::Struct(fields) => crate::functions::window::is_window(fields),
        _ => false,
    };
    if !is_time {
        return Err(Error::invalid(format!(
            "The event time `{name}` has the invalid type {}, but expected TIMESTAMP",
            field.data_type()
        ))
        .with_condition("EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE")
        .with_operator("watermark")
        .with_hint("cast the column to TIMESTAMP first"));
    }
    Ok(Column::from((qualifier, field)))
}

/// A field inside a struct is told apart from a name that is nowhere.
fn no_top_level(schema: &DFSchema, asked: &Column, name: &str) -> Error {
    let first = asked.relation.as_ref().map(|relation| relation.table());
    let nested = first.is_some_and(|first| {
        schema
            .fields()
            .iter()
            .any(|f| f.name() == first && matches!(f.data_type(), DataType::Struct(_)))
    });
    if nested {
        return Error::invalid(format!(
            "The event time `{name}` must be a top-level column"
        ))
        .with_condition("EVENT_TIME_MUST_BE_TOP_LEVEL_COLUMN")
        .with_operator("watermark")
        .with_hint("select the nested field under a name of its own first");
    }
    Error::invalid(format!("there is no column `{name}` to put a watermark on"))
        .with_condition("UNRESOLVED_COLUMN.WITH_SUGGESTION")
        .with_operator("watermark")
        .with_hint(format!(
            "the columns are {}",
            schema.field_names().join(", ")
        ))
}

/// `schema` with the mark on `column`.
fn marked(schema: &DFSchema, column: &Column) -> DataFusionResult<DFSchemaRef> {
    let at = schema.index_of_column(column)?;
    let fields = schema
        .iter()
        .enumerate()
        .map(|(i, (qualifier, field))| {
            let field = if i == at {
                Arc::new(EventTime::instant().mark(field.as_ref().clone()))
            } else {
                Arc::clone(field)
            };
            (qualifier.cloned(), field)
        })
        .collect();
    let marked = DFSchema::new_with_metadata(fields, schema.metadata().clone())?;
    marked
        .with_functional_dependencies(schema.functional_dependencies().clone())
        .map(Arc::new)
}

/// Tells the nodes of one call of [`watermark`] from those of others: a frame that stands in a query twice has
/// one watermark, which follows the rows of both places (Spark).
#[derive(Clone, Debug, Default)]
pub struct Identity(Arc<Unique>);

/// Takes room, so that each has an address of its own.
#[derive(Debug, Default)]
struct Unique(#[expect(dead_code, reason = "only its address counts")] u8);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The logical node of [`watermark`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventTimeWatermark {
    /// The call of [`watermark`] that made it.
    pub identity: Identity,
    /// Its name in the query, given when the query is planned.
    pub name: String,
    /// The column of event time.
    pub column: Column,
    /// How far the watermark stays behind, in milliseconds.
    pub delay_ms: i64,
    /// The input's columns, one of them marked.
    pub schema: DFSchemaRef,
    /// Where the rows come from.
    pub input: LogicalPlan,
}

impl PartialOrd for EventTimeWatermark {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.column, self.delay_ms).partial_cmp(&(&other.column, other.delay_ms))
    }
}

impl UserDefinedLogicalNodeCore for EventTimeWatermark {
    fn name(&self) -> &str {
        "EventTimeWatermark"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.column.clone())]
    }

    /// A filter that does not read the event time goes below, as in Spark: the rows it drops do not move the watermark.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::from([self.column.name.clone()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "EventTimeWatermark: column={}, delay={} ms",
            self.column, self.delay_ms
        )
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let (Some(input), Some(Expr::Column(column)), true) =
            (inputs.pop(), exprs.pop(), inputs.is_empty())
        else {
            return internal_err!("EventTimeWatermark has one input and one column");
        };
        Ok(Self {
            identity: self.identity.clone(),
            name: self.name.clone(),
            schema: marked(input.schema(), &column)?,
            column,
            delay_ms: self.delay_ms,
            input,
        })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let at = self.schema.index_of_column(&self.column).ok()?;
        let mut needed = output_columns.to_vec();
        needed.push(at);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
