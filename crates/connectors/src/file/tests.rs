//! The file source as a query sees it: which files, in which order, and which rows.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{col, lit};
use datafusion::parquet::arrow::ArrowWriter;
use futures::{FutureExt, TryStreamExt};
use highwater_core::testing::{ManualClock, contract};
use highwater_core::{
    Clock, Error, ErrorKind, IntoSchema, Offset, OffsetRange, Options, ReadLimit, ReadRequest,
    Result, Source, SourceContext, SourceProvider, SourceSpec, Timestamp,
};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

mod sink_directory;

use super::{CsvProvider, CsvSourceOptions, JsonProvider, ParquetProvider, TextProvider};

mod bad;

/// A folder, a checkpoint and a clock.
struct World {
    folder: TempDir,
    session: Arc<SessionState>,
    log: Arc<dyn ObjectStore>,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("folder"),
            session: Arc::new(SessionStateBuilder::new().with_default_features().build()),
            log: Arc::new(InMemory::new()),
            clock: ManualClock::new(Timestamp::from_millis(0)),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Writes a file that was modified `second` seconds after 2001-09-09.
    fn write(&self, name: &str, second: u64, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(std::path::Path::new(&path).parent().expect("parent")).expect("folder");
        fs::write(&path, text).expect("written");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + second);
        let file = File::options().write(true).open(&path).expect("opened");
        file.set_modified(modified).expect("modified");
    }

    async fn load(
        &self,
        format: &str,
        path: &str,
        schema: &str,
        options: impl Into<Options>,
    ) -> Result<Arc<dyn Source>> {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let mut spec = SourceSpec::new(format, clock, Arc::clone(&self.session));
        spec.path = Some(path.to_owned());
        spec.options = options.into();
        if !schema.is_empty() {
            spec.schema = Some(schema.into_schema()?);
        }
        match format {
            "csv" => CsvProvider.open(spec).await,
            "json" => JsonProvider.open(spec).await,
            "parquet" => ParquetProvider.open(spec).await,
            _ => TextProvider.open(spec).await,
        }
    }

    /// The source as a query has it.
    async fn query(
        &self,
        format: &str,
        path: &str,
        schema: &str,
        options: impl Into<Options>,
    ) -> Result<Arc<dyn Source>> {
        let source = self.load(format, path, schema, options).await?;
        let context = SourceContext {
            store: Arc::clone(&self.log),
            folder: Path::from("sources/in"),
            clock: Arc::new(self.clock.clone()),
        };
        Ok(source.for_query(context).await?.unwrap_or(source))
    }

    /// The folder's files as CSV.
    async fn csv(&self, schema: &str, options: impl Into<Options>) -> Result<Arc<dyn Source>> {
        self.query("csv", &self.path(""), schema, options).await
    }

    async fn read(
        &self,
        source: &Arc<dyn Source>,
        start: &Offset,
        end: &Offset,
    ) -> Result<RecordBatch> {
        self.read_some(source, start, end, None, vec![]).await
    }

    async fn read_some(
        &self,
        source: &Arc<dyn Source>,
        start: &Offset,
        end: &Offset,
        projection: Option<Vec<usize>>,
        filters: Vec<datafusion::prelude::Expr>,
    ) -> Result<RecordBatch> {
        let schema = match &projection {
            Some(columns) => Arc::new(source.schema().project(columns)?),
            None => source.schema(),
        };
        let request = ReadRequest {
            range: OffsetRange::new(start.clone(), end.clone()),
            projection,
            filters,
            batch_time: Timestamp::from_millis(0),
            task: self.session.task_ctx(),
        };
        let mut batches = Vec::new();
        for stream in source.read(request).await? {
            batches.extend(stream.try_collect::<Vec<_>>().await?);
        }
        Ok(concat_batches(&schema, &batches)?)
    }

    /// All there is, as one batch.
    async fn all(&self, source: &Arc<dyn Source>) -> Result<RecordBatch> {
        let start = source.initial_offset().await?;
        let end = source.latest_offset(&start, &ReadLimit::All, None).await?;
        self.read(source, &start, &end).await
    }

    /// The rows of each micro-batch until there is nothing new, from `start`.
    async fn batches(
        &self,
        source: &Arc<dyn Source>,
        mut start: Offset,
    ) -> Result<(Vec<Vec<String>>, Offset)> {
        let mut batches = Vec::new();
        loop {
            let end = source
                .latest_offset(&start, &source.read_limit(), None)
                .await?;
            if end == start {
                return Ok((batches, start));
            }
            batches.push(rows(&self.read(source, &start, &end).await?));
            source.commit(&end).await?;
            start = end;
        }
    }

    async fn first_batches(&self, source: &Arc<dyn Source>) -> Result<Vec<Vec<String>>> {
        let start = source.initial_offset().await?;
        Ok(self.batches(source, start).await?.0)
    }
}

