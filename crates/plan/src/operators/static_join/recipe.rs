//! What a join with a static side computes: the join that DataFusion planned, seen from the stream.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{JoinSide, JoinType, NullEquality, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, build_join_schema};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use highwater_core::Error;

use crate::analyze::join_with_static;

type Expr = Arc<dyn PhysicalExpr>;

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Stream(usize),
    Static(usize),
    /// Whether the row matched.
    Mark,
}

/// What comes out for a row of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its pairs.
    Inner,
    /// Its pairs, or itself with nulls.
    Outer,
    /// Itself, when it matches.
    Semi,
    /// Itself, when it does not match.
    Anti,
    /// Itself, and whether it matches.
    Mark,
}

impl Kind {
    fn of(join_type: JoinType, stream_left: bool) -> highwater_core::Result<Self> {
        Ok(match (join_type, stream_left) {
            (JoinType::Inner, _) => Self::Inner,
            (JoinType::Left, true) | (JoinType::Right, false) => Self::Outer,
            (JoinType::LeftSemi, true) | (JoinType::RightSemi, false) => Self::Semi,
            (JoinType::LeftAnti, true) | (JoinType::RightAnti, false) => Self::Anti,
            (JoinType::LeftMark, true) | (JoinType::RightMark, false) => Self::Mark,
            _ => return Err(join_with_static(join_type, stream_left)),
        })
    }

    /// True when one match of a row is enough.
    pub(super) fn is_once(self) -> bool {
        matches!(self, Self::Semi | Self::Anti | Self::Mark)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Inner => "inner",
            Self::Outer => "outer",
            Self::Semi => "semi",
            Self::Anti => "anti",
            Self::Mark => "mark",
        }
    }
}

/// What must hold of a pair besides equal keys.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) expr: Expr,
    pub(super) schema: SchemaRef,
    pub(super) columns: Vec<From>,
}

/// What a join computes; it does not change while the query runs.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) kind: Kind,
    pub(super) stream_keys: Vec<Expr>,
    pub(super) static_keys: Vec<Expr>,
    pub(super) key_types: Vec<DataType>,
    pub(super) nulls: NullEquality,
    /// A null equals everything, as in NOT IN: what may be equal is no sure difference.
    pub(super) null_matches: bool,
    pub(super) condition: Option<Condition>,
    pub(super) output: Vec<From>,
    pub(super) schema: SchemaRef,
}

/// What DataFusion's joins have in common.
struct Planned<'a> {
    on: &'a [(Expr, Expr)],
    filter: Option<&'a JoinFilter>,
    join_type: JoinType,
    projection: Option<&'a [usize]>,
    nulls: NullEquality,
    null_aware: bool,
}

impl<'a> Planned<'a> {
    fn of(node: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let plain = Self {
            on: &[],
            filter: None,
            join_type: JoinType::Inner,
            projection: None,
            nulls: NullEquality::NullEqualsNothing,
            null_aware: false,
        };
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            return Some(Self {
                on: join.on(),
                filter: join.filter(),
                join_type: *join.join_type(),
                projection: join.projection.as_deref(),
                nulls: join.null_equality(),
                null_aware: join.null_aware,
            });
        }
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            return Some(Self {
                filter: join.filter(),
                join_type: *join.join_type(),
                projection: join.projection().as_deref(),
                ..plain
            });
        }
        node.is::<CrossJoinExec>().then_some(plain)
    }
}

impl Recipe {
    /// What `node` computes; `None` when it is no join, or has a form that is left to DataFusion.
    pub(super) fn of(
        node: &Arc<dyn ExecutionPlan>,
        stream_left: bool,
    ) -> highwater_core::Result<Option<Self>> {
        let Some(planned) = Planned::of(node) else {
            return Ok(None);
        };
        let [left, right] = node.children()[..] else {
            return Err(Error::internal("a join has two inputs"));
        };
        let kind = Kind::of(planned.join_type, stream_left)?;
        let (static_schema, of_side) = match stream_left {
            true => (right.schema(), JoinSide::Left),
            false => (left.schema(), JoinSide::Right),
        };
        let from = |column: &ColumnIndex| match column.side {
            JoinSide::None => From::Mark,
            side if side == of_side => From::Stream(column.index),
            _ => From::Static(column.index),
        };
        let (_, columns) = build_join_schema(&left.schema(), &right.schema(), &planned.join_type);
        let output = match planned.projection {
            Some(projection) => projection.iter().map(|at| from(&columns[*at])).collect(),
            None => columns.iter().map(from).collect(),
        };
        let keys = planned.on.iter().cloned();
        let (stream_keys, static_keys): (Vec<Expr>, Vec<Expr>) = match stream_left {
            true => keys.unzip(),
            false => keys.map(|(left, right)| (right, left)).unzip(),
        };
        Ok(Some(Self {
            kind,
            key_types: key_types(&static_keys, &static_schema)?,
            stream_keys,
            static_keys,
            nulls: planned.nulls,
            null_matches: planned.null_aware,
            condition: planned.filter.map(|filter| Condition {
                expr: Arc::clone(filter.expression()),
                schema: Arc::clone(filter.schema()),
                columns: filter.column_indices().iter().map(from).collect(),
            }),
            output,
            schema: node.schema(),
        }))
    }

    pub(super) fn expressions(&self) -> impl Iterator<Item = Expr> {
        let condition = self.condition.iter().map(|condition| &condition.expr);
        let keys = self.stream_keys.iter().chain(&self.static_keys);
        keys.chain(condition).cloned()
    }

    /// In words, from the stream's side.
    pub(super) fn describe(&self) -> String {
        let pairs = self.stream_keys.iter().zip(&self.static_keys);
        let pairs = pairs.map(|(a, b)| format!("{} = {}", shown(a), shown(b)));
        let on = match self.stream_keys.is_empty() {
            true => "every row".to_owned(),
            false => format!("({})", pairs.collect::<Vec<_>>().join(", ")),
        };
        let condition = match &self.condition {
            Some(condition) => format!(" where {}", condition.expr),
            None => String::new(),
        };
        let not_in = if self.null_matches { " for NOT IN" } else { "" };
        format!("{} join{not_in} on {on}{condition}", self.kind.words())
    }
}

/// Keys are compared as values of the static side, without dictionaries.
fn key_types(keys: &[Expr], schema: &SchemaRef) -> Result<Vec<DataType>> {
    let types = keys.iter().map(|key| {
        Ok(match key.data_type(schema)? {
            DataType::Dictionary(_, value) => *value,
            other => other,
        })
    });
    types.collect()
}

fn shown(expr: &Expr) -> String {
    match expr.downcast_ref::<Column>() {
        Some(column) => column.name().to_owned(),
        None => expr.to_string(),
    }
}
