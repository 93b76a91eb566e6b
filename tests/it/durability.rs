//! What the checkpoint outlives: the option `durability`, and stores that fail for a moment.

use std::sync::Arc;

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