/// Each row as its columns joined by `|`.
fn rows(batch: &RecordBatch) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("null");
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|c| {
            arrow::util::display::ArrayFormatter::try_new(c.as_ref(), &options).expect("formatter")
        })
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            columns
                .iter()
                .map(|c| c.value(row).to_string())
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect()
}

fn at(n: i64) -> Offset {
    Offset::from(serde_json::json!({ "logOffset": n }))
}

fn parquet(schema: &str, rows: &str) -> Vec<u8> {
    let schema = schema.into_schema().expect("schema");
    let mut reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema))
        .build(rows.as_bytes())
        .expect("reader");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).expect("writer");
    writer
        .write(&reader.next().expect("rows").expect("rows"))
        .expect("written");
    writer.close().expect("closed");
    bytes
}

#[tokio::test]
async fn files_come_in_the_order_of_time_and_path_one_a_trigger() {
    let world = World::new();
    for (name, second, text) in [
        ("z.csv", 1, "1\n"),
        ("b.csv", 2, "3\n"),
        ("a.csv", 2, "2\n"),
        ("_x.csv", 0, "9\n"),
        (".y", 0, "9\n"),
        ("sub/c.csv", 0, "9\n"),
    ] {
        world.write(name, second, text);
    }
    let source = world
        .csv("n int", [("maxFilesPerTrigger", 1)])
        .await
        .expect("opened");
    assert!(
        source.description().starts_with("FileStreamSource[file:/"),
        "{}",
        source.description()
    );
    let (batches, end) = world.batches(&source, at(-1)).await.expect("read");
    assert_eq!(batches, [["1"], ["2"], ["3"]]);
    assert_eq!(end, at(2));

    world.write("late.csv", 0, "4\n");
    world.write("z.csv", 9, "5\n");
    let (batches, _) = world.batches(&source, end).await.expect("read");
    assert_eq!(
        batches,
        [["4"]],
        "a file is read once, also when it is written again"
    );
}

#[tokio::test]
async fn limits_and_order_are_options() {
    for (option, value, expected) in [
        ("maxFilesPerTrigger", "2", vec!["1|2", "3"]),
        ("maxBytesPerTrigger", "4", vec!["1|2", "3"]),
        ("maxBytesPerTrigger", "1", vec!["1", "2", "3"]),
        ("latestFirst", "true", vec!["3|2|1"]),
        ("maxFileAge", "1 day", vec!["1|2|3"]),
        ("pathGlobFilter", "[ab]*", vec!["1|2"]),
        ("recursiveFileLookup", "true", vec!["0|1|2|3"]),
        ("fileNameOnly", "true", vec!["1|2|3"]),
    ] {
        let world = World::new();
        for (name, second) in [("sub/a.csv", 0), ("a.csv", 1), ("b.csv", 2), ("c.csv", 3)] {
            world.write(name, second, format!("{second}\n"));
        }
        let source = world.csv("n int", [(option, value)]).await.expect("opened");
        let batches = world.first_batches(&source).await.expect("read");
        let batches: Vec<_> = batches.iter().map(|rows| rows.join("|")).collect();
        assert_eq!(batches, expected, "{option}={value}");
    }
}

