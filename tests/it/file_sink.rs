//! The file sink from the outside: windows into partitioned Parquet, a restart, and the plain files read back.

use std::fs;
use std::path::Path;

use highwater::Result;
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
