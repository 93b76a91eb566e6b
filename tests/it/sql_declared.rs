//! Declared tables and statements of queries, from Rust: places of errors, handles, and what a frame is told.

use highwater::prelude::*;
use highwater::{Position, Result};

/// A folder with two lines of CSV, and its path.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("as planned");
    let input = folder.path().join("in");
    std::fs::create_dir(&input).expect("as planned");
    std::fs::write(
        input.join("1.csv"),
        "2024-05-01 00:00:03,a\n2024-05-01 00:00:08,b\n",
    )
    .expect("as planned");
    let path = input.to_string_lossy().into_owned();
    (folder, path)
}

#[tokio::test]
async fn a_declared_table_streams_for_frames_too() -> Result<()> {
    let (_folder, path) = folder();
    let session = StreamSession::new();
    let create = format!(
        "CREATE UNBOUNDED EXTERNAL TABLE t (ts TIMESTAMP, k STRING, WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) \
         STORED AS csv LOCATION '{path}'"
    );
    let created = session.sql(&create).await?;
    assert!(!created.is_streaming());
    assert_eq!(created.count().await?, 0);
    assert!(session.table("t").await?.is_streaming());
    assert!(session.read_stream().table("t").await?.is_streaming());
    assert!(session.sql("SELECT * FROM t").await?.is_streaming());
    let limited = session
        .read_stream()
        .option("maxFilesPerTrigger", 1)
        .table("t")
        .await?;
    assert!(limited.is_streaming());
    let wrong = session
        .read_stream()
        .option("maxFilePerTrigger", 1)
        .table("t")
        .await;
    assert_eq!(
        wrong.expect_err("a typo").option(),
        Some("maxFilePerTrigger")
    );
    Ok(())
}

#[tokio::test]
async fn emit_is_the_mode_that_the_writer_begins_with() -> Result<()> {
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "k STRING, v BIGINT")?;
    rows.to_frame().create_or_replace_temp_view("t")?;
    rows.add_data([("a", 1), ("a", 2)])?;
    let frame = session
        .sql("SELECT k, count(*) AS n FROM t GROUP BY k EMIT CHANGES")
        .await?;
    // Append, the default, would be refused: there is no watermark.
    let query = frame
        .write_stream()
        .format("memory")
        .query_name("n")
        .start()
        .await?;
    query.process_all_available().await?;
    assert_eq!(session.table("n").await?.count().await?, 1);
    query.stop().await
}

#[tokio::test]
async fn a_query_of_sql_is_one_of_the_sessions_queries() -> Result<()> {
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "k STRING, v BIGINT")?;
    rows.to_frame().create_or_replace_temp_view("t")?;
    let started = session
        .sql("CREATE STREAMING TABLE Copies AS SELECT * FROM t")
        .await?;
    let row = started.collect().await?;
    assert_eq!(row[0].num_rows(), 1);
    assert_eq!(
        row[0]
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect::<Vec<_>>(),
        ["name", "id", "run_id"]
    );
    let query = session.streams().by_name("copies").expect("it is active");
    rows.add_data([("a", 1)])?;
    query.process_all_available().await?;
    assert_eq!(session.sql("SELECT * FROM copies").await?.count().await?, 1);
    session.sql("STOP STREAMING QUERY copies").await?;
    assert!(!query.is_active());
    Ok(())
}

#[tokio::test]
async fn a_failed_query_is_told_by_await() -> Result<()> {
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "k STRING")?;
    rows.to_frame().create_or_replace_temp_view("t")?;
    rows.add_data([("no number",)])?;
    let start = "CREATE STREAMING TABLE f OPTIONS (trigger 'available now') AS SELECT CAST(k AS BIGINT) AS n FROM t";
    session.sql(start).await?;
    let error = session
        .sql("AWAIT STREAMING QUERY f")
        .await
        .expect_err("it failed");
    assert_eq!(
        error.position(),
        Some(Position {
            line: 1,
            column: 23
        })
    );
    assert!(error.query().is_some());
    Ok(())
}

