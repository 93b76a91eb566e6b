//! How columns of several operators become those of one table.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use highwater_core::{BatchId, Timestamp, Watermark};

use super::*;

fn operator(name: &str, fields: &[(&str, DataType)]) -> (String, SchemaRef) {
    let fields = fields.iter().map(|(name, data_type)| {
        let mark = HashMap::from([("highwater.event_time".to_owned(), "0".to_owned())]);
        Field::new(*name, data_type.clone(), false).with_metadata(mark)
    });
    (
        name.to_owned(),
        Arc::new(Schema::new(fields.collect::<Vec<_>>())),
    )
}

#[test]
fn columns_are_united_by_name_and_lose_their_marks() {
    let united = columns(&[
        operator("dedup", &[("k", DataType::Utf8), ("v", DataType::Int64)]),
        operator(
            "aggregate",
            &[("v", DataType::Int64), ("w", DataType::Boolean)],
        ),
    ]);
    let united = united.unwrap();
    let seen: Vec<_> = united
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type().clone(), f.is_nullable()))
        .collect();
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(
        seen,
        [
            ("k", DataType::Utf8, true),
            ("v", DataType::Int64, true),
            ("w", DataType::Boolean, true),
            ("_operator", DataType::Utf8View, false),
            ("_watermark", micros, false),
            ("_batch_id", DataType::Int64, false),
        ]
    );
    assert!(united.fields().iter().all(|f| f.metadata().is_empty()));
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    for (operators, column) in [
        (
            vec![
                operator("dedup", &[("k", DataType::Utf8)]),
                operator("aggregate", &[("k", DataType::Int64)]),
            ],
            Some("k"),
        ),
        (
            vec![operator(
                "dedup",
                &[("k", DataType::Utf8), ("k", DataType::Utf8)],
            )],
            Some("k"),
        ),
        (
            vec![operator("dedup", &[("_batch_id", DataType::Int64)])],
            Some("_batch_id"),
        ),
        (vec![], None),
    ] {
        let error = columns(&operators).unwrap_err();
        assert_eq!(
            (error.option(), error.column()),
            (Some("lateRowsTo"), column)
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn rows_get_their_labels_and_nulls_for_what_they_lack() {
    let schema = columns(&[
        operator("dedup", &[("k", DataType::Utf8)]),
        operator("aggregate", &[("v", DataType::Int64)]),
    ])
    .unwrap();
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let late = Late {
        operator: "dedup".into(),
        rows: RecordBatch::try_from_iter([("k", keys)]).unwrap(),
    };
    let batch = MicroBatch {
        id: BatchId(7),
        ranges: BTreeMap::new(),
        time: Timestamp::default(),
        watermark: Watermark(9),
        late_watermark: Watermark(5),
    };
    let rows = labelled(&schema, late, &batch).unwrap();
    assert_eq!(rows.num_rows(), 2);
    assert_eq!(rows["k"].as_string::<i32>().value(1), "b");
    assert_eq!(rows["v"].null_count(), 2);
    assert_eq!(rows["_operator"].as_string_view().value(0), "dedup");
    let micros = rows["_watermark"].as_primitive::<TimestampMicrosecondType>();
    assert_eq!(micros.values(), &[5_000, 5_000]);
    assert_eq!(
        rows["_batch_id"].as_primitive::<Int64Type>().values(),
        &[7, 7]
    );
}
