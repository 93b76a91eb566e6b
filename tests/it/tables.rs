//! `to_table`, and what batch and stream readers see of its directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater::arrow::array::RecordBatch;
use highwater::arrow::compute::concat_batches;
use highwater::arrow::datatypes::DataType;
use highwater::arrow::util::display::{ArrayFormatter, FormatOptions};
use highwater::datafusion::datasource::MemTable;
use highwater::datafusion::parquet::arrow::ArrowWriter;
use highwater::datafusion::parquet::errors::ParquetError;
use highwater::prelude::*;
use highwater::{ErrorKind, Result, parse_schema};
use tempfile::TempDir;

fn parquet_error(error: ParquetError) -> Error {
    Error::internal("the file cannot be written").with_source(error)
}

/// A folder with an input of CSV files `k,v`, and room for checkpoints and tables.
struct House(TempDir);

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("in")).expect("made");
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn put(&self, name: &str, rows: &str) {
        fs::write(self.path(&format!("in/{name}")), rows).expect("written");
    }

    fn session(&self) -> StreamSession {
        StreamSession::new()
    }

    async fn input(&self, session: &StreamSession) -> Result<StreamFrame> {
        let reader = session.read_stream().schema("k STRING, v BIGINT");
        reader.csv(self.path("in")).await
    }

    /// Appends all input to the table `t`.
    async fn append(&self, session: &StreamSession, path: Option<&str>) -> Result<()> {
        let frame = self.input(session).await?;
        self.write(frame, path, "ckpt").await
    }

    async fn write(&self, frame: StreamFrame, path: Option<&str>, checkpoint: &str) -> Result<()> {
        let mut writer = frame
            .write_stream()
            .trigger(Trigger::AvailableNow)
            .checkpoint_location(self.path(checkpoint));
        if let Some(path) = path {
            writer = writer.path(self.path(path));
        }
        writer.to_table("t").await?.await_termination().await
    }
}

/// The rows, each as its columns joined by `|`, sorted.
async fn rows(frame: StreamFrame) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for batch in frame.collect().await? {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("a column"))
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows.sort();
    Ok(rows)
}

/// What a stream over the table reads, sorted.
async fn streamed(session: &StreamSession, name: &str) -> Result<Vec<String>> {
    let query = session
        .read_stream()
        .option("maxFilesPerTrigger", 1)
        .table("t")
        .await?
        .write_stream()
        .format("memory")
        .query_name(name)
        .trigger(Trigger::AvailableNow)
        .start()
        .await?;
    query.await_termination().await?;
    rows(session.table(name).await?).await
}

#[tokio::test]
async fn a_new_table_is_exactly_what_was_committed() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a,1\nb,2\n");
    let session = house.session();
    house.append(&session, Some("out")).await?;
    assert_eq!(rows(session.table("t").await?).await?, ["a|1", "b|2"]);

    // What a run that died left there does not count, for none of the readers.
    let left = session
        .sql("SELECT 'x' AS k, CAST(9 AS BIGINT) AS v")
        .await?;
    let left = concat(&left.collect().await?)?;
    let file = fs::File::create(house.path("out/part-77.parquet"))?;
    let mut writer = ArrowWriter::try_new(file, left.schema(), None).map_err(parquet_error)?;
    writer.write(&left).map_err(parquet_error)?;
    writer.close().map_err(parquet_error)?;
    house.put("2.csv", "a,3\n");
    house.append(&session, Some("out")).await?;
    let all = ["a|1", "a|3", "b|2"];
    assert_eq!(rows(session.table("t").await?).await?, all);
    let sql = session
        .sql("SELECT k, sum(v) AS v FROM t WHERE v < 3 GROUP BY k")
        .await?;
    assert_eq!(rows(sql).await?, ["a|1", "b|2"]);
    assert_eq!(session.sql("SELECT 1 FROM t").await?.count().await?, 3);
    assert_eq!(
        rows(session.read().parquet(house.path("out")).await?).await?,
        all
    );
    assert_eq!(streamed(&session, "seen").await?, all);

    // Another session makes it known again, and goes on.
    let later = house.session();
    house.put("3.csv", "c,4\n");
    house.append(&later, Some("out")).await?;
    assert_eq!(
        rows(later.table("t").await?).await?,
        ["a|1", "a|3", "b|2", "c|4"]
    );
    Ok(())
}

