//! A side of a join as records: what a trigger changed, for the checkpoint, and back.
//!
//! A record is a row with its number, `seq`. Three kinds of batches, told apart by the metadata of their schema: rows put
//! in; with `highwater.matched`, the numbers of rows that matched for the first time; with `highwater.removed`, the
//! numbers of rows that left because they matched. `highwater.evicted_to` is the order to forget afterwards what was
//! over by then.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::Result;
use highwater_core::records::{MATCHED, MATCHED_COLUMN, REMOVED};
use highwater_core::{Error, Pane};

use super::chunk::Chunk;
use super::index::CHUNK_ROWS;
use super::probe::hashed;
use super::recipe::{Keeps, SideRecipe};
use super::side::SideState;
use crate::operators::StateSchema;
use crate::operators::records::{CHANGE_ROWS, evicted_to, evicting};

const SEQ: &str = "seq";

/// Rows taken out at a time while records are put back.
const EVICT_ROWS: usize = 64 * 1024;

/// The columns of a side's state: the number; the row's columns, and whether it matched where that must be known.
pub(super) fn state_schema(recipe: &SideRecipe) -> StateSchema {
    let mut taken: HashSet<String> = [SEQ.to_owned(), MATCHED_COLUMN.to_owned()].into();
    let mut fields: Vec<Field> = Vec::new();
    for field in recipe.stored.fields() {
        // A chain of joins may have a name twice.
        let again = (1..).map(|n| match n {
            1 => field.name().clone(),
            n => format!("{}_{n}", field.name()),
        });
        let name = again.into_iter().find(|name| taken.insert(name.clone()));
        let name = name.unwrap_or_default();
        fields.push(Field::new(name, field.data_type().clone(), true));
    }
    if recipe.keeps == Keeps::Outer {
        fields.push(Field::new(MATCHED_COLUMN, DataType::Boolean, true));
    }
    let seq = Field::new(SEQ, DataType::Int64, false);
    StateSchema {
        keys: Arc::new(Schema::new(vec![seq])),
        values: Arc::new(Schema::new(fields)),
        pane: recipe.bound.as_ref().map(|bound| Pane {
            column: bound.column + 1,
            add_us: bound.span.map_or(0, |span| span.size),
        }),
    }
}

/// All columns of a record, with what is noted of a batch of them.
fn columns(schema: &StateSchema, note: Option<&str>, until: Option<i64>) -> SchemaRef {
    let fields = schema.keys.fields().iter();
    let fields = fields.chain(schema.values.fields().iter()).cloned();
    let mut all = Schema::new(fields.collect::<Vec<_>>());
    if let Some(note) = note {
        all.metadata.insert(note.to_owned(), "1".to_owned());
    }
    Arc::new(match until {
        Some(until) => evicting(all, until),
        None => all,
    })
}

impl SideState {
    /// What the micro-batch changed.
    pub(super) fn records(&self, recipe: &SideRecipe) -> Result<Vec<RecordBatch>> {
        let schema = state_schema(recipe);
        let changes = &self.changes;
        let until = changes.evicted_to;
        let mut batches = Vec::new();
        let put_in = columns(&schema, None, until);
        for chunk in self.chunks.iter().flatten() {
            if chunk.base + CHUNK_ROWS as i64 > changes.first {
                batches.extend(live_rows(chunk, changes.first, &put_in, recipe)?);
            }
        }
        for (numbers, note) in [(&changes.matched, MATCHED), (&changes.taken, REMOVED)] {
            let noted = columns(&schema, Some(note), until);
            for part in numbers.chunks(CHANGE_ROWS) {
                batches.push(only_numbers(part, &noted)?);
            }
        }
        if batches.is_empty() && until.is_some() {
            batches.push(RecordBatch::new_empty(put_in));
        }
        Ok(batches)
    }

    /// All rows whose chunk's number leaves `number` when divided by `of`.
    pub(super) fn records_of_part(
        &self,
        recipe: &SideRecipe,
        number: u32,
        of: u32,
    ) -> Result<Vec<RecordBatch>> {
        let schema = columns(&state_schema(recipe), None, None);
        let (number, of) = (i64::from(number), i64::from(of));
        let nth = |chunk: &Chunk| chunk.base.div_euclid(CHUNK_ROWS as i64);
        let chunks = self.chunks.iter().flatten();
        let of_part = chunks.filter(|chunk| nth(chunk).rem_euclid(of) == number);
        let batches = of_part.map(|chunk| live_rows(chunk, i64::MIN, &schema, recipe));
        let batches = batches.collect::<Result<Vec<_>>>()?;
        Ok(batches.into_iter().flatten().collect())
    }

