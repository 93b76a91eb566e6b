//! The state table: records by key, asked and changed a batch at a time.

mod buckets;
mod compact;
mod lookup;
mod panes;

use std::ops::Range;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use highwater_core::{Error, Result};

use crate::keys::{FIRST_BIT, KeyCodec};
use crate::pages::Pages;
use crate::panes::Panes;
use crate::store::{IN_PANE, Intern, OCCUPIED, Store, TakeOut};
use crate::values::{HAS_VALUES, ValueCodec};

/// A table of records by key, and the list of those that the running trigger touched.
///
/// A touched key has a *local id*: its number in the touched list, from 0, in the order of first
/// touch. Ranges of local ids name what a call works on. A record:
///
/// ```text
///  word 0: local id + 1 (32 bits) │ in use │ has values │ in a pane │ null bits of the key │ validity bits
///  further header words where there are many columns │ key words │ value words
/// ```
///
/// A local id in a record counts only if the touched list agrees, so that forgetting the list costs
/// nothing.
#[derive(Debug)]
pub struct StateTable {
    keys: KeyCodec,
    values: ValueCodec,
    store: Store,
    panes: Panes,
    /// Someone knows slots: no record moves.
    slots_known: bool,
}

/// The local ids that a call of [`StateTable::intern`] gave out: first those of records that had
/// values before, then those of fresh records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Records whose old values count.
    pub existing: Range<usize>,
    /// Records that were made by this call.
    pub fresh: Range<usize>,
}

impl Touched {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> Range<usize> {
        self.existing.start..self.fresh.end
    }
}

/// A part of the whole table: what [`StateTable::scan`] gives.
#[derive(Debug)]
pub struct Chunk {
    /// The key columns.
    pub keys: Vec<ArrayRef>,
    /// The value columns.
    pub values: Vec<ArrayRef>,
    /// How many records there are in it.
    pub rows: usize,
    /// Where the next part begins.
    pub next: u32,
}

impl StateTable {
    /// An empty table with these key and value columns. Without key columns it has at most one record.
    ///
    /// # Errors
    /// `Unsupported` when a column's type cannot be kept.
    pub fn try_new(keys: SchemaRef, values: SchemaRef) -> Result<Self> {
        let keys = KeyCodec::try_new(keys)?;
        let values = ValueCodec::try_new(values, FIRST_BIT + keys.bits(), keys.words())?;
        let key_at = values.header();
        let pages = Pages::new(key_at + keys.words() + values.words());
        Ok(Self {
            keys,
            values,
            store: Store::new(pages, key_at),
            panes: Panes::default(),
            slots_known: false,
        })
    }

    /// The key columns.
    #[must_use]
    pub fn key_schema(&self) -> &SchemaRef {
        self.keys.schema()
    }

    /// The value columns.
    #[must_use]
    pub fn value_schema(&self) -> &SchemaRef {
        self.values.schema()
    }

