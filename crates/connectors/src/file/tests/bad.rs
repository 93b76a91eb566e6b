//! Files that cannot be read, in every way they can be bad, and what a run after a crash makes of them.

use std::time::Duration;

use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use highwater_core::testing::{Fault, FaultyStore};
use highwater_storage::RetryPolicy;
use serde_json::Value;
use url::Url;

use super::*;

const DATA: &str = "id bigint, name string";

/// Parquet with a row group for each of `groups`.
fn groups(groups: &[&str]) -> Vec<u8> {
    let schema = DATA.into_schema().expect("schema");
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(&schema), None).expect("writer");
    for rows in groups {
        let mut reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema))
            .build(rows.as_bytes())
            .expect("reader");
        let rows = reader.next().expect("rows").expect("rows");
        writer.write(&rows).expect("written");
        writer.flush().expect("flushed");
    }
    writer.close().expect("closed");
    bytes
}

/// Spoils the pages of a column of a row group; the footer stays whole.
fn spoil(mut bytes: Vec<u8>, group: usize, column: usize) -> Vec<u8> {
    let whole = bytes::Bytes::from(bytes.clone());
    let reader = ParquetRecordBatchReaderBuilder::try_new(whole).expect("reader");
    let (start, length) = reader
        .metadata()
        .row_group(group)
        .column(column)
        .byte_range();
    let (start, length) = (
        usize::try_from(start).expect("fits"),
        usize::try_from(length).expect("fits"),
    );
    bytes[start..start + length].fill(0xff);
    bytes
}

impl World {
    /// The options of a source that sets bad files aside in `bad/`.
    fn aside(&self) -> Options {
        Options::from([("badFilesPath", self.path("../bad"))])
    }

    /// The lines about bad files, by the names of their files.
    fn lines(&self) -> Vec<(String, Value)> {
        let Ok(folder) = fs::read_dir(self.path("../bad/bad_files")) else {
            return Vec::new();
        };
        let mut lines: Vec<(String, Value)> = folder
            .map(|entry| {
                let path = entry.expect("entry").path();
                let text = fs::read_to_string(&path).expect("read");
                assert_eq!(text.matches('\n').count(), 1, "{text}");
                let name = path
                    .file_name()
                    .expect("name")
                    .to_string_lossy()
                    .into_owned();
                (
                    name,
                    serde_json::from_str::<Value>(&text).expect("a line of JSON"),
                )
            })
            .collect();
        lines.sort_by_key(|(_, line)| line["path"].to_string());
        lines
    }
}

/// A world whose files lie in a folder beside that of the bad files.
fn world() -> (World, TempDir) {
    let mut world = World::new();
    let above = tempfile::tempdir().expect("folder");
    world.folder = tempfile::Builder::new()
        .prefix("in")
        .tempdir_in(above.path())
        .expect("folder");
    (world, above)
}

fn files_of(metrics: &std::collections::BTreeMap<String, String>, metric: &str) -> Vec<String> {
    let urls = metrics.get(metric).map(|urls| serde_json::from_str(urls));
    let urls: Vec<String> = urls.map(|urls| urls.expect("JSON")).unwrap_or_default();
    let name = |url: &String| url.rsplit('/').next().unwrap_or_default().to_owned();
    urls.iter().map(name).collect()
}

#[tokio::test]
async fn a_bad_file_gives_no_row_and_is_named() {
    let good = groups(&["{\"id\":1,\"name\":\"a\"}"]);
    let two = ["{\"id\":2,\"name\":\"b\"}", "{\"id\":3,\"name\":\"c\"}"];
    let other = parquet("id string", "{\"id\":\"x\"}");
    for (format, options, good, bad, reason) in [
        (
            "parquet",
            None,
            good.clone(),
            b"no parquet at all".to_vec(),
            "no readable Parquet footer",
        ),
        ("parquet", None, good.clone(), spoil(groups(&two), 1, 1), ""),
        ("parquet", None, good, other, "id"),
        (
            "csv",
            Some(("mode", "FAILFAST")),
            b"1,a\n".to_vec(),
            b"2,b\nx,c\n".to_vec(),
            "line 2",
        ),
        (
            "json",
            Some(("mode", "FAILFAST")),
            b"{\"id\":1,\"name\":\"a\"}\n".to_vec(),
            b"{\"id\":2}\n{\"id\":\n".to_vec(),
            "line 2",
        ),
        (
            "csv",
            None,
            b"1,a\n".to_vec(),
            b"2,b\n3,\xff\n".to_vec(),
            "line 2: it is not UTF-8",
        ),
    ] {
        let (world, _above) = world();
        world.write("1-bad", 1, &bad);
        world.write("2-good", 2, &good);
        let mut set = world.aside();
        if let Some((name, value)) = options {
            set.set(name, value);
        }
        let source = world
            .query(format, &world.path(""), DATA, set)
            .await
            .expect("opened");
        source
            .latest_offset(&at(-1), &ReadLimit::All, None)
            .await
            .expect("end");
        // The projection takes the column that is not spoiled: the file is bad all the same.
        for projection in [None, Some(vec![0])] {
            let read = world
                .read_some(&source, &at(-1), &at(0), projection, vec![])
                .await;
            let read = rows(&read.expect(format));
            assert!(
                read == ["1|a"] || read == ["1"],
                "{format} {reason}: {read:?}"
            );
        }
        let range = OffsetRange::new(at(-1), at(0));
        assert_eq!(files_of(&source.metrics(&range), "badFiles"), ["1-bad"]);
        assert!(source.metrics(&OffsetRange::new(at(0), at(1))).is_empty());
        let lines = world.lines();
        let [(_, line)] = lines.as_slice() else {
            panic!("{format}: {lines:?}");
        };
        assert!(
            line["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/1-bad")),
            "{line}"
        );
        assert!(
            line["reason"]
                .as_str()
                .is_some_and(|why| why.contains(reason)),
            "{line}"
        );
        assert!(fs::exists(world.path("1-bad")).expect("asked"));

        // Without the option the file is an error that names it.
        let strict = Options::from_iter(options);
        if reason.contains("UTF-8") {
            continue;
        }
        let source = world
            .load(format, &world.path(""), DATA, strict)
            .await
            .expect("opened");
        let error = world.all(&source).await.expect_err("bad");
        assert!(error.to_string().contains("1-bad"), "{error}");
    }
}

