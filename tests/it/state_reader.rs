//! What a checkpoint remembers, read as tables: by `read_state` and by `state(…)`, at each micro-batch, of every operator.

mod joins;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use highwater::datafusion::arrow::util::pretty::pretty_format_batches;
use highwater::prelude::*;
use highwater::{ErrorKind, RecordBatch, Result};
use tempfile::TempDir;

/// The rows of `sql`, a line each, without the day; in order.
pub(crate) async fn lines(session: &StreamSession, sql: &str) -> Result<Vec<String>> {
    let rows = session.sql(sql).await?.collect().await?;
    let text = pretty_format_batches(&rows)?.to_string();
    let lines = text.lines().skip(3).filter(|line| line.starts_with('|'));
    let lines = lines.map(|line| {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        let line = cells.collect::<Vec<_>>().join(" ");
        line.replace("2024-05-01T", "").trim_end().to_owned()
    });
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    Ok(lines)
}

/// A query over rows of a time (seconds of 2024-05-01 00:00), a key and a value, and its checkpoint.
struct Watched {
    session: StreamSession,
    rows: MemoryStream,
    folder: TempDir,
    query: StreamingQuery,
}

impl Watched {
    async fn start(sql: &str, mode: OutputMode) -> Result<Self> {
        let session = StreamSession::new();
        let rows = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
        let marked = rows.to_frame().with_watermark("ts", "0 seconds")?;
        marked.create_or_replace_temp_view("timed")?;
        rows.to_frame().create_or_replace_temp_view("plain")?;
        let frame = session.sql(sql).await?;
        Self::of(session, rows, frame, mode).await
    }

    async fn of(
        session: StreamSession,
        rows: MemoryStream,
        frame: StreamFrame,
        mode: OutputMode,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let writer = frame.write_stream().output_mode(mode).format("noop");
        let writer = writer.checkpoint_location(folder.path().display().to_string());
        let query = writer.start().await?;
        Ok(Self {
            session,
            rows,
            folder,
            query,
        })
    }

    /// One micro-batch of these rows, and one without data where the watermark rises.
    async fn add(&self, rows: &[(u32, &str, i64)]) -> Result<()> {
        let rows = rows.iter().map(|(second, k, v)| {
            let ts = format!("2024-05-01 00:{:02}:{:02}", second / 60, second % 60);
            (ts, (*k).to_owned(), *v)
        });
        self.rows.add_data(rows)?;
        self.query.process_all_available().await
    }

    fn at(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// The state after a micro-batch; `columns` are names for its keys and values.
    async fn state(&self, batch: u64, columns: &str, shown: &str) -> Result<Vec<String>> {
        let at = self.at();
        let sql = format!(
            "SELECT {shown} FROM state('{at}', batch => {batch}) AS t({columns}, bucket, pane)"
        );
        lines(&self.session, &sql).await
    }

    async fn changes(&self, from: u64, to: u64) -> Result<Vec<String>> {
        let at = self.at();
        let sql = format!("SELECT * FROM state_changes('{at}', from => {from}, to => {to})");
        lines(&self.session, &sql).await
    }
}

/// All files below a folder, with their contents.
fn files(folder: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.insert((path, bytes));
        }
    }
    found
}

#[tokio::test]
async fn an_aggregate_is_seen_after_each_micro_batch() -> Result<()> {
    let sql = "SELECT k, count(*) AS n, sum(v) AS s FROM plain GROUP BY k";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    watched
        .add(&[(0, "a", 1), (0, "a", 2), (0, "b", 4)])
        .await?;
    watched.add(&[(0, "a", 8), (0, "c", 16)]).await?;
    let before = files(watched.folder.path());
    let shown = "k, n, s, pane";
    assert_eq!(
        watched.state(0, "k, n, s", shown).await?,
        ["a 2 3", "b 1 4"]
    );
    assert_eq!(
        watched.state(1, "k, n, s", shown).await?,
        ["a 3 11", "b 1 4", "c 1 16"]
    );
    assert_eq!(
        watched.changes(0, 1).await?,
        ["0 put a 2 3", "0 put b 1 4", "1 put a 3 11", "1 put c 1 16"]
    );
    assert_eq!(
        watched.changes(1, 1).await?,
        ["1 put a 3 11", "1 put c 1 16"]
    );
    // A key lies where it lies, at every micro-batch.
    let buckets = |batch| watched.state(batch, "k, n, s", "k, bucket");
    let (first, second) = (buckets(0).await?, buckets(1).await?);
    assert_eq!(first, second[..2]);
    for line in &second {
        let bucket = line
            .split(' ')
            .next_back()
            .and_then(|b| b.parse::<u32>().ok());
        assert!(bucket.is_some_and(|bucket| bucket < 64), "{line}");
    }
    assert_eq!(files(watched.folder.path()), before, "nothing is written");
    watched.query.stop().await
}

