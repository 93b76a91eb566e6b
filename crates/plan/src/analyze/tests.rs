//! The table of operators by output mode.

mod event_time;

use highwater_core::{ErrorKind, OutputMode};

use crate::testing::Fixture;

const APPEND: OutputMode = OutputMode::Append;
const UPDATE: OutputMode = OutputMode::Update;
const COMPLETE: OutputMode = OutputMode::Complete;

const TWO_AGGREGATES: &str =
    "SELECT n, count(*) AS c FROM (SELECT k, count(*) AS n FROM events GROUP BY k) GROUP BY n";

/// Mode and query.
const ALLOWED: &[(OutputMode, &str)] = &[
    (APPEND, "SELECT k, v FROM events"),
    (UPDATE, "SELECT k FROM events WHERE v > 1"),
    (APPEND, "SELECT k FROM events UNION ALL SELECT k FROM other"),
    (APPEND, "SELECT k FROM events LIMIT 3"),
    (APPEND, "SELECT k FROM events LIMIT 0"),
    (APPEND, "SELECT k FROM events WHERE false"),
    (APPEND, "SELECT random() AS r, now() AS n FROM events"),
    (
        APPEND,
        "SELECT k FROM events WHERE k IN (SELECT k FROM dim)",
    ),
    (
        APPEND,
        "SELECT k FROM events WHERE k NOT IN (SELECT k FROM dim)",
    ),
    (
        APPEND,
        "SELECT k FROM events WHERE v > (SELECT max(v) FROM dim)",
    ),
    (
        APPEND,
        "SELECT k FROM events WHERE v > (SELECT max(a.v) FROM dim a JOIN dim b ON a.k = b.k)",
    ),
    (APPEND, "SELECT e.k FROM events e JOIN dim d ON e.k = d.k"),
    (UPDATE, "SELECT e.k FROM dim d JOIN events e ON e.k = d.k"),
    (APPEND, "SELECT e.k FROM events e CROSS JOIN dim d"),
    (APPEND, "SELECT e.k FROM dim d JOIN events e ON e.v < d.v"),
    (
        APPEND,
        "SELECT e.k FROM events e LEFT JOIN dim d ON e.k = d.k",
    ),
    (
        UPDATE,
        "SELECT e.k FROM dim d RIGHT JOIN events e ON e.k = d.k",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e LEFT SEMI JOIN dim d ON e.k = d.k",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e LEFT ANTI JOIN dim d ON e.k = d.k",
    ),
    (
        APPEND,
        "SELECT e.k FROM dim d RIGHT SEMI JOIN events e ON e.k = d.k",
    ),
    (
        APPEND,
        "SELECT e.k FROM dim d RIGHT ANTI JOIN events e ON e.k = d.k",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e JOIN (SELECT a.k FROM dim a FULL JOIN dim b ON a.k = b.k) d ON e.k = d.k",
    ),
    (
        COMPLETE,
        "SELECT d.v, count(*) AS n FROM events e LEFT JOIN dim d ON e.k = d.k GROUP BY d.v",
    ),
    (
        UPDATE,
        "SELECT a.k, d.v FROM (SELECT k, count(*) AS n FROM events GROUP BY k) a LEFT JOIN dim d ON a.k = d.k",
    ),
    (
        COMPLETE,
        "SELECT a.k, d.v FROM (SELECT k, count(*) AS n FROM events GROUP BY k) a JOIN dim d ON a.k = d.k ORDER BY a.k",
    ),
    (UPDATE, "SELECT k FROM events EXCEPT SELECT k FROM dim"),
    (UPDATE, "SELECT k, count(*) AS n FROM events GROUP BY k"),
    (UPDATE, "SELECT count(*) AS n FROM events"),
    (
        UPDATE,
        "SELECT k, count(DISTINCT v) AS n FROM events GROUP BY k",
    ),
    (UPDATE, "SELECT DISTINCT k FROM events"),
    (APPEND, "SELECT e.k FROM events e JOIN other o ON e.k = o.k"),
    (
        UPDATE,
        "SELECT e.k FROM events e, other o WHERE e.k = o.k AND e.v < o.v",
    ),
    (
        UPDATE,
        "SELECT e.k, count(*) FROM events e JOIN other o ON e.k = o.k GROUP BY e.k",
    ),
    (
        APPEND,
        "SELECT a.k FROM events a JOIN events b ON a.k = b.k JOIN other o ON b.k = o.k AND a.v = o.v",
    ),
    (
        UPDATE,
        "SELECT k, v, count(*) AS n FROM events GROUP BY CUBE(k, v)",
    ),
    (
        UPDATE,
        "SELECT k, count(*) AS n FROM events GROUP BY k UNION ALL SELECT k, sum(v) FROM events GROUP BY k",
    ),
    (
        UPDATE,
        "SELECT window.start AS ws, count(*) AS n FROM events GROUP BY window(ts, '10 seconds')",
    ),
    (
        COMPLETE,
        "SELECT k, count(*) AS n FROM events GROUP BY k ORDER BY n DESC, k LIMIT 2",
    ),
    (
        COMPLETE,
        "SELECT k, count(*) AS n FROM events GROUP BY k LIMIT 1",
    ),
    (
        COMPLETE,
        "SELECT k, count(*) AS n FROM (SELECT * FROM events LIMIT 5) GROUP BY k",
    ),
];