#[tokio::test]
async fn old_files_are_ignored_after_the_first_batch() {
    let world = World::new();
    world.write("new.csv", 100_000, "1\n");
    let source = world
        .csv("n int", [("maxFileAge", "1 hour")])
        .await
        .expect("opened");
    let (_, end) = world.batches(&source, at(-1)).await.expect("read");
    world.write("old.csv", 1, "2\n");
    world.write("recent.csv", 99_000, "3\n");
    assert_eq!(world.batches(&source, end).await.expect("read").0, [["3"]]);
}

#[tokio::test]
async fn a_restart_reads_the_logged_files_and_no_file_twice() {
    let world = World::new();
    world.write("a.csv", 1, "1\n");
    let source = world.csv("n int", Options::new()).await.expect("opened");
    let end = source
        .latest_offset(&at(-1), &ReadLimit::All, None)
        .await
        .expect("offset");
    assert_eq!(end, at(0));

    world.write("b.csv", 0, "2\n");
    let again = world
        .csv("n int", Options::new())
        .await
        .expect("opened again");
    let batch = world.read(&again, &at(-1), &end).await.expect("read");
    assert_eq!(rows(&batch), ["1"]);
    assert_eq!(world.batches(&again, end).await.expect("read").0, [["2"]]);
}

#[tokio::test]
async fn available_now_is_pinned_and_still_goes_in_steps() {
    let world = World::new();
    for n in 1..=3 {
        world.write(&format!("{n}.csv"), n, format!("{n}\n"));
    }
    let source = world
        .csv("n int", [("maxFilesPerTrigger", 1)])
        .await
        .expect("opened");
    let pin = source
        .latest_offset(&at(-1), &ReadLimit::All, None)
        .await
        .expect("pin");
    world.write("4.csv", 4, "4\n");
    let mut start = at(-1);
    let mut seen = Vec::new();
    loop {
        let limit = source.read_limit();
        let end = source
            .latest_offset(&start, &limit, Some(&pin))
            .await
            .expect("offset");
        if end == start {
            break;
        }
        seen.push(rows(
            &world.read(&source, &start, &end).await.expect("read"),
        ));
        start = end;
    }
    assert_eq!(seen, [["1"], ["2"], ["3"]]);
    assert_eq!(
        world.batches(&source, start).await.expect("read").0,
        [["4"]]
    );
}

