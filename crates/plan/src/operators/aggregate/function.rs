//! One aggregate function of a streaming aggregation: DataFusion's accumulators do the maths on what
//! a trigger touched, and hand the new state back.
//!
//! ```text
//!  old state of touched keys ─ merge ─┐
//!                                     ├─► delta accumulator ─ state ─► new state ─► the table
//!  rows of the trigger ─────── update ┘                                   └─ merge, evaluate ─► value
//! ```
//!
//! The old state is merged before the first row of its key is added, so that `first_value` and
//! `array_agg` see the rows in their order. A function with an ORDER BY of its own may rely on rows that
//! come in that order: there the trigger's rows are aggregated alone and merged at the end.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::functions_aggregate::bool_and_or::{BoolAnd, BoolOr};
use datafusion::functions_aggregate::count::Count;
use datafusion::functions_aggregate::min_max::{Max, Min};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use highwater_core::Error;
use highwater_state::Touched;

/// One aggregate function with its accumulators.
pub(in crate::operators) struct Function {
    expr: Arc<AggregateFunctionExpr>,
    /// Its columns among the value columns of the table.
    columns: Range<usize>,
    state_fields: Vec<FieldRef>,
    /// The types of its arguments.
    args: Vec<DataType>,
    /// Aggregates what a trigger touched.
    delta: Box<dyn GroupsAccumulator>,
    /// Turns state into values, and merges at the end where `merges_at_end`.
    merged: Box<dyn GroupsAccumulator>,
    /// The old state is merged after the trigger's rows, not before.
    merges_at_end: bool,
    /// The state is the value: nothing is to be evaluated.
    state_is_value: bool,
}

impl Function {
    /// The function of `expr` over rows of `input`, its state beginning at value column `first`.
    ///
    /// # Errors
    /// `Unsupported` when the function's state is not what it says it is.
    pub(in crate::operators) fn try_new(
        expr: &Arc<AggregateFunctionExpr>,
        args: &[Arc<dyn PhysicalExpr>],
        input: &Schema,
        first: usize,
    ) -> Result<Self> {
        let state_fields = expr.state_fields()?;
        let types: Vec<DataType> = args
            .iter()
            .map(|arg| arg.data_type(input))
            .collect::<Result<_>>()?;
        let make = maker(expr, &types, &state_fields)?;
        if expr.is_distinct() && !heeds_distinct(make, expr, &types) {
            return Err(ignores_distinct(expr).into());
        }
        Ok(Self {
            expr: Arc::clone(expr),
            columns: first..first + state_fields.len(),
            delta: make(expr)?,
            merged: make(expr)?,
            merges_at_end: !expr.order_bys().is_empty(),
            state_is_value: state_is_value(expr, &state_fields),
            state_fields,
            args: types,
        })
    }

    /// The fields of its state.
    pub(in crate::operators) fn state_fields(&self) -> &[FieldRef] {
        &self.state_fields
    }

    /// True when old state is to be merged before rows are added.
    pub(super) fn merges_first(&self) -> bool {
        !self.merges_at_end
    }

    /// Bytes the accumulators hold.
    pub(in crate::operators) fn size(&self) -> usize {
        self.delta.size() + self.merged.size()
    }

    /// Merges the old state of keys that the trigger has just touched; their ids are the last so far.
    pub(super) fn merge_old(&mut self, old: &[ArrayRef], ids: Range<usize>) -> Result<()> {
        if self.merges_at_end {
            return Ok(());
        }
        merge(&mut *self.delta, &old[self.columns.clone()], ids)
    }

    /// Makes the one group of an aggregation without GROUP BY that has had no row.
    pub(super) fn make_group(&mut self) -> Result<()> {
        make_group(&mut *self.delta, &self.args)
    }

    /// The state of one group that has had no row.
    pub(in crate::operators) fn empty_state(&mut self) -> Result<Vec<ArrayRef>> {
        make_group(&mut *self.merged, &self.args)?;
        let state = self.merged.state(EmitTo::All)?;
        self.declared(&state)
    }

    /// Adds rows.
    pub(in crate::operators) fn update(
        &mut self,
        args: &[ArrayRef],
        ids: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.delta.update_batch(args, ids, filter, total)
    }

