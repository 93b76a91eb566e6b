//! A directory that a file sink wrote: only what its log names, each row once.

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;

use super::*;
use crate::file::FileTable;

/// What an entry says: `+name` data, `*name` a roll-up, `-name` a deletion.
type Says<'a> = &'a str;

impl World {
    /// A line of the log, as Spark writes it, with our field `replaces`.
    fn line(&self, says: Says) -> String {
        let (what, name) = says.split_at(1);
        let path = self.path(name);
        let (size, modified) = match fs::metadata(&path) {
            Ok(meta) => {
                let modified = meta.modified().expect("time");
                let since = modified.duration_since(SystemTime::UNIX_EPOCH);
                (meta.len(), since.expect("after 1970").as_millis())
            }
            Err(_) => (1, 0),
        };
        let action = if what == "-" { "delete" } else { "add" };
        let replaces = if what == "*" {
            ",\"replaces\":true"
        } else {
            ""
        };
        format!(
            "{{\"path\":\"file://{path}\",\"size\":{size},\"isDir\":false,\"modificationTime\":{modified},\
             \"blockReplication\":1,\"blockSize\":33554432,\"action\":\"{action}\"{replaces}}}"
        )
    }

    fn log_entry(&self, name: &str, lines: &[String]) {
        let text: Vec<&str> = ["v1"]
            .into_iter()
            .chain(lines.iter().map(String::as_str))
            .collect();
        self.write(&format!("_spark_metadata/{name}"), 0, text.join("\n"));
    }

    /// Entry `number` of the log.
    fn commit(&self, number: u64, says: &[Says]) {
        let lines: Vec<String> = says.iter().map(|says| self.line(says)).collect();
        self.log_entry(&number.to_string(), &lines);
    }

    /// A compact entry, which names all files; the plain ones before it go.
    fn compact(&self, number: u64, says: &[Says]) {
        let lines: Vec<String> = says.iter().map(|says| self.line(says)).collect();
        self.log_entry(&format!("{number}.compact"), &lines);
        for old in 0..=number {
            fs::remove_file(self.path(&format!("_spark_metadata/{old}"))).ok();
            if old < number {
                fs::remove_file(self.path(&format!("_spark_metadata/{old}.compact"))).ok();
            }
        }
    }

    /// The list of the files that compact entry `number` replaces.
    fn replaced(&self, number: u64, says: &[Says]) {
        let lines: Vec<String> = says.iter().map(|says| self.line(says)).collect();
        let text = format!("v1\n[{}]", lines.join(","));
        self.write(&format!("_spark_metadata/replaced/{number}"), 0, text);
    }

    /// What a batch query reads of the folder, sorted.
    async fn batch(&self, schema: &str) -> Result<Vec<String>> {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let mut spec = SourceSpec::new("csv", clock, Arc::clone(&self.session));
        spec.path = Some(self.path(""));
        spec.schema = Some(schema.into_schema()?);
        let table = FileTable::open(spec).await?;
        let schema = table.schema();
        let frame = SessionContext::new().read_table(Arc::new(table))?;
        let mut read = rows(&concat_batches(&schema, &frame.collect().await?)?);
        read.sort();
        Ok(read)
    }

    /// All rows that a query takes from `start` on, and where it ends.
    async fn taken(
        &self,
        source: &Arc<dyn Source>,
        start: Offset,
    ) -> Result<(Vec<String>, Offset)> {
        let (batches, end) = self.batches(source, start).await?;
        Ok((batches.into_iter().flatten().collect(), end))
    }
}