#[tokio::test]
async fn a_file_that_is_gone_or_differs_is_named() {
    for (format, text, second, part) in [
        ("csv", None, 0, "is gone"),
        ("csv", Some("12\n"), 1, "it had 2 bytes and has 3"),
        ("csv", Some("2\n"), 5, "modified"),
        ("parquet", Some("PAR1 no"), 0, "Parquet footer"),
    ] {
        let world = World::new();
        let first: &[u8] = if format == "csv" { b"1\n" } else { b"PAR1 no" };
        world.write("a", 0, first);
        world.write("a", 1, first);
        let second = if format == "csv" { second } else { 1 };
        let source = world
            .query(format, &world.path(""), "n int", Options::new())
            .await
            .expect("opened");
        let end = source
            .latest_offset(&at(-1), &ReadLimit::All, None)
            .await
            .expect("offset");
        match text {
            Some(text) => world.write("a", second, text),
            None => fs::remove_file(world.path("a")).expect("removed"),
        }
        let error = world.read(&source, &at(-1), &end).await.expect_err(part);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(
            error.message().contains(part) && error.message().contains("/a"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn csv_modes_are_sparks() {
    let text = "k,n,t\na,1,2010-12-01 08:26:00\nb,x,\nc\nd,4,2010-12-01,more\n\"e\",5,\n";
    let data = "k string, n int, t timestamp";
    for (mode, schema, expected) in [
        (
            "PERMISSIVE",
            data,
            vec![
                "a|1|2010-12-01T08:26:00",
                "b|null|null",
                "c|null|null",
                "d|4|2010-12-01T00:00:00",
                "e|5|null",
            ],
        ),
        (
            "PERMISSIVE",
            "k string, n int, _corrupt_record string, t timestamp",
            vec![
                "a|1|null|2010-12-01T08:26:00",
                "b|null|b,x,|null",
                "c|null|c|null",
                "d|4|d,4,2010-12-01,more|2010-12-01T00:00:00",
                "e|5|null|null",
            ],
        ),
        (
            "DROPMALFORMED",
            data,
            vec!["a|1|2010-12-01T08:26:00", "e|5|null"],
        ),
    ] {
        let world = World::new();
        world.write("a.csv", 1, text);
        let source = world
            .csv(schema, [("mode", mode), ("header", "true")])
            .await
            .expect("opened");
        assert_eq!(
            rows(&world.all(&source).await.expect("read")),
            expected,
            "{mode}"
        );
    }
    let world = World::new();
    world.write("a.csv", 1, text);
    let source = world
        .csv(data, [("mode", "FAILFAST"), ("header", "true")])
        .await
        .expect("opened");
    let error = world.all(&source).await.expect_err("fails");
    for part in ["a.csv, line 3", "`n`", "`x`"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test]
async fn no_row_comes_twice_from_a_large_file_with_a_bad_end() {
    let world = World::new();
    let mut text: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    text.push_str("bad\n7\n");
    world.write("a.csv", 1, text);
    let source = world.csv("n bigint", Options::new()).await.expect("opened");
    let batch = world.all(&source).await.expect("read");
    let numbers = rows(&batch);
    assert_eq!(numbers.len(), 400_002);
    assert_eq!(numbers[400_000..], ["null", "7"]);
    assert!((0..400_000).all(|n| numbers[n] == n.to_string()));
}

#[tokio::test]
async fn csv_is_written_in_many_ways() {
    for (options, text, expected) in [
        (CsvSourceOptions::new().sep(b';'), "a;1\n", vec!["a|1"]),
        (
            CsvSourceOptions::new(),
            "\u{feff}a,1\r\nb,2",
            vec!["a|1", "b|2"],
        ),
        (
            CsvSourceOptions::new().comment(b'#'),
            "#x\na,1\n#y\n",
            vec!["a|1"],
        ),
        (
            CsvSourceOptions::new().null_value("NA"),
            "NA,NA\n,1\n",
            vec!["null|null", "null|1"],
        ),
        (
            CsvSourceOptions::new().null_value("NA"),
            "NA,x\n",
            vec!["null|null"],
        ),
        (
            CsvSourceOptions::new(),
            "\"a \"\"b\"\", c\",1\n",
            vec!["a \"b\", c|1"],
        ),
        (
            CsvSourceOptions::new().escape(b'\\'),
            "\"a \\\"b\\\"\",1\n",
            vec!["a \"b\"|1"],
        ),
        (
            CsvSourceOptions::new().multi_line(true),
            "\"a\nb\",1\nc,2\n",
            vec!["a\nb|1", "c|2"],
        ),
        (
            CsvSourceOptions::new(),
            "\"a\nb\",1\n",
            vec!["a|null", "b\"|1"],
        ),
        (
            CsvSourceOptions::new()
                .ignore_leading_white_space(true)
                .ignore_trailing_white_space(true),
            " a , 1 \n",
            vec!["a|1"],
        ),
        (
            CsvSourceOptions::new().header(true),
            "K,N\na,1\n",
            vec!["a|1"],
        ),
        (
            CsvSourceOptions::new().header(true).enforce_schema(true),
            "x,y\na,1\n",
            vec!["a|1"],
        ),
        (CsvSourceOptions::new(), "", vec![]),
        (CsvSourceOptions::new().header(true), "k,n", vec![]),
    ] {
        let world = World::new();
        world.write("a.csv", 1, text);
        let source = world
            .csv("k string, n int", options.clone())
            .await
            .expect("opened");
        let end = source
            .latest_offset(&at(-1), &ReadLimit::All, None)
            .await
            .expect("offset");
        let found = world.read(&source, &at(-1), &end).await.expect(text);
        assert_eq!(rows(&found), expected, "{text:?}");
        for projection in [vec![1, 0], vec![0], vec![]] {
            let some = world
                .read_some(&source, &at(-1), &end, Some(projection.clone()), vec![])
                .await;
            assert_eq!(
                some.expect(text),
                found.project(&projection).expect("projected"),
                "{text:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_header_that_disagrees_is_an_error() {
    for (header, text, part) in [
        (true, "k,m\na,1\n", "`n` in the schema and `m`"),
        (true, "k\na,1\n", "column 2"),
        (true, "k,n,o\na,1\n", "`o` more"),
        (false, "k,n\na,1\n", "names of the columns"),
    ] {
        let world = World::new();
        world.write("a.csv", 1, text);
        let source = world
            .csv("k string, n int", [("header", header)])
            .await
            .expect("opened");
        let error = world.all(&source).await.expect_err(text);
        assert!(
            error.message().contains(part) && error.message().contains("a.csv"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn json_modes_are_sparks() {
    let text = concat!(
        r#"{"k":"a","n":1,"s":{"x":1}}"#,
        "\n",
        r#"{"K":"b","n":"x","other":[1]}"#,
        "\n",
        "\n",
        r#"{"k":{"y": 2},"n":2,"#,
        "\n",
        r#"{"k":{"y": 2},"n":4}"#,
        "\n",
        r#"{"k":5,"s":{"X":2}}"#,
    );
    let data = "k string, n int, s struct<x: int>";
    let all = [
        "a|1|{x: 1}",
        "b|null|null",
        "null|null|null",
        "{\"y\": 2}|4|null",
        "5|null|{x: 2}",
    ];
    for (mode, expected) in [
        ("PERMISSIVE", all.to_vec()),
        ("DROPMALFORMED", vec![all[0], all[3], all[4]]),
    ] {
        let world = World::new();
        world.write("a.json", 1, text);
        let path = world.path("");
        let source = world
            .query("json", &path, data, [("mode", mode)])
            .await
            .expect("opened");
        assert_eq!(
            rows(&world.all(&source).await.expect("read")),
            expected,
            "{mode}"
        );
    }
    let world = World::new();
    world.write("a.json", 1, text);
    let path = world.path("*.json");
    let source = world
        .query(
            "json",
            &path,
            "k string, _corrupt_record string, n int",
            Options::new(),
        )
        .await
        .expect("opened");
    let found = rows(&world.all(&source).await.expect("read"));
    assert_eq!(found[0], "a|null|1");
    assert_eq!(
        found[1],
        format!("b|{}|null", r#"{"K":"b","n":"x","other":[1]}"#)
    );
    assert_eq!(found[2], format!("null|{}|null", r#"{"k":{"y": 2},"n":2,"#));

    let source = world
        .load("json", &path, data, [("mode", "FAILFAST")])
        .await
        .expect("opened");
    let error = world.all(&source).await.expect_err("fails");
    assert!(error.message().contains("a.json, line 2"), "{error}");
}

#[tokio::test]
async fn json_keys_match_in_any_case() {
    for text in [
        "{\"InvoiceNo\":1,\"In\":{\"A\":2}}\n{\"InvoiceNo\":3}\n",
        "{\"invoiceno\":1,\"in\":{\"a\":2}}\n{\"INVOICENO\":3,\"extra\":0}\n",
    ] {
        let world = World::new();
        world.write("a.json", 1, text);
        let source = world
            .query(
                "json",
                &world.path(""),
                "InvoiceNo bigint, in struct<a: int>",
                Options::new(),
            )
            .await
            .expect("opened");
        let found = world.all(&source).await.expect("read");
        assert_eq!(rows(&found), ["1|{a: 2}", "3|null"], "{text}");
        let end = source
            .latest_offset(&at(-1), &ReadLimit::All, None)
            .await
            .expect("offset");
        for projection in [vec![1], vec![1, 0], vec![]] {
            let some = world
                .read_some(&source, &at(-1), &end, Some(projection.clone()), vec![])
                .await
                .expect("read");
            assert_eq!(some, found.project(&projection).expect("projected"));
        }
    }
}

#[tokio::test]
async fn parquet_schemas_may_drift() {
    let world = World::new();
    let data = "id bigint, x double, d timestamp, s struct<a: bigint>";
    world.write(
        "1.parquet",
        1,
        parquet(
            "\"ID\" int, x float, d date, extra int, s struct<\"A\": int>",
            r#"{"ID":1,"x":1.5,"d":"2024-05-01","s":{"A":7}}"#,
        ),
    );
    world.write(
        "2.parquet",
        2,
        parquet(
            "id bigint, d timestamp_ltz",
            r#"{"id":2,"d":"2024-05-01T02:00:00Z"}"#,
        ),
    );
    let source = world
        .query("parquet", &world.path(""), data, Options::new())
        .await
        .expect("opened");
    let found = world.all(&source).await.expect("read");
    assert_eq!(
        rows(&found),
        [
            "1|1.5|2024-05-01T00:00:00|{a: 7}",
            "2|null|2024-05-01T02:00:00|null"
        ]
    );

    let end = at(0);
    for (projection, expected) in [
        (vec![1, 0], vec!["1.5|1", "null|2"]),
        (vec![3], vec!["{a: 7}", "null"]),
        (vec![], vec!["", ""]),
    ] {
        let some = world
            .read_some(&source, &at(-1), &end, Some(projection), vec![])
            .await
            .expect("read");
        assert_eq!(rows(&some), expected);
    }
    let filter = vec![col("id").gt(lit(1_i64))];
    let some = world
        .read_some(&source, &at(-1), &end, Some(vec![0]), filter)
        .await
        .expect("read");
    assert!(rows(&some).contains(&"2".to_owned()));

    world.write("3.parquet", 3, parquet("id string", r#"{"id":"x"}"#));
    let next = source
        .latest_offset(&end, &ReadLimit::All, None)
        .await
        .expect("offset");
    let error = world.read(&source, &end, &next).await.expect_err("drifted");
    assert_eq!(error.column(), Some("id"));
    for part in ["3.parquet", "Utf8View", "Int64"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[tokio::test]
async fn partitions_and_metadata_are_columns() {
    let world = World::new();
    world.write("in/c=NO/d=1/a b.csv", 1, "x,1\n");
    world.write("in/c=SE/d=2/b.csv", 2, "y,2\n");
    let source = world
        .query(
            "csv",
            &world.path("in"),
            "k string, c string, n int",
            [("metadataColumn", true)],
        )
        .await
        .expect("opened");
    let found = world.all(&source).await.expect("read");
    let names: Vec<_> = found
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names, ["k", "n", "c", "d", "_metadata"]);
    let found = rows(&found);
    assert!(
        found[0].starts_with("x|1|NO|1|{file_path: file:///"),
        "{found:?}"
    );
    assert!(found[0].contains("a%20b.csv, file_name: a%20b.csv, file_size: 4, file_modification_time: 2001-09-09T01:46:41"), "{found:?}");
    assert!(found[1].starts_with("y|2|SE|2|"), "{found:?}");

    world.write("in/c=DK/d=x/e.csv", 3, "z,3\n");
    let next = source
        .latest_offset(&at(0), &ReadLimit::All, None)
        .await
        .expect("offset");
    let error = world
        .read(&source, &at(0), &next)
        .await
        .expect_err("wrong type");
    assert_eq!(error.column(), Some("d"));

    let path = world.path("in/c=NO");
    let base = world.path("in");
    let source = world
        .load("csv", &path, "k string, n int", [("basePath", &base)])
        .await
        .expect("opened");
    assert_eq!(rows(&world.all(&source).await.expect("read")), ["x|1|NO|1"]);
}

#[tokio::test]
async fn text_has_one_column() {
    let world = World::new();
    world.write("a.txt", 1, "one\r\ntwo\n\nthree");
    for (options, expected) in [
        (Options::new(), vec!["one", "two", "", "three"]),
        (
            Options::from([("wholetext", "true")]),
            vec!["one\r\ntwo\n\nthree"],
        ),
        (
            Options::from([("lineSep", "wo")]),
            vec!["one\r\nt", "\n\nthree"],
        ),
    ] {
        let source = world
            .load("text", &world.path("a.txt"), "", options)
            .await
            .expect("opened");
        assert_eq!(rows(&world.all(&source).await.expect("read")), expected);
    }
}

#[tokio::test]
async fn schemas_are_inferred_only_when_asked_for() {
    let world = World::new();
    world.write("c/a.csv", 1, "k,n,t\na,1,2024-05-01 10:00:00\n");
    world.write("j/a.json", 1, "{\"k\":\"a\",\"n\":1}\n");
    world.write(
        "p/a.parquet",
        1,
        parquet("k string, n int", r#"{"k":"a","n":1}"#),
    );
    for (format, folder) in [("csv", "c"), ("json", "j"), ("parquet", "p")] {
        let path = world.path(folder);
        let error = world
            .load(format, &path, "", Options::new())
            .await
            .expect_err("no schema");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("schemaInference")),
            "{error}"
        );
        let mut options = Options::from([("inferSchema", "true")]);
        if format == "csv" {
            options.set("header", true);
        }
        let source = world.load(format, &path, "", options).await.expect(format);
        let found = world.all(&source).await.expect(format);
        assert!(
            rows(&found)[0].starts_with("a|1"),
            "{}",
            pretty_format_batches(&[found]).expect("shown")
        );
    }
}

#[tokio::test]
async fn sources_are_cleaned_after_the_commit() {
    for (options, left, archived) in [
        (Options::new(), true, false),
        (Options::from([("cleanSource", "delete")]), false, false),
        (Options::from([("cleanSource", "archive")]), false, true),
    ] {
        let world = World::new();
        let mut options = options;
        let archive = world.path("done");
        options.set("sourceArchiveDir", archive.as_str());
        world.write("in/a.csv", 1, "1\n");
        let source = world
            .query("csv", &world.path("in"), "n int", options)
            .await
            .expect("opened");
        assert_eq!(world.first_batches(&source).await.expect("read"), [["1"]]);
        assert_eq!(fs::exists(world.path("in/a.csv")).expect("looked"), left);
        let moved = format!("{archive}{}", world.path("in/a.csv"));
        assert_eq!(fs::exists(moved).expect("looked"), archived);
    }
    let world = World::new();
    let options = [
        ("cleanSource", "archive"),
        ("sourceArchiveDir", &world.path("done")),
    ];
    let error = world
        .csv("n int", options)
        .await
        .expect_err("inside the source");
    assert_eq!(error.option(), Some("sourceArchiveDir"));
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let world = World::new();
    world.write("in/a.csv", 1, "1\n");
    world.write("gz/a.csv.gz", 1, "1\n");
    let open = async |path: &str, schema: &str, options: Options| -> Error {
        let opened = world.load("csv", path, schema, options).await;
        opened.expect_err("refused")
    };
    let path = world.path("in");
    let error = open(&world.path("gone"), "n int", Options::new()).await;
    assert_eq!(error.condition(), Some("PATH_NOT_FOUND"));
    let error = open(&path, "n int", Options::from([("headr", "true")])).await;
    assert_eq!(
        (error.option(), error.hint()),
        (Some("headr"), Some("did you mean `header`?"))
    );
    let error = open(&path, "n array<int>", Options::new()).await;
    assert_eq!(
        (error.kind(), error.column()),
        (ErrorKind::Unsupported, Some("n"))
    );
    let error = open(&world.path("gz"), "n int", Options::new()).await;
    assert!(error.message().contains("a.csv.gz"), "{error}");
    let error = open("s3://bucket/in", "n int", Options::new()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        world
            .load("csv", &world.path("gone/*.csv"), "n int", Options::new())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn any_store_will_do_and_etags_count_there() {
    let world = World::new();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let url = url::Url::parse("memory://box").expect("url");
    world
        .session
        .runtime_env()
        .register_object_store(&url, Arc::clone(&store));
    let put = async |text: &'static str| {
        store
            .put(&Path::from("in/a.csv"), text.into())
            .await
            .expect("put");
    };
    put("1\n2\n").await;
    let source = world
        .query("csv", "memory://box/in", "n int", Options::new())
        .await
        .expect("opened");
    assert_eq!(rows(&world.all(&source).await.expect("read")), ["1", "2"]);
    put("3\n4\n").await;
    let error = world
        .read(&source, &at(-1), &at(0))
        .await
        .expect_err("differs");
    assert!(error.message().contains("etag"), "{error}");
    let error = world
        .load("csv", "memory://box/out", "n int", Options::new())
        .await
        .expect_err("gone");
    assert_eq!(error.condition(), Some("PATH_NOT_FOUND"));
}

#[tokio::test]
async fn an_idle_query_sleeps_for_the_poll_interval() {
    let world = World::new();
    world.write("a.csv", 1, "1\n");
    let source = world
        .csv("n int", [("pollInterval", "20 ms")])
        .await
        .expect("opened");
    assert!(
        source.changed().now_or_never().is_some(),
        "nothing was listed yet"
    );
    world.first_batches(&source).await.expect("read");
    let mut changed = source.changed();
    assert!(changed.as_mut().now_or_never().is_none());
    world.clock.advance("20 ms").expect("advanced");
    assert!(changed.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn the_contract_of_sources_is_kept() {
    let world = World::new();
    for (n, rows) in ["1,a\n2,b\n", "3,\n", "4,d\nx,e\n"].iter().enumerate() {
        world.write(&format!("in/{n}.csv"), n as u64, rows);
    }
    for limit in ["1", "2", "100"] {
        let world = World {
            folder: tempfile::tempdir().expect("folder"),
            log: Arc::new(InMemory::new()),
            session: Arc::clone(&world.session),
            clock: world.clock.clone(),
        };
        for (n, rows) in ["1,a\n2,b\n", "3,\n", "4,d\nx,e\n"].iter().enumerate() {
            world.write(&format!("in/{n}.csv"), n as u64, rows);
        }
        let path = world.path("in");
        let make = async || {
            world
                .query(
                    "csv",
                    &path,
                    "n int, k string",
                    [("maxFilesPerTrigger", limit)],
                )
                .await
        };
        contract::source::all(make).await.expect("kept");
    }
}

#[tokio::test]
async fn a_partition_that_comes_later_does_not_go_unnoticed() {
    let world = World::new();
    fs::create_dir(world.path("in")).expect("folder");
    let path = world.path("in");
    let source = world
        .query("csv", &path, "n int", Options::new())
        .await
        .expect("opened");
    world.write("in/k=1/a.csv", 1, "1\n");
    let error = world.all(&source).await.expect_err("a new column");
    assert_eq!(error.column(), Some("k"));
}

#[tokio::test]
async fn a_change_that_is_kept_unpolled_never_stops_the_next_question() {
    let world = World::new();
    world.write("1.csv", 1, "1\n");
    let source = world.csv("n int", [("pollInterval", "20 ms")]).await;
    let source = source.expect("opened");
    let (all, start) = (ReadLimit::All, at(-1));
    let pin = source.latest_offset(&start, &all, None).await.expect("pin");
    // Tokio lets a task do 128 things at a time: put the poll of `changed()` at every place among them.
    for used in 0..130 {
        tokio::task::yield_now().await;
        for _ in 0..used {
            tokio::task::consume_budget().await;
        }
        let mut changed = source.changed();
        let _ = futures::poll!(changed.as_mut());
        let mut question = source.latest_offset(&start, &all, Some(&pin));
        let mut answer = futures::poll!(question.as_mut());
        for _ in 0..3 {
            if answer.is_pending() {
                tokio::task::yield_now().await;
                answer = futures::poll!(question.as_mut());
            }
        }
        assert!(answer.is_ready(), "after {used} other things");
    }
}
