//! Failures: each keeps its cause, says where it was, and ends only its own query.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::{DataFrame, col};
use highwater_core::{BatchId, Error, ErrorKind};

use super::support::{House, Numbers, Written};

/// The numbers through a function of the user that does `what` at 13.
fn through(house: &House, numbers: &Numbers, what: fn() -> DataFusionError) -> DataFrame {
    let function = move |args: &[ColumnarValue]| {
        let array = ColumnarValue::values_to_arrays(args)?.remove(0);
        let numbers = datafusion::common::cast::as_int64_array(&array)?;
        if numbers.iter().any(|n| n == Some(13)) {
            return Err(what());
        }
        Ok(ColumnarValue::Array(array))
    };
    let types = vec![DataType::Int64];
    let udf = create_udf(
        "f",
        types,
        DataType::Int64,
        Volatility::Volatile,
        Arc::new(function),
    );
    let frame = house.frame("numbers", numbers);
    frame
        .select(vec![udf.call(vec![col("n")]).alias("n")])
        .unwrap()
}

#[tokio::test]
async fn a_function_that_panics_ends_its_own_query_only() {
    let (house, numbers) = (House::new(), Numbers::new());
    let (sink, other_sink) = (Written::new(), Written::new());
    let frame = through(&house, &numbers, || panic!("unlucky"));
    let query = house
        .manager
        .start(house.request_for(frame, &sink))
        .await
        .unwrap();
    let other = house.start(&numbers, &other_sink).await;
    numbers.add([12]);
    query.process_all_available().await.unwrap();
    numbers.add([13]);
    let error = query.process_all_available().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(error.message().ends_with("unlucky"), "{error}");
    assert_eq!(error.query().unwrap().batch, Some(BatchId(1)));
    assert_eq!(query.exception().unwrap().message(), error.message());
    assert!(query.status().message.ends_with("unlucky"));
    assert_eq!(
        sink.rows(),
        [[12]],
        "nothing of the failed batch is visible"
    );
    other.process_all_available().await.unwrap();
    assert_eq!(other_sink.rows().concat(), [12, 13]);
    other.stop().await.unwrap();
}

#[tokio::test]
async fn a_function_that_fails_keeps_its_error() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let frame = through(&house, &numbers, || Error::user("no thirteen").into());
    let query = house
        .manager
        .start(house.request_for(frame, &sink))
        .await
        .unwrap();
    numbers.add([13]);
    let error = query.process_all_available().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::User, "no thirteen")
    );
    assert_eq!(error.query().unwrap().offsets, "numbers: (0, 1]");
    assert_eq!(
        query.await_termination().await.unwrap_err().message(),
        "no thirteen"
    );
    assert!(house.manager.await_any_termination().await.is_err());
}

#[tokio::test]
async fn a_source_that_fails_ends_the_query() {
    let (house, numbers, sink) = (House::new(), Numbers::new(), Written::new());
    let query = house.start(&numbers, &sink).await;
    query.process_all_available().await.unwrap();
    numbers.break_down();
    let error = query.process_all_available().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Unavailable, "the numbers are gone")
    );
    assert_eq!(error.query().unwrap().id, query.id());
    query.stop().await.unwrap();
}
