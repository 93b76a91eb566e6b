//! The state of one operator as its records make it: put in, marked, taken out and evicted in their order.
//!
//! Keys lie in a state table, as in the operator. Values stay in the batches they came in, whatever their type, and the
//! table knows where; when most of what is held is superseded, the rest is copied together.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt64Type};
use highwater_checkpoint::OperatorIdentity;
use highwater_core::records::{
    EVICTED_TO, MATCHED, MATCHED_COLUMN, REMOVED, match_columns, retyped,
};
use highwater_state::{Chunk, StateTable};

use crate::{Error, Result};

/// Rows of a batch that comes out.
const ROWS: usize = 8 * 1024;

/// Rows that may be superseded before the others are copied together.
const SLACK: usize = 64 * 1024;

/// The state.
#[derive(Debug)]
pub(super) struct Rebuilt {
    operator: OperatorIdentity,
    /// By key, where the values are: the number of their batch, and the row in it.
    table: StateTable,
    /// The values, each batch by its columns.
    held: Vec<Vec<ArrayRef>>,
    /// Rows of all of them.
    rows: usize,
}

/// What happened to records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put,
    Remove,
    Evict,
}

/// Records by their columns, keys and then values.
pub(super) struct Records {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) rows: usize,
}

/// Told of all that happens, before it happens.
pub(super) type Watch<'a> = &'a mut (dyn FnMut(Change, Records) -> Result<()> + Send);

