//! Random rows, watermarks and restarts against a reference that follows the rules row by row.
//!
//! The rules (spark.md 2.15–2.18): the left rows of a trigger come first; a late row (time at or before the late
//! watermark) is as if it had never come; a row that fails a condition on its own side alone matches nothing, and where
//! unmatched rows come out does so at once; a row meets the rows of the other side that are there; rows whose time is at
//! or before the watermark plus the side's shift leave at the end of the trigger.

use super::harness::{Dice, Marks, Query, Row};

/// A query, and what the rules say of it.
struct Case {
    /// The words of the join.
    sql: &'static str,
    condition: &'static str,
    kind: Kind,
    on: fn(&Row, &Row) -> bool,
    own: fn(&Row) -> bool,
    /// Milliseconds to add to the watermark; `None`: rows never leave.
    shifts: (Option<i64>, Option<i64>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
}

fn same_key(l: &Row, r: &Row) -> bool {
    l.k.is_some() && l.k == r.k
}

/// `r.ts` from `l.ts + low` to `l.ts + high`.
fn within(l: &Row, r: &Row, low: i64, high: i64) -> bool {
    let (Some(l), Some(r)) = (l.ts, r.ts) else {
        return false;
    };
    (l + low..=l + high).contains(&r)
}

/// In a full join null keys are equal (Spark; the case `join_outer/full_null_keys`).
fn equal_rows(l: &Row, r: &Row) -> bool {
    l.k == r.k
}

fn ten_seconds(l: &Row, r: &Row) -> bool {
    same_key(l, r) && within(l, r, 0, 10_000)
}

fn same_time(l: &Row, r: &Row) -> bool {
    same_key(l, r) && within(l, r, 0, 0)
}

fn any(_: &Row) -> bool {
    true
}

fn above_three(row: &Row) -> bool {
    row.v.is_some_and(|v| v > 3)
}

const RANGE: &str = "l.k = r.k AND r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND";
const ABOVE_THREE: &str =
    "l.k = r.k AND r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND AND l.v > 3";
const LESS: &str =
    "l.k = r.k AND r.ts >= l.ts AND r.ts <= l.ts + INTERVAL '10' SECOND AND l.v < r.v";

/// From `r.ts <= l.ts + 10 s`: `l.ts >= r.ts - 10 s`, met exactly: one millisecond less. From `r.ts >= l.ts`: the same
/// without the ten seconds.
const RANGE_SHIFTS: (Option<i64>, Option<i64>) = (Some(-10_001), Some(-1));

/// All kinds of join, each by a range and by equal times; then conditions on one side alone, on both, and none on time.
fn cases() -> Vec<Case> {
    let range = |sql, kind| Case {
        sql,
        condition: RANGE,
        kind,
        on: ten_seconds,
        own: any,
        shifts: RANGE_SHIFTS,
    };
    let times = |sql, kind| Case {
        condition: "l.k = r.k AND l.ts = r.ts",
        on: same_time,
        shifts: (Some(0), Some(0)),
        ..range(sql, kind)
    };
    let kinds = [
        ("JOIN", Kind::Inner),
        ("LEFT JOIN", Kind::Left),
        ("RIGHT JOIN", Kind::Right),
        ("FULL JOIN", Kind::Full),
        ("LEFT SEMI JOIN", Kind::Semi),
        ("LEFT ANTI JOIN", Kind::Anti),
    ];
    let mut cases: Vec<Case> = kinds.map(|(sql, kind)| range(sql, kind)).into();
    cases.extend(kinds.map(|(sql, kind)| times(sql, kind)));
    for case in cases.iter_mut().filter(|case| case.kind == Kind::Full) {
        case.on = match case.condition {
            RANGE => |l, r| equal_rows(l, r) && within(l, r, 0, 10_000),
            _ => |l, r| equal_rows(l, r) && l.ts == r.ts,
        };
    }
    for (sql, kind) in [("LEFT JOIN", Kind::Left), ("LEFT ANTI JOIN", Kind::Anti)] {
        cases.push(Case {
            condition: ABOVE_THREE,
            own: above_three,
            ..range(sql, kind)
        });
    }
    for (sql, kind) in [("RIGHT JOIN", Kind::Right), ("LEFT SEMI JOIN", Kind::Semi)] {
        cases.push(Case {
            condition: LESS,
            on: |l, r| ten_seconds(l, r) && l.v.zip(r.v).is_some_and(|(l, r)| l < r),
            ..range(sql, kind)
        });
    }
    // The times do not come in: no row is late, and none ever leaves.
    cases.push(Case {
        condition: "l.k = r.k",
        on: same_key,
        shifts: (None, None),
        ..range("JOIN", Kind::Inner)
    });
    cases
}

impl Case {
    fn sql(&self) -> String {
        let columns = match self.kind {
            Kind::Semi | Kind::Anti => "l.k, l.v",
            _ => "l.k, l.v, r.k, r.v",
        };
        format!(
            "SELECT {columns} FROM l {} r ON {}",
            self.sql, self.condition
        )
    }
}

/// The reference.
#[derive(Clone, Default)]
struct Model {
    left: Vec<(Row, bool)>,
    right: Vec<(Row, bool)>,
    out: Vec<String>,
}

fn shown(row: Option<&Row>) -> String {
    let number = |v: Option<i64>| v.map_or("-".to_owned(), |v| v.to_string());
    match row {
        Some(row) => {
            let key = row.k.map_or("-".to_owned(), |k| format!("k{k}"));
            format!("{key} {}", number(row.v))
        }
        None => "- -".to_owned(),
    }
}

impl Model {
    fn give(&mut self, case: &Case, left: Option<&Row>, right: Option<&Row>) {
        self.out.push(match case.kind {
            Kind::Semi | Kind::Anti => shown(left),
            _ => format!("{} {}", shown(left), shown(right)),
        });
    }

