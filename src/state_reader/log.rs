//! The log of micro-batches as rows: what was intended, and what was done.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use futures::{StreamExt, TryStreamExt, stream};
use highwater_checkpoint::{CommitEntry, OffsetsEntry, ReadOnly};

use crate::{BatchId, OffsetRange, Result, Watermark};

/// So many entries are read at once.
const READS: usize = 32;

/// A micro-batch and one of its sources.
struct Row {
    batch: BatchId,
    intended: Option<Arc<OffsetsEntry>>,
    done: Option<Arc<CommitEntry>>,
    source: Option<(String, OffsetRange)>,
}

/// All that the logs tell.
pub(super) async fn rows(checkpoint: &ReadOnly) -> Result<RecordBatch> {
    let logged = checkpoint.logged().await?.into_iter();
    let entries = logged.map(|batch| async move {
        let (intended, done) = checkpoint.entries(batch).await?;
        Ok::<_, crate::Error>(of_batch(batch, intended, done))
    });
    let rows: Vec<Vec<Row>> = stream::iter(entries).buffered(READS).try_collect().await?;
    table(&rows.into_iter().flatten().collect::<Vec<_>>())
}

/// A row for each source; one without where the sources are not known any more.
fn of_batch(batch: BatchId, intended: Option<OffsetsEntry>, done: Option<CommitEntry>) -> Vec<Row> {
    let (intended, done) = (intended.map(Arc::new), done.map(Arc::new));
    let sources = intended.as_ref().map(|entry| entry.sources.clone());
    let mut sources: Vec<_> = sources.into_iter().flatten().map(Some).collect();
    if sources.is_empty() {
        sources.push(None);
    }
    let rows = sources.into_iter().map(|source| Row {
        batch,
        intended: intended.clone(),
        done: done.clone(),
        source,
    });
    rows.collect()
}

fn table(rows: &[Row]) -> Result<RecordBatch> {
    let text = |of: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let number = |of: &dyn Fn(&Row) -> Option<u64>| -> ArrayRef {
        let numbers = rows.iter().map(of);
        let numbers = numbers.map(|n| n.and_then(|n| i64::try_from(n).ok()));
        Arc::new(numbers.collect::<Int64Array>())
    };
    let time = |of: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<TimestampMicrosecondArray>())
    };
    let flag = |of: &dyn Fn(&Row) -> bool| -> ArrayRef {
        Arc::new(
            rows.iter()
                .map(|row| Some(of(row)))
                .collect::<BooleanArray>(),
        )
    };
    let columns = [
        ("batch_id", number(&|row| Some(row.batch.0))),
        (
            "batch_time",
            time(&|row| Some(row.intended()?.batch_time.as_micros())),
        ),
        ("committed", flag(&|row| row.done.is_some())),
        ("source", text(&|row| Some(row.source.as_ref()?.0.clone()))),
        (
            "start_offset",
            text(&|row| Some(row.source.as_ref()?.1.start.to_string())),
        ),
        (
            "end_offset",
            text(&|row| Some(row.source.as_ref()?.1.end.to_string())),
        ),
        ("watermark", time(&|row| micros(row.intended()?.watermark))),
        (
            "late_watermark",
            time(&|row| micros(row.intended()?.late_watermark)),
        ),
        (
            "next_watermark",
            time(&|row| micros(row.done.as_ref()?.next_watermark)),
        ),
        ("output_rows", number(&|row| row.done.as_ref()?.sink.rows)),
        ("state_file", text(&|row| row.done.as_ref()?.state.clone())),
        ("final", flag(&Row::is_final)),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, true)),
    )?)
}

impl Row {
    fn intended(&self) -> Option<&OffsetsEntry> {
        self.intended.as_deref()
    }

    fn is_final(&self) -> bool {
        self.intended().is_some_and(|entry| entry.is_final)
            || self.done.as_ref().is_some_and(|entry| entry.is_final)
    }
}

/// Null until there is a watermark.
fn micros(watermark: Watermark) -> Option<i64> {
    (watermark.0 > 0).then(|| watermark.as_timestamp().as_micros())
}