#[tokio::test]
async fn what_spark_runs_is_planned() {
    let fixture = Fixture::new();
    for &(mode, sql) in ALLOWED {
        let planned = fixture.plan(sql, mode).await;
        assert!(planned.is_ok(), "{mode}: {sql}: {:?}", planned.err());
    }
}

/// Mode, query, the operator that is refused, and how the message begins.
const REFUSED: &[(OutputMode, &str, &str, &str)] = &[
    (
        APPEND,
        "SELECT k, count(*) FROM events GROUP BY k",
        "aggregate",
        "Invalid streaming output mode: append. This output mode is not supported for streaming aggregations without watermark",
    ),
    (
        APPEND,
        "SELECT count(*) FROM events",
        "aggregate",
        "Invalid streaming output mode: append",
    ),
    (
        APPEND,
        "SELECT DISTINCT k FROM events",
        "aggregate",
        "Invalid streaming output mode: append",
    ),
    (
        APPEND,
        "SELECT k FROM events UNION SELECT k FROM other",
        "aggregate",
        "Invalid streaming output mode: append",
    ),
    (
        COMPLETE,
        "SELECT k, v FROM events",
        "aggregate",
        "Invalid streaming output mode: complete. This output mode is not supported for no streaming aggregations",
    ),
    (
        COMPLETE,
        "SELECT k FROM events LIMIT 3",
        "aggregate",
        "Invalid streaming output mode: complete",
    ),
    (
        APPEND,
        "SELECT k, v FROM events ORDER BY v",
        "sort",
        "Sorting is not supported on streaming DataFrames/Datasets, unless it is on aggregated",
    ),
    (
        UPDATE,
        "SELECT k, count(*) AS n FROM events GROUP BY k ORDER BY n",
        "sort",
        "Sorting is not supported",
    ),
    (
        UPDATE,
        "SELECT k FROM events LIMIT 3",
        "limit",
        "Limits are not supported on streaming DataFrames/Datasets in Update output mode",
    ),
    (
        UPDATE,
        "SELECT k, count(*) FROM (SELECT * FROM events LIMIT 5) GROUP BY k",
        "limit",
        "Limits are not supported",
    ),
    (
        APPEND,
        "SELECT k FROM events OFFSET 3",
        "offset",
        "Offset is not supported",
    ),
    (
        APPEND,
        "SELECT k FROM events LIMIT 2 OFFSET 3",
        "offset",
        "Offset is not supported",
    ),
    (
        APPEND,
        "SELECT k, row_number() OVER (PARTITION BY k ORDER BY ts) FROM events",
        "window function",
        "Window function is not supported in",
    ),
    (
        UPDATE,
        TWO_AGGREGATES,
        "aggregate",
        "Detected pattern of possible 'correctness' issue due to global watermark",
    ),
    (
        COMPLETE,
        TWO_AGGREGATES,
        "aggregate",
        "Detected pattern of possible 'correctness' issue",
    ),
    (
        UPDATE,
        "SELECT DISTINCT n FROM (SELECT k, count(*) AS n FROM events GROUP BY k)",
        "aggregate",
        "Detected pattern",
    ),
    (
        UPDATE,
        "SELECT DISTINCT ON (k) k, v FROM events",
        "distinct on",
        "DISTINCT ON is not supported",
    ),
    (
        APPEND,
        "SELECT k FROM events UNION ALL SELECT k FROM dim",
        "union",
        "Union between streaming and batch DataFrames/Datasets is not supported",
    ),
    (
        APPEND,
        "SELECT k FROM events EXCEPT SELECT k FROM other",
        "aggregate",
        "Invalid streaming output mode",
    ),
    (
        UPDATE,
        "SELECT k FROM events EXCEPT ALL SELECT k FROM other",
        "except",
        "Except on a streaming DataFrame/Dataset on the right is not supported",
    ),
    (
        UPDATE,
        "SELECT k FROM events INTERSECT ALL SELECT k FROM dim",
        "intersect",
        "Intersect of streaming DataFrames/Datasets is not supported",
    ),
    (
        COMPLETE,
        "SELECT e.k, count(*) FROM events e JOIN other o ON e.k = o.k GROUP BY e.k",
        "join",
        "Inner join between two streaming DataFrames/Datasets is not supported in Complete output mode, only in Append \
         and Update output modes",
    ),
    (
        UPDATE,
        "SELECT e.k FROM events e LEFT JOIN other o ON e.k = o.k",
        "join",
        "LeftOuter join between two streaming DataFrames/Datasets is not supported in Update output mode, only in Append \
         output mode",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e FULL JOIN other o ON e.k = o.k",
        "join",
        "Stream-stream FullOuter join between two streaming DataFrame/Datasets is not supported without a watermark in \
         the join keys, or a watermark on the nullable side and an appropriate range condition",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e LEFT ANTI JOIN other o ON e.k = o.k",
        "join",
        "Stream-stream LeftAnti join between two streaming DataFrame/Datasets is not supported without a watermark",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e JOIN other o ON e.v < o.v",
        "join",
        "Stream-stream join without equality predicate is not supported",
    ),
    (
        APPEND,
        "SELECT e.k FROM events e CROSS JOIN other o",
        "join",
        "Stream-stream join without equality predicate is not supported",
    ),
    (
        UPDATE,
        "SELECT a.k FROM (SELECT k, count(*) AS n FROM events GROUP BY k) a JOIN other o ON a.k = o.k",
        "join",
        "Detected pattern of possible 'correctness' issue due to global watermark. The query contains a join with the \
         result of an aggregate",
    ),
    (
        APPEND,
        "SELECT d.k FROM events e RIGHT JOIN dim d ON e.k = d.k",
        "join",
        "RightOuter join with a streaming DataFrame/Dataset on the left and a static",
    ),
    (
        APPEND,
        "SELECT d.k FROM dim d LEFT JOIN events e ON e.k = d.k",
        "join",
        "LeftOuter join with a streaming DataFrame/Dataset on the right and a static",
    ),
    (
        UPDATE,
        "SELECT d.k FROM events e FULL JOIN dim d ON e.k = d.k",
        "join",
        "FullOuter join with a streaming DataFrame/Dataset on the left and a static DataFrame/Dataset on the right is \
         not supported",
    ),
    (
        APPEND,
        "SELECT d.k FROM dim d FULL JOIN events e ON e.k = d.k",
        "join",
        "FullOuter join with a streaming DataFrame/Dataset on the right and a static",
    ),
    (
        APPEND,
        "SELECT d.k FROM dim d LEFT SEMI JOIN events e ON e.k = d.k",
        "join",
        "LeftSemi join with a streaming DataFrame/Dataset on the right and a static",
    ),
    (
        APPEND,
        "SELECT d.k FROM dim d LEFT ANTI JOIN events e ON e.k = d.k",
        "join",
        "LeftAnti join with a streaming DataFrame/Dataset on the right and a static",
    ),
    (
        COMPLETE,
        "SELECT e.k FROM events e JOIN dim d ON e.k = d.k",
        "aggregate",
        "Invalid streaming output mode: complete. This output mode is not supported for no streaming aggregations",
    ),
    (
        APPEND,
        "SELECT k FROM events EXCEPT SELECT k FROM dim",
        "aggregate",
        "Invalid streaming output mode: append",
    ),
    (
        UPDATE,
        "SELECT k FROM events EXCEPT ALL SELECT k FROM dim",
        "except",
        "EXCEPT ALL between a streaming and a static DataFrame/Dataset is not supported",
    ),
    (
        APPEND,
        "SELECT d.k FROM dim d WHERE d.k IN (SELECT k FROM events)",
        "subquery",
        "A subquery expression over a streaming",
    ),
    (
        APPEND,
        "SELECT k FROM events WHERE v > (SELECT max(v) FROM other)",
        "subquery",
        "A subquery expression over a streaming",
    ),
    (
        APPEND,
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT k FROM events, r",
        "recursive query",
        "WITH RECURSIVE is not supported",
    ),
    (
        APPEND,
        "SELECT k FROM events TABLESAMPLE (50 PERCENT)",
        "sample",
        "Sampling is not supported on streaming DataFrames/Datasets",
    ),
    (
        APPEND,
        "EXPLAIN SELECT k FROM events",
        "command",
        "Queries with streaming sources must be executed with write_stream().start()",
    ),
    (
        UPDATE,
        "SELECT count(*) FROM events GROUP BY window(ts, '10 seconds'), window(ts, '5 seconds')",
        "window",
        "Multiple time/session window expressions would result in a cartesian product of rows",
    ),
];

