//! Tests of the state table as a whole: every key type, removal and reuse, growth, restore.

mod eviction;
mod parts;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::util::pretty::pretty_format_columns;

use super::*;

fn schema(types: &[DataType]) -> SchemaRef {
    let field = |(n, t): (usize, &DataType)| Field::new(format!("c{n}"), t.clone(), true);
    Arc::new(Schema::new(
        types.iter().enumerate().map(field).collect::<Vec<_>>(),
    ))
}

fn table(keys: &[ArrayRef], values: &[DataType]) -> StateTable {
    let types: Vec<_> = keys.iter().map(|k| k.data_type().clone()).collect();
    StateTable::try_new(schema(&types), schema(values)).expect("a table")
}

fn show(columns: &[ArrayRef]) -> String {
    pretty_format_columns("c", columns)
        .expect("shown")
        .to_string()
}

fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Arrays of five rows, the third null and the fifth as the first.
fn samples() -> Vec<ArrayRef> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(1),
        Some(-2),
        None,
        Some(3),
        Some(1),
    ]));
    let words = vec![
        Some("a"),
        Some(""),
        None,
        Some("a word of more than 24 bytes"),
        Some("a"),
    ];
    let text: ArrayRef = Arc::new(StringArray::from(words));
    let mut samples: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![
            Some(true),
            Some(false),
            None,
            Some(false),
            Some(true),
        ])),
        Arc::clone(&numbers),
        Arc::clone(&text),
    ];
    for to in [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(20, 2),
        DataType::Decimal256(40, 2),
        DataType::Date64,
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Duration(TimeUnit::Second),
    ] {
        samples.push(cast(&numbers, &to).unwrap_or_else(|e| panic!("{to}: {e}")));
    }
    for to in [
        DataType::Utf8View,
        DataType::LargeUtf8,
        DataType::Binary,
        DataType::BinaryView,
        DataType::LargeBinary,
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    ] {
        samples.push(cast(&text, &to).unwrap_or_else(|e| panic!("{to}: {e}")));
    }
    let field = Arc::new(Field::new("item", DataType::Int64, true));
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
        Some(vec![Some(1), None]),
        Some(vec![]),
        None,
        Some(vec![Some(7)]),
        Some(vec![Some(1), None]),
    ]);
    let parts: Vec<(FieldRef, ArrayRef)> = vec![
        (field, numbers),
        (Arc::new(Field::new("t", DataType::Utf8, true)), text),
    ];
    samples.push(Arc::new(list));
    samples.push(Arc::new(StructArray::from(parts)));
    samples.push(Arc::new(IntervalMonthDayNanoArray::from(vec![
        Some(IntervalMonthDayNano::new(1, 2, 3)),
        Some(IntervalMonthDayNano::new(-1, 0, 0)),
        None,
        Some(IntervalMonthDayNano::new(0, 0, 9)),
        Some(IntervalMonthDayNano::new(1, 2, 3)),
    ])));
    samples
}

#[test]
fn keys_and_values_of_every_type_come_back() {
    for sample in samples() {
        let name = sample.data_type().to_string();
        let mut table = table(std::slice::from_ref(&sample), &[sample.data_type().clone()]);
        let mut ids = Vec::new();
        let keys = [Arc::clone(&sample)];
        let touched = table
            .intern(&keys, 5, &mut ids)
            .unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let range = touched.fresh.clone();
        let four = sample.slice(0, 4);
        let distinct = if sample.data_type() == &DataType::Boolean {
            3
        } else {
            4
        };
        assert_eq!(
            (range.clone(), ids[4], ids[0]),
            (0..distinct, 0, 0),
            "{name}"
        );
        assert!(touched.existing.is_empty(), "{name}");
        let stored = four.slice(0, distinct);
        table
            .set_values(range.clone(), std::slice::from_ref(&stored))
            .expect("written");
        assert_eq!(
            &table.keys(range.clone()).expect("keys")[0],
            &stored,
            "{name}"
        );
        assert_eq!(&table.values(range).expect("values")[0], &stored, "{name}");
        table.commit();
        // The second trigger touches them in another order.
        let reversed = sample.slice(1, 3);
        let touched = table.intern(&[reversed], 3, &mut ids).expect("interned");
        let shown = show(&table.values(touched.existing).expect("read"));
        let expected = sample.slice(1, if distinct == 3 { 2 } else { 3 });
        assert_eq!(shown, show(&[expected]), "{name}");
    }
}

#[test]
fn several_key_columns_are_one_key() {
    let samples = samples();
    for width in [2, 3, 5, 9] {
        for columns in samples.windows(width) {
            let mut table = table(columns, &[DataType::Int64]);
            let mut ids = Vec::new();
            table.intern(columns, 5, &mut ids).expect("interned");
            assert_eq!((ids[0], ids[4], table.len()), (0, 0, 4));
            let first: Vec<_> = columns.iter().map(|c| c.slice(0, 4)).collect();
            assert_eq!(show(&table.keys(0..4).expect("keys")), show(&first));
        }
    }
}

