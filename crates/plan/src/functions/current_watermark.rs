//! `current_watermark()`: the watermark that the running micro-batch closes windows with.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use highwater_core::{Error, Watermark};

use crate::cell::BatchCell;
use crate::event_time::micros;

const CURRENT_WATERMARK: &str = "current_watermark";

/// The watermark that the running micro-batch closes windows with, a timestamp in UTC; null until it has moved.
/// In the final micro-batch of `flushOnEnd`, which closes all there is, it is that of the micro-batch before.
///
/// A query that is not running has none.
#[must_use]
pub fn current_watermark() -> Expr {
    current_watermark_udf().call(Vec::new())
}

/// The function `current_watermark`, for registration; no query is running yet.
pub(super) fn current_watermark_udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(CurrentWatermark::new(None)))
}

/// The function that stands for `udf` in the query of `cell`, where `udf` is `current_watermark`.
pub(super) fn bound(udf: &ScalarUDF, cell: &BatchCell) -> Option<ScalarUDF> {
    udf.inner()
        .is::<CurrentWatermark>()
        .then(|| ScalarUDF::new_from_impl(CurrentWatermark::new(Some(cell.clone()))))
}

#[derive(Debug)]
struct CurrentWatermark {
    cell: Option<BatchCell>,
    signature: Signature,
}

impl CurrentWatermark {
    fn new(cell: Option<BatchCell>) -> Self {
        Self {
            cell,
            signature: Signature::nullary(Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for CurrentWatermark {
    fn name(&self) -> &str {
        CURRENT_WATERMARK
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, None))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(cell) = &self.cell else {
            return Err(
                Error::unsupported("current_watermark() outside a streaming query")
                    .with_operator(CURRENT_WATERMARK)
                    .with_hint("use it in a query that is started with write_stream().start()")
                    .into(),
            );
        };
        let numbers = cell.numbers();
        let watermark = match numbers.watermark {
            Watermark::END => numbers.late_watermark,
            ordinary => ordinary,
        };
        let micros = (watermark.0 != 0).then(|| micros(watermark));
        let value = ScalarValue::TimestampMicrosecond(micros, None);
        Ok(ColumnarValue::Scalar(value))
    }
}

impl PartialEq for CurrentWatermark {
    fn eq(&self, other: &Self) -> bool {
        self.cell.is_some() == other.cell.is_some()
    }
}

impl Eq for CurrentWatermark {}

impl Hash for CurrentWatermark {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cell.is_some().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use highwater_core::{
        BatchId, MicroBatch, Offset, OffsetRange, OutputMode, Timestamp, Watermark,
    };

    use super::*;
    use crate::testing::{Fixture, lines};

    #[tokio::test]
    async fn it_is_the_watermark_of_the_micro_batch() {
        let fixture = Fixture::new();
        fixture.events.add(&[(Some(0), "a", 1)]);
        let text = "SELECT v, current_watermark() AS w FROM events WHERE current_watermark() IS NULL OR v = 1";
        let plan = fixture
            .plan(text, OutputMode::Append)
            .await
            .expect("planned");
        // The watermark before is another one: it judges late rows.
        for (watermark, expected) in [(0, "1|"), (61_005, "1|1970-01-01T00:01:01.005")] {
            let range = OffsetRange::new(Offset::from(0), Offset::from(1));
            let sources = plan.sources().into_iter();
            let batch = MicroBatch {
                id: BatchId(0),
                ranges: sources.map(|s| (s.name, range.clone())).collect(),
                time: Timestamp::from_millis(0),
                watermark: Watermark(watermark),
                late_watermark: Watermark(7),
            };
            plan.open(&batch).expect("opened");
            let rows = plan.execute().expect("started");
            let rows: Vec<_> = rows.try_collect().await.expect("run");
            assert_eq!(lines(&rows), [expected]);
        }
    }

    #[tokio::test]
    async fn outside_a_streaming_query_there_is_none() {
        let frame = Fixture::new().ctx.sql("SELECT current_watermark()").await;
        let error = frame
            .expect("planned")
            .collect()
            .await
            .expect_err("no query");
        let error = Error::from(error);
        assert!(
            error.message().contains("outside a streaming query"),
            "{error}"
        );
    }
}