#[tokio::test]
async fn a_micro_batch_that_runs_again_decides_as_before() {
    let (world, _above) = world();
    let strict = || {
        let mut options = world.aside();
        options.set("mode", "FAILFAST");
        options
    };
    world.write("1", 1, "1,a\n");
    world.write("2", 2, "2,b\nx,c\n");
    world.write("3", 3, "3,d\n");
    let source = world.csv(DATA, strict()).await.expect("opened");
    let end = source
        .latest_offset(&at(-1), &ReadLimit::All, None)
        .await
        .expect("end");
    let first = world.read(&source, &at(-1), &end).await.expect("read");
    assert_eq!(rows(&first), ["1|a", "3|d"]);
    let lines = world.lines();
    drop(source);

    // The process dies, and the file is repaired: its rows would be in a micro-batch that may be out already.
    world.write("2", 20, "2,b\n2,c\n");
    let source = world.csv(DATA, strict()).await.expect("again");
    let again = world.read(&source, &at(-1), &end).await.expect("read");
    assert_eq!(again, first);
    assert_eq!(world.lines(), lines);
    let range = OffsetRange::new(at(-1), end.clone());
    assert_eq!(files_of(&source.metrics(&range), "badFiles"), ["2"]);
    // It was taken once, and is not taken again.
    source.commit(&end).await.expect("committed");
    let next = source
        .latest_offset(&end, &ReadLimit::All, None)
        .await
        .expect("asked");
    assert_eq!(next, end);

    // A good file that has changed is an error, not a bad file.
    world.write("3", 30, "3,e\n");
    let source = world.csv(DATA, strict()).await.expect("again");
    let error = world
        .read(&source, &at(-1), &end)
        .await
        .expect_err("changed");
    assert!(
        error.message().contains("has changed since it was taken"),
        "{error}"
    );
    assert_eq!(world.lines(), lines);
}

#[tokio::test]
async fn of_a_corrupt_file_the_rows_before_may_be_taken() {
    let (world, _above) = world();
    let two = ["{\"id\":1,\"name\":\"a\"}", "{\"id\":2,\"name\":\"b\"}"];
    world.write("1", 1, spoil(groups(&two), 1, 0));
    world.write("2", 2, groups(&["{\"id\":3,\"name\":\"c\"}"]));
    world.write("3", 3, b"no parquet at all");
    let ignore = [("ignoreCorruptFiles", true)];
    let source = world
        .query("parquet", &world.path(""), DATA, ignore)
        .await
        .expect("opened");
    let read = world.all(&source).await.expect("read");
    assert_eq!(rows(&read), ["1|a", "3|c"]);
    let metrics = source.metrics(&OffsetRange::new(at(-1), at(0)));
    assert_eq!(files_of(&metrics, "ignoredCorruptFiles"), ["1", "3"]);
    assert!(world.lines().is_empty());

    // A malformed row under FAILFAST is an error all the same (Spark).
    let (world, _above) = self::world();
    world.write("1", 1, "x,a\n");
    let options = [("ignoreCorruptFiles", "true"), ("mode", "FAILFAST")];
    let source = world.csv(DATA, options).await.expect("opened");
    let error = world.all(&source).await.expect_err("malformed");
    assert_eq!(error.condition(), Some("MALFORMED_RECORD_IN_PARSING"));
}

