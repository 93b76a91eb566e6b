//! The rows of a trigger that come out after everything is in the table, piece by piece.
//!
//! | mode     | groups of their own             | windows that share panes                     |
//! |----------|---------------------------------|----------------------------------------------|
//! | append   | panes that close, oldest first  | [`Windows`] that close, oldest first         |
//! | update   | (given while storing)           | [`Changed`] windows, found by their keys     |
//! | complete | a scan of the table             | all [`Windows`]                              |

use arrow::array::RecordBatch;
use datafusion::common::Result;
use highwater_core::OutputMode;
use highwater_state::Chunk;

use super::changed::Changed;
use super::state::AggregateState;
use super::windows::Windows;

/// What is still to come out.
#[derive(Debug)]
pub(super) enum Output {
    /// The whole table, from a slot on.
    Scan(u32),
    /// Records in these slots, from a place on.
    Closed(Vec<u32>, usize),
    /// Windows made of pieces, in their order.
    Windows(Box<Windows>),
    /// Windows made of pieces, key by key.
    Changed(Box<Changed>),
}

/// One step of output.
#[derive(Debug)]
pub(super) enum Step {
    Rows(RecordBatch),
    /// Nothing yet, but something was done.
    More,
    Done,
}

impl Output {
    /// What is to come out of `state`, which is all stored; `None` when storing gave it.
    pub(super) fn of(state: &AggregateState) -> Result<Option<Self>> {
        let closes = state.numbers.closes_us();
        let recipe = state.recipe();
        Ok(Some(match (recipe.mode, recipe.shared()) {
            (OutputMode::Complete, None) => Self::Scan(0),
            (OutputMode::Complete, Some(shared)) => {
                Self::Windows(Box::new(Windows::all(shared, state)?))
            }
            (OutputMode::Append, None) => {
                let mut slots = state.table.due_slots(closes);
                if state.latest_first {
                    slots.reverse();
                }
                Self::Closed(slots, 0)
            }
            (OutputMode::Append, Some(shared)) => {
                Self::Windows(Box::new(Windows::closed(shared, state)?))
            }
            (_, Some(shared)) => Self::Changed(Box::new(Changed::of(shared, state)?)),
            (_, None) => return Ok(None),
        }))
    }

    /// The next rows, about `rows` of them.
    pub(super) fn step(&mut self, state: &mut AggregateState, rows: usize) -> Result<Step> {
        match self {
            Self::Scan(from) => {
                let Some(chunk) = state.table.scan(*from, rows)? else {
                    return Ok(Step::Done);
                };
                *from = chunk.next;
                state.rows_of_chunk(chunk)
            }
            Self::Closed(slots, from) => {
                let part = &slots[*from..slots.len().min(*from + rows)];
                if part.is_empty() {
                    return Ok(Step::Done);
                }
                *from += part.len();
                let chunk = state.table.gather(part)?;
                state.rows_of_chunk(chunk)
            }
            Self::Windows(windows) => windows.step(state, rows),
            Self::Changed(changed) => changed.step(state, rows),
        }
    }
}

impl AggregateState {
    fn rows_of_chunk(&mut self, chunk: Chunk) -> Result<Step> {
        let Chunk {
            keys, values, rows, ..
        } = chunk;
        Ok(Step::Rows(self.rows_of(keys, &values, rows)?))
    }

    /// The result of groups whose states the functions have merged, from their keys, in batches of `most` rows.
    pub(super) fn merged_rows(
        &mut self,
        mut columns: Vec<arrow::array::ArrayRef>,
        rows: usize,
        most: usize,
    ) -> Result<impl Iterator<Item = RecordBatch> + use<>> {
        for function in &mut self.functions {
            columns.push(function.evaluate_merged()?);
        }
        let batch = super::state::batch_of(&self.recipe().schema, columns, rows)?;
        let starts = (0..rows).step_by(most.max(1));
        Ok(starts.map(move |from| batch.slice(from, most.min(rows - from))))
    }
}
