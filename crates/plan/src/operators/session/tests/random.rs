//! Random rows, splits and restarts against a reference that merges pair by pair and keeps every row.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use highwater_core::OutputMode;

use super::harness::{Query, Row, spans, superseded};

const SQL: &str = "SELECT k, session_of_row(ts, gap) AS w, j, count(*), sum(v), \
    min(v) FILTER (WHERE v > 20), avg(v), count(DISTINCT v), first_value(id ORDER BY v DESC, id), \
    array_agg(id), max(k || CAST(v AS VARCHAR)) FROM t GROUP BY k, session_of_row(ts, gap), j";

/// A small generator with a seed that failures print.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % below) as i64
    }

    fn some(&mut self, below: u64) -> Option<i64> {
        (self.roll(8) > 0).then(|| self.roll(below))
    }
}

type Key = (Option<String>, Option<i64>);

/// A session and the rows in it.
#[derive(Clone, Debug)]
struct Told {
    key: Key,
    start: i64,
    end: i64,
    rows: Vec<Row>,
}

/// A row of the result.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    count: i64,
    sum: Option<i64>,
    min: Option<i64>,
    mean: Option<f64>,
    distinct: i64,
    first: i64,
    ids: Vec<i64>,
    text: Option<String>,
}

type Table = BTreeMap<(Key, i64, i64), Answer>;

fn answer(rows: &[Row]) -> Answer {
    let values: Vec<i64> = rows.iter().filter_map(|r| r.v).collect();
    let sum = values.iter().sum::<i64>();
    let some = !values.is_empty();
    // Nulls first: the default of DESC.
    let first = rows
        .iter()
        .min_by_key(|r| (r.v.is_some(), r.v.map(|v| -v), r.id));
    let mut ids: Vec<i64> = rows.iter().map(|r| r.id).collect();
    ids.sort_unstable();
    let texts = rows
        .iter()
        .filter_map(|r| Some(format!("{}{}", r.k.as_ref()?, r.v?)));
    Answer {
        count: rows.len() as i64,
        sum: some.then_some(sum),
        min: values.iter().copied().filter(|v| *v > 20).min(),
        mean: some.then(|| sum as f64 / values.len() as f64),
        distinct: values.iter().collect::<BTreeSet<_>>().len() as i64,
        first: first.map_or(0, |r| r.id),
        ids,
        text: texts.max(),
    }
}

/// The rules, straightforwardly: sessions that are still open.
#[derive(Default)]
struct Reference {
    open: Vec<Told>,
}

impl Reference {
    /// A trigger: how many rows were late, and how many sessions they were.
    fn run(&mut self, rows: &[Row], late: Option<i64>) -> (u64, u64) {
        let (mut late_rows, mut dropped) = (0, BTreeSet::new());
        for row in rows {
            let (Some(start), Some(gap)) = (row.ts, row.gap.filter(|gap| *gap > 0)) else {
                continue;
            };
            let key = (row.k.clone(), row.j);
            let end = start + gap;
            if late.is_some_and(|late| end <= late) {
                late_rows += 1;
                dropped.insert((key, start, end));
                continue;
            }
            let rows = vec![row.clone()];
            self.open.push(Told {
                key,
                start,
                end,
                rows,
            });
        }
        while self.merge_two() {}
        (late_rows, dropped.len() as u64)
    }

    fn merge_two(&mut self) -> bool {
        for one in 0..self.open.len() {
            for other in 0..one {
                let (a, b) = (&self.open[one], &self.open[other]);
                if a.key == b.key && a.start <= b.end && b.start <= a.end {
                    let b = self.open.swap_remove(one);
                    let a = &mut self.open[other];
                    (a.start, a.end) = (a.start.min(b.start), a.end.max(b.end));
                    a.rows.extend(b.rows);
                    return true;
                }
            }
        }
        false
    }

    fn close(&mut self, until: i64) -> Table {
        let closed: Vec<_> = self
            .open
            .iter()
            .filter(|s| s.end <= until)
            .cloned()
            .collect();
        self.open.retain(|session| session.end > until);
        table(&closed)
    }
}

fn table(sessions: &[Told]) -> Table {
    let rows = sessions.iter();
    rows.map(|s| ((s.key.clone(), s.start, s.end), answer(&s.rows)))
        .collect()
}

type Output = Vec<((Key, i64, i64), Answer, Vec<(i64, i64)>)>;

fn output(batches: &[RecordBatch]) -> Output {
    batches.iter().flat_map(rows_of).collect()
}

