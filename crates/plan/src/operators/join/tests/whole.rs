//! Without a watermark an inner join forgets nothing: all triggers together give what DataFusion's own join gives over
//! the whole input at once.

use std::sync::Arc;

use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::harness::{Dice, Marks, Query, Row, lines, table};

fn rows(dice: &mut Dice, count: usize, keys: i64) -> Vec<Row> {
    let one = |dice: &mut Dice| Row {
        ts: Some(dice.between(0, 1_000)),
        k: (!dice.chance(5)).then(|| dice.between(0, keys)),
        v: (!dice.chance(5)).then(|| dice.between(0, 50)),
    };
    (0..count).map(|_| one(dice)).collect()
}

async fn batch_answer(sql: &str, left: &[Row], right: &[Row]) -> Vec<String> {
    let context = SessionContext::new();
    for (name, rows) in [("l", left), ("r", right)] {
        let rows = table(rows);
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("a table");
        context
            .register_table(name, Arc::new(table))
            .expect("registered");
    }
    let frame = context.sql(sql).await.expect("planned");
    lines(&frame.collect().await.expect("an answer"))
}

/// Enough rows for several chunks of each side, with small and large batches.
#[tokio::test]
async fn an_inner_join_of_all_triggers_is_the_batch_join() {
    let queries = [
        "SELECT l.k, l.v, r.v FROM l JOIN r ON l.k = r.k",
        "SELECT l.k, r.v FROM l JOIN r ON l.k = r.k AND l.v < r.v",
        "SELECT r.v, l.v, l.ts FROM l JOIN r ON l.k = r.k AND l.v = r.v",
        "SELECT count(*) FROM l JOIN r ON l.k = r.k AND l.v % 3 = r.v % 3",
    ];
    for (seed, sql) in queries.into_iter().enumerate() {
        let mut dice = Dice(seed as u64 + 7);
        let inner = sql.replace("count(*)", "1");
        let mut query = Query::try_new(&inner, [false, false], 512)
            .await
            .expect("planned");
        let (mut all_left, mut all_right, mut out) = (Vec::new(), Vec::new(), Vec::new());
        for trigger in 0..12 {
            let count = if trigger % 3 == 0 {
                7_000
            } else {
                dice.below(40)
            };
            let (left, right) = (rows(&mut dice, count, 9_000), rows(&mut dice, count, 9_000));
            out.extend(query.run(&left, &right, Marks::default()).await);
            query.commit();
            all_left.extend(left);
            all_right.extend(right);
        }
        out.sort();
        assert_eq!(
            out,
            batch_answer(&inner, &all_left, &all_right).await,
            "seed {seed}: {sql}"
        );
    }
}

/// The same by a range of time, with a watermark behind which no row comes: what leaves matches nothing any more. Rows come
/// out of order, some chunks are left with few rows, and others are freed.
#[tokio::test]
async fn a_range_join_that_forgets_is_the_batch_join() {
    let sql = "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k AND r.ts BETWEEN l.ts - INTERVAL '1' SECOND \
               AND l.ts + INTERVAL '2' SECOND";
    let mut dice = Dice(23);
    let mut query = Query::try_new(sql, [true, true], 1_024)
        .await
        .expect("planned");
    let (mut all_left, mut all_right, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut marks = Marks::default();
    for trigger in 0..20 {
        // A trigger's rows span two seconds, of which each begins one later than that before.
        let from = 100_000 + 1_000 * trigger;
        let count = if trigger % 4 == 3 { 50 } else { 5_000 };
        let events = |dice: &mut Dice| -> Vec<Row> {
            let rows = (0..count).map(|_| Row {
                ts: Some(from + dice.between(0, 2_000)),
                k: Some(dice.between(0, 2_000)),
                v: Some(dice.between(0, 1_000_000)),
            });
            rows.collect()
        };
        let (left, right) = (events(&mut dice), events(&mut dice));
        out.extend(query.run(&left, &right, marks).await);
        query.commit();
        all_left.extend(left);
        all_right.extend(right);
        marks = Marks {
            late: from - 1,
            closes: from + 999,
        };
    }
    // A row is held for three seconds at most, in which four triggers bring 5,000 rows a side at most.
    assert!(
        query.rows_total() <= 2 * 4 * 5_000,
        "{}",
        query.rows_total()
    );
    out.sort();
    assert_eq!(out, batch_answer(sql, &all_left, &all_right).await);
}

/// One zero and one NaN, as in Spark: DataFusion tells zeros of both signs apart.
#[tokio::test]
async fn zeros_are_one_key_and_so_are_nans() {
    let sql = "SELECT l.v, r.v FROM l JOIN r ON l.d = r.d";
    let mut query = Query::try_new(sql, [false, false], 8)
        .await
        .expect("planned");
    let of = |k, v| Row {
        ts: Some(0),
        k: Some(k),
        v: Some(v),
    };
    // Key 0 is a zero, key 1 a NaN; an odd value makes it negative.
    let out = query
        .run(
            &[of(0, 1), of(1, 2)],
            &[of(0, 2), of(1, 3), of(2, 4)],
            Marks::default(),
        )
        .await;
    assert_eq!(out, ["1 2", "2 3"]);
}