/// A query that goes on, after a stop and a start: what is read is what is committed.
#[tokio::test]
async fn it_is_read_while_the_query_runs_and_after_a_restart() -> Result<()> {
    let sql = "SELECT k, count(*) AS n FROM plain GROUP BY k";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    let (session, at) = (&watched.session, watched.at());
    let last = || async {
        let frame = session.read_state(&at).operator("aggregate").load().await?;
        frame.create_or_replace_temp_view("now")?;
        lines(session, "SELECT * EXCLUDE (bucket, pane) FROM now").await
    };
    for n in 1..4_i64 {
        watched.add(&[(0, "a", 1), (0, &n.to_string(), 1)]).await?;
        let seen = last().await?;
        assert_eq!(
            (seen.len() as i64, seen.last().cloned()),
            (n + 1, Some(format!("a {n}")))
        );
    }
    watched.query.stop().await?;
    assert_eq!(last().await?, ["1 1", "2 1", "3 1", "a 3"]);
    let writer = session.sql(sql).await?.write_stream().format("noop");
    let writer = writer
        .output_mode(OutputMode::Update)
        .checkpoint_location(&at);
    let query = writer.start().await?;
    watched.rows.add_data([("2024-05-01 00:00:00", "b", 1)])?;
    query.process_all_available().await?;
    assert_eq!(last().await?, ["1 1", "2 1", "3 1", "a 3", "b 1"]);
    let frame = session.read_state(&at).operator(0).batch(2).load().await?;
    assert_eq!(
        frame.count().await?,
        4,
        "an older micro-batch is what it was"
    );
    query.stop().await
}

/// Tumbling windows: each record is over at the end of its window.
#[tokio::test]
async fn windows_go_when_the_watermark_reaches_their_end() -> Result<()> {
    let sql =
        "SELECT window.start AS s, count(*) AS n FROM timed GROUP BY window(ts, '10 seconds')";
    let watched = Watched::start(sql, OutputMode::Append).await?;
    // 0: rows; 1: none, the watermark is 00:08. 2: a row; 3: none, the watermark is 00:14.
    watched.add(&[(3, "a", 1), (8, "a", 1)]).await?;
    watched.add(&[(14, "a", 1)]).await?;
    let state = |batch| watched.state(batch, "w, n", "pane, n");
    assert_eq!(state(0).await?, ["00:00:10 2"]);
    assert_eq!(state(1).await?, ["00:00:10 2"]);
    assert_eq!(state(2).await?, ["00:00:10 2", "00:00:20 1"]);
    assert_eq!(state(3).await?, ["00:00:20 1"]);
    let sql = format!(
        "SELECT batch_id, change, n FROM state_changes('{}') AS t(batch_id, change, w, n)",
        watched.at()
    );
    assert_eq!(
        lines(&watched.session, &sql).await?,
        ["0 put 2", "2 put 1", "3 evict 2"]
    );
    watched.query.stop().await
}

/// Sliding windows are kept as pieces: a piece is over at its end, and stays while one of its windows is open.
#[tokio::test]
async fn pieces_of_windows_go_with_the_last_of_their_windows() -> Result<()> {
    let sql = "SELECT window.start AS s, sum(v) AS v FROM timed GROUP BY window(ts, '10 seconds', '5 seconds')";
    let watched = Watched::start(sql, OutputMode::Append).await?;
    watched.add(&[(3, "a", 1), (8, "a", 2)]).await?;
    watched.add(&[(14, "a", 4)]).await?;
    let state = |batch| watched.state(batch, "w, v", "pane, v");
    assert_eq!(state(1).await?, ["00:00:05 1", "00:00:10 2"]);
    assert_eq!(state(2).await?, ["00:00:05 1", "00:00:10 2", "00:00:15 4"]);
    // At 00:14 the window of 00:05 to 00:15 is open: it needs the pieces from 00:05 on.
    assert_eq!(state(3).await?, ["00:00:10 2", "00:00:15 4"]);
    watched.query.stop().await
}