impl Rebuilt {
    /// No record yet.
    ///
    /// # Errors
    /// `Unsupported` when keys of these types cannot be kept.
    pub(super) fn try_new(operator: OperatorIdentity) -> Result<Self> {
        let place = Schema::new(vec![Field::new("place", DataType::UInt64, false)]);
        let table = StateTable::try_new(Arc::clone(&operator.keys), Arc::new(place))
            .map_err(|e| e.with_operator(&operator.name))?;
        Ok(Self {
            operator,
            table,
            held: Vec::new(),
            rows: 0,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.operator.name
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Does what the records say.
    ///
    /// # Errors
    /// `Corrupt` when they do not fit the operator.
    pub(super) fn apply(&mut self, records: &RecordBatch) -> Result<()> {
        self.apply_all([records], None)
    }

    /// Does what all records of a micro-batch say. What leaves for another reason than its time does so first.
    ///
    /// # Errors
    /// `Corrupt` when they do not fit the operator.
    pub(super) fn apply_all<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a RecordBatch>,
        watch: Option<Watch<'_>>,
    ) -> Result<()> {
        let done = self.try_apply(records, watch);
        done.map_err(|e| e.with_operator(&self.operator.name))
    }

    fn try_apply<'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a RecordBatch>,
        mut watch: Option<Watch<'_>>,
    ) -> Result<()> {
        let mut records = records.into_iter().peekable();
        let until = |records: &'a RecordBatch| records.schema_ref().metadata().get(EVICTED_TO);
        while let Some(these) = records.next() {
            if these.num_rows() > 0 {
                self.change(these, again(&mut watch))?;
            }
            let next = records.peek().and_then(|next| until(next));
            if let Some(until) = until(these).filter(|until| next != Some(*until)) {
                self.evict(until, again(&mut watch))?;
            }
        }
        Ok(())
    }

    fn change(&mut self, records: &RecordBatch, watch: Option<Watch<'_>>) -> Result<()> {
        let (columns, rows) = (self.columns_of(records)?, records.num_rows());
        let notes = records.schema_ref().metadata();
        if notes.contains_key(REMOVED) {
            self.remove(&columns, rows, watch)
        } else if notes.contains_key(MATCHED) {
            self.mark(&columns, rows, watch)
        } else {
            self.take_in(&columns, rows, watch)
        }
    }

    fn take_in(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        watch: Option<Watch<'_>>,
    ) -> Result<()> {
        if let Some(watch) = watch {
            let columns = columns.to_vec();
            watch(Change::Put, Records { columns, rows })?;
        }
        self.put(columns, rows)
    }

    fn remove(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        watch: Option<Watch<'_>>,
    ) -> Result<()> {
        if let Some(watch) = watch {
            watch(Change::Remove, self.found(columns, rows)?)?;
        }
        let keys = &columns[..self.operator.keys.fields().len()];
        self.table.remove(keys, rows)?;
        Ok(())
    }

    /// Marks those records that are there.
    fn mark(&mut self, columns: &[ArrayRef], rows: usize, watch: Option<Watch<'_>>) -> Result<()> {
        let Ok(mark) = self.operator.values.index_of(MATCHED_COLUMN) else {
            return Err(Error::corrupt(
                "records of state were marked, and they have no column for it",
            ));
        };
        let Records { mut columns, rows } = self.found(columns, rows)?;
        if rows == 0 {
            return Ok(());
        }
        let marks = BooleanArray::from(vec![true; rows]);
        columns[self.operator.keys.fields().len() + mark] = Arc::new(marks);
        self.take_in(&columns, rows, watch)
    }

    /// The records with these keys, as far as there are any.
    fn found(&self, columns: &[ArrayRef], rows: usize) -> Result<Records> {
        let keys = &columns[..self.operator.keys.fields().len()];
        let slots = self.table.find(keys, rows)?.into_iter().flatten();
        self.records(self.table.gather(&slots.collect::<Vec<_>>())?)
    }

    fn put(&mut self, columns: &[ArrayRef], rows: usize) -> Result<()> {
        let (keys, values) = columns.split_at(self.operator.keys.fields().len());
        let ends = self.operator.pane.map(|pane| pane.ends(columns));
        let ends = ends.transpose()?;
        let places = places(self.held.len(), rows);
        self.table.restore(keys, &[places], ends.as_ref(), rows)?;
        self.held.push(values.to_vec());
        self.rows += rows;
        match self.rows > 2 * self.table.len() + SLACK {
            true => self.compact(),
            false => Ok(()),
        }
    }

    fn evict(&mut self, until: &str, watch: Option<Watch<'_>>) -> Result<()> {
        let until: i64 = until.parse().map_err(|e| {
            Error::corrupt("records of state do not say up to when they were evicted")
                .with_source(e)
        })?;
        if self.operator.pane.is_none() {
            return Err(Error::corrupt(
                "records of state were evicted, and nothing says when a record is over",
            ));
        }
        if let Some(watch) = watch {
            for chunk in self.table.due(until, ROWS) {
                watch(Change::Evict, self.records(chunk?)?)?;
            }
        }
        self.table.evict(until)?;
        Ok(())
    }

    /// Copies the values that are not superseded together.
    fn compact(&mut self) -> Result<()> {
        let mut kept = Vec::new();
        let mut from = 0;
        while let Some(chunk) = self.table.scan(from, ROWS)? {
            from = chunk.next;
            let values = self.values(&chunk)?;
            kept.push((chunk, values));
        }
        self.held.clear();
        self.rows = 0;
        for (chunk, values) in kept {
            let places = places(self.held.len(), chunk.rows);
            self.table
                .restore(&chunk.keys, &[places], None, chunk.rows)?;
            self.held.push(values);
            self.rows += chunk.rows;
        }
        Ok(())
    }

    /// The columns of `records` in the types of the operator; null where a function is newer than the records.
    fn columns_of(&self, records: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let (keys, values) = (self.operator.keys.fields(), self.operator.values.fields());
        let fields = records.schema_ref().fields();
        let found = fields.get(keys.len()..);
        let typed = |(one, other): (&FieldRef, &FieldRef)| {
            one.data_type().equals_datatype(other.data_type())
        };
        let places = found
            .filter(|_| fields.iter().zip(keys).all(typed))
            .and_then(|found| match_columns(values, found));
        let places = places.ok_or_else(|| {
            Error::corrupt(
                "records of state have other columns than the operator is described with",
            )
        })?;
        let columns = records.columns();
        let keyed = columns.iter().zip(keys).map(|(c, f)| retyped(c, f));
        let valued = places.iter().zip(values).map(|(place, field)| match place {
            Some(place) => retyped(&columns[keys.len() + place], field),
            None => Ok(new_null_array(field.data_type(), records.num_rows())),
        });
        keyed.chain(valued).collect()
    }

    fn records(&self, mut chunk: Chunk) -> Result<Records> {
        let values = self.values(&chunk)?;
        let mut columns = std::mem::take(&mut chunk.keys);
        columns.extend(values);
        Ok(Records {
            columns,
            rows: chunk.rows,
        })
    }

    /// The values that a part of the table leads to.
    fn values(&self, chunk: &Chunk) -> Result<Vec<ArrayRef>> {
        let places = chunk.values[0].as_primitive::<UInt64Type>().values();
        let places = places
            .iter()
            .map(|place| ((place >> 32) as usize, (*place as u32) as usize));
        let places: Vec<(usize, usize)> = places.collect();
        let column = |at: usize| {
            let batches: Vec<&dyn Array> =
                self.held.iter().map(|batch| batch[at].as_ref()).collect();
            Ok(interleave(&batches, &places)?)
        };
        (0..self.operator.values.fields().len())
            .map(column)
            .collect()
    }

    /// All records as rows of `schema`: with their buckets, and when they are over.
    pub(super) fn rows(&self, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut from = 0;
        while let Some(chunk) = self.table.scan(from, ROWS)? {
            from = chunk.next;
            let buckets = self.table.buckets(&chunk.keys, chunk.rows)?;
            let mut records = self.records(chunk)?;
            let ends = match self.operator.pane {
                Some(pane) => pane.ends(&records.columns)?,
                None => Int64Array::new_null(records.rows),
            };
            let ends: TimestampMicrosecondArray = ends.reinterpret_cast();
            records.columns.push(Arc::new(Int32Array::from(buckets)));
            records.columns.push(Arc::new(ends));
            batches.push(records.batch(schema)?);
        }
        Ok(batches)
    }
}

impl Records {
    /// As a batch of `schema`, whose types they have.
    pub(super) fn batch(self, schema: &SchemaRef) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), self.columns, &options);
        Ok(batch?)
    }
}

