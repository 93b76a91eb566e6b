//! Queries run micro-batch by micro-batch.

use std::sync::Arc;

use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::prelude::{col, lit};
use futures::FutureExt;
use highwater_core::OutputMode;

use crate::nodes::{map_batches, observe};
use crate::testing::{Fixture, lines, run};

const APPEND: OutputMode = OutputMode::Append;
const UPDATE: OutputMode = OutputMode::Update;
const COMPLETE: OutputMode = OutputMode::Complete;

/// Runs `sql` over one micro-batch for each addition; the rows of each.
async fn outputs(sql: &str, mode: OutputMode) -> Vec<Vec<String>> {
    let fixture = Fixture::new();
    fixture
        .events
        .add(&[(Some(3), "a", 1), (None, "b", 5), (Some(12), "a", 4)]);
    fixture.events.add(&[]);
    fixture
        .events
        .add(&[(Some(14), "c", 7), (Some(17), "a", 2)]);
    let plan = fixture.plan(sql, mode).await.expect(sql);
    let mut outputs = Vec::new();
    for id in 0..3 {
        outputs.push(lines(&run(&plan, id).await.expect(sql)));
    }
    outputs
}

/// Mode, query, and the rows of each of three micro-batches.
const OUTPUTS: &[(OutputMode, &str, [&[&str]; 3])] = &[
    (
        APPEND,
        "SELECT k, v FROM events WHERE v > 1",
        [&["a|4", "b|5"], &[], &["a|2", "c|7"]],
    ),
    (
        UPDATE,
        "SELECT upper(k) AS u FROM events WHERE false",
        [&[], &[], &[]],
    ),
    (
        APPEND,
        "SELECT k FROM events LIMIT 4",
        [&["a", "a", "b"], &[], &["c"]],
    ),
    (APPEND, "SELECT k FROM events LIMIT 0", [&[], &[], &[]]),
    (
        APPEND,
        "SELECT now() AS n FROM events WHERE v > 6",
        [&[], &[], &["1970-01-01T00:00:02"]],
    ),
    (
        APPEND,
        "SELECT current_date() AS d FROM events WHERE v > 6",
        [&[], &[], &["1970-01-01"]],
    ),
    (
        APPEND,
        "SELECT k FROM events WHERE k IN (SELECT k FROM dim)",
        [&["a", "a"], &[], &["a"]],
    ),
    (
        APPEND,
        "SELECT v FROM events WHERE v > (SELECT max(v) FROM dim)",
        [&["4", "5"], &[], &["7"]],
    ),
    (
        APPEND,
        "SELECT k FROM events WHERE v > 4 UNION ALL SELECT k FROM events WHERE v < 3",
        [&["a", "b"], &[], &["a", "c"]],
    ),
    (
        UPDATE,
        "SELECT k, count(*) AS n, sum(v) AS s FROM events GROUP BY k",
        [&["a|2|5", "b|1|5"], &[], &["a|3|7", "c|1|7"]],
    ),
    (
        UPDATE,
        "SELECT count(*) AS n FROM events",
        [&["3"], &["3"], &["5"]],
    ),
    (
        UPDATE,
        "SELECT k, count(DISTINCT v % 2) AS n FROM events GROUP BY k",
        [&["a|2", "b|1"], &[], &["a|2", "c|1"]],
    ),
    (
        UPDATE,
        "SELECT DISTINCT k FROM events",
        [&["a", "b"], &[], &["a", "c"]],
    ),
    (
        COMPLETE,
        "SELECT k, count(*) AS n FROM events GROUP BY k ORDER BY n DESC, k LIMIT 2",
        [&["a|2", "b|1"], &["a|2", "b|1"], &["a|3", "b|1"]],
    ),
    (
        COMPLETE,
        "SELECT count(*) AS n FROM (SELECT * FROM events LIMIT 4)",
        [&["3"], &["3"], &["4"]],
    ),
    (
        UPDATE,
        "SELECT window.start AS s, window.end AS e, count(*) AS n FROM events GROUP BY window(ts, '10 us')",
        [
            &[
                "1970-01-01T00:00:00.000010|1970-01-01T00:00:00.000020|1",
                "1970-01-01T00:00:00|1970-01-01T00:00:00.000010|1",
            ],
            &[],
            &["1970-01-01T00:00:00.000010|1970-01-01T00:00:00.000020|3"],
        ],
    ),
];

