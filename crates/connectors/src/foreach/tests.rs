//! The user's code is called in order, and at the right times.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use highwater_core::testing::contract;
use highwater_core::{
    BatchId, BatchOutput, Error, ErrorKind, OutputMode, QueryId, Result, RunId, Sink, SinkCommit,
};
use parking_lot::Mutex;
use uuid::Uuid;

use super::*;

type Notes = Arc<Mutex<Vec<String>>>;
type Item = Result<RecordBatch, DataFusionError>;

/// Writes down what is called; what it answers is told by the batch id.
struct Witness(Notes);

impl ForeachWriter for Witness {
    async fn open(&mut self, partition: u64, batch: BatchId) -> Result<bool> {
        self.0.lock().push(format!("open {partition} {batch}"));
        match batch.0 {
            9 => Err(Error::user("no door")),
            id => Ok(id != 7),
        }
    }

    async fn process(&mut self, rows: RecordBatch) -> Result<()> {
        self.0.lock().push(format!("process {}", rows.num_rows()));
        match rows.num_rows() {
            13 => Err(Error::user("bad luck")),
            _ => Ok(()),
        }
    }

    async fn close(&mut self, error: Option<&Error>) -> Result<()> {
        let error = error.map_or("well", |e| e.message()).to_owned();
        self.0.lock().push(format!("close {error}"));
        Ok(())
    }
}

fn rows(n: i64) -> RecordBatch {
    let column = Int64Array::from_iter_values(0..n);
    RecordBatch::try_from_iter([("n", Arc::new(column) as _)]).expect("a batch")
}

fn output(id: u64, items: Vec<Item>) -> BatchOutput {
    let schema = rows(0).schema();
    let stream = futures::stream::iter(items);
    BatchOutput {
        id: BatchId(id),
        query_id: QueryId(Uuid::nil()),
        run_id: RunId(Uuid::nil()),
        mode: OutputMode::Append,
        schema: Arc::clone(&schema),
        keys: None,
        stream: Box::pin(RecordBatchStreamAdapter::new(schema, stream)),
    }
}

async fn witness(output: BatchOutput) -> (Vec<String>, Result<SinkCommit>) {
    let notes = Notes::default();
    let own = Arc::clone(&notes);
    let sink = ForeachSink::new(move || Witness(Arc::clone(&own)));
    let written = sink.write(output).await;
    let notes = notes.lock().clone();
    (notes, written)
}

#[tokio::test]
async fn a_writer_opens_processes_and_closes() {
    let failed = || Err(DataFusionError::from(Error::unavailable("no source")));
    let cases: [(u64, Vec<Item>, &[&str]); 6] = [
        (
            0,
            vec![Ok(rows(2)), Ok(rows(0)), Ok(rows(1))],
            &["open 0 0", "process 2", "process 1", "close well"],
        ),
        (1, vec![], &["open 0 1", "close well"]),
        (7, vec![Ok(rows(2))], &["open 0 7", "close well"]),
        (
            2,
            vec![Ok(rows(1)), failed()],
            &["open 0 2", "process 1", "close no source"],
        ),
        (
            3,
            vec![Ok(rows(13)), Ok(rows(1))],
            &["open 0 3", "process 13", "close bad luck"],
        ),
        (9, vec![Ok(rows(1))], &["open 0 9"]),
    ];
    for (id, items, expected) in cases {
        let (notes, written) = witness(output(id, items)).await;
        assert_eq!(notes, expected);
        assert_eq!(written.is_ok(), ![2, 3, 9].contains(&id), "batch {id}");
    }
}

#[tokio::test]
async fn both_keep_the_contract() -> Result<()> {
    contract::sink::all(async |_| {
        let sink = ForeachSink::new(|| Witness(Notes::default()));
        Ok(contract::sink::Subject::blind(Arc::new(sink)))
    })
    .await?;
    contract::sink::all(async |_| {
        let context = SessionContext::new();
        let sink = ForeachBatchSink::new(context, |_, _| async { Ok(()) });
        Ok(contract::sink::Subject::blind(Arc::new(sink)))
    })
    .await
}

#[tokio::test]
async fn a_frame_has_the_columns_also_when_it_is_empty_and_runs_twice() -> Result<()> {
    let notes = Notes::default();
    let own = Arc::clone(&notes);
    let sink = ForeachBatchSink::new(SessionContext::new(), move |frame, id| {
        let notes = Arc::clone(&own);
        async move {
            let names = frame.schema().field_names().join(",");
            let (first, second) = (frame.clone().count().await?, frame.count().await?);
            notes.lock().push(format!("{id}: {names} {first} {second}"));
            Ok(())
        }
    });
    sink.write(output(0, vec![Ok(rows(2)), Ok(rows(3))]))
        .await?;
    sink.write(output(1, vec![])).await?;
    let written = notes.lock().clone();
    assert_eq!(written, ["0: ?table?.n 5 5", "1: ?table?.n 0 0"]);
    Ok(())
}

#[tokio::test]
async fn an_error_of_the_users_comes_out_as_it_is() {
    let sink = ForeachBatchSink::new(SessionContext::new(), |_, _| async {
        Err(Error::user("no space left"))
    });
    let error = sink.write(output(0, vec![])).await.expect_err("failed");
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::User, "no space left")
    );
}
