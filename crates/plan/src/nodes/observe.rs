//! `observe(name, aggregates)`: figures about the rows that pass a place in the plan.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::utils::find_aggregate_exprs;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use highwater_core::{Error, Result};

/// `input` with its rows unchanged; at the end of each micro-batch the `aggregates` over the rows that passed
/// stand in the progress under `name`, and under the name of each aggregate's column.
///
/// # Errors
/// `Invalid` when there is no aggregate, when one of the expressions is none, or when it does not fit the input.
pub fn observe(input: LogicalPlan, name: String, aggregates: Vec<Expr>) -> Result<LogicalPlan> {
    let wrong = aggregates
        .iter()
        .find(|expr| find_aggregate_exprs([*expr]).is_empty());
    if let Some(expr) = wrong {
        return Err(Error::invalid(format!(
            "observe `{name}`: `{}` is no aggregate",
            expr.schema_name()
        ))
        .with_condition("INVALID_OBSERVED_METRICS.NON_AGGREGATE_FUNC_ARG_IS_NON_DETERMINISTIC")
        .with_hint("write count, sum, min, … of the columns"));
    }
    if aggregates.is_empty() {
        return Err(Error::invalid(format!(
            "observe `{name}` has no aggregate to compute"
        )));
    }
    let names = aggregates
        .iter()
        .map(|expr| expr.qualified_name().1)
        .collect();
    let aggregates = checked(&input, aggregates)?;
    let node = Observe {
        name,
        names,
        aggregates,
        input,
    };
    Ok(LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    }))
}

/// The expressions with their columns found in `input`.
fn checked(input: &LogicalPlan, aggregates: Vec<Expr>) -> Result<Vec<Expr>> {
    use datafusion::logical_expr::ExprSchemable;
    use datafusion::logical_expr::expr_rewriter::normalize_col;

    aggregates
        .into_iter()
        .map(|expr| {
            let expr = normalize_col(expr, input)?;
            expr.to_field(input.schema())?;
            Ok(expr)
        })
        .collect()
}

/// The logical node of [`observe`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observe {
    /// The name in the progress.
    pub name: String,
    /// The names of the figures.
    pub names: Vec<String>,
    /// The figures: expressions over aggregates.
    pub aggregates: Vec<Expr>,
    /// The rows.
    pub input: LogicalPlan,
}

impl PartialOrd for Observe {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.name.partial_cmp(&other.name)
    }
}

impl UserDefinedLogicalNodeCore for Observe {
    fn name(&self) -> &str {
        "Observe"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.aggregates.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Observe: name={}, {}", self.name, self.names.join(", "))
    }

    fn with_exprs_and_inputs(
        &self,
        aggregates: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> DataFusionResult<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return internal_err!("Observe has one input");
        };
        Ok(Self {
            aggregates,
            input,
            ..self.clone()
        })
    }
}
