//! Accumulators that fold primitive values one by one and may refuse: checked sums, NaN-aware extremes.
//!
//! One implementation serves DataFusion's two interfaces, for many groups and for one; the state is
//! the same as that of DataFusion's own aggregate, so either can be merged into the other.

use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::scalar::ScalarValue;

/// What an aggregate keeps for its groups.
pub(super) trait Groups: Debug + Send + Sync + Sized + 'static {
    /// Takes rows, each with its group.
    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()>;
    /// Takes states, each with its group.
    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()>;
    /// Moves the groups to emit out.
    fn take(&mut self, emit: EmitTo) -> Self;
    /// The same without groups.
    fn fresh(&self) -> Self;
    /// The result of every group.
    fn result(&self) -> Result<ArrayRef>;
    /// The state of every group.
    fn state(&self) -> Result<Vec<ArrayRef>>;
    /// The memory held, in bytes.
    fn bytes(&self) -> usize;
}

/// Which group each row belongs to, and which rows count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    groups: &'a [usize],
    filter: Option<&'a BooleanArray>,
    total: usize,
}

impl Rows<'_> {
    /// How many groups there are.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Calls `each(row, group)` for the rows that count and are not null in `values`.
    pub(super) fn each(
        &self,
        values: &dyn Array,
        mut each: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let nulls = values.nulls();
        for (row, group) in self.groups.iter().enumerate() {
            let kept = self.filter.is_none_or(|f| f.is_valid(row) && f.value(row));
            if kept && nulls.is_none_or(|n| n.is_valid(row)) {
                each(row, *group)?;
            }
        }
        Ok(())
    }
}

/// How one more value changes a group.
pub(super) type Step<N> = fn(N, N) -> Result<N>;

/// One optional value a group.
pub(super) struct Fold<T: ArrowPrimitiveType> {
    data_type: DataType,
    step: Step<T::Native>,
    values: Vec<T::Native>,
    seen: Vec<bool>,
}

impl<T: ArrowPrimitiveType> Fold<T> {
    /// No groups yet; the values are of `data_type`.
    pub(super) fn new(data_type: DataType, step: Step<T::Native>) -> Self {
        Self {
            data_type,
            step,
            values: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// The value of every group.
    pub(super) fn array(&self) -> PrimitiveArray<T> {
        let nulls = NullBuffer::from(self.seen.clone());
        PrimitiveArray::<T>::new(self.values.clone().into(), Some(nulls))
            .with_data_type(self.data_type.clone())
    }
}

impl<T: ArrowPrimitiveType> Debug for Fold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fold")
            .field("groups", &self.values.len())
            .finish_non_exhaustive()
    }
}

impl<T: ArrowPrimitiveType> Groups for Fold<T> {
    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.values.resize(rows.total(), T::Native::default());
        self.seen.resize(rows.total(), false);
        let input = values[0].as_primitive::<T>();
        rows.each(input, |row, group| {
            let value = input.value(row);
            self.values[group] = if self.seen[group] {
                (self.step)(self.values[group], value)?
            } else {
                value
            };
            self.seen[group] = true;
            Ok(())
        })
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        self.update(states, rows)
    }

    fn take(&mut self, emit: EmitTo) -> Self {
        Self {
            data_type: self.data_type.clone(),
            step: self.step,
            values: emit.take_needed(&mut self.values),
            seen: emit.take_needed(&mut self.seen),
        }
    }

    fn fresh(&self) -> Self {
        Self::new(self.data_type.clone(), self.step)
    }

    fn result(&self) -> Result<ArrayRef> {
        Ok(Arc::new(self.array()))
    }

    fn state(&self) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.result()?])
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}

/// DataFusion's interface for many groups.
pub(super) struct Many<G>(pub(super) G);

impl<G: Groups> GroupsAccumulator for Many<G> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.0.update(
            values,
            Rows {
                groups,
                filter,
                total,
            },
        )
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let rows = Rows {
            groups,
            filter: None,
            total,
        };
        self.0.merge(states, rows)
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.0.take(emit).result()
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.take(emit).state()
    }

    /// Every row is a group of its own.
    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let groups: Vec<usize> = (0..values[0].len()).collect();
        let mut rows = self.0.fresh();
        rows.update(
            values,
            Rows {
                groups: &groups,
                filter,
                total: groups.len(),
            },
        )?;
        rows.state()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.bytes()
    }
}

/// DataFusion's interface for one group.
#[derive(Debug)]
pub(super) struct Single<G>(G);

impl<G: Groups> Single<G> {
    /// One group without rows.
    pub(super) fn new(mut groups: G, inputs: &[DataType]) -> Result<Self> {
        let empty: Vec<ArrayRef> = inputs.iter().map(arrow::array::new_empty_array).collect();
        groups.update(&empty, one_group(&[]))?;
        Ok(Self(groups))
    }
}

fn one_group(groups: &[usize]) -> Rows<'_> {
    Rows {
        groups,
        filter: None,
        total: 1,
    }
}

impl<G: Groups> Accumulator for Single<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update(values, one_group(&vec![0; values[0].len()]))
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge(states, one_group(&vec![0; states[0].len()]))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.0.result()?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0
            .state()?
            .iter()
            .map(|array| ScalarValue::try_from_array(array, 0))
            .collect()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.bytes()
    }
}