#[tokio::test]
async fn every_batch_gives_its_rows() {
    for &(mode, sql, expected) in OUTPUTS {
        let expected: Vec<Vec<String>> = expected
            .iter()
            .map(|rows| rows.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(outputs(sql, mode).await, expected, "{mode}: {sql}");
    }
}

#[tokio::test]
async fn rows_of_several_streams_come_in_order_and_are_counted() {
    let fixture = Fixture::new();
    for v in 0..20 {
        fixture
            .events
            .add(&[(None, "a", 2 * v), (None, "a", 2 * v + 1)]);
    }
    let plan = fixture
        .plan("SELECT v FROM events", APPEND)
        .await
        .expect("planned");
    let mut batch = micro_batch(&plan, 0);
    batch.ranges.insert("events".into(), range(0, 20));
    plan.open(&batch).expect("opened");
    let rows = futures::TryStreamExt::try_collect::<Vec<_>>(plan.execute().expect("started"))
        .await
        .expect("read");
    let read: Vec<i64> = rows
        .iter()
        .flat_map(|batch| {
            let column = batch.column(0);
            arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(column)
                .values()
                .to_vec()
        })
        .collect();
    assert_eq!(read, (0..40).collect::<Vec<_>>());
    assert_eq!(plan.input_rows()["events"], 40);
}

#[tokio::test]
async fn a_source_scanned_twice_is_one_source_with_two_leaves() {
    let fixture = Fixture::new();
    fixture.events.add(&[(None, "a", 1)]);
    let sql = "SELECT k FROM events UNION ALL SELECT k FROM events";
    let plan = fixture.plan(sql, APPEND).await.expect("planned");
    run(&plan, 0).await.expect("run");
    let sources = plan.sources();
    assert_eq!((sources.len(), sources[0].leaves), (1, 2));
    assert_eq!(plan.input_rows()["events"], 2);
}

#[tokio::test]
async fn a_limit_and_an_aggregate_survive_a_restart() {
    for (mode, sql, after) in [
        (APPEND, "SELECT k FROM events LIMIT 3", vec!["c"]),
        (
            UPDATE,
            "SELECT k, sum(v) AS s FROM events GROUP BY k",
            vec!["c|7", "d|1"],
        ),
    ] {
        let fixture = Fixture::new();
        fixture.events.add(&[(None, "a", 1), (None, "b", 1)]);
        fixture.events.add(&[(None, "c", 7), (None, "d", 1)]);
        let first = fixture.plan(sql, mode).await.expect("planned");
        first.open(&micro_batch(&first, 0)).expect("opened");
        futures::TryStreamExt::try_collect::<Vec<_>>(first.execute().expect("started"))
            .await
            .expect("run");
        let second = fixture.plan(sql, mode).await.expect("planned");
        for (old, new) in first.operators().iter().zip(second.operators()) {
            assert_eq!(old.name(), new.name());
            for records in old.changes().expect("changes") {
                new.restore(&records).expect("restored");
            }
        }
        assert_eq!(lines(&run(&second, 1).await.expect("run")), after, "{sql}");
    }
}

#[tokio::test]
async fn figures_are_observed_and_batches_are_mapped() {
    let fixture = Fixture::new();
    fixture.events.add(&[(None, "a", 1), (None, "b", 5)]);
    fixture.events.add(&[]);
    let plan = fixture
        .logical("SELECT v, k FROM events")
        .await
        .expect("planned");
    let doubled = {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        let double = Arc::new(|rows: arrow::array::RecordBatch| {
            async move {
                Ok(arrow::compute::concat_batches(
                    &rows.schema(),
                    [&rows, &rows],
                )?)
            }
            .boxed()
        });
        map_batches(plan, schema, double).expect("mapped")
    };
    let figures = vec![
        count(lit(1)).alias("n"),
        (max(col("v")) - lit(1)).alias("most"),
    ];
    let observed = observe(doubled, "seen".into(), figures).expect("observed");
    let plan = fixture
        .incremental(observed, APPEND)
        .await
        .expect("planned");

    assert_eq!(
        lines(&run(&plan, 0).await.expect("run")),
        ["1|a", "1|a", "5|b", "5|b"]
    );
    assert_eq!(
        format!("{:?}", plan.observed()["seen"]),
        r#"[("n", Int64(4)), ("most", Int64(4))]"#
    );
    run(&plan, 1).await.expect("run");
    assert_eq!(
        format!("{:?}", plan.observed()["seen"]),
        r#"[("n", Int64(0)), ("most", Int64(NULL))]"#
    );
}

#[tokio::test]
async fn a_panic_in_the_users_function_is_the_users() {
    let fixture = Fixture::new();
    fixture.events.add(&[(None, "a", 1)]);
    let plan = fixture
        .logical("SELECT v FROM events")
        .await
        .expect("planned");
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let mapped = map_batches(plan, schema, Arc::new(|_| panic!("no good"))).expect("mapped");
    let plan = fixture.incremental(mapped, APPEND).await.expect("planned");
    let error = run(&plan, 0).await.expect_err("panics");
    assert_eq!(error.kind(), highwater_core::ErrorKind::User);
    assert!(error.message().contains("no good"), "{error}");
}

#[tokio::test]
async fn the_users_session_keeps_its_settings() {
    let fixture = Fixture::new();
    let user = fixture.ctx.state();
    let copy = crate::session::streaming_state(&user);
    assert_eq!(copy.config().target_partitions(), 1);
    assert_eq!(
        fixture
            .ctx
            .state()
            .config_options()
            .optimizer
            .enable_dynamic_filter_pushdown,
        user.config_options()
            .optimizer
            .enable_dynamic_filter_pushdown
    );
    assert_eq!(user.optimizers().len(), copy.optimizers().len() + 5);
}

#[tokio::test]
async fn explain_names_the_operators_and_their_state() {
    let fixture = Fixture::new();
    let sql = "SELECT k, count(*) AS n FROM events WHERE v > 1 GROUP BY k";
    let text = fixture.plan(sql, UPDATE).await.expect("planned").explain();
    assert!(
        text.contains("StreamScanExec: source=events, columns=[k, v]"),
        "{text}"
    );
    assert!(text.contains("aggregate"), "{text}");
}

fn range(start: u64, end: u64) -> highwater_core::OffsetRange {
    highwater_core::OffsetRange::new(start.into(), end.into())
}

fn micro_batch(plan: &super::IncrementalPlan, id: u64) -> highwater_core::MicroBatch {
    highwater_core::MicroBatch {
        id: highwater_core::BatchId(id),
        ranges: plan
            .sources()
            .into_iter()
            .map(|source| (source.name, range(id, id + 1)))
            .collect(),
        time: highwater_core::Timestamp::default(),
        watermark: highwater_core::Watermark::default(),
        late_watermark: highwater_core::Watermark::default(),
    }
}
