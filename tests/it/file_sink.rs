//! The file sink from the outside: windows into partitioned Parquet, a restart, and the plain files read back.

use std::fs;
use std::path::Path;

use highwater::Result;
use highwater::arrow::array::AsArray;
use highwater::arrow::datatypes::Int64Type;
use highwater::datafusion::assert_batches_sorted_eq;
use highwater::datafusion::prelude::ParquetReadOptions;
use highwater::prelude::*;
use serde_json::Value;

/// The URLs of the files that the log in `out` names.
fn named(out: &Path) -> Vec<String> {
    let mut urls = Vec::new();
    for entry in fs::read_dir(out.join("_spark_metadata")).expect("a log") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
        let mut lines = text.split('\n');
        assert_eq!(lines.next(), Some("v1"));
        for line in lines {
            let file: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(file["action"], "add");
            urls.push(file["path"].as_str().expect("a path").to_owned());
        }
    }
    urls
}

async fn start(
    session: &StreamSession,
    rows: &MemoryStream,
    folder: &Path,
) -> Result<StreamingQuery> {
    rows.to_frame()
        .with_watermark("ts", "0 seconds")?
        .group_by([window(col("ts"), "10 seconds"), col("pump")])
        .count()?
        .select_exprs(&["window.start AS start", "pump", "count AS n"])?
        .write_stream()
        .format("parquet")
        .path(folder.join("out").to_string_lossy())
        .partition_by(&["pump"])
        .checkpoint_location(folder.join("checkpoint").to_string_lossy())
        .start()
        .await
        .inspect(|_| assert_eq!(session.streams().active().len(), 1))
}

#[tokio::test]
async fn windows_are_written_once_over_a_restart() -> Result<()> {
    let folder = tempfile::tempdir().expect("folder");
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING")?;
    let query = start(&session, &rows, folder.path()).await?;
    rows.add_data([
        ("2024-05-01 00:00:01", "a/1"),
        ("2024-05-01 00:00:02", "b"),
        ("2024-05-01 00:00:03", "b"),
    ])?;
    query.process_all_available().await?;
    // 00:12 closes the first window.
    rows.add_data([("2024-05-01 00:00:12", "b")])?;
    query.process_all_available().await?;
    query.stop().await?;
    let first = named(&folder.path().join("out")).len();
    assert_eq!(first, 2, "a file for each pump");
    let query = start(&session, &rows, folder.path()).await?;
    rows.add_data([("2024-05-01 00:00:25", "a/1")])?;
    query.process_all_available().await?;
    query.stop().await?;
    let mut all = Vec::new();
    for url in named(&folder.path().join("out")) {
        let context = session.context();
        let frame = context
            .read_parquet(url.as_str(), ParquetReadOptions::default())
            .await?;
        let columns: Vec<String> = frame
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(
            columns,
            ["start", "n"],
            "the partition column is in the path only"
        );
        let pump = if url.contains("/pump=a%252F1/") {
            "a/1"
        } else {
            "b"
        };
        assert!(pump == "a/1" || url.contains("/pump=b/"), "{url}");
        all.extend(frame.with_column("pump", lit(pump))?.collect().await?);
    }
    // Counted by hand.
    assert_batches_sorted_eq!(
        [
            "+---------------------+---+------+",
            "| start               | n | pump |",
            "+---------------------+---+------+",
            "| 2024-05-01T00:00:00 | 1 | a/1  |",
            "| 2024-05-01T00:00:00 | 2 | b    |",
            "| 2024-05-01T00:00:10 | 1 | b    |",
            "+---------------------+---+------+",
        ],
        &all
    );
    Ok(())
}

#[tokio::test]
async fn other_modes_and_no_checkpoint_are_refused() -> Result<()> {
    let folder = tempfile::tempdir().expect("folder");
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "k STRING")?;
    let writer = || {
        rows.to_frame()
            .write_stream()
            .format("json")
            .path(folder.path().join("out").to_string_lossy())
    };
    let error = writer().start().await.expect_err("no checkpoint");
    assert_eq!(error.option(), Some("checkpointLocation"));
    let error = writer()
        .output_mode(OutputMode::Update)
        .checkpoint_location(folder.path().join("c").to_string_lossy())
        .start()
        .await
        .expect_err("update mode");
    let condition = "STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE";
    assert_eq!(error.condition(), Some(condition));
    Ok(())
}

/// The text of all entries of the log in `out`.
fn log_of(out: &Path) -> String {
    let entries = fs::read_dir(out.join("_spark_metadata")).expect("a log");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.is_file());
    files
        .map(|path| fs::read_to_string(path).expect("text"))
        .collect()
}

/// One query writes files and rolls them up, another one follows the directory and copies it, with a restart in between; both
/// are at work at the same time. The reader is never more micro-batches behind than replaced files stay.
#[tokio::test]
async fn a_stream_over_a_directory_that_is_rolled_up_meanwhile_has_each_row_once() -> Result<()> {
    const ROWS: i64 = 21;
    for format in ["parquet", "json"] {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::create_dir(folder.path().join("out"))?;
        let session = StreamSession::new();
        let rows = MemoryStream::new(&session, "v BIGINT, half BIGINT")?;
        let writer = rows.to_frame().write_stream().format(format);
        let writer = writer
            .path(at("out"))
            .partition_by(&["half"])
            .option("compactEvery", 4)
            .checkpoint_location(at("ckpt"))
            .start()
            .await?;
        let follow = async || {
            let stream = session.read_stream().format(format);
            let stream = stream
                .schema("v BIGINT, half BIGINT")
                .path(at("out"))
                .load()
                .await?;
            let copy = stream.write_stream().format(format).path(at("copy"));
            let copy = copy.option("compactEvery", 3);
            copy.checkpoint_location(at("copied")).start().await
        };
        // By which columns the files are parted is looked up when the source is opened.
        rows.add_data([(0_i64, 0_i64)])?;
        writer.process_all_available().await?;
        let mut reader = follow().await?;
        for v in 1..ROWS {
            rows.add_data([(v, v % 2)])?;
            writer.process_all_available().await?;
            if v % 3 == 2 {
                reader.process_all_available().await?;
            }
            if v == 11 {
                reader.stop().await?;
                reader = follow().await?;
            }
        }
        reader.process_all_available().await?;
        reader.stop().await?;
        writer.stop().await?;
        for name in ["out", "copy"] {
            let log = log_of(&folder.path().join(name));
            assert!(log.contains("\"replaces\":true"), "{format}: {name}: {log}");
            let files = session
                .read()
                .format(format)
                .schema("v BIGINT, half BIGINT");
            let mut found = Vec::new();
            for batch in files.load(at(name)).await?.collect().await? {
                let column = |n: usize| batch.column(n).as_primitive::<Int64Type>().values();
                found.extend(column(0).iter().copied().zip(column(1).iter().copied()));
            }
            found.sort_unstable();
            let all: Vec<_> = (0..ROWS).map(|v| (v, v % 2)).collect();
            assert_eq!(found, all, "{format}: {name}");
        }
    }
    Ok(())
}
