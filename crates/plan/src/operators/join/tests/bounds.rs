//! What bounds each side, by condition: a table, worked out by hand from the rule of the module.

use super::harness::Query;

/// The condition beside `l.k = r.k`, and the milliseconds to add to the watermark for each side.
const TABLE: &[(&str, Option<i64>, Option<i64>)] = &[
    // r.ts >= l.ts: r may be met exactly at the watermark. r.ts <= l.ts + 10 s: l.ts >= r.ts - 10 s.
    (
        "r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND",
        Some(-10_001),
        Some(-1),
    ),
    // Met nowhere exactly: the limit itself.
    (
        "r.ts > l.ts AND r.ts < l.ts + INTERVAL '10' SECOND",
        Some(-10_000),
        Some(0),
    ),
    // The other way round, and with the interval on the other side.
    (
        "l.ts <= r.ts AND r.ts - INTERVAL '10' SECOND <= l.ts",
        Some(-10_001),
        Some(-1),
    ),
    (
        "l.ts + INTERVAL '10' SECOND >= r.ts AND l.ts - INTERVAL '5' SECOND <= r.ts",
        Some(-10_001),
        Some(-5_001),
    ),
    ("INTERVAL '10' SECOND + l.ts > r.ts", Some(-10_000), None),
    // BETWEEN is both at once.
    (
        "r.ts BETWEEN l.ts - INTERVAL '3' SECOND AND l.ts + INTERVAL '1' MINUTE",
        Some(-60_001),
        Some(-3_001),
    ),
    // A difference of times.
    ("r.ts - l.ts <= INTERVAL '2' SECOND", Some(-2_001), None),
    ("l.ts - r.ts < INTERVAL '2' SECOND", None, Some(-2_000)),
    // A limit after the other time: rows may leave before the watermark reaches them.
    ("l.ts >= r.ts + INTERVAL '5' SECOND", Some(4_999), None),
    ("l.ts > r.ts + INTERVAL '1' HOUR", Some(3_600_000), None),
    // Of several limits the lowest counts: it is the one that is right whatever the others say.
    (
        "r.ts <= l.ts + INTERVAL '10' SECOND AND r.ts <= l.ts + INTERVAL '20' SECOND",
        Some(-20_001),
        None,
    ),
    // Microseconds are rounded down to the millisecond.
    ("r.ts < l.ts + INTERVAL '0.0015' SECOND", Some(-2), None),
    ("r.ts <= l.ts + INTERVAL '1' DAY", Some(-86_400_001), None),
    // An upper limit of one side is a lower one of the other, and no more.
    ("r.ts <= l.ts", Some(-1), None),
    ("r.ts >= l.ts", None, Some(-1)),
    // What is no limit: a constant, another column, a month, a product, OR.
    ("l.ts >= TIMESTAMP '2024-01-01 00:00:00'", None, None),
    ("l.v <= r.v", None, None),
    ("r.ts <= l.ts + INTERVAL '1' MONTH", None, None),
    (
        "(r.ts <= l.ts + INTERVAL '1' SECOND OR l.v = r.v)",
        None,
        None,
    ),
    ("r.ts <= l.ts + l.v * INTERVAL '1' SECOND", None, None),
    // By key: both sides, at their own time.
    ("l.ts = r.ts", Some(0), Some(0)),
    // A key counts before a range.
    (
        "l.ts = r.ts AND r.ts <= l.ts + INTERVAL '10' SECOND",
        Some(0),
        Some(0),
    ),
    // A key with an interval: the right side's key is its time plus five seconds.
    ("l.ts = r.ts + INTERVAL '5' SECOND", Some(0), Some(0)),
];

