//! Tests of eviction: against a simple model under random calls, and of the memory that comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use crate::{Chunk, StateTable};

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % bound
    }
}

/// How the keys and values of a table are made from numbers.
struct Shape {
    key: fn(u64) -> Vec<ArrayRef>,
    values: bool,
}

const SHAPES: [Shape; 6] = [
    // One word; null keys among them.
    Shape {
        key: |n| {
            vec![Arc::new(Int64Array::from(vec![
                (n > 0).then_some(n as i64),
            ]))]
        },
        values: true,
    },
    // Two words, no values: what deduplication keeps.
    Shape {
        key: |n| {
            let time = TimestampMicrosecondArray::from(vec![(n % 7 > 0).then_some(n as i64)]);
            vec![Arc::new(time), Arc::new(Int32Array::from(vec![n as i32]))]
        },
        values: false,
    },
    // Sixteen bytes.
    Shape {
        key: |n| vec![Arc::new(Decimal128Array::from(vec![i128::from(n) << 40]))],
        values: true,
    },
    // Bytes: null, empty, short, and too long for the record.
    Shape {
        key: |n| vec![Arc::new(StringArray::from(vec![text(n)]))],
        values: true,
    },
    // Rows.
    Shape {
        key: |n| {
            let word: ArrayRef = Arc::new(StringArray::from(vec![text(n)]));
            vec![word, Arc::new(Int64Array::from(vec![Some(n as i64)]))]
        },
        values: true,
    },
    // No key columns: there is one record.
    Shape {
        key: |_| Vec::new(),
        values: true,
    },
];

fn text(n: u64) -> Option<String> {
    match n {
        0 => None,
        1 => Some(String::new()),
        n if n % 2 == 0 => Some(format!("{n}")),
        n => Some(format!("a key that takes more than 24 bytes: {n}")),
    }
}

fn schema_of(arrays: &[ArrayRef]) -> SchemaRef {
    let field = |array: &ArrayRef| Field::new("c", array.data_type().clone(), true);
    Arc::new(Schema::new(arrays.iter().map(field).collect::<Vec<_>>()))
}

fn joined(parts: &[Vec<ArrayRef>]) -> Vec<ArrayRef> {
    let columns = 0..parts.first().map_or(0, Vec::len);
    let column = |at: usize| {
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part[at].as_ref()).collect();
        arrow::compute::concat(&parts).expect("one type")
    };
    columns.map(column).collect()
}

/// What a record holds by the model: its value, and when it is over.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: Option<String>,
    end: Option<i64>,
}

/// A table, what it must hold, and the calls that change both.
struct Pair<'a> {
    shape: &'a Shape,
    table: StateTable,
    model: BTreeMap<u64, Held>,
    /// The number of each key by how it is shown.
    names: BTreeMap<String, u64>,
    random: Random,
}

/// Columns beside the value, so that the records take many pages.
const WIDE: usize = 300;

impl<'a> Pair<'a> {
    fn new(shape: &'a Shape, keys: u64, seed: u64) -> Self {
        let wide = (0..WIDE).map(|n| Field::new(format!("w{n}"), DataType::Int64, true));
        let values = [Field::new("v", DataType::Utf8, true)]
            .into_iter()
            .chain(wide);
        let values: Vec<_> = values.filter(|_| shape.values).collect();
        let values = Arc::new(Schema::new(values));
        let key = (shape.key)(5);
        let keys = if key.is_empty() { 1 } else { keys };
        Self {
            shape,
            table: StateTable::try_new(schema_of(&key), values).expect("a table"),
            model: BTreeMap::new(),
            names: (0..keys)
                .map(|key| (format!("{:?}", (shape.key)(key)), key))
                .collect(),
            random: Random(seed),
        }
    }

    /// Up to `most` key numbers, some of them twice.
    fn some_keys(&mut self, most: u64) -> Vec<u64> {
        let rows = 1 + self.random.below(most);
        (0..rows)
            .map(|_| self.random.below(self.names.len() as u64))
            .collect()
    }

    fn columns(&self, keys: &[u64]) -> Vec<ArrayRef> {
        let parts: Vec<_> = keys.iter().map(|key| (self.shape.key)(*key)).collect();
        joined(&parts)
    }

    fn values(&self, held: &[Held]) -> Vec<ArrayRef> {
        if !self.shape.values {
            return Vec::new();
        }
        let column = held.iter().map(|held| held.value.as_deref());
        let column: ArrayRef = Arc::new(column.collect::<StringArray>());
        let length = |held: &Held| held.value.as_ref().map(|value| value.len() as i64);
        let wide: ArrayRef = Arc::new(held.iter().map(length).collect::<Int64Array>());
        let wide = std::iter::repeat_n(wide, WIDE);
        [column].into_iter().chain(wide).collect()
    }

