//! The rows of the table that event time, sessions and deduplication decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::common::metadata::FieldMetadata;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::col;
use highwater_core::{ErrorKind, IntoInterval, OutputMode, Result};

use super::{APPEND, COMPLETE, UPDATE};
use crate::analyze::analyze;
use crate::event_time::SESSION_KEY;
use crate::nodes::{deduplicate, watermark};
use crate::session::streaming_state;
use crate::testing::Fixture;

/// Beside `events`, `other` (streams) and `dim` (static), views with event time, sessions and deduplication.
struct Tables(Fixture);

impl Tables {
    async fn new() -> Self {
        let tables = Self(Fixture::new());
        tables.view("marked", "events", marked("10 seconds")).await;
        tables.view("more", "other", marked("1 minute")).await;
        tables.view("dim_marked", "dim", marked("1 minute")).await;
        tables.view("remarked", "marked", marked("1 minute")).await;
        let of_union = "(SELECT ts, k FROM marked UNION ALL SELECT ts, k FROM other)";
        tables.view("remarked_union", of_union, marked("1 s")).await;
        let windows = "(SELECT ts, count(*) AS n FROM marked GROUP BY ts)";
        tables.view("remarked_counts", windows, marked("1 s")).await;
        let once =
            |columns: &'static [&str], within| move |plan| deduplicate(plan, columns, within);
        tables.view("once", "events", once(&["k"], false)).await;
        tables.view("all_once", "events", once(&[], false)).await;
        tables
            .view("marked_once", "marked", once(&["ts", "k"], false))
            .await;
        tables
            .view("once_within", "marked", once(&["k"], true))
            .await;
        tables
            .view("unmarked_within", "events", once(&["k"], true))
            .await;
        let counts = "(SELECT k, count(*) AS n FROM events GROUP BY k)";
        tables
            .view("counts_once", counts, once(&["n"], false))
            .await;
        tables
            .view("times_once", windows, once(&["n"], false))
            .await;
        tables
            .view("times_once_by_time", windows, once(&["ts"], false))
            .await;
        tables
            .view("times_once_within", windows, once(&["n"], true))
            .await;
        tables.view("sessions", "marked", sessions).await;
        tables.view("free_sessions", "events", sessions).await;
        let as_date = "(SELECT CAST(ts AS DATE) AS d, k FROM marked)";
        tables.view("dates_once", as_date, once(&["d"], true)).await;
        tables
    }

    /// Makes `name` what `make` makes of the rows of `table`.
    async fn view(
        &self,
        name: &str,
        table: &str,
        make: impl FnOnce(LogicalPlan) -> Result<LogicalPlan>,
    ) {
        let sql = format!("SELECT * FROM {table}");
        let plan = make(self.0.logical(&sql).await.expect(&sql)).expect(name);
        let view = Arc::new(ViewTable::new(plan, None));
        self.0.ctx.register_table(name, view).expect("registered");
    }

    /// Judges `sql` as the start of a query does.
    async fn judge(&self, sql: &str, mode: OutputMode) -> Result<()> {
        let state = streaming_state(&self.0.ctx.state());
        let plan = self.0.logical(sql).await?;
        let analyzer = state.analyzer();
        let plan = analyzer.execute_and_check(plan, state.config_options(), |_, _| {})?;
        analyze(&plan, mode)
    }
}

/// The rows with a watermark on `ts`.
fn marked(delay: &'static str) -> impl FnOnce(LogicalPlan) -> Result<LogicalPlan> {
    move |plan| watermark(plan, "ts", delay.into_interval()?)
}

/// The rows with a column that stands for their session.
fn sessions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let metadata = BTreeMap::from([(SESSION_KEY.to_owned(), "1".to_owned())]);
    let session = col("ts").alias_with_metadata("session", Some(FieldMetadata::new(metadata)));
    let plan = LogicalPlanBuilder::from(plan).project([session, col("k"), col("v")])?;
    Ok(plan.build()?)
}

