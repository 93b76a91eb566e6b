//! A limit over all micro-batches of a query.

use std::cmp::Ordering;
use std::fmt;

use datafusion::common::{DFSchemaRef, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};

/// Lets the first `fetch` rows of the whole query through, and nothing ever after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamLimit {
    /// The operator's name in the checkpoint.
    pub name: String,
    /// Where the rows come from.
    pub input: LogicalPlan,
    /// How many rows.
    pub fetch: u64,
}

impl PartialOrd for StreamLimit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.name, self.fetch).partial_cmp(&(&other.name, other.fetch))
    }
}

impl UserDefinedLogicalNodeCore for StreamLimit {
    fn name(&self) -> &str {
        "StreamLimit"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamLimit: name={}, fetch={}", self.name, self.fetch)
    }

    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return internal_err!("StreamLimit has one input");
        };
        Ok(Self {
            input,
            ..self.clone()
        })
    }
}