#[test]
fn keys_are_canonical() {
    let odd_nan = f64::from_bits(f64::NAN.to_bits() | 1);
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![
        0.0,
        -0.0,
        f64::NAN,
        odd_nan,
        -f64::NAN,
    ]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"; 5]));
    let fields = vec![Field::new("f", DataType::Float64, true)];
    let nested: ArrayRef = Arc::new(StructArray::new(
        fields.into(),
        vec![Arc::clone(&floats)],
        None,
    ));
    for keys in [vec![Arc::clone(&floats)], vec![floats, text], vec![nested]] {
        let mut table = table(&keys, &[]);
        let mut ids = Vec::new();
        table.intern(&keys, 5, &mut ids).expect("interned");
        assert_eq!(ids, [0, 0, 1, 1, 1]);
    }
}

#[test]
fn a_null_key_is_no_empty_string_and_no_zero() {
    let text: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), None]));
    let zero: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(0), None]));
    for key in [text, zero] {
        let mut table = table(std::slice::from_ref(&key), &[]);
        let mut ids = Vec::new();
        table.intern(&[key], 3, &mut ids).expect("interned");
        assert_eq!(ids, [0, 1, 0]);
    }
}

#[test]
fn an_empty_table_is_small_and_many_columns_fit() {
    let types = vec![DataType::Decimal128(10, 2); 90];
    let mut table = table(&[longs([0])], &types);
    assert!(table.memory_bytes() < 32 * 1024);
    let mut ids = Vec::new();
    table.intern(&[longs(0..3)], 3, &mut ids).expect("interned");
    let column = |n: i128| {
        let values = Decimal128Array::from(vec![Some(-n), None, Some(i128::MAX / 2 - n)]);
        Arc::new(values.with_precision_and_scale(10, 2).expect("decimal")) as ArrayRef
    };
    let values: Vec<_> = (0..90).map(column).collect();
    table.set_values(0..3, &values).expect("written");
    assert_eq!(table.values(0..3).expect("values"), values);
}

#[test]
fn a_million_keys_are_found_and_removed_slots_are_used_again() {
    let mut table = table(&[longs([0])], &[DataType::Int64]);
    let mut ids = Vec::new();
    let batch = |n: i64| longs((n * 10_000..(n + 1) * 10_000).map(|k| k * 7_919));
    for n in 0..100 {
        let range = table
            .intern(&[batch(n)], 10_000, &mut ids)
            .expect("interned")
            .all();
        assert_eq!(range.len(), 10_000);
        table.set_values(range, &[batch(n)]).expect("written");
        table.commit();
    }
    let full = table.memory_bytes();
    for n in (0..100).step_by(2) {
        assert_eq!(table.remove(&[batch(n)], 10_000).expect("removed"), 10_000);
    }
    assert_eq!(table.len(), 500_000);
    for n in 0..100 {
        let touched = table
            .intern(&[batch(n)], 10_000, &mut ids)
            .expect("interned");
        assert_eq!(touched.existing.len(), if n % 2 == 0 { 0 } else { 10_000 });
        if n % 2 == 1 {
            assert_eq!(
                table.values(touched.existing.clone()).expect("read"),
                vec![batch(n)]
            );
        }
        table
            .set_values(touched.all(), &[batch(n)])
            .expect("written");
        table.commit();
    }
    // Freed slots served: only the list of them was added.
    assert!(table.memory_bytes() < full + full / 10);
}

#[test]
fn a_scan_is_the_whole_table_and_restores_another() {
    let text = |n: i64| (n % 3 != 0).then(|| "long enough to be boxed ".repeat((n % 5) as usize));
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter(
        (0..1_000).map(|n| Some(format!("key {n}"))),
    ));
    let values: ArrayRef = Arc::new(StringArray::from_iter((0..1_000).map(text)));
    let mut first = table(std::slice::from_ref(&keys), &[DataType::Utf8]);
    first
        .restore(&[keys], &[values], None, 1_000)
        .expect("restored");
    let mut second = StateTable::try_new(
        Arc::clone(first.key_schema()),
        Arc::clone(first.value_schema()),
    )
    .expect("a table");
    let mut from = 0;
    while let Some(chunk) = first.scan(from, 300).expect("read") {
        second
            .restore(&chunk.keys, &chunk.values, None, chunk.rows)
            .expect("restored");
        from = chunk.next;
    }
    assert_eq!((second.len(), second.touched()), (1_000, 0));
    let all = |table: &StateTable| {
        let chunk = table.scan(0, 10_000).expect("read").expect("some");
        let (k, v) = (
            chunk.keys[0].as_string_view().clone(),
            chunk.values[0].as_string::<i32>().clone(),
        );
        (0..1_000)
            .map(|i| {
                (
                    k.value(i).to_string(),
                    v.is_valid(i).then(|| v.value(i).to_string()),
                )
            })
            .collect::<HashMap<_, _>>()
    };
    assert_eq!(all(&first), all(&second));
    let wrong = second
        .restore(&[longs([1])], &[longs([1])], None, 1)
        .expect_err("wrong types");
    assert_eq!(wrong.kind(), highwater_core::ErrorKind::Corrupt);
}