/// Mode and query.
const ALLOWED: &[(OutputMode, &str)] = &[
    // An aggregate gives out in append mode what the watermark has closed: its key has event time.
    (APPEND, "SELECT ts, count(*) AS n FROM marked GROUP BY ts"),
    (
        APPEND,
        "SELECT k, ts, count(*) AS n FROM marked GROUP BY k, ts",
    ),
    (
        APPEND,
        "SELECT t, count(*) AS n FROM (SELECT ts AS t FROM marked) GROUP BY t",
    ),
    (
        APPEND,
        "SELECT ts, k, count(*) AS n FROM marked GROUP BY ROLLUP(ts, k)",
    ),
    (APPEND, "SELECT DISTINCT ts, k FROM marked"),
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM (SELECT ts FROM marked UNION ALL SELECT ts FROM more) GROUP BY ts",
    ),
    (
        APPEND,
        "SELECT ts, k FROM marked UNION SELECT ts, k FROM more",
    ),
    (UPDATE, "SELECT k, count(*) AS n FROM marked GROUP BY k"),
    (
        COMPLETE,
        "SELECT k, count(*) AS n FROM marked GROUP BY k ORDER BY n",
    ),
    // Chains: what an aggregate gives out in append mode stays as it is.
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM (SELECT ts, k, count(*) AS n FROM marked GROUP BY ts, k) GROUP BY ts",
    ),
    (
        APPEND,
        "SELECT DISTINCT ts, n FROM (SELECT ts, count(*) AS n FROM marked GROUP BY ts)",
    ),
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM marked GROUP BY ts LIMIT 3",
    ),
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM (SELECT * FROM marked LIMIT 3) GROUP BY ts",
    ),
    // A limit of a static table is no limit of the stream.
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM marked WHERE k IN (SELECT k FROM dim ORDER BY k LIMIT 1) GROUP BY ts",
    ),
    // Sessions, in update mode too: it is refused in Spark.
    (
        APPEND,
        "SELECT session, k, count(*) AS n FROM sessions GROUP BY session, k",
    ),
    (
        UPDATE,
        "SELECT session, k, count(*) AS n FROM sessions GROUP BY session, k",
    ),
    (
        UPDATE,
        "SELECT session, k, count(*) AS n FROM free_sessions GROUP BY session, k",
    ),
    (
        COMPLETE,
        "SELECT session, k, count(*) AS n FROM sessions GROUP BY session, k",
    ),
    // Deduplication.
    (APPEND, "SELECT k, v FROM once"),
    (UPDATE, "SELECT k, v FROM all_once"),
    (APPEND, "SELECT ts, k FROM marked_once"),
    (UPDATE, "SELECT ts, k FROM once_within"),
    (APPEND, "SELECT ts, k FROM once_within LIMIT 3"),
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM marked_once GROUP BY ts",
    ),
    (
        UPDATE,
        "SELECT k, count(*) AS n FROM once_within GROUP BY k",
    ),
    (COMPLETE, "SELECT k, count(*) AS n FROM once GROUP BY k"),
    (COMPLETE, "SELECT k, n FROM counts_once"),
    (UPDATE, "SELECT k, n FROM counts_once"),
    (UPDATE, "SELECT ts, n FROM times_once"),
    (APPEND, "SELECT ts, n FROM times_once"),
    (APPEND, "SELECT ts, n FROM times_once_by_time"),
    (APPEND, "SELECT ts, n FROM times_once_within"),
    // A watermark on a static table is none.
    (
        APPEND,
        "SELECT k FROM events WHERE ts IN (SELECT ts FROM dim_marked)",
    ),
];

#[tokio::test]
async fn what_spark_runs_passes() {
    let tables = Tables::new().await;
    for &(mode, sql) in ALLOWED {
        let judged = tables.judge(sql, mode).await;
        assert!(judged.is_ok(), "{mode}: {sql}: {:?}", judged.err());
    }
}

const NO_WATERMARK: &str = "Invalid streaming output mode: append. This output mode is not supported \
    for streaming aggregations without watermark on streaming DataFrames/DataSets";
const NO_AGGREGATE: &str = "Invalid streaming output mode: complete. This output mode is not supported \
    for no streaming aggregations on streaming DataFrames/DataSets";
const CHANGING: &str = "Detected pattern of possible 'correctness' issue due to global watermark";
const WITHIN: &str = "dropDuplicatesWithinWatermark is not supported on streaming DataFrames/DataSets \
    without watermark";
const SESSION: &str = "Global aggregation with session window in streaming query is not supported";
const REDEFINED: &str = "Redefining watermark is disallowed";

