//! The state as records: what a trigger changed, for the checkpoint, and back.
//!
//! Three kinds of batches, told apart by the metadata of their schema: sessions put in or changed; with
//! `highwater.removed`, sessions that were merged into others; with `highwater.evicted_to`, the order to forget
//! afterwards what ended by then.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::Result;
use highwater_core::Error;
use highwater_core::records::{REMOVED, retyped};

use super::rows::times;
use super::sessions::{Place, Session};
use super::state::SessionState;
use crate::operators::Part;
use crate::operators::records::{CHANGE_ROWS, completed, evicted_to, evicting};

impl SessionState {
    /// What the trigger changed. Merged sessions come first, so that one by one the batches keep the sessions of
    /// a key apart.
    pub(super) fn changes(&self) -> Result<Vec<RecordBatch>> {
        let closes = self.closes();
        let lives = |place: &&Place| {
            let end = self.sessions.at(**place).end;
            closes.is_none_or(|until| end > until)
        };
        let touched: Vec<Place> = self.trigger.touched.iter().filter(lives).copied().collect();
        let removed = self.trigger.merged.chunks(CHANGE_ROWS);
        let mut batches: Vec<_> = removed
            .map(|part| self.removed(part))
            .collect::<Result<_>>()?;
        for part in touched.chunks(CHANGE_ROWS) {
            batches.push(self.put_in(part)?);
        }
        let evicts = closes.is_some_and(|until| self.sessions.count_due(until) > 0);
        if batches.is_empty() && evicts {
            batches.push(RecordBatch::new_empty(self.schema(false)));
        }
        Ok(batches)
    }

    /// All sessions of the keys in one part.
    pub(super) fn part(&self, part: Part) -> Result<Vec<RecordBatch>> {
        let slots = self.keys.part_slots(part.number, part.of).into_iter();
        let of_key = |slot| (0..self.sessions.of(slot).len()).map(move |at| (slot, at));
        let places: Vec<Place> = slots.flat_map(of_key).collect();
        let batches = places.chunks(CHANGE_ROWS);
        batches.map(|places| self.put_in(places)).collect()
    }

    /// Sessions as they are.
    fn put_in(&self, places: &[Place]) -> Result<RecordBatch> {
        let slots: Vec<u32> = places.iter().map(|(slot, _)| *slot).collect();
        let time = self.recipe.time();
        let sessions = || places.iter().map(|place| self.sessions.at(*place));
        let mut columns = self.keys.keys_of(&slots)?;
        columns.push(times(sessions().map(|session| session.start), time));
        columns.push(times(sessions().map(|session| session.end), time));
        columns.extend(self.states_at(places)?);
        Ok(RecordBatch::try_new(self.schema(false), columns)?)
    }

    /// Sessions that are gone: their keys and starts.
    fn removed(&self, gone: &[(u32, i64)]) -> Result<RecordBatch> {
        let slots: Vec<u32> = gone.iter().map(|(slot, _)| *slot).collect();
        let schema = self.schema(true);
        let starts = gone.iter().map(|(_, start)| *start);
        let mut columns = self.keys.keys_of(&slots)?;
        columns.push(times(starts, self.recipe.time()));
        let values = schema.fields()[columns.len()..].iter();
        columns.extend(values.map(|field| new_null_array(field.data_type(), gone.len())));
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn schema(&self, removed: bool) -> SchemaRef {
        let (keys, values) = self.schemas();
        let fields = keys.fields().iter().chain(values.fields().iter());
        let mut schema = Schema::new(fields.cloned().collect::<Vec<_>>());
        if removed {
            schema.metadata.insert(REMOVED.to_owned(), "1".to_owned());
        }
        Arc::new(match self.closes() {
            Some(until) => evicting(schema, until),
            None => schema,
        })
    }

    /// Puts a batch of [`changes`](Self::changes) back.
    pub(super) fn restore(&mut self, records: &RecordBatch) -> highwater_core::Result<()> {
        let schema = records.schema();
        let removed = schema.metadata().contains_key(REMOVED);
        let evicted_to = evicted_to(records)?;
        if records.num_rows() > 0 {
            self.apply(records, removed).map_err(|e| unfit(e.into()))?;
        }
        match evicted_to {
            Some(until) => self.evict(until),
            None => Ok(()),
        }
    }

    fn apply(&mut self, records: &RecordBatch, removed: bool) -> Result<()> {
        let columns = self.columns_of(records)?;
        let (keys, rest) = columns.split_at(self.recipe.keys.len());
        let slots = self.slots(keys, records.num_rows())?;
        let micros = |at: usize| rest[at].as_primitive::<TimestampMicrosecondType>().values();
        let (starts, ends) = (micros(0), micros(1));
        if removed {
            for (slot, start) in slots.iter().zip(starts) {
                self.sessions.remove(*slot, *start);
            }
            return self.forget_bare(slots);
        }
        let states = self.fold.codec.encode(&rest[2..], records.num_rows())?;
        let spans = slots.iter().zip(starts.iter().zip(ends));
        for ((slot, (start, end)), state) in spans.zip(states) {
            let session = Session {
                start: *start,
                end: *end,
                state,
            };
            self.sessions.put(*slot, session);
        }
        Ok(())
    }

    /// The columns of `records` as the state has them.
    fn columns_of(&mut self, records: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (keys, values) = self.schemas();
        let count = keys.fields().len();
        if records.num_columns() < count {
            return Err(Error::corrupt("records of state lack key columns").into());
        }
        let pairs = records.columns().iter().zip(keys.fields());
        let mut columns = pairs
            .map(|(column, field)| retyped(column, field))
            .collect::<highwater_core::Result<Vec<_>>>()?;
        let fold = &mut self.fold;
        let empty = || {
            // A session always has its end.
            let end = new_null_array(values.field(0).data_type(), 1);
            let states = fold.empty_states()?;
            Ok([end].into_iter().chain(states).collect())
        };
        columns.extend(completed(records, count, values.fields(), empty)?);
        Ok(columns)
    }

    /// Forgets those of the keys that have no session.
    fn forget_bare(&mut self, mut slots: Vec<u32>) -> Result<()> {
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|slot| self.sessions.of(*slot).is_empty());
        if !slots.is_empty() {
            let keys = self.keys.keys_of(&slots)?;
            self.keys.remove(&keys, slots.len())?;
        }
        Ok(())
    }
}

fn unfit(cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::corrupt("records of state do not fit the sessions they are for").with_source(cause)
}