fn concat(batches: &[RecordBatch]) -> Result<RecordBatch> {
    Ok(concat_batches(&batches[0].schema(), batches)?)
}

/// Folders of two columns, also of values that are no names and of null; a later session knows them from the table.
#[tokio::test]
async fn a_table_may_be_partitioned() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a/b,1\n,2\nc d,3\n");
    let partitioned = async |session: &StreamSession, by: &[&str]| {
        let frame = house.input(session).await?;
        let frame = frame.with_column("odd", (col("v") % lit(2_i64)).eq(lit(1_i64)))?;
        let writer = frame.write_stream().trigger(Trigger::AvailableNow);
        let writer = writer.checkpoint_location(house.path("ckpt"));
        let writer = writer.path(house.path("out")).partition_by(by);
        writer.to_table("t").await?.await_termination().await
    };
    let session = house.session();
    partitioned(&session, &["k", "odd"]).await?;
    assert!(fs::exists(house.path("out/k=a%2Fb/odd=true"))?);
    assert!(fs::exists(
        house.path("out/k=__HIVE_DEFAULT_PARTITION__/odd=false")
    )?);
    let select = "SELECT v, k, odd FROM t";
    let first = ["1|a/b|true", "2|null|false", "3|c d|true"];
    assert_eq!(rows(session.sql(select).await?).await?, first);
    for (filter, expected) in [
        ("k = 'a/b'", &first[..1]),
        ("k IS NULL", &first[1..2]),
        ("odd AND v > 1", &first[2..]),
    ] {
        let sql = format!("{select} WHERE {filter}");
        assert_eq!(rows(session.sql(&sql).await?).await?, expected, "{filter}");
    }

    house.put("2.csv", "c d,4\n");
    let error = partitioned(&session, &["odd"]).await.expect_err("others");
    assert_eq!(error.option(), Some("partitionBy"), "{error}");
    partitioned(&session, &[]).await?;
    let all = [&first[..], &["4|c d|false"]].concat();
    assert_eq!(rows(session.sql(select).await?).await?, all);
    let read = session.read().parquet(house.path("out")).await?;
    let read = read.select([col("v"), col("k"), col("odd")])?;
    assert_eq!(rows(read).await?, all);
    let stream = session.read_stream().table("t").await?;
    let stream = stream.select([col("v"), col("k"), col("odd")])?;
    let query = stream.write_stream().format("memory").query_name("seen");
    let query = query.trigger(Trigger::AvailableNow).start().await?;
    query.await_termination().await?;
    assert_eq!(rows(session.table("seen").await?).await?, all);

    let later = house.session();
    let error = partitioned(&later, &["odd", "k"])
        .await
        .expect_err("others");
    assert_eq!(error.option(), Some("partitionBy"), "{error}");
    partitioned(&later, &["k", "odd"]).await?;
    assert_eq!(rows(later.sql(select).await?).await?, all);
    Ok(())
}

#[tokio::test]
async fn a_batch_that_runs_again_is_in_the_table_once() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a,1\n");
    house.append(&house.session(), Some("out")).await?;
    // As if the run had died between the sink's commit and the query's.
    fs::remove_file(house.path("ckpt/commits/0"))?;
    let session = house.session();
    house.append(&session, Some("out")).await?;
    assert_eq!(rows(session.table("t").await?).await?, ["a|1"]);
    Ok(())
}

