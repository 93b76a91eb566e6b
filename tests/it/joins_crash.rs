//! Joins of two streams of files, in processes that die at random I/O operations: what comes out in all is the join of
//! the rows that were not late, as DataFusion answers it over all of them at once.
//!
//! Which rows are late depends on which micro-batches there were, and a process that dies may leave one without data
//! out (Spark). So late rows are asked for, and the answer is that over the others. Two last events far ahead let
//! everything go; they come twice, as the micro-batch without data after the first may be left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use highwater::prelude::*;
use highwater::{DataStreamWriter, Result, Sink};
use highwater_core::testing::Fault;
use highwater_testkit::crash::disk::{Disk, URL};
use highwater_testkit::crash::target::Batches;
use highwater_testkit::crash::{Death, Lives, Output, Process, Ran, Setup, Subject, Target, drive};
use highwater_testkit::rng::Rng;
use highwater_testkit::sink::Written;
use highwater_testkit::{CollectingSink, ManualClock, Row, Value, value};
use tokio::runtime::Handle;

/// Steps with data.
const STEPS: usize = 4;
/// Numbers of the rows that let everything go are from here on.
const LAST: i64 = 1_000_000;

/// The words of a join, and what is selected.
const KINDS: [(&str, &str); 6] = [
    ("JOIN", "li, ri"),
    ("LEFT JOIN", "li, ri"),
    ("RIGHT JOIN", "li, ri"),
    ("FULL JOIN", "li, ri"),
    ("LEFT SEMI JOIN", "li"),
    ("LEFT ANTI JOIN", "li"),
];

/// By time, with a condition on both sides and one on the left; and by equal times. The numbers are in the conditions so
/// that late rows of both sides tell theirs.
const CONDITIONS: [&str; 2] = [
    "r.rt BETWEEN l.lt AND l.lt + INTERVAL '10' SECOND AND li + ri <> 50 AND li % 7 <> 3",
    "l.lt = r.rt AND li + ri <> 50",
];

/// A row: its number, its time in seconds, its key.
type Event = (i64, i64, Option<i64>);

/// The files of a side in each step.
type Side = Vec<Vec<Vec<Event>>>;

struct Script {
    kind: &'static str,
    columns: &'static str,
    condition: &'static str,
    sides: [Side; 2],
}

/// Few keys and times, so that there are many matches and duplicates; some rows without a key, some late.
fn side(dice: &mut Rng, first: i64) -> Side {
    let (mut number, mut now) = (first, 100);
    let mut steps: Side = (0..STEPS)
        .map(|step| {
            // The folder of the files is there before the query starts.
            let files = (0..dice.below(3).max(usize::from(step == 0))).map(|_| {
                now += dice.between(0, 8);
                let rows = (0..1 + dice.below(6)).map(|_| {
                    number += 1;
                    let late = if dice.chance(12) { 25 } else { 0 };
                    let key = (!dice.chance(12)).then(|| dice.between(0, 3));
                    (number, now + dice.between(-4, 4) - late, key)
                });
                rows.collect()
            });
            files.collect()
        })
        .collect();
    for last in [1, 2] {
        steps.push(vec![vec![(
            LAST + first + last,
            10_000 * last,
            Some(-1 - first),
        )]]);
    }
    steps
}

fn text(columns: [&str; 3], rows: &[Event]) -> String {
    let [number, time, key] = columns;
    let lines = rows.iter().map(|(n, at, k)| {
        let at = format!(
            "2024-05-01 {:02}:{:02}:{:02}",
            at / 3_600,
            at / 60 % 60,
            at % 60
        );
        let k = k.map_or("null".to_owned(), |k| k.to_string());
        format!("{{\"{number}\":{n},\"{time}\":\"{at}\",\"{key}\":{k}}}\n")
    });
    lines.collect()
}

const COLUMNS: [[&str; 3]; 2] = [["li", "lt", "lk"], ["ri", "rt", "rk"]];

impl Script {
    fn sql(&self, equal: &str) -> String {
        let Self {
            kind,
            columns,
            condition,
            ..
        } = self;
        format!("SELECT {columns} FROM l {kind} r ON (l.lk {equal} r.rk) AND {condition}")
    }

    /// What DataFusion answers over the rows that were not late.
    async fn answer(&self, late: [&BTreeSet<i64>; 2]) -> Result<Vec<String>> {
        let session = StreamSession::new();
        for (at, name) in ["l", "r"].into_iter().enumerate() {
            let rows = self.sides[at].iter().flatten().flatten();
            let rows = rows.filter(|(n, ..)| *n < LAST && !late[at].contains(n));
            let values = rows.map(|(n, at, k)| {
                let k = k.map_or("CAST(NULL AS BIGINT)".to_owned(), |k| k.to_string());
                format!("({n}, to_timestamp_seconds({at}), {k})")
            });
            let values = values.collect::<Vec<_>>().join(", ");
            let columns = COLUMNS[at].join(", ");
            let sql = format!("SELECT * FROM (VALUES {values}) t({columns})");
            let frame = session.sql(&sql).await?;
            frame.create_or_replace_temp_view(name)?;
        }
        // A full join of streams takes null keys for equal (Spark).
        let equal = match self.kind {
            "FULL JOIN" => "IS NOT DISTINCT FROM",
            _ => "=",
        };
        let frame = session.sql(&self.sql(equal)).await?;
        Ok(shown(&value::rows(&frame.collect().await?)?))
    }
}

