//! The suites find what is broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::sink::Subject;
use super::{sink, source};
use crate::{
    BatchOutput, Guarantee, Offset, OutputMode, ReadLimit, ReadRequest, Result, Sink, SinkCommit,
    Source, SourceTraits,
};

/// The numbers 0 to 9, and one way to be wrong.
#[derive(Debug)]
struct Numbers {
    flaw: &'static str,
    reads: AtomicU64,
}

const TEN: u64 = 10;

#[async_trait]
impl Source for Numbers {
    fn description(&self) -> String {
        format!("numbers, {}", self.flaw)
    }

    fn schema(&self) -> SchemaRef {
        let nullable = self.flaw != "not nullable";
        let field = |name| Field::new(name, DataType::Int64, nullable);
        Arc::new(Schema::new(vec![field("n"), field("twice")]))
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: true,
            bounded: true,
        }
    }

    async fn initial_offset(&self) -> Result<Offset> {
        Ok(Offset::from(0))
    }

    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        let start: u64 = start.parse()?;
        let mut end = TEN;
        if let (Some(upto), true) = (upto, self.flaw != "goes beyond the pinned end") {
            end = end.min(upto.parse()?);
        }
        match (limit, self.flaw) {
            (_, "goes beyond the pinned end") | (ReadLimit::All, _) => {}
            (_, "is stuck") => end = start,
            (ReadLimit::MaxRows(3), "takes too much") => {}
            (ReadLimit::MaxRows(most), _) => end = end.min(start + most),
            _ => {}
        }
        Ok(Offset::from(end))
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let start: i64 = request.range.start.parse()?;
        let end: i64 = request.range.end.parse()?;
        let again = self.reads.fetch_add(1, Ordering::Relaxed) > 0;
        let end = match self.flaw {
            "forgets rows" if again => end.min(5),
            "has rows in an empty range" => end.max(start + 1),
            _ => end,
        };
        let n = Int64Array::from_iter_values(start..end);
        let twice = Int64Array::from_iter_values((start..end).map(|n| 2 * n));
        let mut batch = RecordBatch::try_new(self.schema(), vec![Arc::new(n), Arc::new(twice)])?;
        if let (Some(columns), true) = (&request.projection, self.flaw != "ignores projections") {
            batch = batch.project(columns)?;
        }
        let items = stream::iter([Ok(batch.clone())]);
        let stream = RecordBatchStreamAdapter::new(batch.schema(), items);
        Ok(vec![Box::pin(stream)])
    }

    async fn changed(&self) {
        if self.flaw == "sleeps" {
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test]
async fn a_broken_source_is_found() {
    for (flaw, told) in [
        ("none", None),
        ("not nullable", Some("column `n` is not nullable")),
        (
            "goes beyond the pinned end",
            Some("pinned to 0, the latest offset is 10"),
        ),
        ("is stuck", Some("it is stuck at 0 before 10")),
        (
            "takes too much",
            Some("under a limit of 3 rows, 10 rows came"),
        ),
        ("forgets rows", Some("the same range gives other rows")),
        (
            "has rows in an empty range",
            Some("the empty range at 0 has rows"),
        ),
        ("ignores projections", Some("a stream has")),
        ("sleeps", Some("`changed` sleeps")),
    ] {
        let checked = source::all(async || {
            let reads = AtomicU64::new(0);
            Ok(Arc::new(Numbers { flaw, reads }) as Arc<dyn Source>)
        });
        let error = checked.await.err().map(|e| e.message().to_owned());
        match told {
            None => assert_eq!(error, None),
            Some(told) => assert!(error.is_some_and(|e| e.contains(told)), "{flaw}"),
        }
    }
}

/// A list of rows, and one way to be wrong.
#[derive(Debug)]
struct List {
    flaw: &'static str,
    rows: Mutex<Vec<RecordBatch>>,
    last: Mutex<Option<u64>>,
}

#[async_trait]
impl Sink for List {
    fn description(&self) -> String {
        format!("list, {}", self.flaw)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn supports(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append && self.flaw != "supports nothing"
    }

    async fn write(&self, output: BatchOutput) -> Result<SinkCommit> {
        let id = output.id.0;
        let again = self.last.lock().is_some_and(|last| id <= last);
        if again && self.flaw == "skips without running" {
            return Ok(SinkCommit::default());
        }
        if self.flaw == "shows halves" {
            let mut stream = output.stream;
            while let Some(batch) = stream.next().await {
                self.rows.lock().push(batch?);
            }
            return Ok(SinkCommit::default());
        }
        let rows: Vec<RecordBatch> = output.stream.try_collect().await?;
        if !again || self.flaw == "shows twice" {
            self.rows.lock().extend(rows);
            *self.last.lock() = Some(id);
        }
        let told = if self.flaw == "miscounts" {
            Some(77)
        } else {
            None
        };
        Ok(SinkCommit { rows: told })
    }
}

#[tokio::test]
async fn a_broken_sink_is_found() {
    for (flaw, told) in [
        ("none", None),
        ("supports nothing", Some("it supports no output mode")),
        ("skips without running", Some("was not pulled to its end")),
        ("shows halves", Some("visible twice")),
        ("shows twice", Some("visible twice")),
        ("miscounts", Some("of 2 rows it says")),
    ] {
        let checked = sink::all(async |_| {
            let list = Arc::new(List {
                flaw,
                rows: Mutex::default(),
                last: Mutex::default(),
            });
            let eyes = Arc::clone(&list);
            Ok(Subject::seen(list, move || eyes.rows.lock().clone()))
        });
        let error = checked.await.err().map(|e| e.message().to_owned());
        match told {
            None => assert_eq!(error, None),
            Some(told) => assert!(error.is_some_and(|e| e.contains(told)), "{flaw}"),
        }
    }
}
