//! `durability` = `fsync`: which store the files go through, and what a run does first.

use std::fs;

use highwater_core::{ErrorKind, Result};
use tempfile::TempDir;

use super::*;

async fn sink(world: &World, path: &str, durable: bool) -> Result<Arc<dyn Sink>> {
    let mut spec = world.spec("text", &lines_schema(), Options::new());
    spec.path = Some(path.to_owned());
    spec.partition_by = vec!["k".into()];
    spec.durable = durable;
    world.open(spec).await
}

/// The stores that the sink writes through, the outermost first, as they tell of themselves.
async fn stores(folder: &TempDir, attempts: u32, durable: bool) -> Result<Vec<&'static str>> {
    let world = World::trying(Arc::new(InMemory::new()), attempts);
    let path = folder.path().to_string_lossy();
    let told = format!("{:?}", sink(&world, &path, durable).await?);
    let known = ["RetryStore {", "DurableStore {", "LocalFileSystem {"];
    let mut found: Vec<_> = known
        .into_iter()
        .filter_map(|name| Some((told.find(name)?, name.trim_end_matches(" {"))))
        .collect();
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

#[tokio::test]
async fn files_go_through_the_store_that_flushes_and_around_it_the_one_that_tries_again()
-> Result<()> {
    let folder = tempfile::tempdir().expect("folder");
    let all = ["RetryStore", "DurableStore", "LocalFileSystem"];
    assert_eq!(stores(&folder, 4, true).await?, all);
    assert_eq!(stores(&folder, 0, true).await?, all[1..]);
    assert_eq!(stores(&folder, 4, false).await?, [all[0], all[2]]);
    assert_eq!(stores(&folder, 0, false).await?, all[2..]);
    Ok(())
}

#[tokio::test]
async fn runs_with_and_without_write_one_result_and_nothing_of_others_is_deleted() -> Result<()> {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("a b/out");
    fs::create_dir_all(&out).expect("made");
    // What a dead run left in a folder of the checkpoint has such a name; here it may be anybody's.
    fs::write(out.join("mine#1"), "kept").expect("written");
    let world = World::new();
    for (id, durable) in [true, false, true].into_iter().enumerate() {
        let sink = sink(&world, &out.to_string_lossy(), durable).await?;
        let (id, run) = (id as u64, id as u128);
        begin(&*sink, run, Some(id)).await?;
        if let Some(before) = id.checked_sub(1) {
            // It is in the log: what comes again is pulled and dropped.
            write(&*sink, run, before, vec![lines_of(&[("x", "again")])]).await?;
        }
        let line = format!("line {id}");
        write(
            &*sink,
            run,
            id,
            vec![lines_of(&[("x", &line), ("y", &line)])],
        )
        .await?;
    }
    assert_eq!(fs::read(out.join("mine#1")).expect("there"), b"kept");
    let mut lines = Vec::new();
    for key in ["k=x", "k=y"] {
        for entry in fs::read_dir(out.join(key)).expect("folder") {
            let text = fs::read_to_string(entry.expect("entry").path()).expect("text");
            lines.push(text.trim_end().to_owned());
        }
    }
    lines.sort();
    let expected = (0..3).flat_map(|id| [format!("line {id}"), format!("line {id}")]);
    assert_eq!(lines, expected.collect::<Vec<_>>());
    let log = fs::read_dir(out.join("_spark_metadata")).expect("a log");
    assert_eq!(log.count(), 3);
    Ok(())
}

#[tokio::test]
async fn what_is_in_memory_cannot_be_durable() -> Result<()> {
    let world = World::new();
    let url = Url::parse("memory://store").expect("url");
    let runtime = world.session.runtime_env();
    runtime.register_object_store(&url, Arc::new(InMemory::new()));
    sink(&world, "memory://store/out", false).await?;
    let error = sink(&world, "memory://store/out", true).await;
    let error = error.expect_err("refused");
    let told = (error.kind(), error.option());
    assert_eq!(
        told,
        (ErrorKind::Unsupported, Some("durability")),
        "{error}"
    );
    // A store of a cloud acknowledges what is durable.
    sink(&world, OUT, true).await?;
    Ok(())
}
