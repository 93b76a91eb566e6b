//! The built command, run as a user runs it: what it prints, how it ends, what it leaves.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The command, with nothing of the environment that it would heed.
fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .args(args)
        .env_remove("HIGHWATER_HISTORY")
        .stdin(Stdio::null());
    command
}

/// What a run gave.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Ran {
    #[track_caller]
    fn fine(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// The lines of progress: every line of the standard error, when all went well.
    fn progress(&self) -> Vec<Value> {
        let lines = self.err.lines();
        let parsed =
            lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")));
        parsed.collect()
    }
}

fn run(args: &[&str]) -> Ran {
    command(args).output().expect("it runs").into()
}

/// Runs a command with this on its standard input.
fn feed(args: &[&str], input: &str) -> Ran {
    let mut command = command(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// A folder with three files of readings of two pumps, and scripts over them.
struct Pumps {
    folder: TempDir,
}

impl Pumps {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [
            (
                "1.csv",
                "2024-05-01 00:00:03,a,0.9\n2024-05-01 00:00:08,b,0.4\n",
            ),
            ("2.csv", "2024-05-01 00:00:14,a,0.3\n"),
            (
                "3.csv",
                "2024-05-01 00:00:25,b,0.8\n2024-05-01 00:00:26,a,0.7\n",
            ),
        ];
        let pumps = Self { folder };
        fs::create_dir(pumps.path("readings")).expect("made");
        for (name, text) in files {
            let file = pumps.path("readings").join(name);
            fs::write(&file, format!("ts,pump,psi\n{text}")).expect("written");
        }
        pumps
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    /// The statement that declares the stream, one file a micro-batch.
    fn declare(&self) -> String {
        format!(
            "CREATE UNBOUNDED EXTERNAL TABLE readings (ts TIMESTAMP, pump STRING, psi DOUBLE) STORED AS csv \
             LOCATION '{}' OPTIONS (header true, maxFilesPerTrigger 1);\n",
            self.text("readings")
        )
    }

    /// Windows of ten seconds into a table, with a checkpoint.
    fn counts(&self) -> String {
        format!(
            "{}CREATE STREAMING TABLE counts OPTIONS (trigger 'available now', output_mode 'complete', checkpoint '{}') AS\n\
             SELECT window.start AS start, count(*) AS n FROM STREAM readings WATERMARK ts DELAY OF INTERVAL 0 SECONDS\n\
             GROUP BY window(ts, '10 seconds');\n\
             AWAIT STREAMING QUERY counts;\n",
            self.declare(),
            self.text("ckpt")
        )
    }

    fn script(&self, text: &str) -> String {
        fs::write(self.path("script.sql"), text).expect("written");
        self.text("script.sql")
    }
}

/// The numbers of the entries in a folder of a checkpoint.
fn entries(folder: &Path) -> BTreeSet<u64> {
    let names = fs::read_dir(folder).expect("a folder");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect()
}

/// What is intended is done: the query was not cut off in a micro-batch.
#[track_caller]
fn at_a_boundary(checkpoint: &Path) {
    let intended = entries(&checkpoint.join("offsets"));
    assert!(!intended.is_empty(), "it ran");
    assert_eq!(intended, entries(&checkpoint.join("commits")));
}

#[test]
fn rows_are_printed_in_each_format() {
    let sql =
        "SELECT * FROM (VALUES (1, 'a,b', [1, 2]), (22, NULL, NULL)) AS t(n, s, l) ORDER BY n";
    let table = "\
┌────┬──────┬────────┐
│  n │ s    │ l      │
├────┼──────┼────────┤
│  1 │ a,b  │ [1, 2] │
│ 22 │ NULL │ NULL   │
└────┴──────┴────────┘
";
    let json = "{\"n\":1,\"s\":\"a,b\",\"l\":[1,2]}\n{\"n\":22,\"s\":null,\"l\":null}\n";
    let csv = "n,s,l\n1,\"a,b\",\"[1,2]\"\n22,,\n";
    for (format, expected) in [("table", table), ("json", json), ("csv", csv)] {
        let ran = run(&["run", "-c", sql, "--format", format]).fine();
        assert_eq!(ran.out, expected, "{format}");
        assert_eq!(ran.err, "");
    }
    let ran = run(&["run", "--format", "csv", "-c", "SELECT 1 AS a WHERE false"]).fine();
    assert_eq!(ran.out, "a\n");
}

#[test]
fn a_script_comes_from_a_file_the_standard_input_or_the_command_line() {
    let pumps = Pumps::new();
    let text = "-- two statements\nSELECT 1 AS a;\nSELECT ';' AS b;";
    let expected = "a\n1\nb\n;\n";
    let file = pumps.script(text);
    assert_eq!(run(&["run", &file, "--format", "csv"]).fine().out, expected);
    assert_eq!(
        run(&["run", "--format", "csv", "-c", text]).fine().out,
        expected
    );
    assert_eq!(
        feed(&["run", "-", "--format", "csv"], text).fine().out,
        expected
    );
    assert_eq!(run(&["run", "-c", "-- nothing"]).fine().out, "");
}

#[test]
fn variables_come_from_the_command_line_then_the_environment_then_the_script() {
    let sql = "SELECT '${HW_A}' AS a, '${HW_B}' AS b, ${HW_C:-3} AS c";
    let args = [
        "run",
        "--format",
        "csv",
        "-c",
        sql,
        "--",
        "HW_A=it's",
        "HW_B=x=y",
    ];
    let output = command(args).env("HW_A", "other").env("HW_D", "7").output();
    let ran = Ran::from(output.expect("it runs")).fine();
    assert_eq!(ran.out, "a,b,c\nit's,x=y,3\n");
    let ran = run(&["run", "-c", "SELECT 1;\nSELECT ${HW_NONE}"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "nothing ran");
    assert!(ran.err.contains("`HW_NONE` has no value"), "{}", ran.err);
    assert!(ran.err.contains("-c:2:8"), "{}", ran.err);
    assert!(ran.err.contains("-- name=value"), "{}", ran.err);
}

#[test]
fn an_error_shows_the_place_and_what_ran() {
    let pumps = Pumps::new();
    let file =
        pumps.script("SELECT 1 AS one;\n\nSELECT 2 AS two,\n       3 3 3;\nSELECT 4 AS four;");
    let ran = run(&["run", &file, "--format", "csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "one\n1\n"));
    // The parser takes `3` and cannot go on at the second one: line 4, column 10.
    let place = format!("--> {file}:4:10");
    assert!(ran.err.contains(&place), "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.ends_with("3 3 3;"))
        .expect("the line");
    let column = lines[at].find("3 3 3").expect("its text");
    assert_eq!(lines[at + 1].find('^'), Some(column + 2), "{}", ran.err);
    assert!(
        ran.err.contains("the first of 3 statements ran"),
        "{}",
        ran.err
    );
    assert!(
        !ran.err.contains("Line:"),
        "no place in the statement: {}",
        ran.err
    );
}

#[test]
fn wrong_calls_end_with_2() {
    for args in [
        &["run"][..],
        &["run", "no-such-file.sql"],
        &["run", "-c", "SELECT 1", "file.sql"],
        &["run", "-c", "SELECT 1", "--", "novalue"],
        &["run", "-c", "SELECT 1", "--format", "xml"],
        &["run", "-c", "SELECT 1", "--trigger", "sometimes"],
        &["walk"],
        &["state", "folder", "--changes", "1"],
    ] {
        let ran = run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:#?}");
        assert!(ran.err.starts_with("error: "), "{args:?}: {}", ran.err);
    }
    let help = run(&["run", "--help"]).fine();
    for code in [
        "0    all",
        "1    a statement",
        "2    the command",
        "130  it",
    ] {
        assert!(help.out.contains(code), "{}", help.out);
    }
}

#[test]
fn a_pipe_gets_a_line_of_progress_for_each_micro_batch() {
    let pumps = Pumps::new();
    let script = pumps.counts() + "SELECT start, n FROM counts ORDER BY start;";
    let ran = run(&["run", "-c", &script, "--format", "csv"]).fine();
    // 00:00:00 has 03 and 08, 00:00:10 has 14, 00:00:20 has 25 and 26.
    let times = [
        "2024-05-01T00:00:00",
        "2024-05-01T00:00:10",
        "2024-05-01T00:00:20",
    ];
    let expected = format!("start,n\n{},2\n{},1\n{},2\n", times[0], times[1], times[2]);
    assert_eq!(ran.out, expected);
    let progress = ran.progress();
    let rows: u64 = progress
        .iter()
        .filter_map(|p| p["numInputRows"].as_u64())
        .sum();
    assert_eq!(rows, 5);
    for (number, progress) in progress.iter().enumerate() {
        assert_eq!(progress["batchId"], number, "{progress}");
        assert_eq!(progress["name"], "counts");
    }
    fs::remove_dir_all(pumps.path("ckpt")).expect("removed");
    let quiet = run(&["run", "-c", &script, "--format", "csv", "--quiet"]).fine();
    assert_eq!((quiet.out, quiet.err.as_str()), (expected, ""));
}

#[test]
fn a_streaming_select_that_stands_alone_prints_its_rows() {
    let pumps = Pumps::new();
    let low = pumps.declare() + "SELECT pump, psi FROM STREAM readings WHERE psi < 0.5";
    let args = |format| {
        [
            "run",
            "-q",
            "--trigger",
            "available now",
            "-c",
            &low,
            "--format",
            format,
        ]
    };
    assert_eq!(run(&args("csv")).fine().out, "pump,psi\nb,0.4\na,0.3\n");
    let json = "{\"pump\":\"b\",\"psi\":0.4}\n{\"pump\":\"a\",\"psi\":0.3}\n";
    assert_eq!(run(&args("json")).fine().out, json);
    // One table for each micro-batch that has rows: of the files 1 and 2.
    assert_eq!(
        run(&args("table"))
            .fine()
            .out
            .matches("┌──────┬─────┐")
            .count(),
        2
    );
    // Without a watermark append cannot be: it falls back to update.
    let counts = pumps.declare() + "SELECT pump, count(*) AS n FROM STREAM readings GROUP BY pump";
    let ran = run(&[
        "run",
        "-q",
        "--trigger",
        "once",
        "-c",
        &counts,
        "--format",
        "csv",
    ])
    .fine();
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a,3", "b,2", "pump,n"]);
}

#[test]
fn what_goes_to_console_is_printed_by_the_command() {
    let pumps = Pumps::new();
    let script = pumps.declare()
        + "CREATE EXTERNAL TABLE alerts (pump STRING, psi DOUBLE) STORED AS console;\n\
           INSERT INTO alerts OPTIONS (trigger 'once') SELECT pump, psi FROM STREAM readings WHERE psi < 0.5;";
    let ran = run(&["run", "-q", "-c", &script]).fine();
    let expected = "\
alerts, batch 0: 2 rows
┌──────┬─────┐
│ pump │ psi │
├──────┼─────┤
│ b    │ 0.4 │
│ a    │ 0.3 │
└──────┴─────┘
";
    assert_eq!(ran.out, expected);
    let ran = run(&["run", "-q", "-c", &script, "--format", "json"]).fine();
    assert_eq!(ran.out.lines().count(), 2);
}

/// A query that never ends by itself.
fn endless(pumps: &Pumps) -> String {
    format!(
        "CREATE UNBOUNDED EXTERNAL TABLE ticks STORED AS rate OPTIONS (rowsPerSecond 1000);\n\
         CREATE EXTERNAL TABLE out (value BIGINT) STORED AS noop;\n\
         INSERT INTO out OPTIONS (checkpoint '{}') SELECT value FROM STREAM ticks;\n",
        pumps.text("ckpt")
    )
}

/// Starts the command with its outputs piped.
fn spawn(args: &[&str]) -> Child {
    let mut command = command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it runs")
}

/// Reads lines until one is wanted.
fn wait_for(lines: &mut impl BufRead, wanted: impl Fn(&str) -> bool) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("text"), 0, "it ended");
        if wanted(&line) {
            return line;
        }
    }
}

fn is_batch(line: &str, number: u64) -> bool {
    let progress: Result<Value, _> = serde_json::from_str(line);
    progress.is_ok_and(|progress| progress["batchId"].as_u64() >= Some(number))
}

fn signal(child: &Child, signal: i32) {
    let process = i32::try_from(child.id()).expect("a process");
    // SAFETY: `kill` only sends a signal, to a child that was not waited for.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

#[test]
fn a_signal_stops_at_the_end_of_a_micro_batch() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let pumps = Pumps::new();
        let mut child = spawn(&["run", "-c", &endless(&pumps)]);
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        wait_for(&mut lines, |line| is_batch(line, 1));
        signal(&child, number);
        let said = wait_for(&mut lines, |line| line.starts_with("interrupted"));
        assert!(
            said.starts_with("interrupted; stopped out (after batch "),
            "{said}"
        );
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
        at_a_boundary(&pumps.path("ckpt"));
    }
}

#[test]
fn a_script_that_fails_half_way_stops_what_it_started() {
    let pumps = Pumps::new();
    let script = endless(&pumps)
        + "AWAIT STREAMING QUERY out TIMEOUT '10 ms';\nSELECT * FROM nowhere;\nSELECT 1;";
    let ran = run(&["run", "-c", &script]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("nowhere"), "{}", ran.err);
    assert!(ran.err.contains("-c:5:"), "{}", ran.err);
    let said = ran.err.lines().last().expect("a note");
    assert!(
        said.contains("the first 4 of 6 statements ran; stopped out ("),
        "{said}"
    );
    if pumps.path("ckpt/offsets").exists() {
        assert_eq!(
            entries(&pumps.path("ckpt/offsets")),
            entries(&pumps.path("ckpt/commits"))
        );
    }
}

#[test]
fn a_query_that_fails_fails_the_script() {
    let pumps = Pumps::new();
    let script = pumps.declare()
        + "CREATE EXTERNAL TABLE out (n BIGINT) STORED AS noop;\n\
           INSERT INTO out OPTIONS (trigger 'available now') SELECT CAST(pump AS BIGINT) AS n FROM STREAM readings;";
    let ran = run(&["run", "-q", "-c", &script]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("in query out, batch 0"), "{}", ran.err);
    assert!(
        ran.err.contains("-c:3:1"),
        "the statement that started it: {}",
        ran.err
    );
}

#[test]
fn it_ends_when_nobody_reads() {
    let pumps = Pumps::new();
    let script = endless(&pumps) + "SELECT value FROM STREAM ticks;";
    let mut child = spawn(&["run", "-q", "--format", "csv", "-c", &script]);
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    wait_for(&mut out, |line| line.starts_with('1'));
    drop(out);
    let mut said = String::new();
    let mut err = child.stderr.take().expect("piped");
    err.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{said}");
    assert_eq!(said, "");
}

/// What the checkpoint of `counts` tells, after its three files.
#[test]
fn a_checkpoint_can_be_looked_into() {
    let pumps = Pumps::new();
    let ckpt = pumps.text("ckpt");
    let ran = run(&["run", "-c", &pumps.counts()]).fine();
    let last = ran.progress().last().expect("a batch")["batchId"].clone();

    let status = run(&["status", &ckpt, "--format", "json"]).fine();
    let status: Value = serde_json::from_str(&status.out).expect("JSON");
    assert_eq!(status["lastBatch"], last);
    // The latest reading, without a delay.
    assert_eq!(status["watermark"], "2024-05-01T00:00:26.000Z");
    assert_eq!(status["intendedBatch"], Value::Null);
    // Complete mode forgets nothing: three windows.
    assert_eq!(status["operators"][0]["rows"], 3);
    let told = run(&["status", &ckpt]).fine().out;
    assert!(told.contains(&format!("last batch  {last}, at ")), "{told}");
    assert!(
        told.contains("watermark   2024-05-01T00:00:26.000Z, "),
        "{told}"
    );
    let told = run(&["status", &ckpt, "--format", "csv"]).fine().out;
    assert!(told.contains(&format!("\nlastBatch,{last}\n")), "{told}");

    let state = run(&["state", &ckpt, "--format", "json"]).fine();
    assert_eq!(state.out.lines().count(), 3);
    let state = run(&[
        "state",
        &ckpt,
        "--format",
        "json",
        "--operator",
        "0",
        "--batch",
        "0",
    ])
    .fine();
    assert_eq!(
        state.out.lines().count(),
        1,
        "the first file has one window"
    );
    let changes = run(&["state", &ckpt, "--format", "json", "--changes", "0..0"]).fine();
    assert!(
        changes.out.contains("\"change\":\"put\""),
        "{}",
        changes.out
    );
    for (name, format) in [
        ("state.csv", "csv"),
        ("state.json", "json"),
        ("state.parquet", "parquet"),
    ] {
        let file = pumps.text(name);
        let ran = run(&["state", &ckpt, "--output", &file]).fine();
        assert_eq!(ran.out, "");
        let sql = format!(
            "CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{file}' OPTIONS ({});
             SELECT count(*) AS n FROM t",
            if format == "csv" { "header true" } else { "" }
        );
        let sql = sql.replace(" OPTIONS ()", "");
        assert_eq!(
            run(&["run", "-c", &sql, "--format", "csv"]).fine().out,
            "n\n3\n",
            "{name}"
        );
    }
    let ran = run(&["state", &ckpt, "--output", &pumps.text("state.xls")]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(
        ran.err.contains("name it .csv, .json or .parquet"),
        "{}",
        ran.err
    );

    let replay = run(&["replay", &ckpt, "--format", "json"]).fine();
    let log: Vec<Value> = replay
        .out
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(log.len() as u64, last.as_u64().expect("a number") + 1);
    for (number, batch) in log.iter().enumerate() {
        assert_eq!(batch["batch_id"], number);
        assert_eq!(batch["committed"], true);
    }
    assert_eq!(log[0]["start_offset"], "{\"logOffset\":-1}");
    assert_eq!(log[1]["start_offset"], log[0]["end_offset"]);
    assert!(run(&["replay", &ckpt]).fine().out.contains("│ batch │"));
}

#[test]
fn what_is_no_checkpoint_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    for what in ["status", "state", "replay"] {
        let ran = run(&[what, missing.to_str().expect("text")]);
        assert_eq!(ran.code, 1, "{ran:#?}");
        assert!(ran.err.contains("there is no folder"), "{}", ran.err);
        assert!(!missing.exists());
        let ran = run(&[what, folder.path().to_str().expect("text")]);
        assert_eq!(ran.code, 1, "{ran:#?}");
        assert!(ran.err.contains("there is no checkpoint"), "{}", ran.err);
    }
}

#[test]
fn the_shell_runs_what_it_reads() {
    let pumps = Pumps::new();
    let input = pumps.declare()
        + "CREATE VIEW two AS SELECT 2 AS n;\n\\f csv\n\\d\n\\d two\nSELECT n\n  FROM two\n;\nSELECT wrong;\n\\nonsense\n\
           SELECT 'last' AS s";
    let ran = feed(&["shell"], &input);
    let expected = "name,kind\nreadings,stream\ntwo,table\ncolumn,type,nullable\nn,Int64,false\nn\n2\ns\nlast\n";
    assert_eq!(ran.out, expected, "{}", ran.err);
    assert_eq!(ran.code, 1, "something failed");
    assert!(ran.err.contains("wrong"), "{}", ran.err);
    assert!(ran.err.contains("no order `\\nonsense"), "{}", ran.err);
    let ran = feed(&["shell"], "\\?\n\\q\nSELECT 1;");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, ""),
        "it left before the SELECT"
    );
    assert!(ran.err.contains("\\d NAME"), "{}", ran.err);
}

/// A terminal of our own, to see what moves there.
#[test]
fn on_a_terminal_each_query_has_a_line() {
    use std::os::fd::{FromRawFd, OwnedFd};

    let pumps = Pumps::new();
    let (mut ours, mut theirs) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: the two numbers are written to; names and settings may be null.
    let opened = unsafe {
        libc::openpty(
            &mut ours,
            &mut theirs,
            none,
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(opened, 0);
    // SAFETY: both were just opened, and nobody else has them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
    let script = pumps.counts() + "SELECT n FROM counts;";
    let mut command = command(["run", "-c", &script]);
    command.env("TERM", "xterm").env_remove("NO_COLOR");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(theirs)
        .spawn()
        .expect("it runs");
    drop(command);
    let mut shown = Vec::new();
    // At the end of the child the terminal gives an error, not an end.
    let _ = fs::File::from(ours).read_to_end(&mut shown);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("✓"), "{shown}");
    assert!(shown.contains(" 5 rows in"), "{shown}");
    // The third micro-batch runs with what the second one has seen.
    assert!(shown.contains("watermark 2024-05-01 00:00:14"), "{shown}");
}
