//! What you learn: a source of your own is one trait: where it begins, how far it may go, and the
//! rows of a range. Triggers, limits, retries and progress are the engine's.
//!
//! `cargo run --release --example custom_source`

use std::sync::Arc;

use highwater::datafusion::arrow::array::{Int64Array, RecordBatch};
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::datafusion::execution::SendableRecordBatchStream;
use highwater::datafusion::physical_plan::memory::MemoryStream as Batches;
use highwater::prelude::*;
use highwater::{
    IntoSchema, Offset, ReadLimit, ReadRequest, Result, Source, SourceTraits, async_trait,
};

/// The numbers from 1 to `last`; an offset is the last number read.
#[derive(Debug)]
struct Numbers {
    schema: SchemaRef,
    last: i64,
}

#[async_trait]
impl Source for Numbers {
    fn description(&self) -> String {
        format!("Numbers(1..={})", self.last)
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn traits(&self) -> SourceTraits {
        SourceTraits {
            replayable: true, // the same range is the same numbers, always
            bounded: true,
        }
    }

    fn read_limit(&self) -> ReadLimit {
        ReadLimit::MaxRows(250) // so 1000 numbers take four micro-batches
    }

    async fn initial_offset(&self) -> Result<Offset> {
        Offset::new(&0)
    }

    async fn latest_offset(
        &self,
        start: &Offset,
        limit: &ReadLimit,
        upto: Option<&Offset>,
    ) -> Result<Offset> {
        let start: i64 = start.parse()?;
        let end = upto.map_or(Ok(self.last), Offset::parse)?;
        match limit {
            ReadLimit::MaxRows(rows) => Offset::new(&end.min(start.saturating_add_unsigned(*rows))),
            _ => Offset::new(&end),
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<Vec<SendableRecordBatchStream>> {
        let (start, end): (i64, i64) = (request.range.start.parse()?, request.range.end.parse()?);
        let numbers = Int64Array::from_iter_values(start + 1..=end);
        let rows = RecordBatch::try_new(self.schema(), vec![Arc::new(numbers)])?;
        let rows = match &request.projection {
            Some(columns) => rows.project(columns)?,
            None => rows,
        };
        let schema = rows.schema();
        Ok(vec![Box::pin(Batches::try_new(vec![rows], schema, None)?)])
    }

    async fn changed(&self) {
        std::future::pending().await // nothing is ever added
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let session = StreamSession::new();
    let schema = "n BIGINT".into_schema()?;
    let numbers = Arc::new(Numbers { schema, last: 1000 });
    let numbers = session.read_stream().source(numbers).load().await?;
    let query = numbers
        .group_by([(col("n") % lit(3)).alias("rest")])
        .agg([sum(col("n")).alias("total")])?
        .write_stream()
        .output_mode(OutputMode::Update)
        .format("console")
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;
    query.await_termination().await
}
