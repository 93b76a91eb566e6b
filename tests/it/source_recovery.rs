//! What sources remember: a run that dies at any operation of its checkpoint is gone on with, and no row comes twice
//! or never.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater::arrow::array::AsArray;
use highwater::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use highwater::datafusion::execution::object_store::ObjectStoreUrl;
use highwater::datafusion::object_store::memory::InMemory;
use highwater::datafusion::prelude::SessionContext;
use highwater::prelude::*;
use highwater::{ErrorKind, Result, Sink, Timestamp};
use highwater_core::testing::FaultyStore;
use highwater_testkit::{CollectingSink, ManualClock};

/// A checkpoint in a store that fails, a clock, and the sink that outlives the runs.
struct World {
    store: FaultyStore,
    clock: ManualClock,
    sink: Arc<CollectingSink>,
}

impl World {
    fn new() -> Result<Self> {
        Ok(Self {
            store: FaultyStore::new(Arc::new(InMemory::new())),
            clock: ManualClock::at("2024-05-01 12:00:00")?,
            sink: CollectingSink::new(),
        })
    }

    /// A session as a new process has it.
    fn session(&self) -> Result<StreamSession> {
        let context = SessionContext::new();
        let url = ObjectStoreUrl::parse("s3://bucket")?;
        context.register_object_store(url.as_ref(), Arc::new(self.store.clone()));
        let clock = self.clock.clone();
        StreamSession::builder()
            .context(context)
            .clock(clock)
            .build()
    }

    /// Runs the query until it has read what there is.
    async fn run(&self, frame: StreamFrame) -> Result<()> {
        let query = frame
            .write_stream()
            .sink(Arc::clone(&self.sink) as Arc<dyn Sink>)
            .checkpoint_location("s3://bucket/ckpt")
            .trigger(Trigger::AvailableNow)
            .start()
            .await?;
        query.await_termination().await
    }

    /// Runs the query and kills it at the `nth` operation of its checkpoint, counted from now; true when it came so far.
    async fn killed(&self, nth: usize, run: impl Future<Output = Result<()>>) -> bool {
        let before = self.store.operations().len();
        self.store.fail_from((before + nth) as u64);
        drop(run.await);
        self.store.heal();
        self.store.operations().len() >= before + nth
    }

    /// The first columns, numbers, of all rows in the order in which they came.
    fn numbers(&self) -> Vec<i64> {
        let written = self.sink.take_new().into_iter();
        let batches = written.flat_map(|written| written.rows);
        batches
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }
}

#[tokio::test]
async fn the_rate_source_goes_on_from_the_time_it_began() -> Result<()> {
    let mut kills = 0;
    for nth in 1.. {
        let world = World::new()?;
        let rate = async || {
            let reader = world.session()?.read_stream().format("rate");
            let frame = reader.option("rowsPerSecond", 5).load().await?;
            frame.select_exprs(&["value", "timestamp"])
        };
        // It begins at 12:00:00, before the first row.
        world.run(rate().await?).await?;
        world.clock.advance("3 seconds")?;
        let killed = world
            .killed(nth, async { world.run(rate().await?).await })
            .await;
        // The rows of the time it was away are made all the same.
        world.clock.advance("4 seconds")?;
        world.run(rate().await?).await?;
        let mut rows = Vec::new();
        for written in world.sink.take_new() {
            for batch in written.rows {
                let values = batch
                    .column(0)
                    .as_primitive::<Int64Type>()
                    .values()
                    .to_vec();
                let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
                rows.extend(values.into_iter().zip(times.values().to_vec()));
            }
        }
        let began = "2024-05-01 12:00:00".parse::<Timestamp>()?.as_micros();
        // Five rows a second for seven seconds, evenly apart.
        let expected: Vec<(i64, i64)> = (0..35).map(|n| (n, began + n * 200_000)).collect();
        assert_eq!(rows, expected, "killed at operation {nth}");
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 8, "only {kills} operations");
    Ok(())
}

