//! A frame whose rows are grouped, before it is said what is computed of each group.

use datafusion::functions_aggregate::count::count_all;
use datafusion::functions_aggregate::expr_fn::{avg, max, min, sum};
use datafusion::logical_expr::{Expr, ident};

use super::StreamFrame;
use crate::{Error, Result};

/// Rows grouped by keys.
#[derive(Clone, Debug)]
#[must_use = "say what to compute of each group: `agg`, `count`, `sum`"]
pub struct GroupedFrame {
    frame: StreamFrame,
    keys: Vec<Expr>,
}

impl GroupedFrame {
    pub(super) fn new(frame: StreamFrame, keys: Vec<Expr>) -> Self {
        Self { frame, keys }
    }

    /// A row for each group: its keys, and these aggregates of its rows.
    ///
    /// # Errors
    /// `Invalid` when there is nothing to compute, or an expression does not fit the columns.
    pub fn agg(self, aggregates: impl IntoIterator<Item = Expr>) -> Result<StreamFrame> {
        let aggregates: Vec<_> = aggregates.into_iter().collect();
        if self.keys.is_empty() && aggregates.is_empty() {
            return Err(Error::invalid("there is neither a key nor an aggregate")
                .with_operator("aggregate")
                .with_hint("name at least one aggregate, such as `count_all()`"));
        }
        self.frame.aggregate(self.keys, aggregates)
    }

    /// The number of rows of each group, in a column `count`.
    ///
    /// # Errors
    /// `Invalid` when a key does not fit the columns.
    pub fn count(self) -> Result<StreamFrame> {
        self.agg([count_all().alias("count")])
    }

    /// The sum of each column, named `sum(column)`.
    ///
    /// # Errors
    /// `Invalid` when there is no such column, or it has no sum.
    pub fn sum(self, columns: &[&str]) -> Result<StreamFrame> {
        self.of("sum", columns, sum)
    }

    /// The average of each column, named `avg(column)`.
    ///
    /// # Errors
    /// `Invalid` when there is no such column, or it has no average.
    pub fn avg(self, columns: &[&str]) -> Result<StreamFrame> {
        self.of("avg", columns, avg)
    }

    /// The least value of each column, named `min(column)`.
    ///
    /// # Errors
    /// `Invalid` when there is no such column.
    pub fn min(self, columns: &[&str]) -> Result<StreamFrame> {
        self.of("min", columns, min)
    }

    /// The greatest value of each column, named `max(column)`.
    ///
    /// # Errors
    /// `Invalid` when there is no such column.
    pub fn max(self, columns: &[&str]) -> Result<StreamFrame> {
        self.of("max", columns, max)
    }

    fn of(self, name: &str, columns: &[&str], f: fn(Expr) -> Expr) -> Result<StreamFrame> {
        if columns.is_empty() {
            return Err(Error::invalid(format!("`{name}` of no column"))
                .with_operator("aggregate")
                .with_hint("name the columns"));
        }
        let aggregates = columns
            .iter()
            .map(|column| f(ident(*column)).alias(format!("{name}({column})")));
        self.agg(aggregates.collect::<Vec<_>>())
    }
}
