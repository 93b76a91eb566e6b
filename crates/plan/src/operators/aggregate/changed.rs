//! Windows made of shared panes that a trigger changed: the cost follows what was touched.
//!
//! ```text
//!  touched (piece, keys) ─► runs of windows, key by key ─► pieces of the runs, found by key
//!                                                            └─ merge into their windows ─► rows
//! ```

use std::collections::VecDeque;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use datafusion::common::Result;
use highwater_core::Error;

use super::output::Step;
use super::shared::SharedPanes;
use super::state::AggregateState;
use super::windows::Groups;
use crate::event_time::ends;

/// The windows that a trigger changed and that still take rows.
#[derive(Debug)]
pub(super) struct Changed {
    shared: SharedPanes,
    /// The key column that holds pieces.
    column: usize,
    /// The keys of the touched records.
    keys: Vec<ArrayRef>,
    runs: Vec<Run>,
    /// The first run that has not come out.
    next: usize,
    ready: VecDeque<RecordBatch>,
}

/// Windows of one key without a gap, each of which has a touched piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// A touched record with the key.
    origin: u32,
    /// The first window.
    from: i64,
    /// The last window.
    to: i64,
}

/// What some runs ask of the table, and what is to become of it.
#[derive(Default)]
struct Request {
    /// A touched record with the key of each piece asked for.
    origins: Vec<u32>,
    pieces: Vec<i64>,
    /// The windows of each piece: the id of the first one, and how many.
    ids: Vec<(usize, usize)>,
    /// A touched record with the key of each window, and the window.
    window_origins: Vec<u32>,
    windows: Vec<i64>,
}

impl Changed {
    /// The changed windows of a state that is all stored. Those that were over before, by the late watermark,
    /// have come out for good.
    pub(super) fn of(shared: SharedPanes, state: &AggregateState) -> Result<Self> {
        let column = state.event_column();
        let total = state.table.touched();
        let keys = state.table.keys(0..total)?;
        let pieces = ends(&keys[column], None)?;
        let groups = Groups::of(&state.table, column)?.number(&keys, column, total)?;
        let mut touched = Vec::with_capacity(total);
        for (row, group) in groups
            .into_iter()
            .enumerate()
            .filter(|(row, _)| pieces.is_valid(*row))
        {
            let row32 = u32::try_from(row).map_err(|_| Error::internal("2^32 touched records"))?;
            touched.push((group, pieces.value(row), row32));
        }
        touched.sort_unstable();
        let open_from = match state.recipe().closing() {
            Some(_) => shared.first_open(state.numbers.late_us()),
            None => i64::MIN,
        };
        Ok(Self {
            shared,
            column,
            keys,
            runs: runs(shared, &touched, open_from),
            next: 0,
            ready: VecDeque::new(),
        })
    }

    /// Makes the windows of some runs.
    pub(super) fn step(&mut self, state: &mut AggregateState, rows: usize) -> Result<Step> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Step::Rows(batch));
        }
        if self.next == self.runs.len() {
            return Ok(Step::Done);
        }
        let mut request = Request::default();
        while self.next < self.runs.len() && request.windows.len() < rows.max(1) {
            request.add(self.shared, self.runs[self.next]);
            self.next += 1;
        }
        self.merge(&request, state)?;
        let columns = self.keys_of(request.window_origins, &request.windows)?;
        let made = state.merged_rows(columns, request.windows.len(), rows)?;
        self.ready.extend(made);
        Ok(Step::More)
    }

    /// Merges the pieces that there are into the windows.
    fn merge(&self, request: &Request, state: &mut AggregateState) -> Result<()> {
        let keys = self.keys_of(request.origins.clone(), &request.pieces)?;
        let slots = state.table.find(&keys, request.pieces.len())?;
        let found: Vec<u32> = slots.iter().flatten().copied().collect();
        let values = state.table.gather_values(&found)?;
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        let windows = slots
            .iter()
            .zip(&request.ids)
            .filter(|(slot, _)| slot.is_some());
        for (row, (_, (first, count))) in (0_u32..).zip(windows) {
            rows.extend(std::iter::repeat_n(row, *count));
            ids.extend(*first..first + count);
        }
        let rows = UInt32Array::from(rows);
        let values: Vec<ArrayRef> = values
            .iter()
            .map(|value| Ok(take(value, &rows, None)?))
            .collect::<Result<_>>()?;
        for function in &mut state.functions {
            function.merge_states(&values, &ids, request.windows.len())?;
        }
        Ok(())
    }

    /// The keys of touched records, with these times in the place of their pieces.
    fn keys_of(&self, origins: Vec<u32>, times: &[i64]) -> Result<Vec<ArrayRef>> {
        let origins = UInt32Array::from(origins);
        self.keys
            .iter()
            .enumerate()
            .map(|(at, key)| match at == self.column {
                true => self.shared.column(times, key.data_type()),
                false => Ok(take(key, &origins, None)?),
            })
            .collect()
    }
}

impl Request {
    fn add(&mut self, shared: SharedPanes, run: Run) {
        let SharedPanes { slide, length, .. } = shared;
        let base = self.windows.len();
        let number = |window: i64| usize::try_from((window - run.from) / slide).unwrap_or(0);
        let count = number(run.to) + 1;
        self.windows
            .extend((0..count as i64).map(|n| run.from + n * slide));
        self.window_origins
            .extend(std::iter::repeat_n(run.origin, count));
        let mut piece = run.from;
        while piece < shared.end(run.to) {
            let first = number(shared.first_start(piece).max(run.from));
            let last = number(shared.last_start(piece).min(run.to));
            self.origins.push(run.origin);
            self.pieces.push(piece);
            self.ids.push((base + first, last + 1 - first));
            piece = piece.saturating_add(length);
        }
    }
}

/// The windows of touched pieces, which are in the order of their keys and times, from `open_from` on.
fn runs(shared: SharedPanes, touched: &[(usize, i64, u32)], open_from: i64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before = None;
    for (group, piece, origin) in touched {
        let from = shared.first_start(*piece).max(open_from);
        let to = shared.last_start(*piece);
        match runs.last_mut() {
            Some(run) if before == Some(*group) && from <= run.to.saturating_add(shared.slide) => {
                run.to = run.to.max(to);
            }
            _ if from <= to => runs.push(Run {
                origin: *origin,
                from,
                to,
            }),
            _ => continue,
        }
        before = Some(*group);
    }
    runs
}
