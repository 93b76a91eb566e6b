//! What the console shows.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use highwater_core::testing::contract;
use highwater_core::{BatchId, BatchOutput, Options, OutputMode, QueryId, Result, RunId, Sink};
use parking_lot::Mutex;
use uuid::Uuid;

use super::*;

/// A writer whose text can be read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn output(id: u64, rows: RecordBatch) -> BatchOutput {
    let schema = rows.schema();
    let stream = futures::stream::iter([Ok(rows)]);
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

fn rows() -> RecordBatch {
    let pumps = StringArray::from(vec![Some("a"), None, Some("the pump behind the house")]);
    let counts = Int64Array::from(vec![Some(1), Some(2), None]);
    RecordBatch::try_from_iter([("pump", Arc::new(pumps) as _), ("n", Arc::new(counts) as _)])
        .expect("a batch")
}

async fn printed(options: ConsoleSinkOptions, id: u64, rows: RecordBatch) -> Result<String> {
    let paper = Paper::default();
    let sink = ConsoleSink::with_writer(options, Box::new(paper.clone()));
    sink.write(output(id, rows)).await?;
    let bytes = paper.0.lock().clone();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn it_keeps_the_contract() -> Result<()> {
    contract::sink::all(async |_| {
        let (options, paper) = (ConsoleSinkOptions::new(), Box::new(Paper::default()));
        let sink = ConsoleSink::with_writer(options, paper);
        Ok(contract::sink::Subject::blind(Arc::new(sink)))
    })
    .await
}

#[tokio::test]
async fn a_banner_and_a_table() -> Result<()> {
    let text = printed(ConsoleSinkOptions::new(), 3, rows()).await?;
    let expected = "\
-------------------------------------------
Batch: 3
-------------------------------------------
+----------------------+------+
| pump                 | n    |
+----------------------+------+
| a                    | 1    |
| NULL                 | 2    |
| the pump behind t... | NULL |
+----------------------+------+

";
    assert_eq!(text, expected);
    Ok(())
}

#[tokio::test]
async fn an_empty_micro_batch_is_printed_too() -> Result<()> {
    let text = printed(ConsoleSinkOptions::new(), 0, rows().slice(0, 0)).await?;
    assert!(text.contains("Batch: 0"), "{text}");
    assert!(text.contains("| pump | n |"), "{text}");
    Ok(())
}

#[tokio::test]
async fn rows_beyond_the_limit_are_told_and_long_cells_kept_when_asked() -> Result<()> {
    let options = ConsoleSinkOptions::new().num_rows(2).truncate(false);
    let text = printed(options, 0, rows()).await?;
    assert!(text.ends_with("only showing top 2 rows\n\n"), "{text}");
    let options = ConsoleSinkOptions::new().truncate(false);
    let text = printed(options, 0, rows()).await?;
    assert!(text.contains("the pump behind the house"), "{text}");
    Ok(())
}

#[test]
fn options_are_checked_by_name() -> Result<()> {
    let typed = ConsoleSinkOptions::new().num_rows(5).truncate(false);
    assert_eq!(
        ConsoleSinkOptions::try_from(Options::from(typed.clone()))?,
        typed
    );
    for (name, value) in [("numRows", "-1"), ("truncate", "maybe"), ("rows", "3")] {
        let error = ConsoleSinkOptions::try_from(Options::from([(name, value)]));
        assert_eq!(error.expect_err(name).option(), Some(name));
    }
    Ok(())
}