/// The same watch, for one call.
fn again<'a>(watch: &'a mut Option<Watch<'_>>) -> Option<Watch<'a>> {
    match watch {
        Some(watch) => Some(&mut **watch),
        None => None,
    }
}

fn places(batch: usize, rows: usize) -> ArrayRef {
    let first = (batch as u64) << 32;
    Arc::new(UInt64Array::from_iter_values(first..first + rows as u64))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;
    use highwater_core::Pane;

    use super::*;

    fn operator() -> OperatorIdentity {
        let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        OperatorIdentity {
            name: "aggregate".to_owned(),
            kind: "stateStoreSave".to_owned(),
            keys: Arc::new(Schema::new(vec![Field::new("at", micros, true)])),
            values: Arc::new(Schema::new(vec![Field::new("v", DataType::Utf8View, true)])),
            pane: Some(Pane {
                column: 0,
                add_us: 10,
            }),
            sources: Vec::new(),
            takes_new_values: true,
        }
    }

    fn records(rows: &[(i64, &str)], evicted_to: Option<i64>) -> RecordBatch {
        let OperatorIdentity { keys, values, .. } = operator();
        let mut schema = Schema::new([keys.fields().to_vec(), values.fields().to_vec()].concat());
        if let Some(until) = evicted_to {
            schema
                .metadata
                .insert(EVICTED_TO.to_owned(), until.to_string());
        }
        let at = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(at, _)| *at));
        let v = StringViewArray::from_iter_values(rows.iter().map(|(_, v)| *v));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(at), Arc::new(v)]).expect("records")
    }

    fn contents(rebuilt: &Rebuilt) -> Vec<(i64, String)> {
        let schema = super::super::columns::of_state(&operator());
        let mut rows = Vec::new();
        for batch in rebuilt.rows(&schema).expect("rows") {
            let at = batch
                .column(0)
                .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            let ends = batch
                .column(3)
                .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                assert_eq!(ends.value(row), at.value(row) + 10);
                rows.push((
                    at.value(row),
                    batch.column(1).as_string_view().value(row).to_owned(),
                ));
            }
        }
        rows.sort();
        rows
    }

    /// Many more records than live ones: what is superseded is given up, and nothing else is.
    #[test]
    fn the_last_record_of_a_key_counts() {
        let mut rebuilt = Rebuilt::try_new(operator()).expect("empty");
        let text = |round: usize, key: i64| format!("value {round} of the key {key}");
        for round in 0..300 {
            let texts: Vec<_> = (0..1_000).map(|key| (key, text(round, key))).collect();
            let rows: Vec<_> = texts
                .iter()
                .map(|(key, text)| (*key, text.as_str()))
                .collect();
            rebuilt.apply(&records(&rows, None)).expect("applied");
        }
        assert!(rebuilt.rows < 100_000, "{} rows are held", rebuilt.rows);
        let last: Vec<_> = (0..1_000).map(|key| (key, text(299, key))).collect();
        assert_eq!(contents(&rebuilt), last);
        // Over at 10 + key: those below 990 go.
        rebuilt.apply(&records(&[], Some(999))).expect("applied");
        assert_eq!(contents(&rebuilt), last[990..]);
    }

    #[test]
    fn all_that_happens_is_told() {
        let mut rebuilt = Rebuilt::try_new(operator()).expect("empty");
        let mut told = Vec::new();
        let mut watch = |change, records: Records| {
            told.push((change, records.rows));
            Ok(())
        };
        let mut apply = |records: &RecordBatch| rebuilt.apply_all([records], Some(&mut watch));
        apply(&records(&[(1, "a"), (2, "b"), (9, "c")], None)).expect("applied");
        apply(&records(&[(9, "d")], Some(12))).expect("applied");
        apply(&records(&[], Some(12))).expect("applied");
        assert_eq!(
            told,
            [(Change::Put, 3), (Change::Put, 1), (Change::Evict, 2)]
        );
        assert_eq!(contents(&rebuilt), [(9, "d".to_owned())]);
    }

    /// The order does not hang on which batch of a micro-batch says until when records are over.
    #[test]
    fn a_mark_comes_before_the_end() {
        let mut schema = Schema::clone(&operator().values);
        let marked = Field::new(MATCHED_COLUMN, DataType::Boolean, true);
        schema.fields = [schema.fields.to_vec(), vec![Arc::new(marked)]]
            .concat()
            .into();
        let mut rebuilt = Rebuilt::try_new(OperatorIdentity {
            values: Arc::new(schema),
            ..operator()
        })
        .expect("empty");
        let with = |rows: &[(i64, &str)], note: &str| {
            let records = records(rows, Some(12));
            let mut fields = records.schema().fields().to_vec();
            fields.push(Arc::new(Field::new(
                MATCHED_COLUMN,
                DataType::Boolean,
                true,
            )));
            let mut notes = records.schema().metadata().clone();
            notes.insert(note.to_owned(), "1".to_owned());
            let mut columns = records.columns().to_vec();
            columns.push(Arc::new(BooleanArray::from(vec![false; rows.len()])));
            let schema = Schema::new_with_metadata(fields, notes);
            RecordBatch::try_new(Arc::new(schema), columns).expect("records")
        };
        let put = with(&[(1, "a"), (20, "b")], "");
        // Only its key counts, and one that is not there is passed over.
        let marks = with(&[(1, "?"), (3, "?")], MATCHED);
        let mut told = Vec::new();
        let mut watch = |change, records: Records| {
            let marks: Vec<bool> = records.columns[2].as_boolean().values().iter().collect();
            told.push((change, records.rows, marks));
            Ok(())
        };
        let done = rebuilt.apply_all([&put, &marks], Some(&mut watch));
        done.expect("applied");
        assert_eq!(
            told,
            [
                (Change::Put, 2, vec![false, false]),
                (Change::Put, 1, vec![true]),
                (Change::Evict, 1, vec![true]),
            ]
        );
        assert_eq!(rebuilt.len(), 1);
        rebuilt
            .apply(&marks)
            .expect("nothing is there to be marked");
    }

    #[test]
    fn records_of_something_else_are_refused() {
        let mut rebuilt = Rebuilt::try_new(operator()).expect("empty");
        let other =
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
        let error = rebuilt
            .apply(&other.expect("records"))
            .expect_err("refused");
        assert_eq!(error.operator(), Some("aggregate"));
        let never = OperatorIdentity {
            pane: None,
            ..operator()
        };
        let mut rebuilt = Rebuilt::try_new(never).expect("empty");
        rebuilt
            .apply(&records(&[], Some(1)))
            .expect_err("nothing says when");
    }
}
