//! Rows of the stream meet the table: never more candidates at once than a batch has rows.
//!
//! ```text
//!  rows ─► hashes ─► chains ─► candidates ─► equal keys? ─► condition? ─► pairs ─► rows, in the stream's order
//!             a key with many rows: it goes on from where it stopped ◄──────┘
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{and, filter_record_batch, is_null, or, take};
use datafusion::common::Result;
use highwater_core::Error;

use super::keys::Keys;
use super::recipe::{Condition, From, Kind, Recipe};
use super::table::{NONE, Table};
use crate::operators::join::same;

/// Where the walk stands in the rows that a row may match.
#[derive(Clone, Copy, Debug)]
enum At {
    /// A row of a chain.
    Chain(u32),
    /// The rows with a null key, from this one on.
    Nulls(usize),
    /// All rows, from this one on.
    All(usize),
    End,
}

/// Rows of the stream, and of the table.
#[derive(Default)]
struct Pairs {
    rows: Vec<u32>,
    slots: Vec<u32>,
}

/// A batch of the stream on its way through the table.
pub(super) struct Probe {
    rows: RecordBatch,
    keys: Keys,
    row: usize,
    at: At,
    /// The rows before it came out.
    settled: usize,
    matched: Vec<bool>,
    found: (Vec<u32>, Vec<Option<u32>>),
    /// Nothing is left to come out.
    out: bool,
}

/// What a step of a probe gave.
pub(super) enum Step {
    Rows(RecordBatch),
    More,
    Done,
}

impl Probe {
    pub(super) fn new(recipe: &Recipe, rows: RecordBatch, table: &Table) -> Result<Self> {
        let keys = Keys::of(&recipe.stream_keys, &recipe.key_types, recipe.nulls, &rows)?;
        let mut probe = Self {
            keys,
            row: 0,
            at: At::End,
            settled: 0,
            matched: vec![false; rows.num_rows()],
            found: (Vec::new(), Vec::new()),
            out: !recipe.kind.is_once(),
            rows,
        };
        probe.at = probe.begin(recipe, table);
        Ok(probe)
    }

    /// Where the walk of the current row begins.
    fn begin(&self, recipe: &Recipe, table: &Table) -> At {
        match self.keys.hashes.get(self.row) {
            None => At::End,
            Some(_) if self.keys.columns.is_empty() => At::All(0),
            Some(hash) if self.keys.can_match(self.row) => At::Chain(table.index.first(*hash)),
            Some(_) if recipe.null_matches => At::All(0),
            Some(_) => At::End,
        }
    }

    /// Looks at up to `size` candidates.
    pub(super) fn step(&mut self, recipe: &Recipe, table: &Table, size: usize) -> Result<Step> {
        let candidates = self.candidates(recipe, table, size);
        let pairs = self.verify(recipe, table, candidates)?;
        for row in &pairs.rows {
            self.matched[*row as usize] = true;
        }
        if !recipe.kind.is_once() {
            self.settle(recipe.kind, &pairs);
        }
        let over = self.row == self.rows.num_rows();
        let waiting = self.found.0.len();
        if waiting >= size || (over && waiting > 0) {
            return self.come_out(recipe, table).map(Step::Rows);
        }
        if !over {
            return Ok(Step::More);
        }
        if !std::mem::replace(&mut self.out, true)
            && let Some(rows) = self.alone(recipe)?
        {
            return Ok(Step::Rows(rows));
        }
        Ok(Step::Done)
    }

    fn candidates(&mut self, recipe: &Recipe, table: &Table, size: usize) -> Pairs {
        let once = recipe.kind.is_once();
        let mut pairs = Pairs::default();
        while self.row < self.rows.num_rows() {
            if once && self.matched[self.row] {
                self.at = At::End;
            }
            while let Some(slot) = self.next(recipe, table) {
                pairs.rows.push(self.row as u32);
                pairs.slots.push(slot);
                if pairs.rows.len() == size {
                    return pairs;
                }
            }
            self.row += 1;
            self.at = self.begin(recipe, table);
        }
        pairs
    }

    /// The next row of the table that the current row may match.
    fn next(&mut self, recipe: &Recipe, table: &Table) -> Option<u32> {
        // Where any row will do, the first does.
        let enough = match recipe.kind.is_once() && recipe.condition.is_none() {
            true => 1,
            false => usize::MAX,
        };
        loop {
            match self.at {
                At::Chain(NONE) if recipe.null_matches => self.at = At::Nulls(0),
                At::Chain(NONE) => self.at = At::End,
                At::Chain(slot) => {
                    let (hash, next) = table.index.after(slot);
                    self.at = At::Chain(next);
                    if hash == self.keys.hashes[self.row] {
                        return Some(slot);
                    }
                }
                At::Nulls(at) if at < table.nulls.len().min(enough) => {
                    self.at = At::Nulls(at + 1);
                    return Some(table.nulls[at]);
                }
                At::All(at) if at < table.rows.num_rows().min(enough) => {
                    self.at = At::All(at + 1);
                    return Some(at as u32);
                }
                At::Nulls(_) | At::All(_) | At::End => {
                    self.at = At::End;
                    return None;
                }
            }
        }
    }

