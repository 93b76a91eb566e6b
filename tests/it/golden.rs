//! Checkpoints as an earlier build wrote them: every later version opens them and goes on.
//!
//! They lie in `tests/golden/checkpoint-v1`, one for each kind of stateful operator, with snapshots and purged logs.
//! They are written anew only when the version of the format changes (`docs/checkpoint-format.md`):
//!
//! ```text
//! HIGHWATER_WRITE_GOLDEN=1 cargo test -p highwater --test it golden
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use highwater::Result;
use highwater::prelude::*;
use highwater_testkit::value::{rows, show};
use highwater_testkit::{CollectingSink, Row, row};

/// Micro-batches that the earlier build has run.
const BATCHES: i64 = 40;
const SCHEMA: &str = "ts TIMESTAMP, k STRING, v BIGINT";

type Input = (String, String, i64);

fn at(seconds: i64, key: i64, value: i64) -> Input {
    let ts = format!(
        "2024-05-01 {:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    (ts, format!("key {key}"), value)
}

/// The rows of micro-batch `n`: each key from 0 to 49 every 25 micro-batches, two a batch; sessions of four rows.
fn history(n: i64) -> Vec<Input> {
    (2 * n..2 * n + 2)
        .map(|i| at(i / 4 * 60 + i % 4 * 3, i % 50, i))
        .collect()
}

struct Case {
    name: &'static str,
    mode: OutputMode,
    frame: fn(StreamFrame) -> Result<StreamFrame>,
    /// What comes after the history, and the rows that it makes.
    next: fn() -> (Vec<Input>, Vec<Row>),
}

const CASES: [Case; 4] = [
    Case {
        name: "aggregate",
        mode: OutputMode::Update,
        frame: |frame| {
            frame
                .group_by([col("k")])
                .agg([
                    count_all().alias("n"),
                    sum(col("v")).alias("s"),
                    max(col("ts")).alias("last"),
                ])?
                .select_columns(&["k", "n", "s"])
        },
        next: || {
            // Key 3 has come as rows 3 and 53, key 30 as row 30; key 77 is new.
            let rows = vec![
                row!["key 3", 3, 3 + 53 + 1_000],
                row!["key 30", 2, 30 + 1_000],
                row!["key 77", 1, 1_000],
            ];
            ([3, 30, 77].map(|key| at(2_000, key, 1_000)).to_vec(), rows)
        },
    },
    Case {
        name: "session",
        mode: OutputMode::Complete,
        frame: |frame| {
            let grouped = frame.group_by([
                session_window(col("ts"), "100 seconds"),
                (col("v") % lit(3_i64)).alias("g"),
            ]);
            grouped
                .agg([count_all().alias("n"), sum(col("v")).alias("s")])?
                .select_columns(&["g", "n", "s"])
        },
        next: || {
            // A row comes at least every 60 seconds and each third number has a session of its own, without an end.
            let one = |g: i64| -> Row {
                let numbers: Vec<i64> = (0..2 * BATCHES).filter(|i| i % 3 == g).collect();
                row![g, numbers.len() as i64, numbers.iter().sum::<i64>()]
            };
            let mut rows: Vec<Row> = (0..3).map(one).collect();
            rows.push(row![1, 1, 1_000]);
            (vec![at(9_000, 0, 1_000)], rows)
        },
    },
    Case {
        name: "dedup",
        mode: OutputMode::Append,
        frame: |frame| frame.drop_duplicates(&["k"])?.select_columns(&["k"]),
        // Keys 0 to 49 have come.
        next: || {
            let rows = (40..60).map(|key| at(2_000, key, 0)).collect();
            (
                rows,
                (50..60).map(|key| row![format!("key {key}")]).collect(),
            )
        },
    },
    Case {
        name: "limit",
        mode: OutputMode::Append,
        frame: |frame| frame.select_columns(&["v"])?.limit(0, Some(85)),
        // 80 rows have passed.
        next: || {
            let rows = (0..20).map(|i| at(2_000, 0, 1_000 + i)).collect();
            (rows, (0..5).map(|i| row![1_000 + i]).collect())
        },
    },
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoint-v1")
}

/// A run of the case over a checkpoint.
struct Run {
    events: MemoryStream,
    sink: std::sync::Arc<CollectingSink>,
    query: StreamingQuery,
}

async fn start(case: &Case, session: &StreamSession, checkpoint: &Path, done: i64) -> Result<Run> {
    let events = MemoryStream::new(session, SCHEMA)?;
    for n in 0..done {
        events.add_data(history(n))?;
    }
    let sink = CollectingSink::new();
    let writer = (case.frame)(events.to_frame())?
        .write_stream()
        .output_mode(case.mode);
    let shared = std::sync::Arc::clone(&sink) as std::sync::Arc<dyn highwater::Sink>;
    let location = checkpoint.to_string_lossy().into_owned();
    let query = writer
        .checkpoint_location(location)
        .sink(shared)
        .start()
        .await?;
    Ok(Run {
        events,
        sink,
        query,
    })
}

/// Opens a copy of the checkpoint and goes on.
async fn check(case: &Case, from: &Path) -> Result<()> {
    let copy = tempfile::tempdir()?;
    copy_folder(from, copy.path())?;
    let session = StreamSession::new();
    let run = start(case, &session, copy.path(), BATCHES).await?;
    run.query.process_all_available().await?;
    assert_eq!(
        run.sink.take_new().len(),
        0,
        "{}: all of it is done",
        case.name
    );
    let (input, mut expected) = (case.next)();
    run.events.add_data(input)?;
    run.query.process_all_available().await?;
    run.query.stop().await?;
    let mut found = Vec::new();
    for batch in run.sink.take_new() {
        found.extend(rows(&batch.rows)?);
    }
    let text = |rows: &mut Vec<Row>| {
        rows.sort_by_key(|row| show(row));
        rows.iter().map(|row| show(row)).collect::<Vec<_>>()
    };
    assert_eq!(text(&mut found), text(&mut expected), "{}", case.name);
    Ok(())
}

#[tokio::test]
async fn a_golden_checkpoint_is_opened_and_goes_on() -> Result<()> {
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        for case in &CASES {
            write(case, &folder().join(case.name)).await?;
        }
    }
    for case in &CASES {
        check(case, &folder().join(case.name)).await?;
    }
    Ok(())
}

/// Writes the checkpoint of a case: two runs, snapshots of few records, and logs that do not begin with 0.
async fn write(case: &Case, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (from, to) in [(0, BATCHES / 2), (BATCHES / 2, BATCHES)] {
        let session = StreamSession::builder()
            .config("highwater.snapshot_min_records", "2")
            .config("highwater.min_batches_to_retain", "3")
            .build()?;
        let run = start(case, &session, folder, from).await?;
        for n in from..to {
            run.events.add_data(history(n))?;
            run.query.process_all_available().await?;
        }
        run.query.stop().await?;
    }
    let names = |of: &str| -> Result<Vec<String>> {
        let entries = fs::read_dir(folder.join(of))?;
        let names = entries.map(|entry| -> Result<String> {
            Ok(entry?.file_name().to_string_lossy().into_owned())
        });
        names.collect()
    };
    assert!(
        !names("commits")?.contains(&"0".to_owned()),
        "{}: not purged",
        case.name
    );
    let snapshots = names("state")?
        .iter()
        .any(|name| name.ends_with(".snapshot"));
    assert!(snapshots, "{}: no snapshot", case.name);
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
