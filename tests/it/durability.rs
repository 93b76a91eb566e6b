//! What checkpoint and files outlive: the option `durability`, and stores that fail for a moment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::datafusion::execution::object_store::ObjectStoreUrl;
use highwater::datafusion::object_store::memory::InMemory;
use highwater::datafusion::prelude::SessionContext;
use highwater::prelude::*;
use highwater::{ErrorKind, Result};
use highwater_core::testing::{Fault, FaultyStore};
use highwater_testkit::CollectingSink;

/// A query that counts what was added to `rows`, and runs until it has read all of it.
async fn run(rows: &MemoryStream, options: &[(&str, &str)]) -> Result<u64> {
    let counts = rows.to_frame().group_by([col("k")]).count()?;
    let mut writer = counts
        .write_stream()
        .output_mode(OutputMode::Complete)
        .sink(CollectingSink::new())
        .trigger(Trigger::AvailableNow);
    for (name, value) in options {
        writer = writer.option(*name, *value);
    }
    let query = writer.start().await?;
    query.await_termination().await?;
    let progress = query.last_progress();
    Ok(progress.map_or(0, |progress| progress.state_operators[0].num_rows_total))
}

#[tokio::test]
async fn a_checkpoint_that_is_flushed_is_gone_on_with() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "k STRING")?;
    let location = folder.path().join("a/b").to_string_lossy().into_owned();
    // Flushed, not flushed, and flushed again: it is one and the same checkpoint.
    for (n, durability) in ["fsync", "process", "FSYNC"].iter().enumerate() {
        rows.add_data([(format!("k{n}"),)])?;
        let options = [
            ("durability", *durability),
            ("checkpointLocation", &location),
        ];
        assert_eq!(run(&rows, &options).await?, n as u64 + 1);
    }
    Ok(())
}