    /// The candidates whose keys are equal and that the condition lets pass.
    fn verify(&self, recipe: &Recipe, table: &Table, candidates: Pairs) -> Result<Pairs> {
        if candidates.rows.is_empty() {
            return Ok(candidates);
        }
        let mut pairs = candidates;
        if !self.keys.columns.is_empty() {
            let equal = Found::new(self, table, &pairs).equal_keys(recipe)?;
            pairs = pairs.only(&equal);
        }
        if let Some(condition) = &recipe.condition
            && !pairs.rows.is_empty()
        {
            let passes = Found::new(self, table, &pairs).passes(condition)?;
            pairs = pairs.only(&passes);
        }
        Ok(pairs)
    }

    /// Pairs come out, and between them the rows that have none, where those come out.
    fn settle(&mut self, kind: Kind, pairs: &Pairs) {
        let (rows, slots) = &mut self.found;
        let mut pairs = pairs.rows.iter().zip(&pairs.slots).peekable();
        if kind == Kind::Outer {
            for row in self.settled..self.row {
                while let Some((row, slot)) = pairs.next_if(|(of, _)| **of as usize == row) {
                    rows.push(*row);
                    slots.push(Some(*slot));
                }
                if !self.matched[row] {
                    rows.push(row as u32);
                    slots.push(None);
                }
            }
        }
        for (row, slot) in pairs {
            rows.push(*row);
            slots.push(Some(*slot));
        }
        self.settled = self.row;
    }

    fn come_out(&mut self, recipe: &Recipe, table: &Table) -> Result<RecordBatch> {
        let (rows, slots) = std::mem::take(&mut self.found);
        let found = Found {
            probe: self,
            table,
            rows: rows.into(),
            slots: slots.into(),
        };
        let columns = recipe.output.iter().map(|from| found.column(*from));
        result(recipe, columns.collect::<Result<_>>()?, found.rows.len())
    }

    /// The rows of the stream alone that come out of a semi, an anti or a mark join.
    fn alone(&self, recipe: &Recipe) -> Result<Option<RecordBatch>> {
        let matched = BooleanBuffer::from(self.matched.as_slice());
        let mark: ArrayRef = Arc::new(BooleanArray::new(matched.clone(), None));
        let columns = recipe.output.iter().map(|from| match from {
            From::Stream(at) => Ok(Arc::clone(self.rows.column(*at))),
            From::Mark => Ok(Arc::clone(&mark)),
            From::Static(_) => {
                Err(Error::internal("a semi join with a column of its table").into())
            }
        });
        let rows = result(
            recipe,
            columns.collect::<Result<_>>()?,
            self.rows.num_rows(),
        )?;
        let keep = match recipe.kind {
            Kind::Semi => matched,
            Kind::Anti => !&matched,
            _ => return Ok(Some(rows)),
        };
        match keep.count_set_bits() {
            0 => Ok(None),
            all if all == keep.len() => Ok(Some(rows)),
            _ => Ok(Some(filter_record_batch(
                &rows,
                &BooleanArray::new(keep, None),
            )?)),
        }
    }
}

/// The columns of pairs.
struct Found<'a> {
    probe: &'a Probe,
    table: &'a Table,
    rows: UInt32Array,
    slots: UInt32Array,
}

impl<'a> Found<'a> {
    fn new(probe: &'a Probe, table: &'a Table, pairs: &Pairs) -> Self {
        Self {
            probe,
            table,
            rows: pairs.rows.clone().into(),
            slots: pairs.slots.clone().into(),
        }
    }

    fn column(&self, from: From) -> Result<ArrayRef> {
        Ok(match from {
            From::Stream(at) => take(self.probe.rows.column(at), &self.rows, None)?,
            From::Static(at) => take(self.table.rows.column(at), &self.slots, None)?,
            From::Mark => return Err(Error::internal("a pair has no mark").into()),
        })
    }

    fn equal_keys(&self, recipe: &Recipe) -> Result<BooleanArray> {
        let mut all: Option<BooleanArray> = None;
        for (mine, theirs) in self.probe.keys.columns.iter().zip(&self.table.keys) {
            let mine = take(mine, &self.rows, None)?;
            let theirs = take(theirs, &self.slots, None)?;
            let mut equal = same(&mine, &theirs, recipe.nulls)?;
            if recipe.null_matches {
                equal = or(&is_null(&mine)?, &is_null(&theirs)?)
                    .and_then(|unknown| arrow::compute::or_kleene(&unknown, &equal))?;
            }
            all = Some(match all {
                Some(before) => and(&before, &equal)?,
                None => equal,
            });
        }
        all.ok_or_else(|| Error::internal("a join without keys").into())
    }

    fn passes(&self, condition: &Condition) -> Result<BooleanArray> {
        let columns = condition.columns.iter().map(|from| self.column(*from));
        let count = self.rows.len();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::clone(&condition.schema);
        let columns = columns.collect::<Result<_>>()?;
        let pairs = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let passes = condition.expr.evaluate(&pairs)?.into_array(count)?;
        let passes = passes.as_boolean_opt().cloned();
        passes.ok_or_else(|| Error::internal("the condition of a join is no boolean").into())
    }
}

impl Pairs {
    fn only(self, mask: &BooleanArray) -> Self {
        if mask.null_count() == 0 && mask.true_count() == mask.len() {
            return self;
        }
        let pass = match mask.nulls() {
            Some(valid) => mask.values() & valid.inner(),
            None => mask.values().clone(),
        };
        Self {
            rows: pass.set_indices().map(|at| self.rows[at]).collect(),
            slots: pass.set_indices().map(|at| self.slots[at]).collect(),
        }
    }
}

fn result(recipe: &Recipe, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::clone(&recipe.schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}
