//! What a join computes: it does not change while the query runs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, JoinType, NullEquality, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, build_join_schema};
use highwater_core::Error;

use super::bounds::{Bound, Conjunct, by_key, by_range};
use super::refuse;
use crate::cell::BatchCell;
use crate::event_time::{Span, event_time_of};

/// One of the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// What becomes of the rows of a side, beside the pairs they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Nothing.
    Plain,
    /// A row that leaves and never matched comes out with nulls for the other side.
    Outer,
    /// A row comes out at its first match, and leaves.
    Semi,
    /// A row leaves at its first match; one that leaves by time comes out.
    Anti,
}

impl Keeps {
    fn of(join_type: JoinType) -> highwater_core::Result<(Self, Self)> {
        Ok(match join_type {
            JoinType::Inner => (Self::Plain, Self::Plain),
            JoinType::Left => (Self::Outer, Self::Plain),
            JoinType::Right => (Self::Plain, Self::Outer),
            JoinType::Full => (Self::Outer, Self::Outer),
            JoinType::LeftSemi => (Self::Semi, Self::Plain),
            JoinType::RightSemi => (Self::Plain, Self::Semi),
            JoinType::LeftAnti => (Self::Anti, Self::Plain),
            JoinType::RightAnti => (Self::Plain, Self::Anti),
            JoinType::LeftMark | JoinType::RightMark => {
                return Err(refuse::mark(join_type));
            }
        })
    }

    /// True when a row whose key is null, or that fails its side's condition, must come out all the same.
    pub(super) fn keeps_unmatched(self) -> bool {
        matches!(self, Self::Outer | Self::Anti)
    }
}

/// One side of a join.
#[derive(Clone, Debug)]
pub(super) struct SideRecipe {
    /// `join.left`, `join.right`.
    pub(super) name: String,
    pub(super) schema: SchemaRef,
    /// The columns without what the planner notes in them.
    pub(super) loose: SchemaRef,
    /// The columns of the rows that are kept: these, and when a row came where it leaves by age.
    pub(super) stored: SchemaRef,
    pub(super) keys: Vec<usize>,
    /// The types in which keys are compared.
    pub(super) key_types: Vec<DataType>,
    pub(super) keeps: Keeps,
    /// The conditions on this side alone.
    pub(super) own: Option<Arc<dyn PhysicalExpr>>,
    /// The column that judges late rows, and its span.
    pub(super) late: Option<(usize, Option<Span>)>,
    pub(super) bound: Option<Bound>,
    pub(super) null_equality: NullEquality,
}

/// The conditions on both sides, over columns of both.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    pub(super) condition: Arc<dyn PhysicalExpr>,
    pub(super) columns: Vec<(Side, usize)>,
    pub(super) schema: SchemaRef,
}

/// What a join computes.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) join_type: JoinType,
    pub(super) left: SideRecipe,
    pub(super) right: SideRecipe,
    pub(super) residual: Option<Residual>,
    /// Where each column of the result comes from.
    pub(super) output: Vec<(Side, usize)>,
    pub(super) schema: SchemaRef,
    pub(super) cell: BatchCell,
}

impl Recipe {
    pub(super) fn try_new(
        join: &HashJoinExec,
        name: &str,
        cell: BatchCell,
    ) -> highwater_core::Result<Self> {
        let (left, right) = (join.left().schema(), join.right().schema());
        let on = key_columns(join)?;
        let filter = join.filter().map(Conditions::of).transpose()?;
        let filter = filter.unwrap_or_default();
        let (bounds, limits) = bounds(&left, &right, &on, &filter);
        refuse::unbounded(name, *join.join_type(), &bounds, limits)?;
        let keeps = Keeps::of(*join.join_type())?;
        let side = |side: Side, schema: &SchemaRef, keeps, bound| SideRecipe {
            name: match side {
                Side::Left => format!("{name}.left"),
                Side::Right => format!("{name}.right"),
            },
            keys: on
                .iter()
                .map(|(l, r)| match side {
                    Side::Left => *l,
                    Side::Right => *r,
                })
                .collect(),
            key_types: on
                .iter()
                .map(|(l, _)| left.field(*l).data_type().clone())
                .collect(),
            keeps,
            own: filter.own(side),
            late: event_time_of(schema).map(|(at, mark)| (at, mark.span)),
            bound,
            loose: loose(schema),
            stored: loose(schema),
            schema: Arc::clone(schema),
            null_equality: null_equality(join),
        };
        Ok(Self {
            left: side(Side::Left, &left, keeps.0, bounds.0),
            right: side(Side::Right, &right, keeps.1, bounds.1),
            name: name.to_owned(),
            join_type: *join.join_type(),
            residual: filter.residual()?,
            output: output(join),
            schema: join.schema(),
            cell,
        })
    }