/// Mode, query, the operator that is refused, and how the message begins.
const REFUSED: &[(OutputMode, &str, &str, &str)] = &[
    (
        APPEND,
        "SELECT k, count(*) AS n FROM marked GROUP BY k",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT count(*) AS n FROM marked",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT DISTINCT k FROM marked",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT k FROM marked UNION SELECT k FROM more",
        "aggregate",
        NO_WATERMARK,
    ),
    // Arithmetic on event time is no event time.
    (
        APPEND,
        "SELECT date_trunc('minute', ts) AS m, count(*) AS n FROM marked GROUP BY date_trunc('minute', ts)",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT ts + INTERVAL '1 second' AS t, count(*) AS n FROM marked GROUP BY ts + INTERVAL '1 second'",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT CAST(ts AS DATE) AS d, count(*) AS n FROM marked GROUP BY CAST(ts AS DATE)",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT n, count(*) AS c FROM (SELECT ts, count(*) AS n FROM marked GROUP BY ts) GROUP BY n",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT t, count(*) AS c FROM (SELECT k, max(ts) AS t FROM marked GROUP BY k) GROUP BY t",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT k, count(*) AS n FROM once GROUP BY k",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT ts, count(*) AS n FROM events WHERE ts IN (SELECT ts FROM dim_marked) GROUP BY ts",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        APPEND,
        "SELECT session, k, count(*) FROM free_sessions GROUP BY session, k",
        "aggregate",
        NO_WATERMARK,
    ),
    (
        COMPLETE,
        "SELECT ts, k FROM marked",
        "aggregate",
        NO_AGGREGATE,
    ),
    (COMPLETE, "SELECT k, v FROM once", "aggregate", NO_AGGREGATE),
    (
        COMPLETE,
        "SELECT k, v FROM once_within",
        "aggregate",
        NO_AGGREGATE,
    ),
    // Above an aggregate whose rows change nothing may go by event time.
    (
        UPDATE,
        "SELECT ts, count(*) AS n FROM (SELECT ts, k, count(*) AS n FROM marked GROUP BY ts, k) GROUP BY ts",
        "aggregate",
        CHANGING,
    ),
    (
        COMPLETE,
        "SELECT k, count(*) AS n FROM (SELECT session, k, count(*) FROM sessions GROUP BY session, k) GROUP BY k",
        "aggregate",
        CHANGING,
    ),
    (
        UPDATE,
        "SELECT DISTINCT k FROM (SELECT session, k, count(*) FROM sessions GROUP BY session, k)",
        "aggregate",
        CHANGING,
    ),
    (
        UPDATE,
        "SELECT n, count(*) FROM counts_once GROUP BY n",
        "aggregate",
        CHANGING,
    ),
    (
        UPDATE,
        "SELECT ts, n FROM times_once_by_time",
        "dedup",
        CHANGING,
    ),
    (
        COMPLETE,
        "SELECT ts, n FROM times_once_by_time",
        "dedup",
        CHANGING,
    ),
    (
        UPDATE,
        "SELECT ts, n FROM times_once_within",
        "dedup",
        CHANGING,
    ),
    (
        COMPLETE,
        "SELECT ts, n FROM times_once_within",
        "dedup",
        CHANGING,
    ),
    (
        UPDATE,
        "SELECT session, count(*) AS n FROM sessions GROUP BY session",
        "session_window",
        SESSION,
    ),
    (
        APPEND,
        "SELECT session, count(*) AS n FROM sessions GROUP BY session",
        "session_window",
        SESSION,
    ),
    (
        COMPLETE,
        "SELECT session, count(*) AS n FROM sessions GROUP BY session",
        "session_window",
        SESSION,
    ),
    (APPEND, "SELECT k, v FROM unmarked_within", "dedup", WITHIN),
    (UPDATE, "SELECT k, v FROM unmarked_within", "dedup", WITHIN),
    (APPEND, "SELECT d FROM dates_once", "dedup", WITHIN),
    (APPEND, "SELECT ts, k FROM remarked", "watermark", REDEFINED),
    (
        UPDATE,
        "SELECT k, count(*) AS n FROM remarked GROUP BY k",
        "watermark",
        REDEFINED,
    ),
    (
        APPEND,
        "SELECT ts, k FROM remarked_union",
        "watermark",
        REDEFINED,
    ),
    (
        APPEND,
        "SELECT ts, n FROM remarked_counts",
        "watermark",
        REDEFINED,
    ),
    (
        UPDATE,
        "SELECT k, v FROM once LIMIT 3",
        "limit",
        "Limits are not supported",
    ),
    (
        APPEND,
        "SELECT k, v FROM once ORDER BY v",
        "sort",
        "Sorting is not supported",
    ),
    (
        APPEND,
        "SELECT ts, k FROM once_within OFFSET 1",
        "offset",
        "Offset is not supported",
    ),
];

#[tokio::test]
async fn what_spark_refuses_is_refused_in_its_words() {
    let tables = Tables::new().await;
    for &(mode, sql, operator, words) in REFUSED {
        let error = tables.judge(sql, mode).await.expect_err(sql);
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
async fn a_static_table_is_made_distinct_by_datafusion() {
    let fixture = Fixture::new();
    let dim = fixture.logical("SELECT * FROM dim").await.expect("planned");
    let all = deduplicate(dim.clone(), &[], false).expect("distinct");
    assert!(matches!(all, LogicalPlan::Distinct(_)), "{all}");
    let some = deduplicate(dim.clone(), &["k"], false).expect("distinct on");
    assert_eq!(some.schema().field_names(), dim.schema().field_names());
    let error = deduplicate(dim.clone(), &["k"], true).expect_err("a batch");
    assert_eq!(
        error.message(),
        "dropDuplicatesWithinWatermark is not supported with batch DataFrames/DataSets"
    );
    let watermarked = marked("1 s")(dim.clone()).expect("no watermark");
    assert_eq!(watermarked, dim);
}

#[tokio::test]
async fn a_key_that_is_no_column_is_refused_with_the_columns() {
    let fixture = Fixture::new();
    let events = fixture.logical("SELECT * FROM events").await;
    let error = deduplicate(events.expect("planned"), &["k", "zz"], false).expect_err("no zz");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.column(), Some("zz"));
    assert!(
        error.message().contains("(events.ts, events.k, events.v)"),
        "{error}"
    );
}