    fn trigger(&mut self, case: &Case, left: &[Row], right: &[Row], marks: Marks) -> Vec<String> {
        let timed = case.shifts.0.is_some();
        let late = |row: &&Row| timed && row.ts.is_some_and(|ts| ts <= marks.late);
        for l in left.iter().filter(|row| !late(row)) {
            self.left_row(case, l);
        }
        for r in right.iter().filter(|row| !late(row)) {
            self.right_row(case, r);
        }
        self.evict(case, marks);
        let mut out = std::mem::take(&mut self.out);
        out.sort();
        out
    }

    fn left_row(&mut self, case: &Case, l: &Row) {
        if !(case.own)(l) {
            if matches!(case.kind, Kind::Left | Kind::Full | Kind::Anti) {
                self.give(case, Some(l), None);
            }
            return;
        }
        let mut pairs = Vec::new();
        for (r, matched) in &mut self.right {
            if (case.on)(l, r) {
                *matched = true;
                pairs.push(r.clone());
            }
        }
        match case.kind {
            Kind::Semi if !pairs.is_empty() => return self.give(case, Some(l), None),
            Kind::Anti if !pairs.is_empty() => return,
            Kind::Semi | Kind::Anti => {}
            _ => pairs.iter().for_each(|r| self.give(case, Some(l), Some(r))),
        }
        self.left.push((l.clone(), !pairs.is_empty()));
    }

    fn right_row(&mut self, case: &Case, r: &Row) {
        let mut pairs = Vec::new();
        for (l, matched) in &mut self.left {
            if (case.on)(l, r) {
                *matched = true;
                pairs.push(l.clone());
            }
        }
        match case.kind {
            Kind::Semi => {
                pairs.iter().for_each(|l| self.give(case, Some(l), None));
                self.left.retain(|(_, matched)| !matched);
            }
            Kind::Anti => self.left.retain(|(_, matched)| !matched),
            _ => pairs.iter().for_each(|l| self.give(case, Some(l), Some(r))),
        }
        self.right.push((r.clone(), !pairs.is_empty()));
    }

