//! DataFusion's frame calls, with the same names and arguments and our errors.

use datafusion::common::{ScalarValue, UnnestOptions};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::select_expr::SelectExpr;
use datafusion::logical_expr::{Expr, SortExpr};

use super::StreamFrame;
use crate::Result;

impl StreamFrame {
    /// Computes a column for each expression.
    ///
    /// # Errors
    /// `Invalid` when an expression does not fit the columns; so for all calls here.
    pub fn select(self, exprs: impl IntoIterator<Item = impl Into<SelectExpr>>) -> Result<Self> {
        self.transform(|frame| frame.select(exprs))
    }

    /// Keeps the columns of these names.
    ///
    /// # Errors
    /// `Invalid` when there is no such column.
    pub fn select_columns(self, columns: &[&str]) -> Result<Self> {
        self.transform(|frame| frame.select_columns(columns))
    }

    /// Computes a column for each SQL expression: `"psi * 2 AS p"`, `"window.start AS start"`.
    ///
    /// # Errors
    /// `Invalid` when one is no SQL expression or does not fit the columns.
    pub fn select_exprs(self, exprs: &[&str]) -> Result<Self> {
        let exprs = exprs
            .iter()
            .map(|sql| self.parse_sql_expr(sql))
            .collect::<Result<Vec<_>>>()?;
        self.select(exprs)
    }

    /// Reads an SQL expression against the columns.
    ///
    /// # Errors
    /// `Invalid` when it is no SQL expression or does not fit the columns.
    pub fn parse_sql_expr(&self, sql: &str) -> Result<Expr> {
        let expr = self.frame.parse_sql_expr(sql)?;
        Ok(named_like_its_field(expr))
    }

    /// Leaves columns out; names that are not there are ignored, as in DataFusion.
    ///
    /// # Errors
    /// As for [`select`](Self::select).
    pub fn drop_columns(self, columns: &[&str]) -> Result<Self> {
        self.transform(|frame| frame.drop_columns(columns))
    }

    /// Adds a column, or replaces the one of that name.
    ///
    /// # Errors
    /// As for [`select`](Self::select).
    pub fn with_column(self, name: &str, expr: Expr) -> Result<Self> {
        self.transform(|frame| frame.with_column(name, expr))
    }

    /// Renames a column.
    ///
    /// # Errors
    /// `Invalid` when the name is ambiguous.
    pub fn with_column_renamed(self, old: impl Into<String>, new: &str) -> Result<Self> {
        self.transform(|frame| frame.with_column_renamed(old, new))
    }

    /// Keeps the rows for which `predicate` is true.
    ///
    /// # Errors
    /// As for [`select`](Self::select).
    pub fn filter(self, predicate: Expr) -> Result<Self> {
        self.transform(|frame| frame.filter(predicate))
    }

    /// Gives the frame a name that qualifies its columns.
    ///
    /// # Errors
    /// `Invalid` when `alias` is no table name.
    pub fn alias(self, alias: &str) -> Result<Self> {
        self.transform(|frame| frame.alias(alias))
    }

    /// A row for each element of the lists in `columns`.
    ///
    /// # Errors
    /// `Invalid` when a column is no list.
    pub fn unnest_columns(self, columns: &[&str]) -> Result<Self> {
        self.transform(|frame| frame.unnest_columns(columns))
    }

    /// As [`unnest_columns`](Self::unnest_columns), with options.
    ///
    /// # Errors
    /// `Invalid` when a column is no list.
    pub fn unnest_columns_with_options(
        self,
        columns: &[&str],
        options: UnnestOptions,
    ) -> Result<Self> {
        self.transform(|frame| frame.unnest_columns_with_options(columns, options))
    }

    /// Puts `value` in place of nulls; `&[]`: in all columns.
    ///
    /// # Errors
    /// `Invalid` when there is no such column.
    pub fn fill_null(self, value: &ScalarValue, columns: &[&str]) -> Result<Self> {
        self.transform(|frame| frame.fill_null(value, columns))
    }

    /// Puts `value` in place of NaN; `&[]`: in all columns.
    ///
    /// # Errors
    /// `Invalid` when there is no such column.
    pub fn fill_nan(self, value: &ScalarValue, columns: &[&str]) -> Result<Self> {
        self.transform(|frame| frame.fill_nan(value, columns))
    }

    /// Groups by `keys` and computes `aggregates`.
    ///
    /// # Errors
    /// As for [`select`](Self::select).
    pub fn aggregate(self, keys: Vec<Expr>, aggregates: Vec<Expr>) -> Result<Self> {
        self.transform(|frame| frame.aggregate(keys, aggregates))
    }

    /// Leaves `skip` rows out and keeps `fetch`.
    ///
    /// # Errors
    /// None on a batch frame; what a stream can do is judged by `start`.
    pub fn limit(self, skip: usize, fetch: Option<usize>) -> Result<Self> {
        self.transform(|frame| frame.limit(skip, fetch))
    }

    /// Orders the rows.
    ///
    /// # Errors
    /// As for [`select`](Self::select); what a stream can do is judged by `start`.
    pub fn sort(self, exprs: Vec<SortExpr>) -> Result<Self> {
        self.transform(|frame| frame.sort(exprs))
    }

    /// Orders the rows by expressions, ascending, nulls last as in DataFusion.
    ///
    /// # Errors
    /// As for [`sort`](Self::sort).
    pub fn sort_by(self, exprs: Vec<Expr>) -> Result<Self> {
        self.transform(|frame| frame.sort_by(exprs))
    }

    /// The rows of both; columns go by position.
    ///
    /// # Errors
    /// `Invalid` when the numbers of columns differ.
    pub fn union(self, other: impl Into<DataFrame>) -> Result<Self> {
        let other = other.into();
        self.transform(|frame| frame.union(other))
    }

    /// The rows of both; columns go by name.
    ///
    /// # Errors
    /// `Invalid` when the types of a column differ.
    pub fn union_by_name(self, other: impl Into<DataFrame>) -> Result<Self> {
        let other = other.into();
        self.transform(|frame| frame.union_by_name(other))
    }
}

/// An unnamed `window.start` is called `start` (Spark); DataFusion calls it after its expression.
fn named_like_its_field(expr: Expr) -> Expr {
    let Expr::ScalarFunction(call) = &expr else {
        return expr;
    };
    match (call.func.name(), call.args.as_slice()) {
        ("get_field", [_, Expr::Literal(name, _)]) => match name.try_as_str().flatten() {
            Some(name) => {
                let name = name.to_string();
                expr.alias(name)
            }
            None => expr,
        },
        _ => expr,
    }
}
