//! `stateTtl`: rows that nothing else bounds leave by their age, in batch time.

use super::super::recipe::Side;
use super::harness::{Marks, Query, row};

const SQL: &str = "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k";
/// Ten seconds, in microseconds.
const TTL_US: i64 = 10_000_000;

/// A row of second 0 is met until its age is the ttl; from second 10 on by nobody, whatever the number of micro-batches
/// between: old rows leave before new ones look for them.
#[tokio::test]
async fn a_row_is_met_until_it_is_too_old() {
    let mut query = Query::aged(SQL, [false, false], TTL_US).await;
    assert_eq!(
        query.describe(),
        "join of two streams, inner join on (k = k), left rows leave 10 s after they came (stateTtl), \
         right rows leave 10 s after they came (stateTtl)"
    );
    let none = Marks::default();
    assert!(query.run_at(0, &[row(0, 7, 1)], &[], none).await.is_empty());
    assert_eq!(
        query.run_at(9_999, &[], &[row(0, 7, 2)], none).await,
        ["1 2"]
    );
    // Now the left row is gone, and the right one is a millisecond old.
    assert!(
        query
            .run_at(10_000, &[], &[row(0, 7, 3)], none)
            .await
            .is_empty()
    );
    assert_eq!(query.rows_total(), 2);
    assert_eq!(
        query.run_at(10_001, &[row(0, 7, 4)], &[], none).await,
        ["4 2", "4 3"]
    );
    // A clock that goes back brings nothing back, and lets nothing go.
    assert_eq!(
        query.run_at(5_000, &[row(0, 7, 5)], &[], none).await,
        ["5 2", "5 3"]
    );
    query.run_at(60_000, &[], &[], none).await;
    assert_eq!(query.rows_total(), 0);
    assert!(!crate::StatefulOperator::wants_batch_without_data(
        &query.sides[0]
    ));
}

/// A side with a bound keeps it; the other leaves by age.
#[tokio::test]
async fn only_a_side_without_a_bound_is_bound_by_age() {
    let sql = format!("{SQL} AND l.ts >= r.ts + INTERVAL '1' MINUTE");
    let query = Query::aged(&sql, [true, true], TTL_US).await;
    assert_eq!(
        query.describe(),
        "join of two streams, inner join on (k = k), left rows leave when watermark + 59.999 s passes `ts`, \
         right rows leave 10 s after they came (stateTtl)"
    );
    assert_eq!(query.bound_by_age(), [Side::Right]);
}

/// The time at which a row came is in its record: after a restart it leaves when it would have, also with another ttl.
#[tokio::test]
async fn age_outlives_a_restart() {
    let none = Marks::default();
    for ttl_us in [TTL_US, TTL_US / 2] {
        for by_parts in [false, true] {
            let mut query = Query::aged(SQL, [false, false], TTL_US).await;
            let mut log = Vec::new();
            for (at, v) in [(0, 1), (4_000, 2), (12_000, 3)] {
                query.run_at(at, &[row(0, 7, v)], &[], none).await;
                log.push(query.commit());
            }
            if by_parts {
                log = vec![query.parts(3)];
            }
            let mut query = Query::aged(SQL, [false, false], ttl_us).await;
            log.iter().for_each(|records| query.restore(records));
            // The row of second 0 left in second 12; that of second 4 is 9 seconds old in second 13.
            assert_eq!(query.rows_total(), 2);
            let out = query.run_at(13_000, &[], &[row(0, 7, 9)], none).await;
            let expected = if ttl_us == TTL_US {
                vec!["2 9", "3 9"]
            } else {
                vec!["3 9"]
            };
            assert_eq!(out, expected, "{ttl_us}, by parts: {by_parts}");
        }
    }
}