    /// Puts a batch of [`records`](Self::records), or of a part, back.
    ///
    /// # Errors
    /// `Corrupt` when the columns are not those of the state.
    pub(super) fn restore(
        &mut self,
        recipe: &SideRecipe,
        records: &RecordBatch,
    ) -> highwater_core::Result<()> {
        let until = evicted_to(records)?;
        let unfit = |e: Error| {
            Error::corrupt("records of state do not fit the join they are for").with_source(e)
        };
        self.apply(recipe, records)
            .map_err(|e| unfit(Error::from(e)))?;
        let Some(until) = until else {
            return Ok(());
        };
        let mut slots = Vec::new();
        while self.take_due(until, EVICT_ROWS, &mut slots)? {
            self.remove(&slots);
            slots.clear();
        }
        Ok(())
    }

    fn apply(&mut self, recipe: &SideRecipe, records: &RecordBatch) -> Result<()> {
        if records.num_rows() == 0 {
            return Ok(());
        }
        let schema = state_schema(recipe);
        let typed = typed(records, &columns(&schema, None, None))?;
        let numbers = typed[0].as_primitive::<Int64Type>();
        if numbers.null_count() > 0 {
            return Err(Error::corrupt("a row of a join without a number").into());
        }
        let notes = records.schema_ref().metadata();
        if notes.contains_key(MATCHED) || notes.contains_key(REMOVED) {
            self.matched_before(numbers, notes.contains_key(REMOVED));
            return Ok(());
        }
        let width = recipe.stored.fields().len();
        let rows = RecordBatch::try_new(Arc::clone(&recipe.stored), typed[1..=width].to_vec())?;
        let matched = typed.get(width + 1).map(|column| column.as_boolean());
        let keys = hashed(recipe, &rows)?;
        self.put_back(&keys.of(&rows), numbers, matched)
    }
}

/// The rows of `chunk` that are there and have `first` or a higher number.
fn live_rows(
    chunk: &Chunk,
    first: i64,
    schema: &SchemaRef,
    recipe: &SideRecipe,
) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for piece in chunk.pieces() {
        let all = start..start + piece.num_rows();
        start = all.end;
        let wanted = |row: &usize| chunk.is_alive(*row) && chunk.number(*row) >= first;
        let rows: Vec<usize> = all.clone().filter(wanted).collect();
        let (Some(least), Some(last)) = (rows.first(), rows.last()) else {
            continue;
        };
        let part = if last - least + 1 == rows.len() {
            piece.slice(least - all.start, rows.len())
        } else {
            let places = rows.iter().map(|row| (row - all.start) as u32);
            take_record_batch(piece, &places.collect::<UInt32Array>())?
        };
        let numbers: Int64Array = rows.iter().map(|row| chunk.number(*row)).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(numbers)];
        columns.extend(part.columns().iter().cloned());
        if recipe.keeps == Keeps::Outer {
            let matched = rows.iter().map(|row| Some(chunk.is_matched(*row)));
            columns.push(Arc::new(matched.collect::<BooleanArray>()));
        }
        batches.push(RecordBatch::try_new(Arc::clone(schema), columns)?);
    }
    Ok(batches)
}

fn only_numbers(numbers: &[i64], schema: &SchemaRef) -> Result<RecordBatch> {
    let count = numbers.len();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(numbers.to_vec()))];
    let values = schema.fields()[1..].iter();
    columns.extend(values.map(|field| new_null_array(field.data_type(), count)));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The columns of `records` in the types of the state.
fn typed(records: &RecordBatch, schema: &SchemaRef) -> Result<Vec<ArrayRef>> {
    if records.num_columns() != schema.fields().len() {
        return Err(Error::corrupt(format!(
            "records of {} columns for a state of {}",
            records.num_columns(),
            schema.fields().len()
        ))
        .into());
    }
    let pairs = records.columns().iter().zip(schema.fields());
    let typed = pairs.map(|(column, field)| match column.data_type() {
        same if same == field.data_type() => Ok(Arc::clone(column)),
        other if other.equals_datatype(field.data_type()) => Ok(cast(column, field.data_type())?),
        other => Err(Error::corrupt(format!(
            "the column `{}` of the state is {other}, not {}",
            field.name(),
            field.data_type()
        ))
        .into()),
    });
    typed.collect()
}
