//! How much a join holds: at most 1.3 times its rows as Arrow columns and 24 bytes a row, however long it runs.

use arrow::array::Array;

use super::harness::{Dice, Marks, Query, Row};

/// What a join without rows may hold: the least buckets of both indexes, a chunk of each side.
const LEAST: f64 = 16.0 * 1_024.0;

/// The rows that are there and the bytes of their columns.
fn live(query: &Query) -> (usize, usize) {
    let records = query.parts(1).concat();
    let columns = |batch: &arrow::array::RecordBatch| {
        let columns = batch.columns()[1..].iter();
        let bytes = columns.map(|c| c.to_data().get_slice_memory_size().expect("plain columns"));
        bytes.sum::<usize>()
    };
    let rows = records.iter().map(|batch| batch.num_rows()).sum();
    (rows, records.iter().map(columns).sum())
}

fn check(query: &Query, say: &str) -> usize {
    let (rows, bytes) = live(query);
    assert_eq!(rows as u64, query.rows_total(), "{say}");
    let most = 1.3 * bytes as f64 + 24.0 * rows as f64 + LEAST;
    let held = query.memory_bytes();
    assert!(
        held as f64 <= most,
        "{say}: {held} bytes for {rows} rows of {bytes}, at most {most}"
    );
    rows
}

/// A row is held for about half a minute of event time; rows come up to nine seconds out of order, a few of them far
/// ahead, which stay long after those around them have left.
#[tokio::test]
async fn a_long_stream_with_short_retention_holds_little_more_than_its_rows() {
    let sql = "SELECT l.k, l.v, r.v FROM l FULL JOIN r ON l.k = r.k AND r.ts >= l.ts \
               AND r.ts <= l.ts + INTERVAL '20' SECOND";
    let (mut dice, mut query) = (
        Dice(77),
        Query::try_new(sql, [true, true], 512)
            .await
            .expect("planned"),
    );
    let (mut now, mut most) = (1_000_000, 0);
    for trigger in 0..150 {
        let count = if trigger % 10 == 0 { 1_500 } else { 150 };
        let rows = |dice: &mut Dice| -> Vec<Row> {
            let one = |dice: &mut Dice| Row {
                ts: Some(
                    now + dice.between(-9_000, 1_000) + if dice.chance(2) { 60_000 } else { 0 },
                ),
                k: (!dice.chance(3)).then(|| dice.between(0, 2_000)),
                v: Some(dice.between(0, 1_000_000)),
            };
            (0..count).map(|_| one(dice)).collect()
        };
        let (left, right) = (rows(&mut dice), rows(&mut dice));
        let marks = Marks {
            late: now - 12_000,
            closes: now - 10_000,
        };
        query.run(&left, &right, marks).await;
        query.commit();
        most = most.max(check(&query, &format!("trigger {trigger}")));
        now += 2_000;
    }
    assert!((2_000..20_000).contains(&most), "{most}");
}

/// Of a semi join nearly all left rows leave at once, when they match, wherever they lie; few wait for their time.
#[tokio::test]
async fn rows_that_leave_here_and_there_leave_no_room_behind() {
    let sql = "SELECT l.k, l.v FROM l LEFT SEMI JOIN r ON l.k = r.k AND r.ts >= l.ts \
               AND r.ts <= l.ts + INTERVAL '1' HOUR";
    let mut query = Query::try_new(sql, [true, true], 512)
        .await
        .expect("planned");
    let mut dice = Dice(5);
    for trigger in 0..40_i64 {
        let row = |k| Row {
            ts: Some(1_000_000 + trigger),
            k: Some(k),
            v: Some(k),
        };
        let left: Vec<Row> = (0..1_000).map(|n| row(trigger * 1_000 + n)).collect();
        let marks = Marks { late: 0, closes: 0 };
        assert!(query.run(&left, &[], marks).await.is_empty());
        query.commit();
        let matched: Vec<i64> = left.iter().filter_map(|row| row.k).collect();
        let matched: Vec<i64> = matched.into_iter().filter(|_| !dice.chance(3)).collect();
        // The right rows leave at once: nothing is held of them.
        let right: Vec<Row> = matched.iter().map(|k| row(*k)).collect();
        let marks = Marks {
            late: 0,
            closes: 1_000_000 + trigger + 1,
        };
        let out = query.run(&[], &right, marks).await;
        assert_eq!(out.len(), matched.len());
        query.commit();
        check(&query, &format!("trigger {trigger}"));
    }
    let (rows, _) = live(&query);
    assert!((600..2_000).contains(&rows), "{rows}");
}