fn write(folder: &Path, n: i64) {
    fs::write(folder.join(format!("{n}.csv")), format!("{n}\n")).expect("written");
}

#[tokio::test]
async fn the_file_source_reads_each_file_once_wherever_a_run_dies() -> Result<()> {
    let mut kills = 0;
    for nth in 1.. {
        let world = World::new()?;
        let folder = tempfile::tempdir()?;
        let files = async || {
            let reader = world.session()?.read_stream().schema("id BIGINT");
            let reader = reader.option("maxFilesPerTrigger", 2);
            reader.csv(folder.path().to_string_lossy()).await
        };
        (0..5).for_each(|n| write(folder.path(), n));
        let killed = world
            .killed(nth, async { world.run(files().await?).await })
            .await;
        // What was taken, and not read, is read as it was taken; what is new comes after it.
        (5..7).for_each(|n| write(folder.path(), n));
        world.run(files().await?).await?;
        let mut ids = world.numbers();
        ids.sort_unstable();
        assert_eq!(ids, (0..7).collect::<Vec<_>>(), "killed at operation {nth}");
        // Nothing is read again by a further run.
        world.run(files().await?).await?;
        assert!(world.numbers().is_empty(), "killed at operation {nth}");
        if !killed {
            break;
        }
        kills += 1;
    }
    // Three micro-batches, each with an entry in three logs at least.
    assert!(kills > 15, "only {kills} operations");
    Ok(())
}

#[tokio::test]
async fn the_memory_source_gives_the_same_rows_again() -> Result<()> {
    let mut kills = 0;
    for nth in 1.. {
        let world = World::new()?;
        let session = world.session()?;
        let rows = MemoryStream::new(&session, "id BIGINT")?;
        rows.add_data([(1,), (2,)])?;
        rows.add_data([(3,)])?;
        let killed = world.killed(nth, world.run(rows.to_frame())).await;
        rows.add_data([(4,)])?;
        world.run(rows.to_frame()).await?;
        assert_eq!(world.numbers(), [1, 2, 3, 4], "killed at operation {nth}");
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 8, "only {kills} operations");

    // Its rows end with the process: another one says so, and does not make up a result.
    let world = World::new()?;
    let session = world.session()?;
    let rows = MemoryStream::new(&session, "id BIGINT")?;
    rows.add_data([(1,)])?;
    world.run(rows.to_frame()).await?;
    let session = world.session()?;
    let empty = MemoryStream::new(&session, "id BIGINT")?;
    let error = world
        .run(empty.to_frame())
        .await
        .expect_err("rows are gone");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    Ok(())
}

#[tokio::test]
async fn the_progress_names_a_file_that_was_set_aside() -> Result<()> {
    let world = World::new()?;
    let folder = tempfile::tempdir()?;
    for (name, text) in [("1.csv", "1\n"), ("2.csv", "two\n")] {
        fs::create_dir_all(folder.path().join("in"))?;
        fs::write(folder.path().join("in").join(name), text)?;
    }
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let frame = world
        .session()?
        .read_stream()
        .schema("id BIGINT")
        .option("mode", "FAILFAST")
        .option("badFilesPath", at("bad"))
        .csv(at("in"))
        .await?;
    let query = frame
        .write_stream()
        .sink(Arc::clone(&world.sink) as Arc<dyn Sink>)
        .checkpoint_location("s3://bucket/ckpt")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;
    query.await_termination().await?;
    assert_eq!(world.numbers(), [1]);
    let progress = query.last_progress().expect("a micro-batch");
    let bad = progress.sources[0].metrics.get("badFiles");
    assert!(
        bad.is_some_and(|files| files.ends_with("/in/2.csv\"]")),
        "{bad:?}"
    );
    assert_eq!(fs::read_dir(at("bad/bad_files"))?.count(), 1);
    Ok(())
}