fn rows_of(batch: &RecordBatch) -> Output {
    let long = |column: usize, row: usize| -> Option<i64> {
        let column = batch.column(column).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let text =
        |column: usize, row: usize| match ScalarValue::try_from_array(batch.column(column), row)
            .expect("a value")
        {
            ScalarValue::Utf8(text) | ScalarValue::Utf8View(text) => text,
            other => panic!("{other:?} is no text"),
        };
    let spans = spans(batch.column(1));
    let replaced = superseded(batch);
    let row = |row: usize| {
        let means = batch.column(6).as_primitive::<Float64Type>();
        let ids = batch.column(9).as_list::<i32>().value(row);
        let mut ids = ids.as_primitive::<Int64Type>().values().to_vec();
        ids.sort_unstable();
        let answer = Answer {
            count: long(3, row).expect("a count"),
            sum: long(4, row),
            min: long(5, row),
            mean: means.is_valid(row).then(|| means.value(row)),
            distinct: long(7, row).expect("a count"),
            first: long(8, row).expect("an id"),
            ids,
            text: text(10, row),
        };
        let key = (text(0, row), long(2, row));
        let replaced = replaced.as_ref().map_or(Vec::new(), |all| all[row].clone());
        ((key, spans[row].0, spans[row].1), answer, replaced)
    };
    (0..batch.num_rows()).map(row).collect()
}

fn rows(dice: &mut Dice, trigger: i64, from: i64) -> Vec<Row> {
    let count = [0, 1, 3, 10, 60][dice.roll(5) as usize];
    let row = |id: i64| Row {
        id: from + id,
        ts: (dice.roll(20) > 0).then(|| 1_000 + trigger * 12 + dice.roll(60)),
        gap: [Some(2), Some(2), Some(3), Some(6), Some(0), None][dice.roll(6) as usize],
        k: dice.some(4).map(|k| format!("k{k}")),
        j: dice.some(2),
        v: dice.some(50),
    };
    (0..count).map(row).collect()
}

/// Folds the output of update mode: what a row replaces must be there, the rest must not.
fn fold(folded: &mut Table, rows: Output, what: &str) {
    for (at, answer, replaced) in rows {
        for (start, end) in replaced {
            let old = folded.remove(&(at.0.clone(), start, end));
            assert!(old.is_some(), "{what}: {at:?} replaces {start}..{end}");
        }
        let twice = folded.insert(at.clone(), answer);
        assert!(twice.is_none(), "{what}: {at:?} came before");
    }
}

/// One run over random triggers with restarts, compared after each trigger; how many rows were late.
async fn check(mode: OutputMode, moves: bool, seed: u64) -> u64 {
    let what = format!("{mode} mode, seed {seed}");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let fresh = || Query::try_new(SQL, mode);
    let mut query = fresh().await.expect("planned");
    let (mut log, mut reference) = (Vec::new(), Reference::default());
    let (mut folded, mut gone) = (Table::new(), Table::new());
    let (mut closes, mut from, mut all_late) = (0, 0, 0);
    for trigger in 0..14 {
        if dice.roll(4) == 0 {
            query = fresh().await.expect("planned");
            for records in &log {
                query.operator.restore(records).expect("restored");
            }
        }
        let late = closes;
        if moves {
            closes = closes.max(990 + trigger * 12 + dice.roll(45));
        }
        let rows = rows(&mut dice, trigger, from);
        from += rows.len() as i64;
        let bounded = mode != OutputMode::Complete;
        let (late_rows, dropped) = reference.run(&rows, bounded.then_some(late));
        all_late += late_rows;
        let given = query.run(&rows, late, closes).await;
        let given = output(&given.unwrap_or_else(|e| panic!("{what}: {e}")));
        log.extend(query.operator.changes().expect("changes"));
        query.operator.commit();

        let metrics = query.operator.metrics();
        assert_eq!(
            (metrics.late_rows, metrics.rows_dropped_by_watermark),
            (late_rows, dropped),
            "{what}"
        );
        let open = table(&reference.open);
        let closed = match bounded {
            true => reference.close(closes),
            false => Table::new(),
        };
        match mode {
            OutputMode::Update => {
                fold(&mut folded, given, &what);
                gone.extend(closed);
                let mut expected = gone.clone();
                expected.extend(table(&reference.open));
                assert_eq!(folded, expected, "{what}, trigger {trigger}");
            }
            _ => {
                let expected = if bounded { closed } else { open };
                let count = given.len();
                let given: Table = given
                    .into_iter()
                    .map(|(at, answer, _)| (at, answer))
                    .collect();
                assert_eq!(count, given.len(), "{what}: a session comes once");
                assert_eq!(given, expected, "{what}, trigger {trigger}");
            }
        }
        assert_eq!(metrics.rows_total, reference.open.len() as u64, "{what}");
    }
    all_late
}

#[tokio::test]
async fn append_gives_each_session_once() {
    let mut late = 0;
    for seed in 0..40 {
        late += check(OutputMode::Append, true, seed).await;
    }
    assert!(late > 40, "{late} late rows are too few to tell");
}

#[tokio::test]
async fn complete_gives_the_batch_answer() {
    for seed in 0..20 {
        assert_eq!(check(OutputMode::Complete, true, seed + 100).await, 0);
    }
}

#[tokio::test]
async fn update_folded_is_the_batch_answer() {
    let mut late = 0;
    for seed in 0..25 {
        // Without a watermark that moves nothing is late or forgotten: the batch answer over all rows.
        assert_eq!(check(OutputMode::Update, false, seed + 200).await, 0);
        late += check(OutputMode::Update, true, seed + 300).await;
    }
    assert!(late > 25, "{late} late rows are too few to tell");
}
