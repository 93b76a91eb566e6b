//! What `explain` says of joins of two streams: of each kind, by what bounds it.
//!
//! The rules (spark.md 2.15, 2.16): equal event times, or equal windows, bound both sides by the watermark as it is. From
//! `c.at <= i.ts + 10 s` follows that an impression is over when the watermark has passed its time and 10 seconds, and
//! a millisecond as the limit may be met exactly; from `c.at >= i.ts` the same of a click, without the 10 seconds.

use highwater::datafusion::arrow::array::{AsArray, RecordBatch};
use highwater::prelude::*;
use highwater::{ErrorKind, Result};

/// The words of a join, and what `explain` calls it.
const KINDS: [(&str, &str); 6] = [
    ("JOIN", "inner"),
    ("LEFT JOIN", "left outer"),
    ("RIGHT JOIN", "right outer"),
    ("FULL JOIN", "full outer"),
    ("LEFT SEMI JOIN", "left semi"),
    ("LEFT ANTI JOIN", "left anti"),
];

/// A condition, the pairs of keys, and what bounds the state.
const BOUNDS: [(&str, &str, &str); 3] = [
    (
        "i.ad = c.ad AND i.ts = c.at",
        "ad = ad, ts = at",
        "left rows leave when watermark passes `ts`, right rows leave when watermark passes `at`",
    ),
    (
        "i.ad = c.ad AND c.at >= i.ts AND c.at <= i.ts + INTERVAL '10' SECOND",
        "ad = ad",
        "left rows leave when watermark − 10.001 s passes `ts`, right rows leave when watermark − 0.001 s passes `at`",
    ),
    (
        "i.ad = c.ad AND i.w = c.w",
        "ad = ad, w = w",
        "left rows leave when watermark passes `w`, right rows leave when watermark passes `w`",
    ),
];

/// `i` has a watermark of five minutes, `c` of one; both have the windows of their times.
fn ads() -> Result<StreamSession> {
    let session = StreamSession::new();
    let impressions = MemoryStream::new(&session, "ts TIMESTAMP, ad BIGINT, shown BIGINT")?;
    let clicks = MemoryStream::new(&session, "at TIMESTAMP, ad BIGINT, clicked BIGINT")?;
    let impressions = impressions.to_frame().with_watermark("ts", "5 minutes")?;
    let impressions = impressions.with_column("w", window(col("ts"), "10 seconds"))?;
    impressions.create_or_replace_temp_view("i")?;
    let clicks = clicks.to_frame().with_watermark("at", "1 minute")?;
    let clicks = clicks.with_column("w", window(col("at"), "10 seconds"))?;
    clicks.create_or_replace_temp_view("c")?;
    Ok(session)
}

/// The lines about state.
async fn state(session: &StreamSession, sql: &str) -> Result<String> {
    let frame = session.sql(sql).await?.explain(false, false)?;
    let rows: Vec<RecordBatch> = frame.collect().await?;
    let plans = rows.iter().flat_map(|batch| {
        let plans = batch.column(1).as_string::<i32>().iter();
        plans.flatten().map(str::to_owned).collect::<Vec<_>>()
    });
    let plan = plans.last().unwrap_or_default();
    let state = plan.split_once("\nState:\n");
    Ok(state.map_or(plan.clone(), |(_, state)| state.to_owned()))
}

fn columns(kind: &str) -> &'static str {
    match kind {
        "LEFT SEMI JOIN" | "LEFT ANTI JOIN" => "shown",
        _ => "shown, clicked",
    }
}

#[tokio::test]
async fn each_kind_by_each_bound() -> Result<()> {
    let session = ads()?;
    for (kind, words) in KINDS {
        for (condition, keys, bound) in BOUNDS {
            let columns = columns(kind);
            let sql = format!("SELECT {columns} FROM i {kind} c ON {condition}");
            let expected = format!(
                "  join of two streams, {words} join on ({keys}), {bound}\n    \
                 join.left reads memory\n    \
                 join.right reads memory_2\n    \
                 watermark follows `ts` − 300 s, `at` − 60 s\n"
            );
            assert_eq!(state(&session, &sql).await?, expected, "{sql}");
        }
    }
    Ok(())
}

/// Without a bound only an inner join runs: the others would never give all their rows.
#[tokio::test]
async fn without_a_bound_only_inner_joins_run() -> Result<()> {
    let session = ads()?;
    for (kind, words) in KINDS {
        let sql = format!("SELECT {} FROM i {kind} c ON i.ad = c.ad", columns(kind));
        if words == "inner" {
            let expected = "  join of two streams, inner join on (ad = ad), unbounded state\n    \
                            join.left reads memory\n    \
                            join.right reads memory_2\n";
            assert_eq!(state(&session, &sql).await?, expected);
            continue;
        }
        let error = state(&session, &sql).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}: {error}");
        assert_eq!(error.operator(), Some("join"));
        assert!(error.hint().is_some(), "{sql}");
    }
    Ok(())
}

/// A side alone may be bounded: an inner join, and a full one, run with that.
#[tokio::test]
async fn one_side_may_be_without_a_bound() -> Result<()> {
    let session = ads()?;
    for (kind, words) in [KINDS[0], KINDS[3]] {
        let sql = format!(
            "SELECT shown, clicked FROM i {kind} c ON i.ad = c.ad AND c.at < i.ts + INTERVAL '1' HOUR"
        );
        let expected = format!(
            "  join of two streams, {words} join on (ad = ad), left rows leave when watermark − 3600 s passes `ts`, \
             unbounded state of right rows\n    \
             join.left reads memory\n    \
             join.right reads memory_2\n    \
             watermark follows `ts` − 300 s, `at` − 60 s\n"
        );
        assert_eq!(state(&session, &sql).await?, expected);
    }
    Ok(())
}

/// What comes out of the join may be 10.001 s behind: an aggregate above it, and a join, wait so much longer.
#[tokio::test]
async fn above_a_join_the_watermark_is_behind() -> Result<()> {
    let session = ads()?;
    let (condition, _, bound) = BOUNDS[1];
    let sql = format!(
        "SELECT window.start, count(*) AS n FROM (SELECT i.ts AS ts FROM i JOIN c ON {condition}) \
         GROUP BY window(ts, '10 seconds')"
    );
    let text = state(&session, &sql).await?;
    let (aggregate, join) = text.split_once("  join of").unwrap_or_default();
    assert!(
        aggregate.ends_with(
            "    aggregate reads memory, memory_2\n    \
             watermark follows `ts` − 300 s, `at` − 60 s, 10.001 s behind for the joins below\n"
        ),
        "{text}"
    );
    assert_eq!(
        join,
        format!(
            " two streams, inner join on (ad = ad), {bound}\n    \
             join.left reads memory\n    \
             join.right reads memory_2\n    \
             watermark follows `ts` − 300 s, `at` − 60 s\n"
        )
    );
    Ok(())
}