    fn evict(&mut self, case: &Case, marks: Marks) {
        let leaves = |row: &Row, shift: Option<i64>| {
            row.ts
                .zip(shift)
                .is_some_and(|(ts, shift)| ts <= marks.closes + shift)
        };
        let (leaving, staying) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|(row, _)| leaves(row, case.shifts.0));
        self.left = staying;
        for (l, matched) in leaving {
            if !matched && matches!(case.kind, Kind::Left | Kind::Full | Kind::Anti) {
                self.give(case, Some(&l), None);
            }
        }
        let (leaving, staying) = std::mem::take(&mut self.right)
            .into_iter()
            .partition(|(row, _)| leaves(row, case.shifts.1));
        self.right = staying;
        for (r, matched) in leaving {
            if !matched && matches!(case.kind, Kind::Right | Kind::Full) {
                self.give(case, None, Some(&r));
            }
        }
    }
}

/// Rows around `now`, some without a time or a key.
fn rows(dice: &mut Dice, now: i64) -> Vec<Row> {
    let count = dice.below(30);
    let one = |dice: &mut Dice| Row {
        ts: (!dice.chance(4)).then(|| now + dice.between(-9_000, 9_000) / 500 * 500),
        k: (!dice.chance(8)).then(|| dice.between(0, 4)),
        v: (!dice.chance(8)).then(|| dice.between(0, 8)),
    };
    (0..count).map(|_| one(dice)).collect()
}

/// How the state gets over a restart.
#[derive(Clone, Copy, Debug)]
enum Restarts {
    Never,
    /// After so many triggers, by all changes from the first on.
    Changes(u64),
    /// After so many triggers, by the parts of a snapshot and the changes since, some of which are in it.
    Parts(u64),
}

async fn check(case: &Case, seed: u64, restarts: Restarts) {
    let sql = case.sql();
    let say = |trigger: u64| format!("seed {seed}, trigger {trigger}, {restarts:?}: {sql}");
    let mut dice = Dice(seed);
    let mut query = Query::new(&sql).await;
    let mut model = Model::default();
    let mut log = Vec::new();
    let (mut now, mut marks) = (100_000, Marks::default());
    for trigger in 0..24 {
        let (left, right) = (rows(&mut dice, now), rows(&mut dice, now));
        let out = query.run(&left, &right, marks).await;
        assert_eq!(
            out,
            model.trigger(case, &left, &right, marks),
            "{}",
            say(trigger)
        );
        log.push(query.commit());
        if case.shifts.0.is_some() {
            let held = model.left.len() + model.right.len();
            let plain = |row: &(Row, bool)| row.0.k.is_none() || row.0.ts.is_none();
            let null = model
                .left
                .iter()
                .chain(&model.right)
                .filter(|row| plain(row))
                .count();
            let total = usize::try_from(query.rows_total()).expect("few rows");
            assert!(
                (held - null..=held).contains(&total),
                "{total} of {held}, {}",
                say(trigger)
            );
        }
        now += dice.between(-1_000, 8_000);
        // The late watermark is that of the trigger before, or a trigger behind.
        marks = Marks {
            late: if dice.chance(70) {
                marks.closes
            } else {
                marks.late
            },
            closes: marks.closes.max(now - 9_000),
        };
        let due = |k: u64| trigger % k == k - 1;
        match restarts {
            Restarts::Changes(k) if due(k) => {
                query = Query::new(&sql).await;
                log.iter().for_each(|changes| query.restore(changes));
            }
            Restarts::Parts(k) if due(k) => {
                let parts = query.parts(4);
                let since = log.len() - dice.below(log.len().min(3));
                query = Query::new(&sql).await;
                log[since..]
                    .iter()
                    .for_each(|changes| query.restore(changes));
                query.restore(&parts);
                log = vec![parts];
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn follows_the_rules_row_by_row() {
    for (at, case) in cases().iter().enumerate() {
        for seed in 0..6 {
            check(case, 1_000 * at as u64 + seed, Restarts::Never).await;
        }
    }
}

#[tokio::test]
async fn goes_on_after_every_restart() {
    for (at, case) in cases().iter().enumerate() {
        for k in 1..4 {
            check(case, 50_000 + 1_000 * at as u64 + k, Restarts::Changes(k)).await;
            check(case, 90_000 + 1_000 * at as u64 + k, Restarts::Parts(k)).await;
        }
    }
}
