//! What `explain` says of a join.

use super::harness::Query;

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
