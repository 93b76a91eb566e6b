//! What is refused at the start, by which name.

use highwater_core::{Error, ErrorKind};

use super::*;

async fn refused(world: &World, spec: SinkSpec) -> Error {
    world.open(spec).await.expect_err("refused")
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns
        .iter()
        .map(|(name, of)| Field::new(*name, of.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[tokio::test]
async fn columns_that_cannot_make_folders_are_refused_with_sparks_conditions() {
    let world = World::new();
    let list = DataType::new_list(DataType::Int64, true);
    let schema = schema(&[("k", DataType::Utf8), ("l", list), ("n", DataType::Int64)]);
    for (by, condition) in [
        (&["z"][..], "PARTITION_COLUMN_NOT_FOUND_IN_SCHEMA"),
        (&["l"], "INVALID_PARTITION_COLUMN_DATA_TYPE"),
        (&["k", "K"], "COLUMN_ALREADY_EXISTS"),
    ] {
        let mut spec = world.spec("parquet", &schema, Options::new());
        spec.partition_by = by.iter().map(ToString::to_string).collect();
        let error = refused(&world, spec).await;
        assert_eq!(error.condition(), Some(condition), "{by:?}");
    }
    let schema = Arc::new(schema.project(&[0, 2]).expect("columns"));
    let mut spec = world.spec("parquet", &schema, Options::new());
    spec.partition_by = vec!["n".into(), "k".into()];
    let error = refused(&world, spec).await;
    assert_eq!(error.condition(), Some("ALL_PARTITION_COLUMNS_NOT_ALLOWED"));
}

#[tokio::test]
async fn columns_that_a_format_cannot_hold_are_refused_by_name() {
    let world = World::new();
    let list = DataType::new_list(DataType::Int64, true);
    let months = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
    for (format, of) in [
        ("csv", list),
        ("csv", DataType::Binary),
        ("json", months.clone()),
        ("parquet", months),
        ("text", DataType::Int64),
    ] {
        let spec = world.spec(format, &schema(&[("c", of)]), Options::new());
        let error = refused(&world, spec).await;
        assert_eq!(
            error.condition(),
            Some("UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE"),
            "{format}"
        );
        assert_eq!(error.column(), Some("c"));
    }
    let error = refused(&world, world.spec("text", &lines_schema(), Options::new())).await;
    let message = "Text data source supports only a single column, and you have 2 columns.";
    assert_eq!(error.message(), message);
    let twice = schema(&[("a", DataType::Utf8), ("A", DataType::Utf8)]);
    let error = refused(&world, world.spec("parquet", &twice, Options::new())).await;
    assert_eq!(error.condition(), Some("COLUMN_ALREADY_EXISTS"));
}

#[tokio::test]
async fn options_that_would_be_ignored_are_refused_by_name() {
    let world = World::new();
    let text = schema(&[("line", DataType::Utf8)]);
    for (format, name, value) in [
        ("csv", "compression", "gzip"),
        ("csv", "timestampFormat", "yyyy"),
        ("csv", "heder", "true"),
        ("csv", "ignoreLeadingWhiteSpace", "true"),
        ("json", "lineSep", ";"),
        ("json", "header", "true"),
        ("text", "encoding", "latin1"),
        ("parquet", "compression", "lzo"),
        ("parquet", "maxRowsPerFile", "0"),
        ("parquet", "compactEvery", "0"),
        ("parquet", "targetFileSize", "64 MB"),
        ("parquet", "retention", "soon"),
    ] {
        let error = refused(&world, world.spec(format, &text, [(name, value)])).await;
        assert_eq!(error.option(), Some(name), "{format} {name}: {error}");
    }
    let options = [
        ("compactEvery", "3"),
        ("targetFileSize", "64 MB"),
        ("retention", "7d"),
    ];
    let spec = world.spec("parquet", &text, options);
    assert!(world.open(spec).await.is_ok());
    let mut spec = world.spec("csv", &text, Options::new());
    spec.path = None;
    assert_eq!(refused(&world, spec).await.option(), Some("path"));
    let mut spec = world.spec("csv", &text, Options::new());
    spec.path = Some("mem://store/*".into());
    assert_eq!(refused(&world, spec).await.kind(), ErrorKind::Invalid);
}