    fn random_held(&mut self) -> Held {
        let value = self.random.below(60);
        let end = self.random.below(5_000) as i64 - 100;
        Held {
            value: (self.shape.values && value > 2).then(|| "v".repeat(value as usize)),
            end: (self.random.below(20) > 0).then_some(end),
        }
    }

    /// A trigger: keys are touched, fresh ones are put into panes, all get values.
    fn trigger(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            let keys = self.some_keys(400);
            let mut ids = Vec::new();
            let columns = self.columns(&keys);
            let touched = self.table.intern(&columns, keys.len(), &mut ids);
            let touched = touched.expect("interned");
            let mut of_id = BTreeMap::new();
            keys.iter().zip(&ids).for_each(|(key, id)| {
                of_id.insert(*id, *key);
            });
            for id in touched.existing.clone() {
                assert!(self.model.contains_key(&of_id[&id]), "an existing record");
            }
            for id in touched.fresh.clone() {
                assert!(!self.model.contains_key(&of_id[&id]), "a fresh record");
            }
            let held: Vec<Held> = touched.all().map(|_| self.random_held()).collect();
            let move_all = self.random.below(4) == 0;
            let panes = if move_all {
                touched.all()
            } else {
                touched.fresh.clone()
            };
            let skipped = panes.start - touched.all().start;
            let ends: Int64Array = held[skipped..].iter().map(|held| held.end).collect();
            self.table.put_in_panes(panes.clone(), &ends).expect("put");
            let values = self.values(&held);
            self.table
                .set_values(touched.all(), &values)
                .expect("written");
            for (id, held) in touched.all().zip(held) {
                let old = self.model.get(&of_id[&id]).map(|old| old.end);
                let end = old.filter(|_| !panes.contains(&id)).unwrap_or(held.end);
                self.model.insert(of_id[&id], Held { end, ..held });
            }
        }
        assert!(
            self.table.evict(0).is_err(),
            "nothing is evicted in a trigger"
        );
        self.table.commit();
    }

    fn restore(&mut self) {
        let keys = self.some_keys(200);
        let held: Vec<Held> = keys.iter().map(|_| self.random_held()).collect();
        let ends: Int64Array = held.iter().map(|held| held.end).collect();
        let (columns, values) = (self.columns(&keys), self.values(&held));
        let restored = self
            .table
            .restore(&columns, &values, Some(&ends), keys.len());
        restored.expect("restored");
        self.model.extend(keys.into_iter().zip(held));
    }

    fn remove(&mut self) {
        let keys = self.some_keys(300);
        let removed = self.table.remove(&self.columns(&keys), keys.len());
        let known = keys
            .iter()
            .filter(|key| self.model.remove(key).is_some())
            .count();
        assert_eq!(removed.expect("removed"), known);
    }

    fn evict(&mut self, until: i64) {
        let over = |held: &Held| held.end.is_some_and(|end| end <= until);
        let due: BTreeMap<u64, Held> = self
            .model
            .iter()
            .filter(|(_, held)| over(held))
            .map(|(key, held)| (*key, held.clone()))
            .collect();
        assert_eq!(self.table.count_due(until), due.len());
        let mut ends = Vec::new();
        for chunk in self.table.due(until, 70) {
            let chunk = chunk.expect("read");
            assert!(chunk.rows <= 70);
            for (key, value) in self.rows(&chunk) {
                assert_eq!(value, due[&key].value, "key {key}");
                ends.push(due[&key].end);
            }
        }
        assert_eq!(ends.len(), due.len());
        assert!(ends.is_sorted(), "the oldest pane first");
        assert_eq!(self.table.evict(until).expect("evicted"), due.len());
        self.model.retain(|_, held| !over(held));
        // A record takes less than 3 KiB, its key and value on the heap 100 bytes, the index 64 KiB.
        let slots = self.model.len() + self.model.len() / 4;
        let most = slots * (3 * 1024 + 100) + 2 * 1024 * 1024 + 64 * 1024;
        assert!(self.table.memory_bytes() <= most);
    }

    /// The key numbers and values of a chunk.
    fn rows(&self, chunk: &Chunk) -> Vec<(u64, Option<String>)> {
        let value = |row: usize| {
            let column = chunk.values.first()?.as_string::<i32>();
            let last = chunk.values[WIDE].as_primitive::<Int64Type>();
            let length = last.is_valid(row).then(|| last.value(row) as usize);
            let value = column.is_valid(row).then(|| column.value(row).to_owned());
            assert_eq!(value.as_ref().map(String::len), length);
            value
        };
        let key = |row: usize| {
            let columns: Vec<ArrayRef> = chunk.keys.iter().map(|c| c.slice(row, 1)).collect();
            self.names[&format!("{columns:?}")]
        };
        (0..chunk.rows).map(|row| (key(row), value(row))).collect()
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.model.len());
        let mut from = 0;
        let mut seen = BTreeMap::new();
        while let Some(chunk) = self.table.scan(from, 333).expect("read") {
            seen.extend(self.rows(&chunk));
            from = chunk.next;
        }
        let expected = self.model.iter();
        let expected: BTreeMap<u64, Option<String>> = expected
            .map(|(key, held)| (*key, held.value.clone()))
            .collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_table_is_what_a_map_with_ends_is() {
    for (number, shape) in SHAPES.iter().enumerate() {
        let mut pair = Pair::new(shape, 3_000, number as u64);
        for step in 0..80 {
            match pair.random.below(10) {
                0..5 => pair.trigger(),
                5 => pair.restore(),
                6 | 7 => pair.remove(),
                _ => {
                    let until = pair.random.below(5_000) as i64 - 200;
                    pair.evict(until);
                }
            }
            if step % 10 == 9 {
                pair.check();
            }
        }
        pair.evict(i64::MAX);
        pair.check();
        assert!(pair.model.values().all(|held| held.end.is_none()));
    }
}

fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// A table of `keys` with four values each, in triggers of 10,000; the ends are as `end` has it.
fn filled(keys: impl Iterator<Item = i64>, end: impl Fn(i64) -> i64) -> StateTable {
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let values = Schema::new(["a", "b", "c", "d"].map(long).to_vec());
    let mut table = StateTable::try_new(Arc::new(Schema::new(vec![long("k")])), Arc::new(values))
        .expect("a table");
    let keys: Vec<i64> = keys.collect();
    let mut ids = Vec::new();
    for keys in keys.chunks(10_000) {
        let column = longs(keys.iter().copied());
        let columns = [Arc::clone(&column)];
        let touched = table.intern(&columns, keys.len(), &mut ids);
        let fresh = touched.expect("interned").fresh;
        let ends = Int64Array::from_iter_values(keys.iter().map(|key| end(*key)));
        table.put_in_panes(fresh.clone(), &ends).expect("put");
        let values: Vec<ArrayRef> = (0..4).map(|_| Arc::clone(&column)).collect();
        table.set_values(fresh, &values).expect("written");
        table.commit();
    }
    table
}

fn check_values(table: &mut StateTable, keys: &[i64]) {
    let mut ids = Vec::new();
    let columns = [longs(keys.iter().copied())];
    let touched = table.intern(&columns, keys.len(), &mut ids);
    assert_eq!(touched.expect("interned").existing.len(), keys.len());
    let values = table.values(0..keys.len()).expect("read");
    assert!(values.iter().all(|column| column == &columns[0]));
    table.commit();
}