#[tokio::test]
async fn without_a_path_the_warehouse_is_the_place() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a,1\n");
    let session = house.session();
    let error = house.append(&session, None).await.expect_err("no place");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .hint()
            .unwrap_or_default()
            .contains("highwater.warehouse"),
        "{error}"
    );

    let set = format!("SET spark.sql.warehouse.dir = '{}'", house.path("wh"));
    session.sql(&set).await?;
    house.append(&session, None).await?;
    assert!(Path::new(&house.path("wh/t/_spark_metadata/0")).exists());
    assert_eq!(rows(session.table("t").await?).await?, ["a|1"]);
    Ok(())
}

#[tokio::test]
async fn a_table_of_datafusions_over_a_directory_is_appended_to_by_name() -> Result<()> {
    for (format, options) in [
        ("PARQUET", ""),
        ("CSV", "OPTIONS ('format.has_header' 'false')"),
    ] {
        let house = House::new();
        house.put("1.csv", "a,1\nb,2\n");
        let session = house.session();
        fs::create_dir(house.path("out"))?;
        let create = format!(
            "CREATE EXTERNAL TABLE t (v BIGINT, k VARCHAR) STORED AS {format} LOCATION '{}/' {options}",
            house.path("out")
        );
        session.sql(&create).await?;
        house.append(&session, None).await?;
        assert_eq!(
            rows(session.table("t").await?).await?,
            ["1|a", "2|b"],
            "{format}"
        );
        assert_eq!(
            streamed(&session, "seen").await?,
            ["1|a", "2|b"],
            "{format}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn columns_that_do_not_fit_are_named() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a,1\n");
    let session = house.session();
    house.append(&session, Some("out")).await?;
    let input = house.input(&session).await?;
    for (frame, column, says) in [
        (input.clone().select([col("k")])?, "v", "no column `v`"),
        (
            input.clone().with_column("w", col("v") + lit(1_i64))?,
            "w",
            "a column `w`",
        ),
        (
            input
                .clone()
                .select([col("k"), cast(col("v"), DataType::Float64).alias("v")])?,
            "v",
            "Float64",
        ),
    ] {
        let error = house
            .write(frame.clone(), None, "other")
            .await
            .expect_err(says);
        assert_eq!(error.column(), Some(column), "{error}");
        assert!(error.message().contains(says), "{error}");
        // Nor does another session take the directory for a table of these columns.
        let error = house
            .write(frame, Some("out"), "other")
            .await
            .expect_err(says);
        assert_eq!(error.column(), Some(column), "{error}");
    }
    let later = house.session();
    let frame = house.input(&later).await?.select([col("k")])?;
    let error = house
        .write(frame, Some("out"), "other")
        .await
        .expect_err("columns");
    assert_eq!(error.column(), Some("v"), "{error}");
    assert!(
        later.table("t").await.is_err(),
        "what did not start made no table"
    );
    Ok(())
}

#[tokio::test]
async fn what_a_table_of_files_cannot_be_is_refused() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a,1\n");
    let session = house.session();
    let writer = || async { Ok::<_, Error>(house.input(&session).await?.write_stream()) };
    let out = house.path("out");
    let no_checkpoint = writer()
        .await?
        .path(&out)
        .to_table("t")
        .await
        .expect_err("checkpoint");
    assert_eq!(no_checkpoint.option(), Some("checkpointLocation"));
    assert!(
        session.table("t").await.is_err(),
        "what did not start made no table"
    );

    let wrong = writer()
        .await?
        .path(&out)
        .format("memory")
        .to_table("t")
        .await;
    assert_eq!(wrong.expect_err("format").option(), Some("format"));
    let update = writer()
        .await?
        .path(&out)
        .output_mode(OutputMode::Update)
        .to_table("t")
        .await;
    let update = update.expect_err("update");
    assert_eq!(
        update.condition(),
        Some("STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE")
    );

    // Files that no stream wrote would not count any more.
    fs::create_dir(&out)?;
    fs::write(house.path("out/old.csv"), "z,0\n")?;
    let create =
        format!("CREATE EXTERNAL TABLE t (k VARCHAR, v BIGINT) STORED AS CSV LOCATION '{out}/'");
    session.sql(&create).await?;
    let old = house.append(&session, None).await.expect_err("files");
    assert!(
        old.message().contains("1 files that no stream wrote"),
        "{old}"
    );

    house
        .input(&session)
        .await?
        .create_or_replace_temp_view("view")?;
    for name in ["view"] {
        let error = writer().await?.to_table(name).await.expect_err("a view");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    Ok(())
}

#[tokio::test]
async fn another_table_gets_inserts_at_least_once() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "a,1\n");
    let session = house.session();
    let table = MemTable::try_new(Arc::new(parse_schema("v BIGINT, k STRING")?), vec![vec![]])?;
    session.register_table("t", Arc::new(table))?;
    house.append(&session, None).await?;
    house.put("2.csv", "b,2\n");
    house.append(&session, None).await?;
    assert_eq!(rows(session.table("t").await?).await?, ["1|a", "2|b"]);
    // As if the run had died before it wrote down that it was done.
    fs::remove_file(house.path("ckpt/commits/1"))?;
    house.append(&session, None).await?;
    assert_eq!(
        rows(session.table("t").await?).await?,
        ["1|a", "2|b", "2|b"]
    );

    let writer = house.input(&session).await?.write_stream();
    let error = writer
        .path(house.path("out"))
        .to_table("t")
        .await
        .expect_err("path");
    assert_eq!(error.option(), Some("path"));
    let frame = house.input(&session).await?.select([col("k")])?;
    let error = house.write(frame, None, "other").await.expect_err("column");
    assert_eq!(error.column(), Some("v"));
    let result = session.sql("SELECT * FROM t").await?;
    result.create_or_replace_temp_view("w")?;
    let writer = house.input(&session).await?.write_stream();
    assert!(writer.to_table("w").await.is_err(), "a view takes no rows");
    Ok(())
}

