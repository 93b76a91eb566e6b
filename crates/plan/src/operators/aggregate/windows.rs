//! Windows made of shared panes in the order of their starts: those that close, or all there are.
//!
//! ```text
//!  slots, oldest piece first ─► parts: the pieces that the next window may need, keys numbered once
//!                                 └─ merge the states of the window's parts, by number ─► its rows
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::Schema;
use datafusion::common::Result;
use highwater_state::StateTable;

use super::output::Step;
use super::shared::SharedPanes;
use super::state::AggregateState;
use crate::event_time::ends;

/// Windows in the order of their starts.
#[derive(Debug)]
pub(super) struct Windows {
    shared: SharedPanes,
    /// The records that are not read yet, oldest piece first.
    slots: Vec<u32>,
    read: usize,
    /// What was read and may still be needed, oldest piece first.
    parts: VecDeque<Part>,
    /// No window before this one.
    next: i64,
    /// No window after this one.
    last: i64,
    groups: Groups,
    ready: VecDeque<RecordBatch>,
}

/// Records of one piece.
#[derive(Debug)]
struct Part {
    piece: i64,
    keys: Vec<ArrayRef>,
    values: Vec<ArrayRef>,
    /// The number of each record's other keys.
    groups: Vec<usize>,
}

impl Windows {
    /// All windows that the table has records of.
    pub(super) fn all(shared: SharedPanes, state: &AggregateState) -> Result<Self> {
        Self::between(shared, state, i64::MIN, i64::MAX, i64::MAX)
    }

    /// The windows with an end above the late watermark and at or below the watermark: each comes once.
    pub(super) fn closed(shared: SharedPanes, state: &AggregateState) -> Result<Self> {
        let (late_us, closes_us) = (state.numbers.late_us(), state.numbers.closes_us());
        let (first, last) = (shared.first_open(late_us), shared.last_over(closes_us));
        let until = if first <= last {
            shared.end(last)
        } else {
            i64::MIN
        };
        Self::between(shared, state, first, last, until)
    }

    fn between(
        shared: SharedPanes,
        state: &AggregateState,
        next: i64,
        last: i64,
        until: i64,
    ) -> Result<Self> {
        Ok(Self {
            shared,
            slots: state.table.due_slots(until),
            read: 0,
            parts: VecDeque::new(),
            next,
            last,
            groups: Groups::of(&state.table, state.event_column())?,
            ready: VecDeque::new(),
        })
    }

    /// Reads more, or makes a window.
    pub(super) fn step(&mut self, state: &mut AggregateState, rows: usize) -> Result<Step> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Step::Rows(batch));
        }
        while self
            .parts
            .front()
            .is_some_and(|part| part.piece < self.next)
        {
            self.parts.pop_front();
        }
        let all_read = self.read == self.slots.len();
        let (Some(first), Some(newest)) = (self.parts.front(), self.parts.back()) else {
            return if all_read {
                Ok(Step::Done)
            } else {
                self.read(state, rows)
            };
        };
        let window = self.next.max(self.shared.first_start(first.piece));
        if window > self.last {
            return Ok(Step::Done);
        }
        if !all_read && newest.piece < self.shared.end(window) {
            return self.read(state, rows);
        }
        self.emit(window, state, rows)?;
        self.next = window.saturating_add(self.shared.slide);
        Ok(Step::More)
    }

    /// Reads the next records, a part for each piece.
    fn read(&mut self, state: &AggregateState, rows: usize) -> Result<Step> {
        let slots = &self.slots[self.read..self.slots.len().min(self.read + rows.max(1))];
        let chunk = state.table.gather(slots)?;
        self.read += slots.len();
        let column = state.event_column();
        let pieces = ends(&chunk.keys[column], None)?;
        let groups = self.groups.number(&chunk.keys, column, chunk.rows)?;
        let slice = |columns: &[ArrayRef], from: usize, rows: usize| {
            columns
                .iter()
                .map(|column| column.slice(from, rows))
                .collect()
        };
        let mut from = 0;
        for run in pieces.values().chunk_by(|one, other| one == other) {
            self.parts.push_back(Part {
                piece: run[0],
                keys: slice(&chunk.keys, from, run.len()),
                values: slice(&chunk.values, from, run.len()),
                groups: groups[from..from + run.len()].to_vec(),
            });
            from += run.len();
        }
        Ok(Step::More)
    }

    /// Merges the parts of one window.
    fn emit(&mut self, window: i64, state: &mut AggregateState, rows: usize) -> Result<()> {
        let end = self.shared.end(window);
        let parts = || self.parts.iter().take_while(|part| part.piece < end);
        self.groups.begin_window();
        let mut origins: Vec<(usize, usize)> = Vec::new();
        let mut ids = Vec::new();
        for (number, part) in parts().enumerate() {
            ids.clear();
            for (row, group) in part.groups.iter().enumerate() {
                let id = self.groups.id(*group, origins.len());
                if id == origins.len() {
                    origins.push((number, row));
                }
                ids.push(id);
            }
            for function in &mut state.functions {
                function.merge_states(&part.values, &ids, origins.len())?;
            }
        }
        let column = state.event_column();
        let columns = (0..state.recipe().keys)
            .map(|at| {
                if at == column {
                    let time = state.table.key_schema().field(at).data_type();
                    return self.shared.column(&vec![window; origins.len()], time);
                }
                let keys: Vec<&dyn Array> = parts().map(|part| part.keys[at].as_ref()).collect();
                Ok(interleave(&keys, &origins)?)
            })
            .collect::<Result<_>>()?;
        self.ready
            .extend(state.merged_rows(columns, origins.len(), rows)?);
        Ok(())
    }
}

/// Numbers for the keys besides the piece, and their ids within one window.
#[derive(Debug)]
pub(super) struct Groups {
    /// The numbers are the local ids of this table, which has no values; `None` when there is no other key.
    table: Option<StateTable>,
    /// For each number the window, counted, in which it was last seen, and its id there.
    seen: Vec<(u64, usize)>,
    window: u64,
}

impl Groups {
    /// For the keys of `table`, of which `column` holds the pieces.
    pub(super) fn of(table: &StateTable, column: usize) -> Result<Self> {
        let mut fields = table.key_schema().fields().to_vec();
        fields.remove(column);
        let other = match fields.is_empty() {
            true => None,
            false => Some(StateTable::try_new(
                Arc::new(Schema::new(fields)),
                Arc::new(Schema::empty()),
            )?),
        };
        Ok(Self {
            table: other,
            seen: Vec::new(),
            window: 0,
        })
    }

    /// The number of each row's keys, `column` aside.
    pub(super) fn number(
        &mut self,
        keys: &[ArrayRef],
        column: usize,
        rows: usize,
    ) -> Result<Vec<usize>> {
        let Some(table) = &mut self.table else {
            return Ok(vec![0; rows]);
        };
        let mut keys = keys.to_vec();
        keys.remove(column);
        let mut numbers = Vec::new();
        table.intern(&keys, rows, &mut numbers)?;
        Ok(numbers)
    }

    fn begin_window(&mut self) {
        self.window += 1;
        let numbers = self.table.as_ref().map_or(1, StateTable::touched);
        self.seen.resize(numbers, (0, 0));
    }

    /// The id of a number in the window: the one it has, or `next`.
    #[inline]
    fn id(&mut self, number: usize, next: usize) -> usize {
        let (window, id) = &mut self.seen[number];
        if *window != self.window {
            (*window, *id) = (self.window, next);
        }
        *id
    }
}
