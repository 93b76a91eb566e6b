//! Parts of a table: together they are the table, and no record is in two.

use std::collections::BTreeSet;

use super::*;

/// All keys, by a scan of the whole table.
fn scanned(table: &StateTable) -> BTreeSet<i64> {
    let mut keys = BTreeSet::new();
    let mut from = 0;
    while let Some(chunk) = table.scan(from, 1_000).expect("scanned") {
        let column = chunk.keys[0].as_primitive::<Int64Type>();
        keys.extend(column.values().iter().copied());
        from = chunk.next;
    }
    keys
}

/// Every number of parts gives the table, each record once; the sizes of the parts.
fn check(table: &StateTable, of: u32) -> Vec<usize> {
    let mut keys = BTreeSet::new();
    let mut sizes = Vec::new();
    for number in 0..of {
        let slots = table.part_slots(number, of);
        assert!(slots.is_sorted());
        let chunk = table.gather(&slots).expect("gathered");
        assert_eq!(chunk.values[0].len(), slots.len());
        for key in chunk.keys[0].as_primitive::<Int64Type>().values() {
            assert!(keys.insert(*key), "{key} is in two of {of} parts");
        }
        sizes.push(slots.len());
    }
    assert_eq!(keys, scanned(table), "{of} parts");
    assert!(table.part_slots(of, of).is_empty(), "no such part");
    sizes
}

#[test]
fn parts_are_the_table_while_it_grows_and_shrinks() {
    let mut table = table(&[longs([])], &[DataType::Int64]);
    check(&table, 1);
    check(&table, 4_096);
    for (from, to) in [(0, 10), (10, 3_000), (3_000, 90_000)] {
        let keys = longs(from..to);
        let rows = keys.len();
        table
            .restore(&[Arc::clone(&keys)], &[keys], None, rows)
            .expect("put in");
        for of in [1, 2, 8, 64, 1_024, 4_096] {
            check(&table, of);
        }
    }
    let sizes = check(&table, 16);
    let (least, most) = (sizes.iter().min(), sizes.iter().max());
    assert!(least > Some(&5_000) && most < Some(&6_300), "{sizes:?}");
    let gone = longs((0..90_000).filter(|key| key % 7 != 0));
    let rows = gone.len();
    table.remove(&[gone], rows).expect("removed");
    for of in [1, 32, 4_096] {
        check(&table, of);
    }
}

/// A record that is put in or taken out between two parts is in the part of its key, as it then is: a key never
/// wanders from part to part.
#[test]
fn a_key_stays_in_its_part() {
    let mut small = table(&[longs([])], &[DataType::Int64]);
    let mut large = table(&[longs([])], &[DataType::Int64]);
    for (table, to) in [(&mut small, 100), (&mut large, 50_000)] {
        let keys = longs(0..to);
        let rows = keys.len();
        table
            .restore(&[Arc::clone(&keys)], &[keys], None, rows)
            .expect("put in");
    }
    for of in [2, 256] {
        for number in 0..of {
            let keys = |table: &StateTable| -> BTreeSet<i64> {
                let slots = table.part_slots(number, of);
                let keys = table.keys_of(&slots).expect("keys").remove(0);
                keys.as_primitive::<Int64Type>()
                    .values()
                    .iter()
                    .copied()
                    .collect()
            };
            let of_large = keys(&large);
            let expected: BTreeSet<i64> = of_large.into_iter().filter(|key| *key < 100).collect();
            assert_eq!(keys(&small), expected, "part {number} of {of}");
        }
    }
}

#[test]
fn a_table_without_key_columns_is_in_one_part() {
    let mut table = table(&[], &[DataType::Int64]);
    table.restore(&[], &[longs([7])], None, 1).expect("put in");
    let slots: Vec<u32> = (0..8).flat_map(|n| table.part_slots(n, 8)).collect();
    let chunk = table.gather(&slots).expect("gathered");
    assert_eq!((chunk.rows, show(&chunk.values)), (1, show(&[longs([7])])));
}