#[tokio::test]
async fn a_missing_file_may_be_passed_over() {
    for format in ["csv", "parquet"] {
        for ignore in [true, false] {
            let (world, _above) = world();
            let text = |id: u8| match format {
                "csv" => format!("{id},a\n").into_bytes(),
                _ => groups(&[&format!("{{\"id\":{id},\"name\":\"a\"}}")]),
            };
            world.write("1", 1, text(1));
            world.write("2", 2, text(2));
            let options = [("ignoreMissingFiles", ignore)];
            let source = world
                .query(format, &world.path(""), DATA, options)
                .await
                .expect("opened");
            let end = source
                .latest_offset(&at(-1), &ReadLimit::All, None)
                .await
                .expect("end");
            fs::remove_file(world.path("1")).expect("removed");
            let read = world.read(&source, &at(-1), &end).await;
            if !ignore {
                let error = read.expect_err("gone");
                assert!(
                    error.message().contains("is gone since it was taken"),
                    "{error}"
                );
                continue;
            }
            assert_eq!(rows(&read.expect("read")), ["2|a"]);
            let metrics = source.metrics(&OffsetRange::new(at(-1), end));
            assert_eq!(files_of(&metrics, "ignoredMissingFiles"), ["1"]);
        }
    }
}

/// The files of a store that fails, as `s3://bucket/in`.
async fn in_faulty_store(world: &mut World) -> FaultyStore {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    let url = Url::parse("s3://bucket").expect("url");
    let mut session = SessionStateBuilder::new().with_default_features().build();
    let at_once = RetryPolicy {
        first_delay: Duration::ZERO,
        ..RetryPolicy::default()
    };
    session.config_mut().set_extension(Arc::new(at_once));
    let store: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
    session.runtime_env().register_object_store(&url, store);
    world.session = Arc::new(session);
    for (name, text) in [("1", "1,a\n"), ("2", "2,b\n")] {
        let path = Path::from("in").join(name);
        faulty.put(&path, text.into()).await.expect("put");
    }
    faulty
}

#[tokio::test]
async fn a_store_that_fails_is_no_bad_file() {
    let (mut world, _above) = world();
    let faulty = in_faulty_store(&mut world).await;
    for (transient, option) in [
        (false, "badFilesPath"),
        (false, "ignoreCorruptFiles"),
        (true, "badFilesPath"),
    ] {
        let value = if option == "badFilesPath" {
            "s3://bucket/bad"
        } else {
            "true"
        };
        let source = world
            .load("csv", "s3://bucket/in", DATA, [(option, value)])
            .await
            .expect("opened");
        let end = source
            .latest_offset(&at(-1), &ReadLimit::All, None)
            .await
            .expect("end");
        faulty.transient(transient);
        for fault in [Fault::Before, Fault::After] {
            faulty.fail(faulty.operations().len() as u64 + 1, fault);
            let read = world.read(&source, &at(-1), &end).await;
            match read {
                // What may pass is tried again, and nobody sees it.
                Ok(read) => assert!(transient && rows(&read) == ["1|a", "2|b"]),
                Err(error) => assert!(!transient && error.kind() == ErrorKind::Invalid, "{error}"),
            }
            let metrics = source.metrics(&OffsetRange::new(at(-1), end.clone()));
            assert!(metrics.is_empty(), "{metrics:?}");
        }
    }
    let puts = faulty
        .operations()
        .iter()
        .filter(|done| done.starts_with("put_opts bad"))
        .count();
    assert_eq!(puts, 0);
}

#[tokio::test]
async fn every_operation_of_the_source_is_tried_again() {
    let (mut world, _above) = world();
    let faulty = in_faulty_store(&mut world).await;
    faulty.transient(true);
    let run = async || {
        let source = world
            .load("csv", "s3://bucket/in", DATA, Options::new())
            .await?;
        world.all(&source).await
    };
    let before = faulty.operations().len();
    let expected = run().await.expect("without faults");
    let operations = faulty.operations().len() - before;
    assert!(operations >= 4, "{:?}", faulty.operations());
    for nth in 1..=operations {
        for fault in [Fault::Before, Fault::After] {
            faulty.fail((faulty.operations().len() + nth) as u64, fault);
            assert_eq!(
                run().await.expect("tried again"),
                expected,
                "{fault:?} at {nth}"
            );
        }
    }
}

#[tokio::test]
async fn a_source_in_a_store_that_tries_again_keeps_its_promises() {
    let (mut world, _above) = world();
    let faulty = in_faulty_store(&mut world).await;
    faulty.transient(true);
    let make = async || {
        faulty.fail(faulty.operations().len() as u64 + 3, Fault::After);
        let options = [("badFilesPath", "s3://bucket/bad")];
        world.query("csv", "s3://bucket/in", DATA, options).await
    };
    contract::source::all(make).await.expect("kept");
}

#[tokio::test]
async fn where_bad_files_are_told_of_is_no_place_to_read() {
    let (world, _above) = world();
    for (options, option) in [
        (vec![("badFilesPath", world.path(""))], "badFilesPath"),
        (vec![("badFilesPath", world.path("below"))], "badFilesPath"),
        (vec![("badFilesPath", world.path("../*"))], "badFilesPath"),
        (
            vec![
                ("badFilesPath", world.path("../bad")),
                ("ignoreCorruptFiles", "true".to_owned()),
            ],
            "ignoreCorruptFiles",
        ),
    ] {
        let options = Options::from_iter(options);
        let error = world.csv(DATA, options).await.expect_err("refused");
        assert_eq!(error.option(), Some(option), "{error}");
    }
}
