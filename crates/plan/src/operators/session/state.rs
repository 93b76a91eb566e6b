//! What a session aggregation remembers and does in one trigger, apart from where rows come from.
//!
//! ```text
//!  begin ─► consume (each input batch) ─► gather ─► advance (key by key) ─► [due | all] ─► commit
//! ```
//! Nothing is grouped before the input is at its end: rows that come out of order would be merged over and over.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{concat, filter, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use highwater_core::{Error, OutputMode};
use highwater_state::StateTable;

use super::fold::Fold;
use super::late::LateSessions;
use super::recipe::{Opened, Recipe, state_schemas};
use super::rows::{assemble, lists, spans};
use super::sessions::{Place, Session, Sessions};
use super::sweep::{Row, Sweep};
use crate::cell::{BatchCell, BatchNumbers};
use crate::operators::memory::StateMemory;

/// The state of a session aggregation.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) recipe: Arc<Recipe>,
    /// The keys, without values: a key's slot leads to its sessions.
    pub(super) keys: StateTable,
    pub(super) sessions: Sessions,
    pub(super) fold: Fold,
    pub(super) trigger: Trigger,
    late: LateSessions,
    buffer: Buffer,
    cell: BatchCell,
    memory: StateMemory,
}

/// What the running, or the last, trigger did.
#[derive(Debug, Default)]
pub(super) struct Trigger {
    numbers: Option<BatchNumbers>,
    /// Sessions that were opened or changed.
    pub(super) touched: Vec<Place>,
    /// Key and start of sessions that are merged away.
    pub(super) merged: Vec<(u32, i64)>,
}

/// The rows of the running trigger.
#[derive(Debug, Default)]
struct Buffer {
    rows: Vec<Row>,
    columns: Vec<Vec<ArrayRef>>,
    bytes: usize,
}

/// All rows of a trigger, by key and start, and how far they are done.
#[derive(Debug)]
pub(super) struct Work {
    rows: Vec<Row>,
    columns: Vec<ArrayRef>,
    done: usize,
}

/// Figures of a trigger.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) updated: u64,
    pub(super) merged: u64,
    pub(super) late_rows: u64,
    pub(super) late_sessions: u64,
    pub(super) bytes: u64,
}

impl SessionState {
    pub(super) fn try_new(recipe: Arc<Recipe>, cell: BatchCell) -> highwater_core::Result<Self> {
        let keys = Arc::new(Schema::new(recipe.keys.clone()));
        Ok(Self {
            keys: StateTable::try_new(keys, Arc::new(Schema::empty()))?,
            sessions: Sessions::default(),
            fold: Fold::try_new(&recipe)?,
            trigger: Trigger::default(),
            late: LateSessions::try_new(&recipe)?,
            buffer: Buffer::default(),
            cell,
            memory: StateMemory::default(),
            recipe,
        })
    }

    /// The key and the value columns of its records.
    pub(super) fn schemas(&self) -> (SchemaRef, SchemaRef) {
        let (keys, values) = state_schemas(&self.recipe, &self.fold.fields);
        (Arc::new(keys), Arc::new(values))
    }

    /// A trigger begins.
    pub(super) fn begin(&mut self, context: &TaskContext) {
        self.trigger = Trigger {
            numbers: Some(self.cell.numbers()),
            ..Trigger::default()
        };
        self.late.begin();
        self.buffer = Buffer::default();
        self.memory.begin(&self.recipe.name, context);
    }

    /// Sessions that end at this time or before are closed; `None` where none ever is.
    pub(super) fn closes(&self) -> Option<i64> {
        let numbers = self.trigger.numbers.filter(|_| self.recipe.is_bounded());
        numbers.map(|numbers| numbers.closes_us())
    }

    fn late_until(&self) -> Option<i64> {
        let numbers = self.trigger.numbers.filter(|_| self.recipe.is_bounded());
        numbers.map(|numbers| numbers.late_us())
    }