    /// The new state of all keys the trigger touched; the accumulators are empty afterwards.
    ///
    /// `old` is needed where functions merge at the end: for each stretch of ids, the state that its
    /// first ids had before.
    pub(in crate::operators) fn finish(
        &mut self,
        old: &[(Touched, Vec<ArrayRef>)],
    ) -> Result<Vec<ArrayRef>> {
        let delta = self.delta.state(EmitTo::All)?;
        let delta = self.declared(&delta)?;
        if !self.merges_at_end || old.is_empty() {
            return Ok(delta);
        }
        for (touched, old) in old {
            if !touched.existing.is_empty() {
                let old = &old[self.columns.clone()];
                merge(&mut *self.merged, old, touched.existing.clone())?;
            }
            let all = touched.all();
            let part: Vec<ArrayRef> = delta
                .iter()
                .map(|column| column.slice(all.start, all.len()))
                .collect();
            merge(&mut *self.merged, &part, all)?;
        }
        let state = self.merged.state(EmitTo::All)?;
        self.declared(&state)
    }

    /// Joins states, those of the whole table's value columns: the i-th goes to the group `ids[i]`, in
    /// this order. The new state of all groups; there are `total`, and each is in `ids`.
    pub(in crate::operators) fn join(
        &mut self,
        states: &[ArrayRef],
        ids: &[usize],
        total: usize,
    ) -> Result<Vec<ArrayRef>> {
        let states = &states[self.columns.clone()];
        self.merged.merge_batch(states, ids, total)?;
        let state = self.merged.state(EmitTo::All)?;
        self.declared(&state)
    }

    /// The values of `rows` records whose state is in `states` (the value columns of the table).
    pub(in crate::operators) fn evaluate(
        &mut self,
        states: &[ArrayRef],
        rows: usize,
    ) -> Result<ArrayRef> {
        let state = &states[self.columns.clone()];
        let result = self.expr.field();
        if self.state_is_value {
            return typed(&state[0], result.data_type());
        }
        merge(&mut *self.merged, state, 0..rows)?;
        self.evaluate_merged()
    }

    /// Merges states into the groups `ids`, each state into its own, for
    /// [`evaluate_merged`](Self::evaluate_merged); there are `total` groups so far.
    pub(super) fn merge_states(
        &mut self,
        states: &[ArrayRef],
        ids: &[usize],
        total: usize,
    ) -> Result<()> {
        let state = &states[self.columns.clone()];
        self.merged.merge_batch(state, ids, total)
    }

    /// The values of the groups that were merged.
    pub(super) fn evaluate_merged(&mut self) -> Result<ArrayRef> {
        let value = self.merged.evaluate(EmitTo::All)?;
        typed(&value, self.expr.field().data_type())
    }

    /// The state in the types that were declared for it (nested fields may be named otherwise).
    fn declared(&self, state: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        state
            .iter()
            .zip(&self.state_fields)
            .map(|(column, field)| typed(column, field.data_type()))
            .collect()
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.expr.name())
            .field("columns", &self.columns)
            .field("merges_at_end", &self.merges_at_end)
            .finish_non_exhaustive()
    }
}

/// Merges state into the groups `ids`, which are the last there are.
fn merge(into: &mut dyn GroupsAccumulator, state: &[ArrayRef], ids: Range<usize>) -> Result<()> {
    let total = ids.end;
    let ids: Vec<usize> = ids.collect();
    into.merge_batch(state, &ids, total)
}

/// Makes group 0 of an accumulator that has seen no row: the filter says so, for without one
/// DataFusion takes every group it is told of for one with a value.
fn make_group(accumulator: &mut dyn GroupsAccumulator, args: &[DataType]) -> Result<()> {
    let args: Vec<ArrayRef> = args.iter().map(new_empty_array).collect();
    let none = BooleanArray::from(Vec::<bool>::new());
    accumulator.update_batch(&args, &[], Some(&none), 1)
}