fn one() -> [(&'static str, u64); 1] {
    [("maxFilesPerTrigger", 1)]
}

#[tokio::test]
async fn the_logs_files_count_in_the_order_of_commits_and_no_others() -> Result<()> {
    let world = World::new();
    for (name, second) in [("a.csv", 9), ("b.csv", 5), ("stray.csv", 1), ("c.csv", 3)] {
        world.write(name, second, format!("{second}\n"));
    }
    world.commit(0, &["+a.csv"]);
    world.commit(1, &[]);
    world.commit(2, &["+c.csv", "+b.csv"]);
    // Side files of Spark's local file system are no entries.
    world.write("_spark_metadata/.2.crc", 0, "x");
    assert_eq!(world.batch("n int").await?, ["3", "5", "9"]);
    let source = world.csv("n int", one()).await?;
    let (taken, end) = world.taken(&source, at(-1)).await?;
    assert_eq!(taken, ["9", "3", "5"]);

    world.commit(3, &["+stray.csv"]);
    assert_eq!(world.taken(&source, end).await?.0, ["1"]);
    assert_eq!(world.batch("n int").await?, ["1", "3", "5", "9"]);
    Ok(())
}

#[tokio::test]
async fn however_old_a_file_is_it_counts() -> Result<()> {
    let world = World::new();
    for (name, second) in [("new.csv", 10_000_000), ("old.csv", 1), ("older.csv", 0)] {
        world.write(name, second, format!("{second}\n"));
    }
    world.commit(0, &["+new.csv", "+old.csv"]);
    let options = [("maxFilesPerTrigger", "1"), ("maxFileAge", "1 hour")];
    let source = world.csv("n int", options).await?;
    let (_, end) = world.taken(&source, at(-1)).await?;
    world.commit(1, &["+older.csv"]);
    let again = world.csv("n int", options).await?;
    assert_eq!(world.taken(&again, end).await?.0, ["0"]);
    Ok(())
}

#[tokio::test]
async fn only_the_directory_itself_is_a_sinks() -> Result<()> {
    let world = World::new();
    world.write("k=1/a.csv", 1, "1\n");
    world.write("k=1/stray.csv", 2, "2\n");
    world.commit(0, &["+k=1/a.csv"]);
    for (path, expected) in [
        ("", vec!["1|1"]),
        ("k=1", vec!["1", "2"]),
        ("k=*", vec!["1", "2"]),
        ("k=1/stray.csv", vec!["2"]),
    ] {
        let source = world
            .load("csv", &world.path(path), "n int", Options::new())
            .await?;
        assert_eq!(rows(&world.all(&source).await?), expected, "{path}");
    }
    assert_eq!(world.batch("n int").await?, ["1|1"]);
    // Spark sees the log here too, and no partition columns.
    for (option, value, expected) in [
        ("recursiveFileLookup", "true", &["1"][..]),
        ("pathGlobFilter", "b*", &[]),
    ] {
        let path = world.path("");
        let source = world.load("csv", &path, "n int", [(option, value)]).await?;
        assert_eq!(rows(&world.all(&source).await?), expected, "{option}");
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_becomes_a_sinks_when_its_log_comes() -> Result<()> {
    let world = World::new();
    let source = world.csv("n int", Options::new()).await?;
    assert!(world.taken(&source, at(-1)).await?.0.is_empty());
    let cleans = world.csv("n int", [("cleanSource", "delete")]).await?;
    // As Spark, the sink makes the folder of the log before the first file.
    fs::create_dir_all(world.path("_spark_metadata"))?;
    world.write("a.csv", 1, "1\n");
    world.clock.advance("2 seconds")?;
    assert!(world.taken(&source, at(-1)).await?.0.is_empty());
    world.commit(0, &["+a.csv"]);
    world.clock.advance("2 seconds")?;
    assert_eq!(world.taken(&source, at(-1)).await?.0, ["1"]);

    for error in [
        world.taken(&cleans, at(-1)).await.expect_err("refused"),
        world
            .csv("n int", [("cleanSource", "delete")])
            .await
            .expect_err("refused"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.option(), Some("cleanSource"));
    }
    Ok(())
}

/// a, then b; r replaces both; then c.
async fn rolled_up(restart: bool) -> Result<World> {
    let world = World::new();
    for (name, text) in [
        ("a.csv", "1\n"),
        ("b.csv", "2\n"),
        ("r.csv", "1\n2\n"),
        ("c.csv", "3\n"),
    ] {
        world.write(name, 1, text);
    }
    world.commit(0, &["+a.csv"]);
    let mut source = world.csv("n int", Options::new()).await?;
    let (taken, end) = world.taken(&source, at(-1)).await?;
    assert_eq!(taken, ["1"]);
    // b is rolled up before the stream has seen it, and is still there to read.
    world.commit(1, &["+b.csv"]);
    world.commit(2, &["*r.csv", "-a.csv", "-b.csv"]);
    world.commit(3, &["+c.csv"]);
    if restart {
        source = world.csv("n int", Options::new()).await?;
    }
    assert_eq!(world.taken(&source, end).await?.0, ["2", "3"]);
    assert_eq!(world.batch("n int").await?, ["1", "2", "3"]);
    Ok(world)
}

#[tokio::test]
async fn a_roll_up_brings_no_row_twice() -> Result<()> {
    for restart in [false, true] {
        rolled_up(restart).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_begins_takes_the_roll_ups() -> Result<()> {
    let fresh = World {
        log: Arc::new(InMemory::new()),
        ..rolled_up(false).await?
    };
    fs::remove_file(fresh.path("a.csv"))?;
    fs::remove_file(fresh.path("b.csv"))?;
    let source = fresh.csv("n int", one()).await?;
    let limit = source.read_limit();
    let first = source.latest_offset(&at(-1), &limit, None).await?;
    let read = fresh.read(&source, &at(-1), &first).await?;
    assert_eq!(rows(&read), ["1", "2"]);
    // What waits of the first view survives a restart, and that it is rolled up in turn.
    fresh.write("q.csv", 1, "1\n2\n3\n");
    fresh.write("d.csv", 1, "4\n");
    fresh.commit(4, &["*q.csv", "-r.csv", "-c.csv", "+d.csv"]);
    let again = fresh.csv("n int", one()).await?;
    assert_eq!(fresh.taken(&again, first).await?.0, ["3", "4"]);
    assert_eq!(fresh.batch("n int").await?, ["1", "2", "3", "4"]);
    Ok(())
}

/// As our sink rolls up: the compact entry names r instead of a and b, and for a while a list says what it replaced.
#[tokio::test]
async fn a_stream_that_fell_behind_what_the_sink_forgot_fails() -> Result<()> {
    for (read, listed, expected) in [
        (0, false, Some(["1", "2", "3"].as_slice())),
        (0, true, Some(&["1", "2", "3"])),
        (1, false, None),
        (1, true, Some(&["2", "3"])),
        (2, false, Some(&["3"])),
        (2, true, Some(&["3"])),
    ] {
        let world = World::new();
        for (name, second, text) in [
            ("a.csv", 1, "1\n"),
            ("b.csv", 2, "2\n"),
            ("r.csv", 2, "1\n2\n"),
            ("c.csv", 9, "3\n"),
        ] {
            world.write(name, second, text);
        }
        let mut source = world.csv("n int", Options::new()).await?;
        let mut end = at(-1);
        for (entry, says) in (0..read).zip(["+a.csv", "+b.csv"]) {
            world.commit(entry, &[says]);
            end = world.taken(&source, end).await?.1;
        }
        if listed {
            world.replaced(9, &["-a.csv", "-b.csv"]);
        }
        world.compact(9, &["*r.csv", "+c.csv"]);
        assert_eq!(world.batch("n int").await?, ["1", "2", "3"]);
        for restart in [false, true] {
            if restart {
                source = world.csv("n int", Options::new()).await?;
            }
            let taken = world.taken(&source, end.clone()).await;
            match (taken, expected) {
                (Err(error), None) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    assert!(error.message().contains("r.csv"), "{error}");
                    assert!(error.hint().is_some());
                }
                (Ok((taken, to)), Some(expected)) => {
                    let expected = if restart { &[] } else { expected };
                    assert_eq!(taken, expected, "{read} {listed} {restart}");
                    end = to;
                }
                (taken, _) => panic!("{read} {listed} {restart}: {taken:?}"),
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn files_that_are_gone_are_named_and_files_given_up_are_not_taken() -> Result<()> {
    let world = World::new();
    for name in ["a.csv", "b.csv", "c.csv"] {
        world.write(name, 1, "1\n");
    }
    world.commit(0, &["+a.csv"]);
    let source = world.csv("n int", Options::new()).await?;
    let (_, end) = world.taken(&source, at(-1)).await?;
    world.commit(1, &["+b.csv", "+c.csv"]);
    world.commit(2, &["-b.csv"]);
    fs::remove_file(world.path("b.csv"))?;
    world.clock.advance("2 seconds")?;
    let next = source.latest_offset(&end, &ReadLimit::All, None).await?;
    assert_eq!(world.read(&source, &end, &next).await?.num_rows(), 1);

    fs::remove_file(world.path("c.csv"))?;
    let error = world.read(&source, &end, &next).await.expect_err("gone");
    assert!(error.to_string().contains("c.csv"), "{error}");
    assert!(
        error.to_string().contains("new checkpoint") || error.hint().is_some(),
        "{error}"
    );

    fs::remove_dir_all(world.path("_spark_metadata"))?;
    world.clock.advance("2 seconds")?;
    let error = source
        .latest_offset(&next, &ReadLimit::All, None)
        .await
        .expect_err("gone");
    assert!(error.message().contains("_spark_metadata"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_log_that_is_damaged_or_of_another_place_is_told() {
    let world = World::new();
    world.write("a.csv", 1, "1\n");
    world.log_entry("0", &["{\"path\":".to_owned()]);
    let error = world
        .csv("n int", Options::new())
        .await
        .expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("_spark_metadata/0"), "{error}");

    let moved = World::new();
    let line = world.line("+a.csv");
    moved.log_entry("0", &[line]);
    let error = moved.csv("n int", Options::new()).await.expect_err("moved");
    assert!(error.to_string().contains("a.csv"), "{error}");
}

#[tokio::test]
async fn any_store_has_sink_directories() -> Result<()> {
    let world = World::new();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let url = url::Url::parse("mem://bucket").expect("url");
    world
        .session
        .runtime_env()
        .register_object_store(&url, Arc::clone(&store));
    for (path, text) in [
        ("out/a.csv", "1\n"),
        ("out/stray.csv", "2\n"),
        (
            "out/_spark_metadata/0",
            "v1\n{\"path\":\"mem://bucket/out/a.csv\",\"size\":2,\"isDir\":false,\"modificationTime\":0,\
             \"blockReplication\":1,\"blockSize\":1,\"action\":\"add\"}",
        ),
    ] {
        store
            .put(&Path::from(path), text.to_owned().into())
            .await
            .expect("put");
    }
    for options in [Options::new(), [("recursiveFileLookup", true)].into()] {
        let source = world
            .load("csv", "mem://bucket/out", "n int", options)
            .await?;
        assert_eq!(rows(&world.all(&source).await?), ["1"]);
    }
    Ok(())
}

/// A small generator: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A random sink, which does as ours: it rolls up at compact entries, tells in a list what it replaced, and deletes that at the next.
#[derive(Default)]
struct History {
    entries: u64,
    /// What the log says, and the rows of each file, in its order.
    lines: Vec<(String, Vec<String>, u64)>,
    replaced: Option<(u64, Vec<String>)>,
    written: usize,
}

impl History {
    /// One micro-batch of the sink.
    fn step(&mut self, world: &World, random: &mut Random) {
        let number = self.entries;
        self.entries += 1;
        let compact = (number + 1).is_multiple_of(3);
        let mut gone = Vec::new();
        if compact && self.lines.len() > 2 && random.below(3) > 0 {
            gone = self.roll_up(world, number, random);
        }
        let mut new = Vec::new();
        for part in 0..random.below(3) {
            let name = format!("d{number}-{part}.csv");
            let rows = vec![self.written.to_string()];
            self.written += 1;
            world.write(&name, number, format!("{}\n", rows[0]));
            new.push((format!("+{name}"), rows, number));
        }
        self.lines.extend(new.iter().cloned());
        let says = |lines: &[(String, Vec<String>, u64)]| -> Vec<String> {
            lines.iter().map(|(says, ..)| says.clone()).collect()
        };
        let says = if compact {
            says(&self.lines)
        } else {
            says(&new)
        };
        let says: Vec<&str> = says.iter().map(String::as_str).collect();
        if !compact {
            return world.commit(number, &says);
        }
        world.compact(number, &says);
        if let Some((old, files)) = self.replaced.take() {
            for file in files {
                fs::remove_file(world.path(&file[1..])).expect("there until now");
            }
            fs::remove_file(world.path(&format!("_spark_metadata/replaced/{old}")))
                .expect("a list");
        }
        if !gone.is_empty() {
            self.replaced = Some((number, gone));
        }
    }

    /// Makes some files one; gives what is replaced.
    fn roll_up(&mut self, world: &World, number: u64, random: &mut Random) -> Vec<String> {
        let from = usize::try_from(random.below(self.lines.len() as u64 - 1)).expect("small");
        let to =
            (from + 2 + usize::try_from(random.below(3)).expect("small")).min(self.lines.len());
        let gone: Vec<_> = self.lines.drain(from..to).collect();
        let says: Vec<String> = gone.iter().map(|(says, ..)| says.clone()).collect();
        let rows: Vec<String> = gone.iter().flat_map(|(_, rows, _)| rows.clone()).collect();
        let newest = gone
            .iter()
            .map(|(_, _, second)| *second)
            .max()
            .expect("some");
        let name = format!("r{number}.csv");
        world.write(&name, newest, format!("{}\n", rows.join("\n")));
        let lines: Vec<&str> = says.iter().map(String::as_str).collect();
        world.replaced(number, &lines);
        self.lines.push((format!("*{name}"), rows, newest));
        says
    }
}

/// One stream of rows, with restarts.
struct Reading {
    source: Arc<dyn Source>,
    end: Offset,
    taken: Vec<String>,
}

impl Reading {
    /// Some micro-batches; an error says that the stream fell behind.
    async fn go_on(&mut self, world: &World, looks: u64) -> Result<()> {
        for _ in 0..looks {
            let limit = self.source.read_limit();
            let next = self.source.latest_offset(&self.end, &limit, None).await?;
            if next == self.end {
                break;
            }
            let read = world.read(&self.source, &self.end, &next).await?;
            self.taken.extend(rows(&read));
            self.source.commit(&next).await?;
            self.end = next;
        }
        Ok(())
    }
}

/// Whatever the sink rolls up, and whenever a stream begins, looks or starts again: each row comes once; or, where the
/// sink deleted or forgot what the stream had not read, the stream fails. It never goes on without the rows.
#[tokio::test]
async fn random_histories_are_read_once() -> Result<()> {
    const SEEDS: u64 = 80;
    let mut failures = 0;
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let world = World::new();
        fs::create_dir_all(world.path("_spark_metadata"))?;
        let mut history = History::default();
        for _ in 0..random.below(9) {
            history.step(&world, &mut random);
        }
        let limited = [("maxFilesPerTrigger", 1 + random.below(4))];
        let mut reading = Reading {
            source: world.csv("n int", limited).await?,
            end: at(-1),
            taken: vec![],
        };
        // Half of the streams are quick enough.
        let quick = seed % 2 == 0;
        let mut failed = None;
        for _ in 0..20 {
            history.step(&world, &mut random);
            world.clock.advance("2 seconds")?;
            if random.below(3) == 0 {
                reading.source = world.csv("n int", limited).await?;
            }
            let looks = if quick { 99 } else { random.below(3) };
            if let Err(error) = reading.go_on(&world, looks).await {
                failed = Some(error);
                break;
            }
        }
        if failed.is_none() {
            world.clock.advance("2 seconds")?;
            failed = reading.go_on(&world, 99).await.err();
        }
        let mut expected: Vec<String> = (0..history.written).map(|n| n.to_string()).collect();
        expected.sort();
        assert_eq!(world.batch("n int").await?, expected, "seed {seed}, batch");
        reading.taken.sort();
        let mut once = reading.taken.clone();
        once.dedup();
        assert_eq!(once, reading.taken, "seed {seed}: rows came twice");
        match failed {
            None => assert_eq!(reading.taken, expected, "seed {seed}"),
            Some(error) => {
                assert!(
                    !quick && error.kind() == ErrorKind::Corrupt,
                    "seed {seed}: {error}"
                );
                failures += 1;
            }
        }
    }
    assert!(
        failures > 0 && failures < SEEDS / 2,
        "{failures} streams fell behind"
    );
    Ok(())
}