#[tokio::test]
async fn what_spark_refuses_is_refused_with_the_operator() {
    let fixture = Fixture::new();
    for &(mode, sql, operator, words) in REFUSED {
        let error = fixture.plan(sql, mode).await.expect_err(sql);
        assert_eq!(
            error.kind(),
            ErrorKind::Unsupported,
            "{mode}: {sql}: {error}"
        );
        assert_eq!(error.operator(), Some(operator), "{mode}: {sql}: {error}");
        assert!(error.message().starts_with(words), "{mode}: {sql}: {error}");
        assert!(error.hint().is_some(), "{mode}: {sql}: no way out");
    }
}

#[tokio::test]
async fn a_batch_query_cannot_be_started() {
    let fixture = Fixture::new();
    let error = fixture
        .plan("SELECT k FROM dim", APPEND)
        .await
        .expect_err("static");
    assert_eq!(error.condition(), Some("WRITE_STREAM_NOT_ALLOWED"));
}

#[tokio::test]
async fn a_stream_cannot_be_collected() {
    let fixture = Fixture::new();
    let frame = fixture
        .ctx
        .sql("SELECT k FROM events")
        .await
        .expect("planned");
    let error = highwater_core::Error::from(frame.collect().await.expect_err("streams"));
    assert!(
        error
            .message()
            .contains("must be executed with write_stream().start()")
    );
}