/// Empties or deletes the files that are not `known`, which are those of the last run: it flushed its journal only.
fn lose_power(folder: &Path, empty: bool, known: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("journal") {
            continue;
        }
        if path.is_dir() {
            lose_power(&path, empty, known)?;
        } else if known.insert(path.clone()) {
            match empty {
                true => std::fs::write(&path, "")?,
                false => std::fs::remove_file(&path)?,
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_loss_of_power() -> Result<()> {
    for (empty, last) in [(true, "fsync"), (false, "fsync"), (false, "process")] {
        let folder = tempfile::tempdir()?;
        let session = StreamSession::new();
        let rows = MemoryStream::new(&session, "k STRING")?;
        let location = folder.path().to_string_lossy().into_owned();
        // Each run finds the groups of all before it, although no file of the last one was whole.
        let mut known = BTreeSet::new();
        for (n, durability) in ["fsync", "fsync", "fsync", last].iter().enumerate() {
            rows.add_data([(format!("k{n}"),)])?;
            let options = [
                ("durability", *durability),
                ("checkpointLocation", &location),
            ];
            assert_eq!(run(&rows, &options).await?, n as u64 + 1);
            if *durability == "fsync" {
                lose_power(folder.path(), empty, &mut known)?;
            }
        }
        assert_eq!(folder.path().join("journal").exists(), last == "fsync");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_durable_is_refused() -> Result<()> {
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "k STRING")?;
    for (options, kind) in [
        (vec![("durability", "always")], ErrorKind::Invalid),
        (
            vec![
                ("durability", "fsync"),
                ("checkpointLocation", "memory:///ckpt"),
            ],
            ErrorKind::Unsupported,
        ),
    ] {
        let error = run(&rows, &options).await.expect_err("refused");
        assert_eq!(
            (error.kind(), error.option()),
            (kind, Some("durability")),
            "{error}"
        );
    }
    // A sink that needs no checkpoint: nothing would be flushed.
    let writer = rows.to_frame().write_stream().format("noop");
    let error = writer.option("durability", "fsync").start().await;
    let error = error.expect_err("refused");
    assert_eq!(error.option(), Some("durability"), "{error}");
    Ok(())
}

/// A session over a store that fails, with its rows.
fn failing(attempts: &str) -> Result<(FaultyStore, StreamSession)> {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    faulty.transient(true);
    let context = SessionContext::new();
    let url = ObjectStoreUrl::parse("s3://bucket")?;
    context.register_object_store(url.as_ref(), Arc::new(faulty.clone()));
    let session = StreamSession::builder()
        .context(context)
        .config("highwater.retry_attempts", attempts)
        .config("highwater.retry_first_delay", "0 seconds")
        .build()?;
    Ok((faulty, session))
}

#[tokio::test]
async fn a_query_outlasts_a_fault_at_any_operation_of_its_checkpoint() -> Result<()> {
    let options = [
        ("checkpointLocation", "s3://bucket/ckpt"),
        ("durability", "fsync"),
    ];
    let work = async |session: &StreamSession| -> Result<u64> {
        let rows = MemoryStream::new(session, "k STRING")?;
        for k in ["a", "b"] {
            rows.add_data([(k,)])?;
            run(&rows, &options).await?;
        }
        run(&rows, &options).await
    };
    let (faulty, session) = failing("4")?;
    work(&session).await?;
    let operations = faulty.operations();
    assert!(
        operations.iter().any(|done| done.contains("commits/1")),
        "{operations:?}"
    );
    for (number, operation) in operations.iter().enumerate() {
        for fault in [Fault::Before, Fault::After] {
            let (faulty, session) = failing("4")?;
            faulty.fail(number as u64 + 1, fault);
            work(&session)
                .await
                .unwrap_or_else(|e| panic!("{fault:?} at {operation}: {e:?}"));
        }
    }
    // Switched off, the first fault ends the run.
    let (faulty, session) = failing("0")?;
    faulty.fail(1, Fault::Before);
    assert_eq!(
        work(&session).await.expect_err("not tried again").kind(),
        ErrorKind::Unavailable
    );
    Ok(())
}

/// Rows as text, in order.
async fn rows_of(frame: StreamFrame) -> Result<Vec<String>> {
    let batches = frame.collect().await?;
    let text = pretty_format_batches(&batches)?.to_string();
    let mut lines: Vec<String> = text.lines().skip(3).map(str::to_owned).collect();
    lines.retain(|line| line.starts_with('|'));
    lines.sort();
    Ok(lines)
}

/// Appends what is new of `keys` to files, with the number of each key.
async fn append(session: &StreamSession, keys: &[&str], options: &[(&str, &str)]) -> Result<()> {
    let rows = MemoryStream::new(session, "k STRING, v BIGINT")?;
    for (k, v) in keys.iter().zip(0_i64..) {
        rows.add_data([(*k, v)])?;
    }
    let frame = rows.to_frame();
    let mut writer = frame.write_stream().format("parquet").partition_by(&["k"]);
    for (name, value) in options {
        writer = writer.option(*name, *value);
    }
    let query = writer.trigger(Trigger::AvailableNow).start().await?;
    query.await_termination().await
}

#[tokio::test]
async fn files_that_are_flushed_are_the_same_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (out, ckpt) = (at("a b/out"), at("ckpt"));
    let keys = ["a", "b", "c"];
    for (n, durability) in ["fsync", "process", "fsync"].into_iter().enumerate() {
        let session = StreamSession::new();
        let options = [
            ("durability", durability),
            ("checkpointLocation", &ckpt),
            ("path", &out),
        ];
        // A source in memory begins anew in each session: what was read before is there again.
        append(&session, &keys[..=n], &options).await?;
    }
    let session = StreamSession::new();
    let all = rows_of(session.read().parquet(&out).await?).await?;
    assert_eq!(all, ["| 0 | a |", "| 1 | b |", "| 2 | c |"]);
    Ok(())
}

#[tokio::test]
async fn a_fault_at_any_operation_of_files_is_outlasted_by_their_writer_and_their_readers()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let work = async |session: &StreamSession, ckpt: &str| -> Result<()> {
        let ckpt = folder.path().join(ckpt).to_string_lossy().into_owned();
        let options = [
            ("checkpointLocation", ckpt.as_str()),
            ("path", "s3://bucket/out"),
        ];
        append(session, &["a"], &options).await?;
        let read = session.read().parquet("s3://bucket/out").await?;
        assert_eq!(rows_of(read).await?, ["| 0 | a |"]);
        Ok(())
    };
    let (faulty, session) = failing("4")?;
    work(&session, "first").await?;
    let operations = faulty.operations();
    let logged = |done: &String| done.contains("_spark_metadata/0");
    assert!(operations.iter().any(logged), "{operations:?}");
    for (number, operation) in operations.iter().enumerate() {
        for fault in [Fault::Before, Fault::After] {
            let (faulty, session) = failing("4")?;
            faulty.fail(number as u64 + 1, fault);
            work(&session, &format!("{number} {fault:?}"))
                .await
                .unwrap_or_else(|e| panic!("{fault:?} at {operation}: {e:?}"));
        }
    }
    Ok(())
}

/// How often `work` fails when each of its operations fails once.
async fn failures(faulty: &FaultyStore, work: impl AsyncFn() -> Result<()>) -> Result<usize> {
    let before = faulty.operations().len();
    work().await?;
    let operations = faulty.operations().len() - before;
    let mut failures = 0;
    for nth in 1..=operations {
        faulty.fail((faulty.operations().len() + nth) as u64, Fault::Before);
        if let Err(error) = work().await {
            let injected = format!("{error:?}").contains("a fault was injected");
            assert!(injected, "{error:?}");
            failures += 1;
        }
        // What was not reached must not wait for the next.
        faulty.heal();
    }
    Ok(failures)
}

/// Who reads files, in whatever way, tries again as the setting says, and not as by default.
#[tokio::test]
async fn the_setting_counts_for_every_reader_of_files() -> Result<()> {
    for attempts in ["0", "1"] {
        let (faulty, session) = failing(attempts)?;
        let rows = MemoryStream::new(&session, "k STRING, v BIGINT")?;
        rows.add_data([("a", 1_i64)])?;
        let folder = tempfile::tempdir()?;
        let writer = rows.to_frame().write_stream().path("s3://bucket/t");
        let writer = writer.checkpoint_location(folder.path().to_string_lossy());
        let query = writer.trigger(Trigger::AvailableNow).to_table("t").await?;
        query.await_termination().await?;
        let all = ["| a | 1 |"];
        let read = failures(&faulty, async || {
            let frame = session.read().parquet("s3://bucket/t").await?;
            assert_eq!(rows_of(frame).await?, all);
            Ok(())
        });
        let table = failures(&faulty, async || {
            assert_eq!(rows_of(session.table("t").await?).await?, all);
            Ok(())
        });
        let stream = failures(&faulty, async || {
            let stream = session.read_stream().table("t").await?;
            let query = stream.write_stream().format("noop");
            let query = query.trigger(Trigger::AvailableNow).start().await?;
            query.await_termination().await
        });
        for (what, failed) in [
            ("read", read.await?),
            ("table", table.await?),
            ("stream", stream.await?),
        ] {
            assert_eq!(failed > 0, attempts == "0", "{what}: {failed} failures");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_sets_bad_files_aside_too() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::create_dir(at("in"))?;
    std::fs::write(at("in/1.parquet"), "no Parquet")?;
    let session = StreamSession::new();
    let frame = session
        .read()
        .schema("k STRING")
        .option("badFilesPath", at("bad"))
        .parquet(at("in"))
        .await?;
    assert_eq!(frame.count().await?, 0);
    assert_eq!(std::fs::read_dir(at("bad/bad_files"))?.count(), 1);
    Ok(())
}