type Maker = fn(&Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>>;

/// The way to make accumulators whose state is what the function declares: its own for many groups
/// at once where it has one, else an accumulator for each group.
fn maker(
    expr: &Arc<AggregateFunctionExpr>,
    args: &[DataType],
    state_fields: &[FieldRef],
) -> Result<Maker> {
    let native: Maker = |expr| expr.create_groups_accumulator();
    let adapted: Maker = |expr| {
        let expr = Arc::clone(expr);
        let factory = move || expr.create_accumulator();
        Ok(Box::new(GroupsAccumulatorAdapter::new(factory)))
    };
    if expr.groups_accumulator_supported() && keeps_to(native, expr, args, state_fields) {
        return Ok(native);
    }
    if keeps_to(adapted, expr, args, state_fields) {
        return Ok(adapted);
    }
    Err(Error::unsupported(format!(
        "the aggregate `{}` over a stream: its state is not of the types it declares",
        expr.name()
    ))
    .with_hint(format!(
        "use another function than `{}`, or one without DISTINCT",
        expr.fun().name()
    ))
    .into())
}

/// True when the state of one group without rows has the declared types.
fn keeps_to(
    make: Maker,
    expr: &Arc<AggregateFunctionExpr>,
    args: &[DataType],
    state_fields: &[FieldRef],
) -> bool {
    let state = || -> Result<Vec<ArrayRef>> {
        let mut accumulator = make(expr)?;
        make_group(&mut *accumulator, args)?;
        accumulator.state(EmitTo::All)
    };
    state().is_ok_and(|state| {
        state.len() == state_fields.len()
            && state
                .iter()
                .zip(state_fields)
                .all(|(column, field)| same_shape(column.data_type(), field.data_type()))
    })
}

/// False when a DISTINCT call answers otherwise because a value comes twice: then the function does not look
/// at the word, as some of the user's own may not. True also where that cannot be tried.
fn heeds_distinct(make: Maker, expr: &Arc<AggregateFunctionExpr>, args: &[DataType]) -> bool {
    let answer = |rows: &[i64]| -> Result<ArrayRef> {
        let numbers: ArrayRef = Arc::new(Int64Array::from(rows.to_vec()));
        // Only the first argument varies: the others are parameters.
        let first: ArrayRef = Arc::new(Int64Array::from(vec![rows[0]; rows.len()]));
        let args: Vec<ArrayRef> = args
            .iter()
            .enumerate()
            .map(|(i, arg)| Ok(cast(if i == 0 { &numbers } else { &first }, arg)?))
            .collect::<Result<_>>()?;
        let mut accumulator = make(expr)?;
        accumulator.update_batch(&args, &vec![0; rows.len()], None, 1)?;
        accumulator.evaluate(EmitTo::All)
    };
    let alike = |once: &[i64], twice: &[i64]| match (answer(once), answer(twice)) {
        (Ok(once), Ok(twice)) => *once == *twice,
        _ => true,
    };
    // A list of two values may come in any order; a mean shows nothing with one value.
    let number = expr.field().data_type().is_numeric();
    alike(&[2], &[2, 2]) && (!number || alike(&[2, 0], &[2, 2, 0]))
}

fn ignores_distinct(expr: &AggregateFunctionExpr) -> Error {
    let name = expr.fun().name();
    Error::unsupported(format!("`{name}` does not heed DISTINCT"))
        .with_operator("aggregate")
        .with_hint(format!(
            "take the distinct rows first: SELECT {name}(x) FROM (SELECT DISTINCT …)"
        ))
}

/// True when two types differ at most in the names and nullability of nested fields.
fn same_shape(one: &DataType, other: &DataType) -> bool {
    use DataType::{LargeList, List, Struct};
    match (one, other) {
        (List(a), List(b)) | (LargeList(a), LargeList(b)) => {
            same_shape(a.data_type(), b.data_type())
        }
        (Struct(a), Struct(b)) => {
            let mut pairs = a.iter().zip(b.iter());
            a.len() == b.len() && pairs.all(|(a, b)| same_shape(a.data_type(), b.data_type()))
        }
        _ => one.equals_datatype(other),
    }
}

fn typed(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    Ok(cast(column, data_type)?)
}

/// True for the functions of DataFusion that keep just the value as their state.
fn state_is_value(expr: &AggregateFunctionExpr, state_fields: &[FieldRef]) -> bool {
    let function = expr.fun().inner();
    let one_of = function.is::<Count>()
        || function.is::<Sum>()
        || function.is::<Min>()
        || function.is::<Max>()
        || function.is::<BoolAnd>()
        || function.is::<BoolOr>();
    one_of
        && !expr.is_distinct()
        && matches!(state_fields, [field] if field.data_type() == expr.field().data_type())
}
