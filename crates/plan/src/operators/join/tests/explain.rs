//! What `explain` says of a join.

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;

use super::harness::{Marks, Query, Row, row};

const RANGE: &str = "l.k = r.k AND r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND";
const TEN_SECONDS: &str = "left rows leave when watermark − 10.001 s passes `ts`, right rows leave when watermark − 0.001 s passes `ts`";

#[tokio::test]
async fn each_kind_of_join_has_its_line() {
    let kinds = [
        ("JOIN", "inner"),
        ("LEFT JOIN", "left outer"),
        ("RIGHT JOIN", "right outer"),
        ("FULL JOIN", "full outer"),
        ("LEFT SEMI JOIN", "left semi"),
        ("LEFT ANTI JOIN", "left anti"),
        ("RIGHT SEMI JOIN", "right semi"),
        ("RIGHT ANTI JOIN", "right anti"),
    ];
    for (kind, words) in kinds {
        let columns = if words.starts_with("right ") && words != "right outer" {
            "r.v"
        } else {
            "l.v"
        };
        let query = Query::new(&format!("SELECT {columns} FROM l {kind} r ON {RANGE}")).await;
        let line = format!("join of two streams, {words} join on (k = k), {TEN_SECONDS}");
        assert_eq!(query.describe(), line, "{kind}");
        let node = query.shown();
        assert!(
            node.starts_with("StreamJoinExec: name=join, join_type="),
            "{node}"
        );
        assert!(node.contains("on=[(k@"), "{node}");
    }
}

#[tokio::test]
async fn the_bound_is_told_in_words() {
    let lines = [
        (
            "l.k = r.k",
            "join of two streams, inner join on (k = k), unbounded state",
        ),
        (
            "l.k = r.k AND l.ts = r.ts",
            "join of two streams, inner join on (k = k, ts = ts), left rows leave when watermark passes `ts`, \
             right rows leave when watermark passes `ts`",
        ),
        (
            "l.k = r.k AND l.ts >= r.ts + INTERVAL '90' SECOND",
            "join of two streams, inner join on (k = k), left rows leave when watermark + 89.999 s passes `ts`, \
             unbounded state of right rows",
        ),
    ];
    for (condition, line) in lines {
        let query = Query::new(&format!("SELECT l.v, r.v FROM l JOIN r ON {condition}")).await;
        assert_eq!(query.describe(), line);
    }
}

/// What the line says is added to the watermark for a side, in milliseconds; `None` where its rows never leave.
fn told(line: &str, side: &str) -> Option<i64> {
    let (_, rest) = line.split_once(&format!("{side} rows leave when watermark"))?;
    let said = rest.split_once(" passes")?.0.trim();
    let Some(length) = said.strip_suffix(" s") else {
        assert_eq!(said, "", "{line}");
        return Some(0);
    };
    let (sign, number) = length.split_once(' ').expect("a sign");
    let (seconds, rest) = number.split_once('.').unwrap_or((number, ""));
    let millis: i64 = format!("{seconds}{rest:0<3}").parse().expect("a number");
    Some(if sign == "−" { -millis } else { millis })
}

/// The event times of the rows that a side holds, in milliseconds.
fn held(query: &Query, side: usize) -> Vec<i64> {
    let records = query.parts(1);
    let mut times: Vec<i64> = Vec::new();
    for batch in &records[side] {
        let ts = batch.column_by_name("ts").expect("the event time");
        let ts = ts.as_primitive::<TimestampMicrosecondType>();
        times.extend(ts.values().iter().map(|us| us / 1_000));
    }
    times.sort_unstable();
    times
}

/// The limit that the line tells is where rows leave: at it and below, not above.
#[tokio::test]
async fn rows_leave_at_the_limit_that_is_told() {
    const WATERMARK: i64 = 1_000_000;
    let conditions = [
        RANGE,
        "l.k = r.k AND l.ts = r.ts",
        "l.k = r.k AND r.ts > l.ts AND r.ts < l.ts + INTERVAL '10' SECOND",
        "l.k = r.k AND l.ts BETWEEN r.ts - INTERVAL '1 minute' AND r.ts + INTERVAL '250 milliseconds'",
        "l.k = r.k AND l.ts >= r.ts + INTERVAL '90' SECOND AND l.ts < r.ts + INTERVAL '2' MINUTE",
    ];
    let kinds = [
        "JOIN",
        "LEFT JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
        "LEFT SEMI JOIN",
        "LEFT ANTI JOIN",
    ];
    for kind in kinds {
        for (condition, side) in conditions.iter().flat_map(|c| [(c, 0), (c, 1)]) {
            let columns = if kind.starts_with("LEFT ") && kind != "LEFT JOIN" {
                "l.v"
            } else {
                "l.v, r.v"
            };
            let sql = format!("SELECT {columns} FROM l {kind} r ON {condition}");
            let mut query = Query::new(&sql).await;
            let line = query.describe();
            let limit = told(&line, ["left", "right"][side]).expect("a bound");
            let limit = WATERMARK + limit;
            let times = [limit - 1, limit, limit + 1];
            let rows: Vec<Row> = times.iter().map(|ts| row(*ts, 7, ts - limit)).collect();
            let mut sides = [&[][..], &[][..]];
            sides[side] = &rows;
            let out = query.run(sides[0], sides[1], Marks::default()).await;
            assert!(out.is_empty(), "{sql}: {out:?}");
            assert_eq!(held(&query, side), times, "{sql}");
            query.commit();
            let out = query
                .run(
                    &[],
                    &[],
                    Marks {
                        late: 0,
                        closes: WATERMARK,
                    },
                )
                .await;
            assert_eq!(held(&query, side), [limit + 1], "{sql}: {line}");
            let alone = match (kind, side) {
                ("LEFT JOIN" | "FULL JOIN", 0) => vec!["-1 -", "0 -"],
                ("RIGHT JOIN" | "FULL JOIN", 1) => vec!["- -1", "- 0"],
                ("LEFT ANTI JOIN", 0) => vec!["-1", "0"],
                _ => vec![],
            };
            assert_eq!(out, alone, "{sql}");
        }
    }
}