    pub(super) fn side(&self, side: Side) -> &SideRecipe {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    /// The same join, whose rows leave that were kept for so long, on sides that nothing else bounds. `None` where it has
    /// no such side, or is none in which a row may go before it matched: all but inner joins.
    pub(super) fn by_age(&self, age_us: i64) -> Option<Self> {
        let mut aged = self.clone();
        let unbounded = self.left.bound.is_none() || self.right.bound.is_none();
        if self.join_type != JoinType::Inner || !unbounded {
            return None;
        }
        for side in [&mut aged.left, &mut aged.right] {
            if side.bound.is_none() {
                side.bound = Some(Bound::by_age(side.loose.fields().len(), age_us));
                side.stored = with_arrival(&side.loose);
            }
        }
        Some(aged)
    }

    /// The side that the result's rows are of, where they are of one: semi and anti joins.
    pub(super) fn only(&self) -> Option<Side> {
        let alone = |keeps| matches!(keeps, Keeps::Semi | Keeps::Anti);
        match (self.left.keeps, self.right.keeps) {
            (keeps, _) if alone(keeps) => Some(Side::Left),
            (_, keeps) if alone(keeps) => Some(Side::Right),
            _ => None,
        }
    }

    /// How far what comes out may be behind the watermark, in milliseconds.
    pub(super) fn delay_ms(&self) -> i64 {
        let bounds = [&self.left.bound, &self.right.bound].into_iter().flatten();
        bounds
            .map(|bound| -bound.shift_ms)
            .max()
            .map_or(0, |ms| ms.max(0))
    }
}

/// The columns, and when a row came: the batch time.
fn with_arrival(schema: &SchemaRef) -> SchemaRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let arrived = Arc::new(Field::new("arrived", micros, true));
    let fields = schema.fields().iter().cloned().chain([arrived]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns with nothing noted in them, all of which may be null.
fn loose(schema: &SchemaRef) -> SchemaRef {
    let plain = |f: &Arc<Field>| Field::new(f.name(), f.data_type().clone(), true);
    Arc::new(Schema::new(
        schema.fields().iter().map(plain).collect::<Vec<_>>(),
    ))
}

/// A full join takes null keys of both sides for equal (Spark, which compares keys as rows, and filters null ones out only
/// where no row with one can come out).
fn null_equality(join: &HashJoinExec) -> NullEquality {
    match join.join_type() {
        JoinType::Full => NullEquality::NullEqualsNull,
        _ => join.null_equality(),
    }
}

/// The pairs of equal columns.
fn key_columns(join: &HashJoinExec) -> highwater_core::Result<Vec<(usize, usize)>> {
    let column = |expr: &Arc<dyn PhysicalExpr>| {
        let column = expr.downcast_ref::<Column>().map(Column::index);
        column.ok_or_else(|| Error::internal(format!("the join key {expr} is no column")))
    };
    let pairs = join.on().iter();
    pairs.map(|(l, r)| Ok((column(l)?, column(r)?))).collect()
}

type Bounds = (Option<Bound>, Option<Bound>);

/// When rows of each side leave, and whether Spark's rule finds a limit for each, which asks less.
fn bounds(
    left: &Schema,
    right: &Schema,
    on: &[(usize, usize)],
    filter: &Conditions,
) -> (Bounds, (bool, bool)) {
    if let Some((l, r)) = by_key(left, right, on) {
        return ((Some(l), Some(r)), (true, true));
    }
    let columns = filter.columns.as_slice();
    let conjuncts = filter.both.iter().map(|expr| Conjunct { expr, columns });
    let conjuncts: Vec<_> = conjuncts.collect();
    let of_left = |any| by_range(Side::Left, left, right, &conjuncts, any);
    let of_right = |any| by_range(Side::Right, right, left, &conjuncts, any);
    let limits = (of_left(true).is_some(), of_right(true).is_some());
    ((of_left(false), of_right(false)), limits)
}

/// Where the columns of the result come from.
fn output(join: &HashJoinExec) -> Vec<(Side, usize)> {
    let (left, right) = (join.left().schema(), join.right().schema());
    let (_, columns) = build_join_schema(&left, &right, join.join_type());
    let of = |column: &ColumnIndex| match column.side {
        JoinSide::Right => (Side::Right, column.index),
        _ => (Side::Left, column.index),
    };
    match &join.projection {
        Some(projection) => projection.iter().map(|at| of(&columns[*at])).collect(),
        None => columns.iter().map(of).collect(),
    }
}

/// A join's filter in its parts, by the sides they look at.
#[derive(Default)]
struct Conditions {
    /// Which column of which side each column of the filter is.
    columns: Vec<(Side, usize)>,
    schema: Option<SchemaRef>,
    left: Vec<Arc<dyn PhysicalExpr>>,
    right: Vec<Arc<dyn PhysicalExpr>>,
    both: Vec<Arc<dyn PhysicalExpr>>,
}

impl Conditions {
    fn of(filter: &JoinFilter) -> highwater_core::Result<Self> {
        let columns = filter.column_indices().iter();
        let columns = columns.map(|column| match column.side {
            JoinSide::Left => Ok((Side::Left, column.index)),
            JoinSide::Right => Ok((Side::Right, column.index)),
            JoinSide::None => Err(Error::internal(
                "a join's filter on a column of neither side",
            )),
        });
        let mut conditions = Self {
            columns: columns.collect::<highwater_core::Result<_>>()?,
            schema: Some(Arc::clone(filter.schema())),
            ..Self::default()
        };
        for part in split_conjunction(filter.expression()) {
            let read = columns_of(part)?;
            let parts = match conditions.only_side(&read) {
                Some(Side::Left) if !is_volatile(part) => &mut conditions.left,
                Some(Side::Right) if !is_volatile(part) => &mut conditions.right,
                _ => &mut conditions.both,
            };
            parts.push(Arc::clone(part));
        }
        Ok(conditions)
    }

    /// The side that all columns at these places are of.
    fn only_side(&self, read: &[usize]) -> Option<Side> {
        let mut sides = read
            .iter()
            .map(|at| self.columns.get(*at).map(|column| column.0));
        let first = sides.next()??;
        sides.all(|side| side == Some(first)).then_some(first)
    }

    /// The conditions on one side, over its columns.
    fn own(&self, side: Side) -> Option<Arc<dyn PhysicalExpr>> {
        let parts = match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        };
        let moved = parts.iter().map(|part| {
            renumbered(part, &|at| {
                self.columns.get(at).map_or(at, |column| column.1)
            })
        });
        let moved = moved.collect::<Result<Vec<_>>>().ok()?;
        (!moved.is_empty()).then(|| conjunction(moved))
    }

    /// The conditions on both sides, with the columns they read.
    fn residual(&self) -> Result<Option<Residual>> {
        let (Some(schema), false) = (&self.schema, self.both.is_empty()) else {
            return Ok(None);
        };
        let condition = conjunction(self.both.iter().cloned());
        let mut read = columns_of(&condition)?;
        read.sort_unstable();
        read.dedup();
        let new_place = |at: usize| read.iter().position(|old| *old == at).unwrap_or(at);
        Ok(Some(Residual {
            condition: renumbered(&condition, &new_place)?,
            columns: read.iter().map(|at| self.columns[*at]).collect(),
            schema: Arc::new(schema.project(&read)?),
        }))
    }
}

fn columns_of(expr: &Arc<dyn PhysicalExpr>) -> Result<Vec<usize>> {
    let mut columns = Vec::new();
    expr.apply(|expr| {
        columns.extend(expr.downcast_ref::<Column>().map(Column::index));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}

fn renumbered(
    expr: &Arc<dyn PhysicalExpr>,
    place: &dyn Fn(usize) -> usize,
) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = Arc::clone(expr).transform_up(|expr| {
        Ok(match expr.downcast_ref::<Column>() {
            Some(column) => {
                let moved = Column::new(column.name(), place(column.index()));
                Transformed::yes(Arc::new(moved) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(expr),
        })
    });
    moved.data()
}