fn shown(rows: &[Row]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(|row| value::show(row)).collect();
    rows.sort();
    rows
}

#[async_trait]
impl Subject for Script {
    fn name(&self) -> String {
        self.sql("=")
    }

    fn mode(&self) -> OutputMode {
        OutputMode::Append
    }

    fn steps(&self) -> usize {
        self.sides[0].len()
    }

    async fn deliver(&self, disk: &Disk, step: usize) -> Result<()> {
        for (at, name) in ["l", "r"].into_iter().enumerate() {
            for (file, rows) in self.sides[at][step].iter().enumerate() {
                let path = format!("in/{name}/{step}-{file}.json");
                disk.lay(&path, &text(COLUMNS[at], rows)).await?;
            }
        }
        Ok(())
    }

    fn feed(&self, _process: &Process, _step: usize) -> Result<()> {
        Ok(())
    }

    async fn begin(&self, disk: &Disk, settings: &[(String, String)]) -> Result<Process> {
        let builder = StreamSession::builder()
            .clock(ManualClock::at("2024-05-01 12:00:00")?)
            .runtime(Handle::current());
        let builder = settings.iter().fold(builder, |builder, (name, value)| {
            builder.config(name, value)
        });
        let session = builder.build()?;
        disk.mount(&session)?;
        for (at, name) in ["l", "r"].into_iter().enumerate() {
            let [number, time, key] = COLUMNS[at];
            let events = session
                .read_stream()
                .schema(format!("{number} BIGINT, {time} TIMESTAMP, {key} BIGINT").as_str())
                .option("maxFilesPerTrigger", 1)
                .name(name)
                .json(format!("{URL}/in/{name}"))
                .await?;
            let events = events.with_watermark(time, "3 seconds")?;
            events.create_or_replace_temp_view(name)?;
        }
        let frame = session.sql(&self.sql("=")).await?;
        Ok(Process::new(session, frame))
    }
}

/// `foreach_batch` into the disk, and the late rows kept beside it.
#[derive(Debug)]
struct WithLate(Arc<CollectingSink>);

#[async_trait]
impl Target for WithLate {
    fn name(&self) -> String {
        "foreach_batch with late rows".into()
    }

    fn takes(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append
    }

    fn attach(&self, writer: DataStreamWriter, disk: &Disk) -> DataStreamWriter {
        let late: Arc<dyn Sink> = Arc::clone(&self.0) as _;
        Batches.attach(writer, disk).late_rows_to(late)
    }

    async fn output(&self, disk: &Disk, process: &Process) -> Result<Output> {
        Batches.output(disk, process).await
    }
}

/// The numbers in the column of that name.
fn numbers(written: &[Written], column: &str) -> Result<BTreeSet<i64>> {
    let mut numbers = BTreeSet::new();
    for batch in written.iter().flat_map(|written| &written.rows) {
        let at = batch.schema().index_of(column)?;
        for row in value::rows(std::slice::from_ref(&batch.project(&[at])?))? {
            if let Value::Int(n) = &row[0] {
                numbers.extend(i64::try_from(*n));
            }
        }
    }
    Ok(numbers)
}

/// Drives the script through its lives, and compares: how many processes died, how many rows were late.
async fn check(script: &Script, lives: &Lives, say: &str) -> Result<(Ran, usize)> {
    let sink = CollectingSink::new();
    let ran = drive(script, &Setup::new(WithLate(Arc::clone(&sink))), lives)
        .await
        .map_err(|e| e.context(say.to_owned()))?;
    let written = sink.take_new();
    let number = |column: &str| numbers(&written, column);
    let late = [number("li")?, number("ri")?];
    let out = ran.output.batches.values().flatten();
    let mut out: Vec<String> = out.filter(|row| !row.contains("1000")).cloned().collect();
    out.sort();
    assert_eq!(out, script.answer([&late[0], &late[1]]).await?, "{say}");
    Ok((ran, late[0].len() + late[1].len()))
}

#[tokio::test]
async fn what_comes_out_is_the_join_of_the_rows_that_were_not_late() -> Result<()> {
    let (mut deaths, mut late, mut seed) = (0, 0, 4_200);
    for (kind, columns) in KINDS {
        for condition in CONDITIONS {
            seed += 1;
            let mut dice = Rng::new(seed);
            let sides = [side(&mut dice, 0), side(&mut dice, 500)];
            let script = Script {
                kind,
                columns,
                condition,
                sides,
            };
            let say = format!("seed {seed}: {}", script.name());
            let (plain, rows) = check(&script, &Lives::default(), &say).await?;
            late += rows;
            for _ in 0..2 {
                let death = |dice: &mut Rng| Death {
                    at: 1 + dice.below(plain.operations.len() / 2) as u64,
                    fault: *dice.pick(&[Fault::Before, Fault::After, Fault::Staged]),
                };
                let lives = Lives {
                    deaths: (0..4).map(|_| death(&mut dice)).collect(),
                    cuts: BTreeSet::new(),
                };
                let say = format!("{say}, {:?}", lives.deaths);
                deaths += check(&script, &lives, &say).await?.0.died;
            }
        }
    }
    assert!(deaths >= 60, "{deaths} deaths");
    assert!(late >= 20, "{late} late rows");
    Ok(())
}