    /// How many records there are, those that were just seen for the first time included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.index.len()
    }

    /// True when there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys the running trigger touched: local ids are below.
    #[must_use]
    pub fn touched(&self) -> usize {
        self.store.touched.len()
    }

    /// Bytes of memory the table takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.panes.memory_bytes()
    }

    /// Finds or makes the record of each of `rows` rows and writes its local id into `ids`, which is
    /// cleared first; tells which ids were given out for it.
    ///
    /// Of the ids given out, those of existing records come first: DataFusion's accumulators want every
    /// group below the number they are told to have a value, so old values are merged before the fresh
    /// records are mentioned.
    ///
    /// # Errors
    /// `Internal` when the columns are not those of the table, `Unavailable` when it is full.
    pub fn intern(
        &mut self,
        keys: &[ArrayRef],
        rows: usize,
        ids: &mut Vec<usize>,
    ) -> Result<Touched> {
        ids.clear();
        let store = &mut self.store;
        let from = store.touched.len();
        store.existing = 0;
        self.keys.encode(keys, rows, Intern { store, ids })?;
        let to = self.store.touched.len();
        let middle = from + self.store.existing;
        if from < middle && middle < to {
            self.store.existing_first(from, middle, ids);
        }
        Ok(Touched {
            existing: from..middle,
            fresh: middle..to,
        })
    }

    /// The keys of the touched records in `range`.
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a key cannot be read.
    pub fn keys(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        self.keys_of(&self.store.touched[range])
    }

    /// The values of the touched records in `range`, as they are now.
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a value cannot be read.
    pub fn values(&self, range: Range<usize>) -> Result<Vec<ArrayRef>> {
        self.values
            .gather(&self.store.pages, &self.store.touched[range])
    }

    /// Puts new values into the touched records in `range`.
    ///
    /// # Errors
    /// `Internal` when the columns are not those of the table.
    pub fn set_values(&mut self, range: Range<usize>, values: &[ArrayRef]) -> Result<()> {
        let store = &mut self.store;
        let slots = &store.touched[range];
        store.heap += self.values.scatter(&mut store.pages, slots, values)?;
        Ok(())
    }

    /// Forgets the touched list: the next trigger begins.
    pub fn commit(&mut self) {
        self.store.forget_touched();
    }

    /// The next records of the whole table, at most `rows` of them, from `from` (0 at first) on;
    /// `None` at the end. The order means nothing.
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a record cannot be read.
    pub fn scan(&self, from: u32, rows: usize) -> Result<Option<Chunk>> {
        const USED: u64 = OCCUPIED | HAS_VALUES;
        let pages = &self.store.pages;
        let slots: Vec<u32> = pages
            .slots_from(from)
            .filter(|slot| pages.record(*slot)[0] & USED == USED)
            .take(rows)
            .collect();
        let Some(last) = slots.last() else {
            return Ok(None);
        };
        Ok(Some(Chunk {
            next: last + 1,
            rows: slots.len(),
            keys: self.keys_of(&slots)?,
            values: self.values.gather(pages, &slots)?,
        }))
    }

    /// Puts records in as they are, in place of those with the same keys; touches nothing. They go into the
    /// panes of `ends`, one for each row, as [`put_in_panes`](Self::put_in_panes) has it.
    ///
    /// # Errors
    /// `Corrupt` when the columns are not those of the table.
    pub fn restore(
        &mut self,
        keys: &[ArrayRef],
        values: &[ArrayRef],
        ends: Option<&Int64Array>,
        rows: usize,
    ) -> Result<()> {
        let corrupt = |e: Error| {
            Error::corrupt("records of state do not fit the table they are for").with_source(e)
        };
        self.commit();
        let mut ids = Vec::new();
        self.intern(keys, rows, &mut ids).map_err(corrupt)?;
        let store = &mut self.store;
        let slots: Vec<u32> = ids.iter().map(|id| store.touched[*id]).collect();
        let change = self.values.scatter(&mut store.pages, &slots, values);
        store.heap += change.map_err(corrupt)?;
        if let Some(ends) = ends {
            self.put_slots_in_panes(&slots, ends).map_err(corrupt)?;
        }
        self.commit();
        Ok(())
    }

    /// Removes the records of these keys; how many there were.
    ///
    /// Their slots are used again. Only between triggers: a touched record cannot go.
    ///
    /// # Errors
    /// `Internal` when records are touched, or when the columns are not those of the table.
    pub fn remove(&mut self, keys: &[ArrayRef], rows: usize) -> Result<usize> {
        if !self.store.touched.is_empty() {
            return Err(Error::internal("records are removed within a trigger"));
        }
        let mut slots = Vec::new();
        let store = &mut self.store;
        let found = &mut slots;
        self.keys.encode(keys, rows, TakeOut { store, found })?;
        for slot in &slots {
            if self.store.pages.record(*slot)[0] & IN_PANE != 0 {
                self.panes.remove(&mut self.store.pages, *slot);
            }
            self.release(*slot);
        }
        self.give_back(slots.len());
        Ok(slots.len())
    }

    /// The keys of the records in these slots, which must be in use (see [`slots`](Self::slots)).
    ///
    /// # Errors
    /// `Corrupt` or `Internal` when a key cannot be read.
    pub fn keys_of(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let pages = &self.store.pages;
        let records = slots.iter().map(|slot| pages.record(*slot));
        self.keys.decode(records, self.store.key_at)
    }
}

impl Drop for StateTable {
    fn drop(&mut self) {
        if !self.keys.owns_heap() && !self.values.owns_heap() {
            return;
        }
        let pages = &mut self.store.pages;
        for page in 0..pages.end() {
            for slot in pages.slots_of(page) {
                let record = pages.record_mut(slot);
                self.keys.free(record, self.store.key_at);
                self.values.free(record);
            }
        }
    }
}
