//! Joins of frames, streaming or not.

use datafusion::common::{Column, JoinType};
use datafusion::dataframe::DataFrame;
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident};

use super::StreamFrame;
use crate::Result;

impl StreamFrame {
    /// Joins on equal columns, and on `filter` where there is one.
    ///
    /// # Errors
    /// `Invalid` when a column is not there; what a stream can do is judged by `start`.
    pub fn join(
        self,
        right: impl Into<DataFrame>,
        join_type: JoinType,
        left_cols: &[&str],
        right_cols: &[&str],
        filter: Option<Expr>,
    ) -> Result<Self> {
        let right = right.into();
        self.transform(|left| left.join(right, join_type, left_cols, right_cols, filter))
    }

    /// Joins on conditions, all of which must hold.
    ///
    /// # Errors
    /// As for [`join`](Self::join).
    pub fn join_on(
        self,
        right: impl Into<DataFrame>,
        join_type: JoinType,
        on: impl IntoIterator<Item = Expr>,
    ) -> Result<Self> {
        let right = right.into();
        self.transform(|left| left.join_on(right, join_type, on))
    }

    /// Joins on equal columns of the same name, which come out once and first (Spark's `join(df, "k")`).
    ///
    /// The key is the left one, the right one in a right join, and whichever is there in a full join.
    ///
    /// # Errors
    /// As for [`join`](Self::join).
    pub fn join_using(
        self,
        right: impl Into<DataFrame>,
        join_type: JoinType,
        columns: &[&str],
    ) -> Result<Self> {
        let right: DataFrame = right.into();
        self.transform(|left| join_once(left, right, join_type, columns))
    }
}

fn join_once(
    left: DataFrame,
    right: DataFrame,
    join_type: JoinType,
    keys: &[&str],
) -> datafusion::error::Result<DataFrame> {
    let (state, left) = left.into_parts();
    let right = right.into_unoptimized_plan();
    let others = |plan: &datafusion::logical_expr::LogicalPlan| {
        let columns = plan.schema().columns().into_iter();
        let others = columns.filter(|c| !keys.contains(&c.name.as_str()));
        others.map(Expr::Column).collect::<Vec<_>>()
    };
    let (left_others, right_others) = (others(&left), others(&right));
    let hidden = |key: &&str| format!("__right_{key}");
    let renamed = keys.iter().map(|key| ident(*key).alias(hidden(key)));
    let right = LogicalPlanBuilder::from(right)
        .project(renamed.chain(right_others.iter().cloned()))?
        .build()?;
    let left_keys: Vec<_> = keys
        .iter()
        .map(|key| Column::new_unqualified(*key))
        .collect();
    let right_keys: Vec<_> = keys
        .iter()
        .map(|key| Column::new_unqualified(hidden(key)))
        .collect();
    let right_only = matches!(join_type, JoinType::RightSemi | JoinType::RightAnti);
    let left_only = matches!(
        join_type,
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
    );
    let key = |key: &&str| match join_type {
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => {
            ident(hidden(key)).alias(*key)
        }
        JoinType::Full => coalesce(vec![ident(*key), ident(hidden(key))]).alias(*key),
        _ => ident(*key),
    };
    let mut output: Vec<Expr> = keys.iter().map(key).collect();
    if !right_only {
        output.extend(left_others);
    }
    if !left_only {
        output.extend(right_others);
    }
    let joined = LogicalPlanBuilder::from(left)
        .join(right, join_type, (left_keys, right_keys), None)?
        .project(output)?
        .build()?;
    Ok(DataFrame::new(state, joined))
}