#[tokio::test]
async fn a_path_that_is_not_there_yet_can_be_written_and_then_read() -> Result<()> {
    let (folder, path) = folder();
    let out = folder.path().join("later").to_string_lossy().into_owned();
    let checkpoint = folder
        .path()
        .join("checkpoint")
        .to_string_lossy()
        .into_owned();
    let session = StreamSession::new();
    for (name, path) in [("input", &path), ("later", &out)] {
        let create = format!(
            "CREATE UNBOUNDED EXTERNAL TABLE {name} (ts TIMESTAMP, k STRING) STORED AS csv LOCATION '{path}'"
        );
        session.sql(&create).await?;
    }
    let error = session
        .sql("SELECT * FROM later")
        .await
        .expect_err("not there");
    assert_eq!(error.condition(), Some("PATH_NOT_FOUND"));
    let insert = format!(
        "INSERT INTO later OPTIONS (trigger 'available now', checkpoint '{checkpoint}') SELECT * FROM input"
    );
    session.sql(&insert).await?;
    session.sql("AWAIT STREAMING QUERY later").await?;
    let copy =
        "CREATE STREAMING TABLE copies OPTIONS (trigger 'available now') AS SELECT k FROM later";
    session.sql(copy).await?;
    session.sql("AWAIT STREAMING QUERY copies").await?;
    assert_eq!(session.table("copies").await?.count().await?, 2);
    Ok(())
}

#[tokio::test]
async fn errors_of_declarations_are_at_the_word() -> Result<()> {
    let (_folder, path) = folder();
    let session = StreamSession::new();
    for (text, line, column) in [
        (format!("CREATE UNBOUNDED EXTERNAL TABLE t\n(ts TIMESTAMP)\nSTORED AS csv\nLOCATION '{path}'\nOPTIONS (heder true)"), 5, 10),
        (format!("CREATE UNBOUNDED EXTERNAL TABLE t (ts TIMESTAMP) STORED AS\n cvs LOCATION '{path}'"), 2, 2),
        ("CREATE UNBOUNDED EXTERNAL TABLE t (ts TIMESTAMP) STORED AS csv\nLOCATION '/no/such/*/'\n OPTIONS (header maybe)".to_owned(), 3, 11),
        ("CREATE UNBOUNDED EXTERNAL TABLE t (ts TIMESTAMP,\n ts STRING) STORED AS csv".to_owned(), 2, 2),
        ("CREATE UNBOUNDED EXTERNAL TABLE t (ts TIMESTAMP) STORED AS csv\nLOCTION 'x'".to_owned(), 2, 1),
        ("CREATE TABLE t (ts TIMESTAMP) WITH (\n'conector' = 'csv')".to_owned(), 2, 1),
    ] {
        let error = session.sql(&text).await.expect_err(&text);
        assert_eq!(error.position(), Some(Position { line, column }), "{text}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_later_session_reads_what_a_query_has_committed() -> Result<()> {
    let (folder, path) = folder();
    let out = folder.path().join("out").to_string_lossy().into_owned();
    let checkpoint = folder
        .path()
        .join("checkpoint")
        .to_string_lossy()
        .into_owned();
    for run in 0..2 {
        let session = StreamSession::new();
        for statement in [
            format!(
                "CREATE UNBOUNDED EXTERNAL TABLE input (ts TIMESTAMP, k STRING) STORED AS csv LOCATION '{path}'"
            ),
            format!("CREATE EXTERNAL TABLE copies (k STRING) STORED AS csv LOCATION '{out}'"),
        ] {
            session.sql(&statement).await?;
        }
        // In the second run the file that no log names is not part of the table.
        assert_eq!(session.table("copies").await?.count().await?, 2 * run);
        let insert = format!(
            "INSERT INTO copies OPTIONS (trigger 'available now', checkpoint '{checkpoint}') SELECT k FROM input"
        );
        session.sql(&insert).await?;
        session.sql("AWAIT STREAMING QUERY copies").await?;
        assert_eq!(session.table("copies").await?.count().await?, 2);
        std::fs::write(folder.path().join("out/stray.csv"), "k\nstray\n").expect("as planned");
    }
    Ok(())
}
