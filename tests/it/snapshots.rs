//! State of every kind that is snapshotted part by part, purged and restored over and over: the rows are those that the
//! same input gives without a restart, and what plain counting says.

use std::collections::BTreeMap;

use highwater::Result;
use highwater::prelude::*;
use highwater_testkit::value::show;
use highwater_testkit::{Harness, Row, row};

const BATCHES: i64 = 60;
const SCHEMA: &str = "ts TIMESTAMP, k STRING, v BIGINT";

/// The rows of micro-batch `n`: eight a batch, in the order of time, a second apart.
fn rows(n: i64) -> Vec<(String, String, i64)> {
    (0..8)
        .map(|i| {
            let at = n * 8 + i;
            let ts = format!(
                "2024-05-01 {:02}:{:02}:{:02}",
                at / 3600,
                at / 60 % 60,
                at % 60
            );
            (ts, format!("key {}", at * 7 % 101), at)
        })
        .collect()
}

/// The rows of each micro-batch of the query that `frame` makes, started anew every so many micro-batches.
async fn outputs(
    frame: impl Fn(StreamFrame) -> Result<StreamFrame>,
    mode: OutputMode,
    restart_every: Option<i64>,
) -> Result<Vec<Vec<String>>> {
    let session = StreamSession::builder()
        .config("highwater.snapshot_min_records", "2")
        .config("highwater.min_batches_to_retain", "2")
        .build()?;
    let events = MemoryStream::new(&session, SCHEMA)?;
    let timed = events.to_frame().with_watermark("ts", "5 seconds")?;
    let mut harness = Harness::new(frame(timed)?, mode)?;
    let mut outputs = Vec::new();
    for n in 0..BATCHES {
        events.add_data(rows(n))?;
        harness.process().await?;
        outputs.push(harness.take_new()?.concat());
        match restart_every {
            Some(every) if n % every == every - 1 => harness.abort().await?,
            _ => {}
        }
    }
    harness.stop().await?;
    let shown = |rows: Vec<Row>| {
        let mut rows: Vec<String> = rows.iter().map(|row| show(row)).collect();
        rows.sort_unstable();
        rows
    };
    Ok(outputs.into_iter().map(shown).collect())
}

/// The same rows however often the query is started anew; they are given back.
async fn same_after_restarts(
    frame: impl Fn(StreamFrame) -> Result<StreamFrame>,
    mode: OutputMode,
) -> Result<Vec<Vec<String>>> {
    let expected = outputs(&frame, mode, None).await?;
    for every in [1, 3, 17] {
        let found = outputs(&frame, mode, Some(every)).await?;
        for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "micro-batch {n}, restarts every {every}");
        }
    }
    Ok(expected)
}

#[tokio::test]
async fn an_aggregate_goes_on_from_its_parts() -> Result<()> {
    let counts = |frame: StreamFrame| {
        frame
            .group_by([col("k")])
            .agg([count_all().alias("n"), sum(col("v")).alias("s")])
    };
    let outputs = same_after_restarts(counts, OutputMode::Update).await?;
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (n, output) in (0..BATCHES).zip(&outputs) {
        let mut told: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for (_, key, value) in rows(n) {
            let count = expected.entry(key.clone()).or_default();
            *count = (count.0 + 1, count.1 + value);
            told.insert(key, *count);
        }
        let told = told.into_iter().map(|(k, (n, s))| {
            let row: Row = row![k, n, s];
            show(&row)
        });
        let mut told: Vec<String> = told.collect();
        told.sort_unstable();
        assert_eq!(*output, told, "micro-batch {n}");
    }
    Ok(())
}

#[tokio::test]
async fn windows_go_on_from_their_parts_and_are_evicted() -> Result<()> {
    let windows = |frame: StreamFrame| {
        let grouped = frame.group_by([
            window(col("ts"), sliding("20 seconds", "10 seconds")),
            col("k"),
        ]);
        grouped
            .agg([count_all().alias("n")])?
            .select_exprs(&["window.start AS start", "k", "n"])
    };
    let outputs = same_after_restarts(windows, OutputMode::Append).await?;
    // Each row is in two windows, and those that end up to 5 seconds before the last row are over.
    let last = BATCHES * 8 - 1;
    let closed = |at: i64| {
        let first_end = at / 10 * 10 + 10;
        [first_end, first_end + 10]
            .iter()
            .filter(|end| **end <= last - 5)
            .count()
    };
    let expected: usize = (0..=last).map(closed).sum();
    let counted = outputs.iter().flatten().count();
    // A key comes again after 101 rows, so every row is alone in its windows.
    assert_eq!(counted, expected);
    Ok(())
}

#[tokio::test]
async fn sessions_go_on_from_their_parts() -> Result<()> {
    let sessions = |frame: StreamFrame| {
        let grouped = frame.group_by([session_window(col("ts"), "150 seconds"), col("k")]);
        let columns = [
            "session_window.start AS start",
            "session_window.end AS until",
            "k",
            "n",
        ];
        grouped
            .agg([count_all().alias("n")])?
            .select_exprs(&columns)
    };
    let outputs = same_after_restarts(sessions, OutputMode::Complete).await?;
    // A key comes every 101 seconds, so it has one session, which grows.
    assert_eq!(outputs.last().map(Vec::len), Some(101));
    Ok(())
}

#[tokio::test]
async fn a_deduplication_goes_on_from_its_parts() -> Result<()> {
    let first = |frame: StreamFrame| frame.drop_duplicates(&["k"]);
    let outputs = same_after_restarts(first, OutputMode::Append).await?;
    assert_eq!(outputs.iter().flatten().count(), 101);
    let lately = |frame: StreamFrame| frame.drop_duplicates_within_watermark(&["k"]);
    let outputs = same_after_restarts(lately, OutputMode::Append).await?;
    // A key is forgotten long before it comes again.
    assert_eq!(outputs.iter().flatten().count() as i64, BATCHES * 8);
    Ok(())
}

#[tokio::test]
async fn a_limit_goes_on_from_its_parts() -> Result<()> {
    let limited = |frame: StreamFrame| frame.limit(0, Some(300));
    let outputs = same_after_restarts(limited, OutputMode::Append).await?;
    assert_eq!(outputs.iter().flatten().count(), 300);
    Ok(())
}
