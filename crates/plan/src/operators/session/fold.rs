//! The maths of sessions: DataFusion's accumulators over the pieces of each group.
//!
//! ```text
//!  rows ─ update ─► state of each run ─┐
//!                                      ├─ join, piece by piece ─► state of each group ─ evaluate ─► values
//!  sessions that are replaced ─────────┘
//! ```
//! A run is joined like an earlier session, as a partial aggregate is: so the pieces of a group count in the
//! order of their starts whatever came first.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::FieldRef;
use datafusion::common::Result;

use super::codec::Codec;
use super::recipe::{Call, Measure, Recipe};
use super::sweep::{Piece, Row, Sweep};
use crate::operators::aggregate::function::Function;

/// The aggregate functions and the form their state is kept in.
#[derive(Debug)]
pub(super) struct Fold {
    recipe: Arc<Recipe>,
    functions: Vec<Function>,
    pub(super) codec: Codec,
    pub(super) fields: Vec<FieldRef>,
}

impl Fold {
    pub(super) fn try_new(recipe: &Arc<Recipe>) -> highwater_core::Result<Self> {
        let mut functions = Vec::new();
        let mut fields = Vec::new();
        for Call { expr, args, .. } in recipe.calls() {
            let function = Function::try_new(expr, args, &recipe.input_schema, fields.len())?;
            let states = function.state_fields().iter();
            fields.extend(states.map(|f| Arc::new(f.as_ref().clone().with_nullable(true))));
            functions.push(function);
        }
        Ok(Self {
            recipe: Arc::clone(recipe),
            functions,
            codec: Codec::try_new(&fields)?,
            fields,
        })
    }

    /// Bytes the accumulators hold.
    pub(super) fn memory_bytes(&self) -> usize {
        self.functions.iter().map(Function::size).sum()
    }

    /// The state of a session without a row.
    pub(super) fn empty_states(&mut self) -> Result<Vec<ArrayRef>> {
        let mut states = Vec::with_capacity(self.fields.len());
        for function in &mut self.functions {
            states.extend(function.empty_state()?);
        }
        Ok(states)
    }

    /// The state of each group of `sweep`, which was made of `rows`; they read `columns`.
    pub(super) fn states(
        &mut self,
        rows: &[Row],
        columns: &[ArrayRef],
        sweep: &Sweep,
    ) -> Result<Vec<ArrayRef>> {
        let runs = self.run_states(rows, columns, sweep)?;
        if sweep.olds.is_empty() {
            return Ok(runs);
        }
        let olds = sweep.olds.iter().map(|old| &*old.state);
        let olds = self.codec.decode(olds)?;
        let place = |(piece, _): &(Piece, usize)| match piece {
            Piece::Old(at) => *at as u32,
            Piece::Run(at) => (sweep.olds.len() + at) as u32,
        };
        let order = UInt32Array::from_iter_values(sweep.pieces.iter().map(place));
        let pieces = olds.iter().zip(&runs);
        let pieces = pieces
            .map(|(old, run)| Ok(take(&concat(&[old.as_ref(), run.as_ref()])?, &order, None)?))
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<usize> = sweep.pieces.iter().map(|(_, group)| *group).collect();
        let mut states = Vec::with_capacity(self.fields.len());
        for function in &mut self.functions {
            states.extend(function.join(&pieces, &ids, sweep.groups.len())?);
        }
        Ok(states)
    }

    /// The state of each run.
    fn run_states(
        &mut self,
        rows: &[Row],
        columns: &[ArrayRef],
        sweep: &Sweep,
    ) -> Result<Vec<ArrayRef>> {
        let by_start = Taken::new(rows.iter().zip(&sweep.runs), columns)?;
        let mut by_input = None;
        let mut states = Vec::with_capacity(self.fields.len());
        for (call, function) in self.recipe.calls().zip(&mut self.functions) {
            let taken = match &mut by_input {
                _ if !call.ordered => &by_start,
                Some(taken) => taken,
                none => none.insert(in_input_order(rows, columns, sweep)?),
            };
            let args = &taken.columns[call.columns.clone()];
            let filter = call.filter(&taken.columns)?;
            function.update(args, &taken.runs, filter, sweep.run_count)?;
            states.extend(function.finish(&[])?);
        }
        Ok(states)
    }

    /// The value of each function, or nothing in the place of `superseded`.
    pub(super) fn values(
        &mut self,
        states: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Option<ArrayRef>>> {
        let mut functions = self.functions.iter_mut();
        let measures = self.recipe.measures.iter();
        let values = measures.map(|measure| match measure {
            Measure::Superseded => Ok(None),
            Measure::Value(_) => {
                let function = functions.next();
                function.map(|f| f.evaluate(states, rows)).transpose()
            }
        });
        values.collect()
    }
}

/// What the functions read of some rows, and the run of each.
struct Taken {
    columns: Vec<ArrayRef>,
    runs: Vec<usize>,
}

impl Taken {
    fn new<'a>(
        rows: impl Iterator<Item = (&'a Row, &'a usize)>,
        columns: &[ArrayRef],
    ) -> Result<Self> {
        let (rows, runs): (Vec<u32>, Vec<usize>) = rows.map(|(row, run)| (row.row, *run)).unzip();
        let rows = UInt32Array::from(rows);
        let columns = columns.iter().map(|column| Ok(take(column, &rows, None)?));
        Ok(Self {
            columns: columns.collect::<Result<_>>()?,
            runs,
        })
    }
}

/// The rows as they came: in the order that functions with an ORDER BY were promised.
fn in_input_order(rows: &[Row], columns: &[ArrayRef], sweep: &Sweep) -> Result<Taken> {
    let mut rows: Vec<_> = rows.iter().zip(&sweep.runs).collect();
    rows.sort_unstable_by_key(|(row, _)| row.row);
    Taken::new(rows.into_iter(), columns)
}
