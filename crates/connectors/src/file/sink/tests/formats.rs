//! Each format: its text, and that the project's own source and DataFusion's batch reader read it back.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, StructArray, TimestampMicrosecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::Int64Type;
use highwater_core::{Clock, OffsetRange, ReadLimit, ReadRequest, SourceProvider, SourceSpec};

use super::*;
use crate::file::{CsvProvider, JsonProvider, ParquetProvider, TextProvider};

/// A value of each type, odd ones, and nulls. 2024-05-01 is day 19844.
fn rows() -> RecordBatch {
    const DAY: i64 = 19_844 * 86_400_000_000;
    let decimals = Decimal128Array::from(vec![Some(150), Some(-5), None]);
    let decimals = decimals.with_precision_and_scale(10, 2).expect("decimals");
    let texts = [Some("a,\"b\"\nc"), Some(" ø "), None];
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "b",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        ),
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(-1), None])),
        ),
        (
            "x",
            Arc::new(Float64Array::from(vec![
                Some(0.1),
                Some(f64::INFINITY),
                None,
            ])),
        ),
        (
            "y",
            Arc::new(Float64Array::from(vec![
                Some(-1e300),
                Some(f64::NEG_INFINITY),
                None,
            ])),
        ),
        ("d", Arc::new(decimals)),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(19_844), Some(-1), None])),
        ),
        (
            "t",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(DAY),
                Some(DAY + 1_000_001),
                None,
            ])),
        ),
        ("s", Arc::new(StringViewArray::from_iter(texts))),
    ];
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("a batch")
}

async fn written(format: &str, rows: RecordBatch, options: impl Into<Options>) -> Result<World> {
    let world = World::new();
    let sink = world.sink(format, &rows.schema(), options).await?;
    begin(&*sink, 0, None).await?;
    write(&*sink, 0, 0, vec![rows]).await?;
    Ok(world)
}

/// What the project's own source reads from the directory.
async fn through_the_source(
    world: &World,
    format: &str,
    schema: &SchemaRef,
    options: impl Into<Options>,
) -> Result<RecordBatch> {
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let mut spec = SourceSpec::new(format, clock, Arc::clone(&world.session));
    spec.path = Some(OUT.to_owned());
    spec.schema = Some(Arc::clone(schema));
    spec.options = options.into();
    let source = match format {
        "csv" => CsvProvider.open(spec).await?,
        "json" => JsonProvider.open(spec).await?,
        "parquet" => ParquetProvider.open(spec).await?,
        _ => TextProvider.open(spec).await?,
    };
    let start = source.initial_offset().await?;
    let end = source.latest_offset(&start, &ReadLimit::All, None).await?;
    let request = ReadRequest {
        range: OffsetRange::new(start, end),
        projection: None,
        filters: vec![],
        batch_time: Timestamp::from_millis(0),
        task: world.session.task_ctx(),
    };
    let mut batches = Vec::new();
    for stream in source.read(request).await? {
        batches.extend(stream.try_collect::<Vec<_>>().await?);
    }
    Ok(concat_batches(schema, &batches)?)
}

#[tokio::test]
async fn what_is_written_is_read_by_source_and_batch_reader() -> Result<()> {
    let rows = rows();
    for format in ["csv", "json", "parquet"] {
        let world = written(format, rows.clone(), Options::new()).await?;
        let options = if format == "csv" {
            Options::from([("multiLine", true)])
        } else {
            Options::new()
        };
        let read = through_the_source(&world, format, &rows.schema(), options).await?;
        assert_eq!(read, rows, "{format}");
        let batches = world.rows(format, &rows.schema()).await?;
        let read = concat_batches(&rows.schema(), &batches)?;
        assert_eq!(read, rows, "{format}");
    }
    Ok(())
}

