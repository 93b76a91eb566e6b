//! What `foreach`, `foreach_batch` and the memory sink promise after a failure (Spark, 2.23 and 2.26).

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater::arrow::array::RecordBatch;
use highwater::prelude::*;
use highwater::{ErrorKind, Result};
use parking_lot::Mutex;
use tempfile::TempDir;

/// An input of CSV files `v`, and a checkpoint.
struct House(TempDir);

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("in")).expect("made");
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn put(&self, name: &str, rows: &str) {
        fs::write(self.path(&format!("in/{name}")), rows).expect("written");
    }

    async fn input(&self, session: &StreamSession) -> Result<StreamFrame> {
        let reader = session.read_stream().schema("v BIGINT");
        reader.csv(self.path("in")).await
    }

    async fn run(&self, writer: highwater::DataStreamWriter) -> Result<()> {
        let writer = writer.trigger(Trigger::AvailableNow);
        let query = writer
            .checkpoint_location(self.path("ckpt"))
            .start()
            .await?;
        query.await_termination().await
    }
}

type Notes = Arc<Mutex<Vec<String>>>;

#[tokio::test]
async fn foreach_batch_gets_the_same_batch_again_under_the_same_id() -> Result<()> {
    let (house, notes) = (House::new(), Notes::default());
    house.put("1.csv", "1\n2\n");
    for (fails, ends) in [(true, false), (false, true), (false, true)] {
        let session = StreamSession::new();
        let own = Arc::clone(&notes);
        let writer = house.input(&session).await?.write_stream();
        let writer = writer.foreach_batch(move |frame, id| {
            let notes = Arc::clone(&own);
            async move {
                let rows = frame.count().await?;
                notes.lock().push(format!("{id}: {rows}"));
                match fails {
                    true => Err(Error::user("no space left")),
                    false => Ok(()),
                }
            }
        });
        let ended = house.run(writer).await;
        assert_eq!(ended.is_ok(), ends);
        if let Err(error) = ended {
            assert_eq!(
                (error.kind(), error.message()),
                (ErrorKind::User, "no space left")
            );
        }
        // What comes after the failure is not in the batch that runs again.
        house.put(&format!("{}.csv", 2 + notes.lock().len()), "3\n");
    }
    let expected = ["0: 2", "0: 2", "1: 1", "2: 1"];
    assert_eq!(*notes.lock(), expected);
    Ok(())
}

/// A store that takes a batch id once makes `foreach_batch` exactly-once.
#[tokio::test]
async fn a_store_keyed_by_the_batch_id_has_each_row_once() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "1\n2\n");
    let store: Arc<Mutex<BTreeMap<u64, usize>>> = Arc::default();
    let died = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let session = StreamSession::new();
        let (store, died) = (Arc::clone(&store), Arc::clone(&died));
        let writer = house.input(&session).await?.write_stream();
        let writer = writer.foreach_batch(move |frame, id| {
            let (store, died) = (Arc::clone(&store), Arc::clone(&died));
            async move {
                let rows = frame.count().await?;
                store.lock().insert(id.0, rows);
                match died.swap(true, Ordering::Relaxed) {
                    false => Err(Error::user("died after it wrote")),
                    true => Ok(()),
                }
            }
        });
        house.run(writer).await.ok();
    }
    assert_eq!(*store.lock(), BTreeMap::from([(0, 2)]));
    Ok(())
}

