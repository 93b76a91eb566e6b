//! `drop_duplicates(columns)` and `drop_duplicates_within_watermark(columns)`: the first row of each key.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema, DFSchemaRef, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};
use highwater_core::{Error, Result};

use crate::event_time::event_time_of;
use crate::table::reads_stream;

/// The first row of `input`, in input order, for each key; no names: the key is all columns.
///
/// Over a stream the keys are remembered from one micro-batch to the next: for ever, until the watermark has
/// passed the key's event time, or, `within_watermark`, until it has passed the event time of the key's first
/// row plus the delay. Over a static table it is DataFusion's DISTINCT.
///
/// # Errors
/// `Invalid` when there is no such column; `Unsupported` for `within_watermark` over a static table (Spark).
pub fn deduplicate(
    input: LogicalPlan,
    columns: &[&str],
    within_watermark: bool,
) -> Result<LogicalPlan> {
    let keys = keys(input.schema(), columns)?;
    if reads_stream(&input) {
        let node = Deduplicate {
            name: String::new(),
            columns: keys,
            within_watermark,
            input,
        };
        return Ok(LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        }));
    }
    if within_watermark {
        return Err(Error::unsupported(
            "dropDuplicatesWithinWatermark is not supported with batch DataFrames/DataSets",
        )
        .with_operator("dedup")
        .with_hint("use drop_duplicates(columns) on a batch frame"));
    }
    let all = input.schema().columns().into_iter().map(Expr::Column);
    let all: Vec<_> = all.collect();
    let builder = LogicalPlanBuilder::from(input);
    let distinct = if columns.is_empty() {
        builder.distinct()?
    } else {
        builder.distinct_on(keys.into_iter().map(Expr::Column).collect(), all, None)?
    };
    Ok(distinct.build()?)
}

/// The columns of these names, in the order of the schema; a name that several columns have means all of them (Spark).
fn keys(schema: &DFSchema, names: &[&str]) -> Result<Vec<Column>> {
    let mut wanted = HashSet::new();
    for name in names {
        let fields = schema.fields().iter().enumerate();
        let same = fields.filter(|(_, field)| field.name() == name);
        let same: Vec<usize> = same.map(|(at, _)| at).collect();
        if same.is_empty() {
            let column = Column::from_qualified_name(*name);
            let at = schema.index_of_column(&column);
            wanted.insert(at.map_err(|e| no_column(schema, name).with_source(e))?);
        }
        wanted.extend(same);
    }
    let columns = schema.columns().into_iter().enumerate();
    Ok(columns
        .filter(|(at, _)| names.is_empty() || wanted.contains(at))
        .map(|(_, column)| column)
        .collect())
}

fn no_column(schema: &DFSchema, name: &str) -> Error {
    Error::invalid(format!(
        "Cannot resolve column name \"{name}\" among ({})",
        schema.field_names().join(", ")
    ))
    .with_condition("UNRESOLVED_COLUMN_AMONG_FIELD_NAMES")
    .with_operator("dedup")
    .with_column(name)
    .with_hint("name columns of the frame, or none for all of them")
}

/// The logical node of [`deduplicate`] over a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deduplicate {
    /// The operator's name in the checkpoint, given when the query is planned.
    pub name: String,
    /// The key.
    pub columns: Vec<Column>,
    /// A key is forgotten once the watermark has passed its first row's event time plus the delay.
    pub within_watermark: bool,
    /// Where the rows come from.
    pub input: LogicalPlan,
}

impl PartialOrd for Deduplicate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.name, &self.columns, self.within_watermark).partial_cmp(&(
            &other.name,
            &other.columns,
            other.within_watermark,
        ))
    }
}

impl UserDefinedLogicalNodeCore for Deduplicate {
    fn name(&self) -> &str {
        "Deduplicate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.columns.iter().cloned().map(Expr::Column).collect()
    }

    /// No filter goes below, not even one on the key: the rows it drops would not move the watermark (Spark).
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let fields = self.input.schema().fields().iter();
        fields.map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let columns: Vec<_> = self.columns.iter().map(Column::flat_name).collect();
        write!(
            f,
            "Deduplicate: columns=[{}], within_watermark={}",
            columns.join(", "),
            self.within_watermark
        )
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return internal_err!("Deduplicate has one input");
        };
        let columns = exprs
            .into_iter()
            .map(|expr| match expr {
                Expr::Column(column) => Ok(column),
                other => internal_err!("Deduplicate has columns as its key, not {other}"),
            })
            .collect::<DataFusionResult<_>>()?;
        Ok(Self {
            name: self.name.clone(),
            columns,
            within_watermark: self.within_watermark,
            input,
        })
    }

    /// What comes out, the key, and the event time that judges late rows.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut needed = output_columns.to_vec();
        for column in &self.columns {
            needed.push(schema.index_of_column(column).ok()?);
        }
        needed.extend(event_time_of(schema.as_arrow()).map(|(at, _)| at));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