/// A window that is itself grouped by: the key is a struct of start and end, and its end counts.
#[tokio::test]
async fn windows_of_windows_tell_their_end_too() -> Result<()> {
    let sql =
        "SELECT w, count(*) AS n FROM (SELECT window(ts, '10 seconds') AS w FROM timed) GROUP BY w";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    watched.add(&[(3, "a", 1)]).await?;
    watched.add(&[(14, "a", 1)]).await?;
    let state = |batch| watched.state(batch, "w, n", "pane, n");
    assert_eq!(state(2).await?, ["00:00:10 1", "00:00:20 1"]);
    assert_eq!(state(3).await?, ["00:00:20 1"]);
    watched.query.stop().await
}

#[tokio::test]
async fn sessions_are_merged_and_go() -> Result<()> {
    let sql = "SELECT session_window.start AS s, k, count(*) AS n FROM later GROUP BY session_window(ts, '5 seconds'), k";
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
    let marked = rows.to_frame().with_watermark("ts", "20 seconds")?;
    marked.create_or_replace_temp_view("later")?;
    let frame = session.sql(sql).await?;
    let watched = Watched::of(session, rows, frame, OutputMode::Update).await?;
    // 0, and 1 without data: the watermark is 00:00.
    watched
        .add(&[(1, "a", 1), (8, "a", 1), (20, "b", 1)])
        .await?;
    // 2: 00:04 to 00:09 meets both sessions of `a`.
    watched.add(&[(4, "a", 1)]).await?;
    // 3, and 4 without data: the watermark is 00:40.
    watched.add(&[(60, "b", 1)]).await?;
    let shown = "k, start, pane, n";
    let state = |batch| watched.state(batch, "k, start, until, n", shown);
    let first = [
        "a 00:00:01 00:00:06 1",
        "a 00:00:08 00:00:13 1",
        "b 00:00:20 00:00:25 1",
    ];
    assert_eq!(state(0).await?, first);
    assert_eq!(state(1).await?, first);
    assert_eq!(state(2).await?, ["a 00:00:01 00:00:13 3", first[2]]);
    assert_eq!(
        state(3).await?,
        ["a 00:00:01 00:00:13 3", first[2], "b 00:01:00 00:01:05 1"]
    );
    assert_eq!(state(4).await?, ["b 00:01:00 00:01:05 1"]);
    assert_eq!(
        watched.changes(2, 4).await?,
        [
            "2 put a 00:00:01 00:00:13 3",
            "2 remove a 00:00:08 00:00:13 1",
            "3 put b 00:01:00 00:01:05 1",
            "4 evict a 00:00:01 00:00:13 3",
            "4 evict b 00:00:20 00:00:25 1",
        ]
    );
    watched.query.stop().await
}