/// Spark calls the function for batches without data too, which release what the watermark closed.
#[tokio::test]
async fn foreach_batch_gets_batches_without_data() -> Result<()> {
    let session = StreamSession::new();
    let stream = MemoryStream::new(&session, "ts TIMESTAMP")?;
    let notes = Notes::default();
    let own = Arc::clone(&notes);
    let query = stream
        .to_frame()
        .with_watermark("ts", "0 seconds")?
        .group_by([window(col("ts"), "10 seconds")])
        .count()?
        .write_stream()
        .foreach_batch(move |frame, id| {
            let notes = Arc::clone(&own);
            async move {
                let rows = frame.count().await?;
                notes.lock().push(format!("{id}: {rows}"));
                Ok(())
            }
        })
        .start()
        .await?;
    for ts in ["2024-05-01 00:00:01", "2024-05-01 00:00:12"] {
        stream.add_data([(ts,)])?;
        query.process_all_available().await?;
    }
    query.stop().await?;
    // 0 and 2 take a row each. After both the watermark has risen, so 1 and 3 run without data (2.4); in 1 it is at
    // second 1 and closes nothing, in 3 at second 12, which closes the first window.
    assert_eq!(*notes.lock(), ["0: 0", "1: 0", "2: 0", "3: 1"]);
    Ok(())
}

/// Writes down what is called.
struct Witness {
    notes: Notes,
    fails: bool,
    wanted: bool,
}

impl ForeachWriter for Witness {
    async fn open(&mut self, partition: u64, batch: BatchId) -> Result<bool> {
        self.notes.lock().push(format!("open {partition} {batch}"));
        Ok(self.wanted)
    }

    async fn process(&mut self, rows: RecordBatch) -> Result<()> {
        self.notes
            .lock()
            .push(format!("process {}", rows.num_rows()));
        match self.fails {
            true => Err(Error::user("bad luck")),
            false => Ok(()),
        }
    }

    async fn close(&mut self, error: Option<&Error>) -> Result<()> {
        let error = error.map_or("well", |e| e.message()).to_owned();
        self.notes.lock().push(format!("close {error}"));
        Ok(())
    }
}

#[tokio::test]
async fn foreach_closes_with_the_error_and_gets_the_batch_again() -> Result<()> {
    let (house, notes) = (House::new(), Notes::default());
    house.put("1.csv", "1\n2\n");
    for (fails, wanted) in [(true, true), (false, false), (false, true)] {
        let session = StreamSession::new();
        let own = Arc::clone(&notes);
        let writer = house.input(&session).await?.write_stream();
        let ended = house.run(writer.foreach(move || Witness {
            notes: Arc::clone(&own),
            fails,
            wanted,
        }));
        match ended.await {
            Err(error) => assert!(fails && error.message() == "bad luck", "{error}"),
            Ok(()) => assert!(!fails),
        }
        if !wanted {
            house.put("2.csv", "3\n");
        }
    }
    let expected = [
        ["open 0 0", "process 2", "close bad luck"].as_slice(),
        // Not wanted: the rows are passed over, and the batch counts as done.
        &["open 0 0", "close well"],
        &["open 0 1", "process 1", "close well"],
    ];
    assert_eq!(*notes.lock(), expected.concat());
    Ok(())
}

#[tokio::test]
async fn the_memory_sink_is_rebuilt_from_state_in_complete_mode_only() -> Result<()> {
    for (mode, second) in [
        (OutputMode::Complete, Ok(2)),
        (OutputMode::Update, Err("does not support recovering")),
        (OutputMode::Append, Err("does not support recovering")),
    ] {
        let house = House::new();
        for (number, expected) in [(1, Ok(1)), (2, second)] {
            house.put(&format!("{number}.csv"), &format!("{number}\n"));
            let session = StreamSession::new();
            let input = house.input(&session).await?;
            let frame = match mode {
                OutputMode::Append => input,
                _ => input.group_by([col("v")]).count()?,
            };
            let writer = frame.write_stream().output_mode(mode);
            let ended = house.run(writer.format("memory").query_name("seen")).await;
            match (ended, expected) {
                (Ok(()), Ok(rows)) => {
                    assert_eq!(session.table("seen").await?.count().await?, rows, "{mode}");
                }
                (Err(error), Err(text)) => {
                    assert!(error.message().contains(text), "{mode}: {error}");
                    assert!(
                        error.hint().unwrap_or_default().contains("offsets"),
                        "{mode}"
                    );
                }
                (ended, expected) => panic!("{mode}: {ended:?}, not {expected:?}"),
            }
        }
    }
    Ok(())
}
