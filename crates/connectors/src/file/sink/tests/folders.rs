//! Partition columns become folders, and come back through the file source.

use arrow::array::Int64Array;
use arrow::util::pretty::pretty_format_batches;
use highwater_core::{Clock, OffsetRange, ReadLimit, ReadRequest, SourceProvider, SourceSpec};

use super::*;
use crate::file::ParquetProvider;

fn keyed(keys: &[Option<&str>]) -> RecordBatch {
    let n: Int64Array = (0..keys.len() as i64).map(Some).collect();
    let keys: StringViewArray = keys.iter().copied().collect();
    let columns: [(&str, arrow::array::ArrayRef); 2] = [("k", Arc::new(keys)), ("n", Arc::new(n))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .expect("a batch")
}

#[tokio::test]
async fn folders_have_hives_names_and_files_lack_the_column() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::new();
    let rows = keyed(&[
        Some("a/b"),
        None,
        Some(""),
        Some("ø é"),
        Some("50%"),
        Some("a/b"),
    ]);
    let mut spec = world.spec("parquet", &rows.schema(), Options::new());
    let path = folder.path().join("out dir").to_string_lossy().into_owned();
    spec.path = Some(path.clone());
    spec.partition_by = vec!["K".into()];
    let sink = world.open(spec).await?;
    assert_eq!(sink.description(), format!("FileSink[file:{path}]"));
    begin(&*sink, 0, None).await?;
    write(&*sink, 0, 0, vec![rows]).await?;
    let mut folders: Vec<String> = std::fs::read_dir(&path)?
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    folders.sort();
    let expected = [
        "_spark_metadata",
        "k=50%25",
        "k=__HIVE_DEFAULT_PARTITION__",
        "k=a%2Fb",
        "k=ø é",
    ];
    assert_eq!(folders, expected);
    // The URL of a file is encoded once more, as Java's `Path.toUri` does.
    let entry = std::fs::read_to_string(format!("{path}/_spark_metadata/0"))?;
    assert!(entry.contains("/out%20dir/k=a%252Fb/part-"), "{entry}");
    let shown = through_the_source(&world, &path).await?;
    let expected = "\
+---+-----+
| n | k   |
+---+-----+
| 0 | a/b |
| 1 |     |
| 2 |     |
| 3 | ø é |
| 4 | 50% |
| 5 | a/b |
+---+-----+";
    assert_eq!(shown, expected);
    Ok(())
}

/// What the file source reads from the folder, by `n`.
async fn through_the_source(world: &World, path: &str) -> Result<String> {
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let mut spec = SourceSpec::new("parquet", clock, Arc::clone(&world.session));
    spec.path = Some(path.to_owned());
    spec.options = Options::from([("schemaInference", true)]);
    let source = ParquetProvider.open(spec).await?;
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
    let context = SessionContext::new_with_state((*world.session).clone());
    let frame = context.read_batches(batches)?;
    let sorted = frame.sort(vec![datafusion::prelude::col("n").sort(true, false)])?;
    let sorted = sorted.collect().await?;
    Ok(pretty_format_batches(&sorted)?.to_string())
}

#[tokio::test]
async fn more_folders_than_files_may_be_open_get_one_file_each() -> Result<()> {
    let world = World::new();
    let mut spec = world.spec("csv", &lines_schema(), Options::new());
    spec.partition_by = vec!["k".into()];
    let sink = world.open(spec).await?;
    begin(&*sink, 0, None).await?;
    let keys: Vec<String> = (0..150).map(|k| k.to_string()).collect();
    let rows: Vec<(&str, &str)> = keys.iter().map(|k| (k.as_str(), k.as_str())).collect();
    let commit = write(&*sink, 0, 0, vec![lines_of(&rows), lines_of(&rows)]).await?;
    assert_eq!(commit.rows, Some(300));
    let files = world.named().await?;
    assert_eq!(files.len(), 150);
    for file in files {
        let path = path_of(&file);
        let key = path.split(['=', '/']).nth(2).expect("a key");
        assert_eq!(world.text(&path).await?, format!("{key}\n{key}\n"));
    }
    Ok(())
}

#[tokio::test]
async fn values_of_other_types_are_written_as_sparks_cast_writes_them() -> Result<()> {
    use arrow::array::{BooleanArray, Date32Array, TimestampMicrosecondArray};
    let world = World::new();
    let columns: [(&str, arrow::array::ArrayRef); 4] = [
        ("d", Arc::new(Date32Array::from(vec![19844]))),
        (
            "t",
            Arc::new(TimestampMicrosecondArray::from(vec![1_714_521_600_500_000])),
        ),
        ("b", Arc::new(BooleanArray::from(vec![true]))),
        ("n", Arc::new(Int64Array::from(vec![1]))),
    ];
    let rows = RecordBatch::try_from_iter(columns)?;
    let mut spec = world.spec("csv", &rows.schema(), Options::new());
    spec.partition_by = vec!["d".into(), "t".into(), "b".into()];
    let sink = world.open(spec).await?;
    write(&*sink, 0, 0, vec![rows]).await?;
    let there = world.there().await?;
    let path = there.first().expect("a file");
    assert!(
        path.starts_with("out/d=2024-05-01/t=2024-05-01 00%3A00%3A00.5/b=true/part-"),
        "{path}"
    );
    Ok(())
}