#[tokio::test]
async fn a_batch_reader_infers_as_spark_and_says_no_by_name() -> Result<()> {
    let house = House::new();
    house.put("1.csv", "k,v\na,1\n");
    let session = house.session();
    let read = || session.read().option("header", true);
    let strings = read().csv(house.path("in")).await?;
    assert_eq!(strings.schema().field(1).data_type(), &DataType::Utf8View);
    let typed = read()
        .option("inferSchema", true)
        .csv(house.path("in"))
        .await?;
    assert_eq!(typed.schema().field(1).data_type(), &DataType::Int64);
    assert_eq!(rows(typed.filter(col("v").gt(lit(0)))?).await?, ["a|1"]);

    // Each action looks anew.
    let frame = read()
        .schema("k STRING, v BIGINT")
        .csv(house.path("in"))
        .await?;
    house.put("2.csv", "k,v\nb,2\n");
    assert_eq!(rows(frame.clone()).await?, ["a|1", "b|2"]);
    assert_eq!(rows(frame.select([col("v")])?).await?, ["1", "2"]);
    fs::write(house.path("x.json"), "{\"n\": 1}\n")?;
    assert_eq!(
        rows(session.read().json(house.path("x.json")).await?).await?,
        ["1"]
    );
    fs::write(house.path("x.txt"), "one\ntwo\n")?;
    assert_eq!(
        rows(session.read().text(house.path("x.txt")).await?).await?,
        ["one", "two"]
    );

    for (reader, option) in [
        (
            read().option("maxFilesPerTrigger", 1).format("csv"),
            "maxFilesPerTrigger",
        ),
        (read().option("headr", 1).format("csv"), "headr"),
        (read().format("rate"), "format"),
        (read(), "format"),
    ] {
        let error = reader.load(house.path("in")).await.expect_err(option);
        assert_eq!(error.option(), Some(option), "{error}");
    }
    let missing = read().csv(house.path("none")).await.expect_err("no path");
    assert_eq!(missing.condition(), Some("PATH_NOT_FOUND"));
    Ok(())
}