#[test]
fn without_key_columns_there_is_one_record() {
    let mut table = StateTable::try_new(schema(&[]), schema(&[DataType::Int64])).expect("a table");
    let mut ids = Vec::new();
    assert_eq!(
        table.intern(&[], 3, &mut ids).expect("interned").fresh,
        0..1
    );
    assert_eq!(ids, [0, 0, 0]);
    table.set_values(0..1, &[longs([42])]).expect("written");
    table.commit();
    assert_eq!(
        table.intern(&[], 1, &mut ids).expect("interned").existing,
        0..1
    );
    assert_eq!(table.values(0..1).expect("read"), vec![longs([42])]);
}

#[test]
fn existing_records_get_the_first_ids() {
    let mut table = table(&[longs([0])], &[DataType::Int64]);
    table
        .restore(&[longs([2, 4, 6])], &[longs([20, 40, 60])], None, 3)
        .expect("restored");
    let mut ids = Vec::new();
    let touched = table
        .intern(&[longs([9, 4, 1, 9, 2, 4])], 6, &mut ids)
        .expect("interned");
    assert_eq!(
        (touched.existing.clone(), touched.fresh.clone()),
        (0..2, 2..4)
    );
    assert_eq!(ids, [2, 0, 3, 2, 1, 0]);
    assert_eq!(
        table.values(touched.existing).expect("read"),
        vec![longs([40, 20])]
    );
    let touched = table
        .intern(&[longs([1, 6, 5, 9])], 4, &mut ids)
        .expect("interned");
    assert_eq!((touched.all(), ids), (4..6, vec![3, 4, 5, 2]));
    assert_eq!(
        table.keys(0..6).expect("keys"),
        vec![longs([4, 2, 9, 1, 6, 5])]
    );
}

/// What `intern` gives for `batch`: ids in the order of first touch, those of existing keys first.
fn expected_ids(batch: &[i64], ids: &mut HashMap<i64, usize>, has_values: &[bool]) -> Vec<usize> {
    let mut new = Vec::new();
    for key in batch {
        if !ids.contains_key(key) && !new.contains(key) {
            new.push(*key);
        }
    }
    new.sort_by_key(|key| !has_values[*key as usize]);
    for key in new {
        ids.insert(key, ids.len());
    }
    batch.iter().map(|key| ids[key]).collect()
}

#[test]
fn random_batches_get_the_ids_of_a_simple_model() {
    let big: fn(&[i64]) -> ArrayRef = |keys| longs(keys.iter().copied());
    let ints: fn(&[i64]) -> ArrayRef =
        |keys| cast(&longs(keys.iter().copied()), &DataType::Int32).expect("ints");
    let nullable: fn(&[i64]) -> ArrayRef = |keys| {
        Arc::new(Int64Array::from_iter(
            keys.iter().map(|k| (*k > 0).then_some(*k)),
        ))
    };
    let texts: fn(&[i64]) -> ArrayRef = |keys| {
        Arc::new(StringArray::from_iter_values(
            keys.iter().map(i64::to_string),
        ))
    };
    // The second has so many other keys that it is looked up with fetching.
    for (array, distinct, others) in [
        (big, 500, 0),
        (big, 9_000, 40_000),
        (big, 9_000, 0),
        (ints, 700, 0),
        (nullable, 700, 0),
        (texts, 700, 0),
    ] {
        let mut table = table(&[array(&[1])], &[DataType::Int64]);
        let other = longs(1_000_000..1_000_000 + others);
        if others > 0 {
            let restored = table.restore(&[Arc::clone(&other)], &[other], None, others as usize);
            restored.expect("restored");
        }
        let mut has_values = vec![false; distinct];
        let mut random = 7_u64;
        for trigger in 0..6 {
            let mut model = HashMap::new();
            for _ in 0..3 {
                let batch: Vec<i64> = std::iter::repeat_with(|| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (random >> 33) as i64 % (distinct as i64 * (trigger + 1) / 6)
                })
                .take(3_000)
                .collect();
                let mut ids = Vec::new();
                let keys = [array(&batch)];
                let touched = table
                    .intern(&keys, batch.len(), &mut ids)
                    .expect("interned");
                assert_eq!(ids, expected_ids(&batch, &mut model, &has_values));
                let values = longs(touched.all().map(|id| id as i64));
                table.set_values(touched.all(), &[values]).expect("written");
                batch
                    .iter()
                    .for_each(|key| has_values[*key as usize] = true);
            }
            table.commit();
            let gone: Vec<i64> = (0..distinct as i64).step_by(5).collect();
            table.remove(&[array(&gone)], gone.len()).expect("removed");
            gone.iter()
                .for_each(|key| has_values[*key as usize] = false);
            let left = has_values.iter().filter(|has| **has).count();
            assert_eq!(table.len(), left + others as usize);
        }
    }
}