#[tokio::test]
async fn a_deduplication_forgets_by_its_key_or_by_the_first_row() -> Result<()> {
    for (within, kept) in [
        // Over at the event time itself: 00:20 is over once the watermark is 00:20.
        (false, ["a 00:00:03 00:00:03", "a 00:00:20 00:00:20"]),
        // Over ten seconds after it.
        (true, ["a 00:00:13 00:00:13", "b 00:00:30 00:00:30"]),
    ] {
        let session = StreamSession::new();
        let rows = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
        let marked = rows.to_frame().with_watermark("ts", "10 seconds")?;
        let frame = match within {
            true => marked.drop_duplicates_within_watermark(&["k"])?,
            false => marked.drop_duplicates(&["k", "ts"])?,
        };
        let watched = Watched::of(session, rows, frame, OutputMode::Append).await?;
        watched.add(&[(3, "a", 1)]).await?;
        let second = if within { "b" } else { "a" };
        watched.add(&[(20, second, 1)]).await?;
        // Key columns stand in the order of the input.
        let columns = if within { "k, t" } else { "t, k" };
        let state = |batch| watched.state(batch, columns, "k, t, pane");
        // 2: the row of 00:20 is there, and the watermark still that of the first row.
        assert_eq!(state(2).await?, kept, "within: {within}");
        // 3: the watermark is 00:10.
        let left = if within { &kept[..] } else { &kept[1..] };
        assert_eq!(state(3).await?, left, "within: {within}");
        // 4, 5: it is 00:25.
        watched.add(&[(35, "c", 1)]).await?;
        let last = if within {
            &["b 00:00:30 00:00:30", "c 00:00:45 00:00:45"][..]
        } else {
            &["c 00:00:35 00:00:35"]
        };
        assert_eq!(state(5).await?, last, "within: {within}");
        watched.query.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_is_a_count_and_a_global_aggregate_one_record() -> Result<()> {
    let watched = Watched::start("SELECT k FROM plain LIMIT 3", OutputMode::Append).await?;
    watched.add(&[(0, "a", 1), (0, "b", 1)]).await?;
    watched.add(&[(0, "c", 1), (0, "d", 1)]).await?;
    assert_eq!(watched.state(0, "taken", "taken, pane").await?, ["2"]);
    assert_eq!(watched.state(1, "taken", "taken, pane").await?, ["3"]);
    watched.query.stop().await?;

    let watched = Watched::start("SELECT sum(v) AS s FROM plain", OutputMode::Complete).await?;
    watched.add(&[(0, "a", 1), (0, "b", 2)]).await?;
    watched.add(&[(0, "a", 4)]).await?;
    assert_eq!(watched.state(0, "s", "s").await?, ["3"]);
    assert_eq!(watched.state(1, "s", "s").await?, ["7"]);
    watched.query.stop().await
}

/// Against DataFusion: after each micro-batch the state is the answer over all rows so far.
#[tokio::test]
async fn each_state_is_the_batch_answer_over_the_rows_so_far() -> Result<()> {
    let sql = "SELECT k, count(*) AS n, min(v) AS low, max(v) AS high FROM plain GROUP BY k";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    let mut values = Vec::new();
    let mut expected = Vec::new();
    for batch in 0..6_i64 {
        let rows: Vec<(String, i64)> = (0..40)
            .map(|i| (batch * 40 + i) * 7_919 % 1_009)
            .map(|x| (format!("key {}", x % 17), x - 500))
            .collect();
        let borrowed: Vec<_> = rows.iter().map(|(k, v)| (0, k.as_str(), *v)).collect();
        watched.add(&borrowed).await?;
        values.extend(rows.iter().map(|(k, v)| format!("('{k}', {v})")));
        let batch_sql = format!(
            "SELECT k, count(*), min(v), max(v) FROM (VALUES {}) AS t(k, v) GROUP BY k",
            values.join(", ")
        );
        expected.push(lines(&watched.session, &batch_sql).await?);
    }
    for (batch, expected) in (0..).zip(&expected) {
        let seen = watched
            .state(batch, "k, n, low, high", "k, n, low, high")
            .await?;
        assert_eq!(&seen, expected, "micro-batch {batch}");
    }
    watched.query.stop().await
}

#[tokio::test]
async fn what_there_is_to_read_is_told() -> Result<()> {
    let session = StreamSession::new();
    let rows = MemoryStream::new(&session, "ts TIMESTAMP, k STRING, v BIGINT")?;
    let frame = rows.to_frame().drop_duplicates(&["k", "v"])?;
    let frame = frame.limit(0, Some(9))?;
    let watched = Watched::of(session, rows, frame, OutputMode::Append).await?;
    watched
        .add(&[(0, "a", 1), (0, "a", 1), (0, "a", 2)])
        .await?;
    watched.add(&[(0, "b", 1)]).await?;
    let (session, at) = (&watched.session, watched.at());
    let frame = session.read_state(&at).metadata().await?;
    frame.create_or_replace_temp_view("meta")?;
    let by_sql = format!("SELECT * FROM state_metadata('{at}')");
    let rows = lines(session, "SELECT * FROM meta").await?;
    assert_eq!(lines(session, &by_sql).await?, rows);
    // Three pairs were seen; the limit is one count.
    let columns = "name, kind, \"keys\", \"values\", \"rows\", min_batch, max_batch, operator";
    let rows = lines(session, &format!("SELECT {columns} FROM meta")).await?;
    let expected = [
        "dedup dedupe [k, v] [] 3 0 1",
        "limit globalLimit [] [taken] 1 0 1",
    ];
    for (row, expected) in rows.iter().zip(expected) {
        let (row, number) = row.rsplit_once(' ').expect("columns");
        assert_eq!(row, expected);
        let name = expected.split(' ').next().expect("a name");
        let count = |operator: String| {
            let sql = format!("SELECT count(*) FROM state('{at}', OPERATOR => {operator})");
            async move { lines(session, &sql).await }
        };
        let by_number = count(number.to_owned()).await?;
        assert_eq!(count(format!("'{name}'")).await?, by_number);
        assert!(row.contains(&format!(" {} 0 1", by_number[0])), "{row}");
    }
    assert_eq!(rows.len(), 2);
    watched.query.stop().await
}

#[tokio::test]
async fn mistakes_say_what_there_is() -> Result<()> {
    let sql = "SELECT k, count(*) AS n FROM plain GROUP BY k";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    let (session, at) = (&watched.session, watched.at());
    let error = session
        .read_state(&at)
        .load()
        .await
        .expect_err("no micro-batch yet");
    assert!(
        error.message().contains("no micro-batch is committed"),
        "{error}"
    );
    watched.add(&[(0, "a", 1)]).await?;
    watched.add(&[(0, "a", 1)]).await?;
    for (call, said) in [
        (format!("state('{at}/nowhere')"), "there is no checkpoint"),
        (
            format!("state('{at}', operator => 'dedup')"),
            "operator `dedup`; there are 0 `aggregate`",
        ),
        (
            format!("state('{at}', operator => 1)"),
            "operator 1; there are 0 `aggregate`",
        ),
        (format!("state('{at}', operator => -1)"), "operator -1"),
        (
            format!("state('{at}', operator => k)"),
            "a name in quotes or a number",
        ),
        (
            format!("state('{at}', batch => 2)"),
            "it has those of 0 to 1",
        ),
        (
            format!("state('{at}', batch => 'x')"),
            "the number of a micro-batch",
        ),
        (
            format!("state('{at}', batches => 1)"),
            "no argument `batches`",
        ),
        (format!("state('{at}', 1)"), "have names"),
        ("state()".to_owned(), "first argument"),
        (
            format!("state_changes('{at}', from => 1, to => 0)"),
            "there are none",
        ),
        (
            format!("state_changes('{at}', from => 1, to => 9)"),
            "it has those of 0 to 1",
        ),
        (
            format!("state_changes('{at}', batch => 1)"),
            "no argument `batch`",
        ),
        (
            format!("state_metadata('{at}', operator => 0)"),
            "no argument `operator`",
        ),
    ] {
        let error = session
            .sql(&format!("SELECT * FROM {call}"))
            .await
            .expect_err(&call);
        assert!(error.message().contains(said), "{call}: {error}");
        assert_eq!(
            error.position().map(|p| (p.line, p.column)),
            Some((1, 15)),
            "{call}"
        );
    }
    let error = session.read_state(&at).batch(1).changes(0, 1).load().await;
    assert_eq!(error.expect_err("both").option(), Some("batch"));
    watched.query.stop().await
}

/// A file that is damaged or gone is named, and no row comes.
#[tokio::test]
async fn a_damaged_file_is_named() -> Result<()> {
    let sql = "SELECT k, count(*) AS n FROM plain GROUP BY k";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    watched.add(&[(0, "a", 1)]).await?;
    watched.add(&[(0, "b", 1)]).await?;
    watched.query.stop().await?;
    let at = watched.at();
    let read = || async {
        let frame = watched.session.read_state(&at).load().await?;
        frame.collect().await
    };
    for (name, bytes) in [
        ("state/0-0", Some("HWST")),
        ("state/0-0", None),
        ("commits/1", Some("v1\n{")),
        ("operators", Some("v1\n{\"operators\":[")),
        ("operators", None),
    ] {
        let path = watched.folder.path().join(name);
        let whole = fs::read(&path)?;
        match bytes {
            Some(bytes) => fs::write(&path, bytes)?,
            None => fs::remove_file(&path)?,
        }
        let error = read().await.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
        fs::write(&path, whole)?;
    }
    assert_eq!(
        read()
            .await?
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>(),
        2
    );
    Ok(())
}

/// Such a table is one like others: joined, in a view, explained, beside a table function of the user's.
#[tokio::test]
async fn sql_may_do_with_it_what_it_does_with_tables() -> Result<()> {
    let sql = "SELECT k, count(*) AS n FROM plain GROUP BY k";
    let watched = Watched::start(sql, OutputMode::Update).await?;
    watched.add(&[(0, "a", 1), (0, "b", 1)]).await?;
    watched.add(&[(0, "a", 1)]).await?;
    let (session, at) = (&watched.session, watched.at());
    let joined = format!(
        "SELECT new.k FROM STATE('{at}') AS new(k, n, bucket, pane) \
         JOIN state('{at}', batch => 0) AS old(k, n, bucket, pane) ON old.k = new.k AND old.n < new.n"
    );
    assert_eq!(lines(session, &joined).await?, ["a"]);
    assert_eq!(
        lines(session, &format!("SELECT state.k FROM state('{at}')")).await?,
        ["a", "b"]
    );
    session
        .sql(&format!("CREATE VIEW seen AS SELECT k FROM state('{at}')"))
        .await?;
    watched.add(&[(0, "c", 1)]).await?;
    assert_eq!(
        lines(session, "SELECT k FROM seen").await?,
        ["a", "b"],
        "as it was found"
    );
    let plan = session
        .sql(&format!("EXPLAIN SELECT k FROM state('{at}')"))
        .await?;
    assert!(!plan.collect().await?.is_empty());
    watched.query.stop().await
}