#[tokio::test]
async fn every_compression_of_parquet_is_named_and_read() -> Result<()> {
    let rows = lines_of(&[("a", "1")]);
    for (compression, ending) in [
        ("none", "-c000.parquet"),
        ("uncompressed", "-c000.parquet"),
        ("SNAPPY", "-c000.snappy.parquet"),
        ("gzip", "-c000.gz.parquet"),
        ("lz4", "-c000.lz4hadoop.parquet"),
        ("lz4_raw", "-c000.lz4raw.parquet"),
        ("zstd", "-c000.zstd.parquet"),
        ("brotli", "-c000.br.parquet"),
    ] {
        let world = written("parquet", rows.clone(), [("compression", compression)]).await?;
        let path = world.named().await?[0].path.clone();
        assert!(path.ends_with(ending), "{compression}: {path}");
        let read = world.rows("parquet", &rows.schema()).await?;
        assert_eq!(
            concat_batches(&rows.schema(), &read)?,
            rows,
            "{compression}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn csv_is_written_as_spark_writes_it() -> Result<()> {
    let world = written("csv", rows().slice(1, 2), Options::new()).await?;
    // Microseconds are kept, where Spark cuts after milliseconds; a line of nulls is separators.
    assert_eq!(
        world.lines().await?,
        [
            "false,-1,Infinity,-Infinity,-0.05,1969-12-31,2024-05-01T00:00:01.000001Z, ø ",
            ",,,,,,,"
        ]
    );
    let options = [
        ("header", "true"),
        ("sep", "\\t"),
        ("escape", "\\"),
        ("emptyValue", "<>"),
        ("nullValue", "NULL"),
    ];
    let texts = [Some("a\tb"), Some("q\"\\"), Some(""), None];
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter(texts));
    let pairs = [("s", Arc::clone(&texts), true), ("t\t", texts, true)];
    let rows = RecordBatch::try_from_iter_with_nullable(pairs)?;
    let world = written("csv", rows.clone(), options).await?;
    assert_eq!(
        world.lines().await?,
        [
            "s\t\"t\t\"",
            "\"a\tb\"\t\"a\tb\"",
            "\"q\\\"\\\\\"\t\"q\\\"\\\\\"",
            "<>\t<>",
            "NULL\tNULL"
        ]
    );
    // Alone in its line, neither an empty text nor null makes an empty line, which readers leave out.
    let world = written("csv", rows.project(&[0])?.slice(2, 2), Options::new()).await?;
    assert_eq!(world.lines().await?, ["\"\"", "\"\""]);
    Ok(())
}

#[tokio::test]
async fn json_is_written_as_spark_writes_it() -> Result<()> {
    let rows = rows().slice(1, 2);
    let world = written("json", rows.clone(), Options::new()).await?;
    assert_eq!(
        world.lines().await?,
        [
            "{\"b\":false,\"n\":-1,\"x\":\"Infinity\",\"y\":\"-Infinity\",\"d\":-0.05,\"day\":\"1969-12-31\",\
             \"t\":\"2024-05-01T00:00:01.000001Z\",\"s\":\" ø \"}",
            "{}"
        ]
    );
    let nulls = rows.project(&[0, 6])?.slice(1, 1);
    let world = written("json", nulls, [("ignoreNullFields", false)]).await?;
    assert_eq!(world.lines().await?, ["{\"b\":null,\"t\":null}"]);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    let time = cast(
        &time,
        &DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("UTC".into())),
    )?;
    let field = Arc::new(Field::new("start", time.data_type().clone(), true));
    let columns: [(&str, ArrayRef); 3] = [
        ("w", Arc::new(StructArray::from(vec![(field, time)]))),
        ("l", Arc::new(lists)),
        ("bin", Arc::new(BinaryArray::from_vec(vec![b"any c"]))),
    ];
    let world = written("json", RecordBatch::try_from_iter(columns)?, Options::new()).await?;
    assert_eq!(
        world.lines().await?,
        ["{\"w\":{\"start\":\"1970-01-01T00:00:00.000Z\"},\"l\":[1,null],\"bin\":\"YW55IGM=\"}"]
    );
    Ok(())
}

#[tokio::test]
async fn text_is_a_line_a_row() -> Result<()> {
    let rows = lines_of(&[("a", "one"), ("b", "two")]).project(&[1])?;
    let world = written("text", rows.clone(), Options::new()).await?;
    let path = path_of(&world.named().await?[0]);
    assert!(path.ends_with("-c000.txt"), "{path}");
    assert_eq!(world.text(&path).await?, "one\ntwo\n");
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(
        "value",
        DataType::Utf8View,
        true,
    )]));
    let read = through_the_source(&world, "text", &schema, Options::new()).await?;
    assert_eq!(read.column(0), rows.column(0));
    let world = written("text", rows, [("lineSep", ";")]).await?;
    assert_eq!(world.lines().await?, ["one;two;"]);
    Ok(())
}

#[tokio::test]
async fn a_header_is_written_once_also_when_files_are_rolled_up() -> Result<()> {
    let world = World::new();
    let options = [("header", "true"), ("compactEvery", "3")];
    let sink = world.sink("csv", &lines_schema(), options).await?;
    begin(&*sink, 0, None).await?;
    for id in 0..3 {
        write(&*sink, 0, id, vec![lines_of(&[("a", &format!("{id}"))])]).await?;
    }
    let files = world.named().await?;
    // A stream that reads the directory knows by this that it has had the rows.
    assert!(files[0].replaces && !files[1].replaces);
    assert!(
        world
            .text("out/_spark_metadata/2.compact")
            .await?
            .contains("\"action\":\"add\",\"replaces\":true}\n")
    );
    let mut texts = Vec::new();
    for file in &files {
        texts.push(world.text(&path_of(file)).await?);
    }
    assert_eq!(texts, ["k,line\na,0\na,1\n", "k,line\na,2\n"]);
    Ok(())
}