#[tokio::test]
async fn each_condition_bounds_its_sides() {
    for (condition, left, right) in TABLE {
        let sql = format!("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k AND {condition}");
        let query = match Query::try_new(&sql, [true, true], 8).await {
            Ok(query) => query,
            // DataFusion has no such arithmetic.
            Err(e) if condition.contains('*') => {
                assert!(e.to_string().contains("Interval"), "{e}");
                continue;
            }
            Err(e) => panic!("{condition}: {e}"),
        };
        assert_eq!(query.shifts(), (*left, *right), "{condition}");
    }
}

/// Without a watermark on one side nothing is known of its times to come, so the other side has no limit; and without
/// one of its own a side has no time to heed a limit by.
#[tokio::test]
async fn a_side_without_a_watermark_bounds_nothing() {
    let range = "r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND";
    let inner = format!("SELECT l.v, r.v FROM l JOIN r ON l.k = r.k AND {range}");
    for marked in [[true, false], [false, true], [false, false]] {
        let query = Query::try_new(&inner, marked, 8).await.expect("planned");
        assert_eq!(query.shifts(), (None, None), "{marked:?}");
    }
    // Equal times: the other side's are bound by the same.
    let equal = "SELECT l.v, r.v FROM l JOIN r ON l.k = r.k AND l.ts = r.ts";
    for marked in [[true, false], [false, true]] {
        let query = Query::try_new(equal, marked, 8).await.expect("planned");
        assert_eq!(query.shifts(), (Some(0), Some(0)), "{marked:?}");
    }
}

/// Kind, watermarks on both tables, condition, and how the refusal begins; `None`: it runs.
const NEEDS: &[(&str, [bool; 2], &str, Option<&str>)] = &[
    (
        "LEFT",
        [true, true],
        "TRUE",
        Some("Stream-stream LeftOuter join"),
    ),
    (
        "RIGHT",
        [true, true],
        "TRUE",
        Some("Stream-stream RightOuter join"),
    ),
    (
        "FULL",
        [true, true],
        "TRUE",
        Some("Stream-stream FullOuter join"),
    ),
    (
        "LEFT SEMI",
        [true, true],
        "TRUE",
        Some("Stream-stream LeftSemi join"),
    ),
    (
        "LEFT ANTI",
        [true, true],
        "TRUE",
        Some("Stream-stream LeftAnti join"),
    ),
    // A limit for the wrong side.
    (
        "LEFT",
        [true, true],
        "r.ts >= l.ts",
        Some("Stream-stream LeftOuter join"),
    ),
    ("LEFT", [true, true], "r.ts <= l.ts", None),
    ("RIGHT", [true, true], "r.ts >= l.ts", None),
    ("FULL", [true, true], "r.ts >= l.ts", None),
    // A watermark on the nullable side alone: Spark takes it, and null rows never come out.
    (
        "LEFT",
        [false, true],
        "r.ts <= l.ts",
        Some("Stream-stream LeftOuter join"),
    ),
    (
        "LEFT ANTI",
        [false, true],
        "r.ts <= l.ts",
        Some("Stream-stream LeftAnti join"),
    ),
    ("LEFT SEMI", [false, true], "r.ts <= l.ts", None),
    ("FULL", [false, true], "r.ts <= l.ts", None),
    (
        "LEFT",
        [true, false],
        "r.ts <= l.ts",
        Some("Stream-stream LeftOuter join"),
    ),
    ("LEFT", [true, false], "r.ts = l.ts", None),
    ("LEFT", [false, true], "r.ts = l.ts", None),
];

#[tokio::test]
async fn what_never_completes_is_refused() {
    for (kind, marked, condition, refused) in NEEDS {
        let sql = format!("SELECT l.v, l.ts FROM l {kind} JOIN r ON l.k = r.k AND {condition}");
        let said = format!("{marked:?} {sql}");
        match (Query::try_new(&sql, *marked, 8).await, refused) {
            (Ok(_), None) => {}
            (Err(e), Some(begins)) => assert!(e.to_string().contains(begins), "{said}: {e}"),
            (Ok(_), Some(_)) => panic!("planned: {said}"),
            (Err(e), None) => panic!("{said}: {e}"),
        }
    }
}