/// Panes in the order of arrival, all over the pages, one a record, and one for all that go.
const ENDS: [fn(i64) -> i64; 4] = [
    |key| key / 1_000,
    |key| (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64 & 0xff,
    |key| key,
    |key| i64::from(key > 180_000),
];

#[test]
fn memory_comes_back_when_records_go() {
    const KEYS: i64 = 200_000;
    for (number, end) in ENDS.into_iter().enumerate() {
        let mut table = filled(0..KEYS, end);
        let full = table.memory_bytes();
        let mut ends: Vec<i64> = (0..KEYS).map(end).collect();
        ends.sort_unstable();
        let until = ends[KEYS as usize / 10 * 9 - 1];
        for step in 0..=100 {
            table
                .evict(ends[0] + (until - ends[0]) * step / 100)
                .expect("evicted");
        }
        let live: Vec<i64> = (0..KEYS).filter(|key| end(*key) > until).collect();
        assert_eq!(table.len(), live.len());
        let fresh = filled(live.iter().copied(), end);
        let (left, needed) = (table.memory_bytes(), fresh.memory_bytes());
        assert!(left < full / 4, "{number}: {left} of {full} bytes are left");
        assert!(left <= needed * 2, "{number}: {left} bytes for {needed}");
        check_values(&mut table, &live);
        assert_eq!(table.evict(i64::MAX).expect("evicted"), live.len());
        assert!(
            table.memory_bytes() < 1280 * 1024,
            "{number}: an empty table is small"
        );
        table
            .restore(
                &[longs(0..3)],
                &[longs(0..3), longs(0..3), longs(0..3), longs(0..3)],
                None,
                3,
            )
            .expect("restored");
        check_values(&mut table, &[2, 0, 1]);
    }
}

/// While records move, with the table large enough to be looked up with fetching and small again, keys lead to
/// their records, the ids of the trigger before do not count, and what went is fresh.
#[test]
fn keys_lead_to_their_records_while_these_move() {
    let end = |key: i64| key * 7 % 10;
    let mut table = filled(0..150_000, end);
    let mut ids = Vec::new();
    for until in 0..9 {
        let full = table.memory_bytes();
        assert_eq!(table.evict(until).expect("evicted"), 15_000);
        assert!(table.memory_bytes() < full);
        let live: Vec<i64> = (0..150_000).filter(|key| end(*key) > until).collect();
        check_values(&mut table, &live);
        let last: Vec<i64> = live.iter().rev().take(3_000).copied().collect();
        for keys in [&last[..2_000], &last[1_000..], &last] {
            let columns = [longs(keys.iter().copied())];
            let interned = table.intern(&columns, keys.len(), &mut ids);
            assert!(interned.expect("interned").fresh.is_empty());
            assert!(ids.iter().zip(keys).all(|(id, key)| last[*id] == *key));
        }
        table.commit();
        let gone: Vec<i64> = (0..150_000).filter(|key| end(*key) == until).collect();
        let columns = [longs(gone.iter().copied())];
        assert_eq!(
            table.find(&columns, gone.len()).expect("looked for"),
            vec![None; gone.len()]
        );
    }
}

#[test]
fn a_pane_of_one_record_takes_48_bytes_at_most() {
    let with = |end: fn(i64) -> i64| filled(0..100_000, end).memory_bytes();
    let one_pane = with(|_| 0);
    let own_panes = with(|key| key);
    let scattered = with(|key| (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64);
    let record = 100_000 * 64;
    assert!(one_pane < 100_000 * (64 + 32 + 24), "{one_pane}");
    for panes in [own_panes, scattered] {
        assert!(panes > record && panes - one_pane < 100_000 * 48, "{panes}");
    }
}

#[test]
fn who_knows_slots_finds_them_again() {
    let mut table = filled(0..100_000, |key| key % 10);
    let mut ids = Vec::new();
    let keys: Vec<i64> = (0..100_000).filter(|key| key % 10 == 9).collect();
    let columns = [longs(keys.iter().copied())];
    table
        .intern(&columns, keys.len(), &mut ids)
        .expect("interned");
    let slots = table.slots(0..keys.len()).to_vec();
    table.commit();
    assert_eq!(table.evict(8).expect("evicted"), 90_000);
    table
        .intern(&columns, keys.len(), &mut ids)
        .expect("interned");
    assert_eq!(table.slots(0..keys.len()), slots);
    table.commit();
    assert_eq!(table.remove(&columns, keys.len()).expect("removed"), 10_000);
    assert!(table.memory_bytes() < 1280 * 1024, "empty pages went");
}

#[test]
fn a_record_without_values_counts_as_existing() {
    let mut table =
        StateTable::try_new(schema_of(&[longs([0])]), Arc::new(Schema::empty())).expect("a table");
    let mut ids = Vec::new();
    let touched = table.intern(&[longs([1, 2])], 2, &mut ids);
    assert_eq!(touched.expect("interned").fresh, 0..2);
    // A record that was only seen is none yet: the next trigger finds it fresh.
    table.set_values(0..1, &[]).expect("marked");
    table.commit();
    let touched = table.intern(&[longs([2, 1, 3])], 3, &mut ids);
    let touched = touched.expect("interned");
    assert_eq!((touched.existing, touched.fresh), (0..1, 1..3));
    assert_eq!(ids, [1, 0, 2]);
    let chunk = table.scan(0, 10).expect("read").expect("a record");
    assert_eq!((chunk.rows, &chunk.keys), (1, &vec![longs([1])]));
}

#[test]
fn a_removed_record_leaves_its_pane_and_one_with_another_end_moves() {
    let mut table = filled(0..1_000, |key| key / 100);
    assert_eq!(table.remove(&[longs(0..50)], 50).expect("removed"), 50);
    // The freed slots get other records, which are over later.
    let mut ids = Vec::new();
    let touched = table.intern(&[longs(2_000..2_050)], 50, &mut ids);
    let fresh = touched.expect("interned").fresh;
    let ends = Int64Array::from_value(50, 50);
    table.put_in_panes(fresh.clone(), &ends).expect("put");
    table.put_in_panes(fresh, &ends).expect("again");
    table
        .intern(&[longs(50..60)], 10, &mut ids)
        .expect("interned");
    let ends = Int64Array::from_iter((0..10).map(|n| (n >= 5).then_some(51)));
    table.put_in_panes(50..60, &ends).expect("moved");
    assert!(table.put_in_panes(0..1, &ends).is_err());
    table.commit();
    assert_eq!(table.count_due(0), 40);
    assert_eq!(table.evict(0).expect("evicted"), 40);
    assert_eq!(table.evict(49).expect("evicted"), 900);
    assert_eq!(table.evict(50).expect("evicted"), 50);
    assert_eq!(table.evict(i64::MAX).expect("evicted"), 5);
    assert_eq!(table.len(), 5, "those without an end");
}
