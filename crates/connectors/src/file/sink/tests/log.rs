//! The log: its lines, what an id that is there means, retention, cutting.

use highwater_core::Result;
use highwater_core::testing::contract;
use highwater_core::testing::contract::sink::Subject;

use super::*;

async fn subject(format: &'static str) -> Result<Subject> {
    let world = Arc::new(World::new());
    let schema = contract::sink::schema();
    let sink = world.sink(format, &schema, Options::new()).await?;
    Ok(Subject {
        sink,
        visible: Some(Box::new(move || {
            let (world, schema) = (Arc::clone(&world), Arc::clone(&schema));
            Box::pin(async move { world.rows(format, &schema).await })
        })),
    })
}

#[tokio::test]
async fn it_keeps_the_contract() -> Result<()> {
    for format in ["parquet", "csv", "json"] {
        contract::sink::all(async |mode| {
            let subject = subject(format).await?;
            assert_eq!(subject.sink.supports(mode), mode == OutputMode::Append);
            Ok(subject)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_lines_of_the_log_are_sparks() -> Result<()> {
    let world = World::new();
    let mut spec = world.spec("parquet", &lines_schema(), Options::new());
    spec.partition_by = vec!["k".into()];
    let sink = world.open(spec).await?;
    assert_eq!(sink.description(), "FileSink[mem://store/out]");
    begin(&*sink, 1, None).await?;
    let commit = write(&*sink, 1, 0, vec![lines_of(&[("b", "1"), ("b", "2")])]).await?;
    assert_eq!(commit.rows, Some(2));
    write(&*sink, 1, 1, vec![]).await?;
    // The fields and their order: captured from Spark 4.3.0.
    let there = world.there().await?;
    let path = there.first().expect("a file").clone();
    let meta = world.store.head(&Path::parse(&path).expect("path")).await?;
    let line = format!(
        "v1\n{{\"path\":\"mem://store/{path}\",\"size\":{},\"isDir\":false,\"modificationTime\":{},\
         \"blockReplication\":1,\"blockSize\":33554432,\"action\":\"add\"}}",
        meta.size,
        meta.last_modified.timestamp_millis()
    );
    assert_eq!(world.text("out/_spark_metadata/0").await?, line);
    assert_eq!(world.text("out/_spark_metadata/1").await?, "v1");
    let (folder, name) = path.rsplit_once('/').expect("a folder");
    assert_eq!(folder, "out/k=b");
    assert!(
        name.starts_with("part-00000-") && name.ends_with(".c000.snappy.parquet"),
        "{name}"
    );
    Ok(())
}

#[tokio::test]
async fn an_id_that_the_log_has_is_pulled_and_dropped() -> Result<()> {
    let world = World::new();
    let schema = lines_schema();
    for attempt in 0..2 {
        // The second run does micro-batch 11 again, which is after the compact entry, and 3, which is in it.
        let sink = world.sink("csv", &schema, Options::new()).await?;
        begin(&*sink, attempt, (attempt > 0).then_some(11)).await?;
        let ids: Vec<u64> = if attempt == 0 {
            (0..12).collect()
        } else {
            vec![3, 11]
        };
        for id in ids {
            let commit = write(&*sink, attempt, id, vec![lines_of(&[("a", "1")])]).await?;
            assert_eq!(commit.rows, Some(1));
        }
        assert_eq!(world.lines().await?.len(), 12);
        assert_eq!(world.there().await?.len(), 12);
    }
    Ok(())
}

#[tokio::test]
async fn a_directory_of_another_query_is_refused() -> Result<()> {
    let world = World::new();
    let schema = lines_schema();
    let sink = world.sink("csv", &schema, Options::new()).await?;
    begin(&*sink, 0, None).await?;
    for id in 0..3 {
        write(&*sink, 0, id, vec![]).await?;
    }
    for (logged, fits) in [
        (None, false),
        (Some(1), false),
        (Some(2), true),
        (Some(3), true),
    ] {
        let sink = world.sink("csv", &schema, Options::new()).await?;
        assert_eq!(begin(&*sink, 1, logged).await.is_ok(), fits, "{logged:?}");
    }
    Ok(())
}

#[tokio::test]
async fn files_are_cut_at_the_most_rows() -> Result<()> {
    let world = World::new();
    let options = [("maxRowsPerFile", 4)];
    let sink = world.sink("csv", &lines_schema(), options).await?;
    begin(&*sink, 0, None).await?;
    let rows = vec![("a", "1"); 5];
    write(&*sink, 0, 0, vec![lines_of(&rows), lines_of(&rows)]).await?;
    let mut counts = Vec::new();
    for file in world.named().await? {
        counts.push(world.text(&path_of(&file)).await?.lines().count());
    }
    assert_eq!(counts, [4, 4, 2]);
    let names: Vec<_> = world.named().await?.iter().map(path_of).collect();
    assert!(names[2].ends_with("-c002.csv"), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_older_than_the_retention_leaves_the_log_and_stays_on_disk() -> Result<()> {
    let world = World::new();
    let sink = world
        .sink("csv", &lines_schema(), [("retention", "1 hour")])
        .await?;
    begin(&*sink, 0, None).await?;
    for id in 0..19 {
        write(&*sink, 0, id, vec![lines_of(&[("a", &format!("{id}"))])]).await?;
        if id == 0 {
            // Files have the store's time, so the clock is set by it: just in time, then too late by much.
            let written = world.named().await?[0].modification_time;
            let since = u64::try_from(written).expect("after 1970") + 3_599_000;
            world.clock.advance(Duration::from_millis(since))?;
        }
    }
    assert_eq!(
        world.named().await?.len(),
        19,
        "none is an hour old at entry 9"
    );
    world.clock.advance("2 hours")?;
    write(&*sink, 0, 19, vec![lines_of(&[("a", "19")])]).await?;
    assert_eq!(world.lines().await?, ["a,19"]);
    assert_eq!(world.there().await?.len(), 20);
    Ok(())
}