    /// Takes the rows of one input batch.
    pub(super) fn consume(&mut self, batch: &RecordBatch) -> Result<()> {
        let opened = self.recipe.open(batch)?;
        let late_until = self.late_until();
        let late = |end: Option<i64>| end.zip(late_until).is_some_and(|(end, until)| end <= until);
        let mask = |take: &dyn Fn(Option<i64>) -> bool| -> BooleanArray {
            opened.ends.iter().map(|end| Some(take(end))).collect()
        };
        let kept = mask(&|end| end.is_some() && !late(end));
        if kept.true_count() == batch.num_rows() {
            return self.keep(batch, &opened);
        }
        let to = (self.recipe.name.as_str(), &self.cell);
        self.late.put(batch, &opened, &mask(&late), to)?;
        let filtered = |column: &ArrayRef| filter(column, &kept);
        let times = |column: &Int64Array| -> Result<Int64Array> {
            Ok(Int64Array::from(filter(column, &kept)?.to_data()))
        };
        let opened = Opened {
            keys: opened.keys.iter().map(filtered).collect::<Result<_, _>>()?,
            starts: times(&opened.starts)?,
            ends: times(&opened.ends)?,
        };
        self.keep(&filter_record_batch(batch, &kept)?, &opened)
    }

    /// Puts rows into the buffer, none of which is late.
    fn keep(&mut self, batch: &RecordBatch, opened: &Opened) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let slots = self.slots(&opened.keys, batch.num_rows())?;
        let first = self.buffer.rows.len();
        if u32::try_from(first + slots.len()).is_err() {
            return Err(
                Error::unavailable("more than four billion rows in one micro-batch").into(),
            );
        }
        let times = opened.starts.values().iter().zip(opened.ends.values());
        let rows = slots.into_iter().zip(times).zip(first as u32..);
        let rows = rows.map(|((slot, (start, end)), row)| Row {
            slot,
            start: *start,
            end: *end,
            row,
        });
        self.buffer.rows.extend(rows);
        let columns = self.recipe.inputs(batch)?;
        let bytes = |column: &ArrayRef| column.get_array_memory_size();
        self.buffer.bytes += columns.iter().map(bytes).sum::<usize>();
        self.buffer.columns.push(columns);
        self.reserve()
    }

    /// The slot of each key; fresh ones get one.
    pub(super) fn slots(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.keys.intern(keys, rows, &mut ids)?;
        let slots = self.keys.slots(0..self.keys.touched());
        let slots = ids.into_iter().map(|id| slots[id]).collect();
        self.keys.commit();
        Ok(slots)
    }

    /// Input is at its end.
    pub(super) fn gather(&mut self) -> Result<Work> {
        let Buffer {
            mut rows, columns, ..
        } = std::mem::take(&mut self.buffer);
        rows.sort_unstable_by_key(|row| (row.slot, row.start, row.row));
        let width = columns.first().map_or(0, Vec::len);
        let columns = (0..width).map(|at| {
            let parts: Vec<&dyn Array> = columns.iter().map(|c| c[at].as_ref()).collect();
            Ok(concat(&parts)?)
        });
        Ok(Work {
            rows,
            columns: columns.collect::<Result<_>>()?,
            done: 0,
        })
    }

    /// Does the next keys, of about `size` rows; in update mode, the rows that it means.
    pub(super) fn advance(&mut self, work: &mut Work, size: usize) -> Result<Option<RecordBatch>> {
        let rows = &work.rows[work.done..];
        let mut end = rows.len().min(size);
        while end > 0 && end < rows.len() && rows[end].slot == rows[end - 1].slot {
            end += 1;
        }
        if end == 0 {
            return Ok(None);
        }
        work.done += end;
        let rows = &rows[..end];
        let sweep = Sweep::of(rows, &mut self.sessions);
        let states = self.fold.states(rows, &work.columns, &sweep)?;
        self.store(&sweep, &states)?;
        if self.recipe.mode != OutputMode::Update {
            return Ok(None);
        }
        let lengths = sweep.groups.iter().map(|group| group.replaces);
        let superseded = lists(sweep.olds.iter(), lengths, self.recipe.time())?;
        let places: Vec<Place> = sweep.groups.iter().map(|group| group.place).collect();
        self.rows(&places, &states, Some(&superseded)).map(Some)
    }

    /// Puts the state of groups into their sessions, and notes what happened.
    fn store(&mut self, sweep: &Sweep, states: &[ArrayRef]) -> Result<()> {
        let encoded = self.fold.codec.encode(states, sweep.groups.len())?;
        let mut olds = sweep.olds.iter();
        for (group, state) in sweep.groups.iter().zip(encoded) {
            self.sessions.set_state(group.place, state);
            self.trigger.touched.push(group.place);
            let replaced = olds.by_ref().take(group.replaces);
            let gone = replaced.filter(|old| old.start != group.start);
            let gone = gone.map(|old| (group.place.0, old.start));
            self.trigger.merged.extend(gone);
        }
        Ok(())
    }

    /// The rows of sessions as they are kept.
    pub(super) fn rows_at(&mut self, places: &[Place]) -> Result<RecordBatch> {
        let states = self.states_at(places)?;
        self.rows(places, &states, None)
    }

    /// The state of sessions as they are kept.
    pub(super) fn states_at(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        let states = places.iter().map(|place| &*self.sessions.at(*place).state);
        self.fold.codec.decode(states)
    }

    fn rows(
        &mut self,
        places: &[Place],
        states: &[ArrayRef],
        superseded: Option<&ArrayRef>,
    ) -> Result<RecordBatch> {
        let slots: Vec<u32> = places.iter().map(|(slot, _)| *slot).collect();
        let keys = self.keys.keys_of(&slots)?;
        let sessions = places
            .iter()
            .map(|place| -> &Session { self.sessions.at(*place) });
        let sessions = spans(sessions, &self.recipe.window)?;
        let values = self.fold.values(states, places.len())?;
        assemble(&self.recipe, keys, sessions, values, superseded)
    }

    /// The sessions that are to be given out because they are closed.
    pub(super) fn due(&self) -> Vec<Place> {
        self.closes()
            .map_or(Vec::new(), |until| self.sessions.due(until))
    }

    /// The trigger is in the checkpoint: what is closed is forgotten. How many sessions were.
    pub(super) fn commit(&mut self) -> Result<u64> {
        let before = self.sessions.len();
        if let Some(until) = self.closes() {
            self.evict(until)?;
        }
        self.trigger = Trigger::default();
        Ok((before - self.sessions.len()) as u64)
    }

    /// Forgets the sessions that end at `until` or before, and keys that have none left.
    pub(super) fn evict(&mut self, until: i64) -> highwater_core::Result<()> {
        let bare = self.sessions.evict(until);
        if !bare.is_empty() {
            let keys = self.keys.keys_of(&bare)?;
            self.keys.remove(&keys, bare.len())?;
        }
        Ok(())
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            total: self.sessions.len() as u64,
            updated: self.trigger.touched.len() as u64,
            merged: self.trigger.merged.len() as u64,
            late_rows: self.late.rows(),
            late_sessions: self.late.sessions(),
            bytes: self.memory_bytes() as u64,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.sessions.memory_bytes()
    }

    /// Reserves what is held now from the session's memory pool.
    pub(super) fn reserve(&mut self) -> Result<()> {
        let buffer = self.buffer.bytes + self.buffer.rows.capacity() * size_of::<Row>();
        let bytes = self.memory_bytes() + self.fold.memory_bytes() + buffer;
        Ok(self.memory.hold(&self.recipe.name, bytes)?)
    }
}

impl Work {
    pub(super) fn is_done(&self) -> bool {
        self.done == self.rows.len()
    }
}
