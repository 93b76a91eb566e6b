//! The rules of event time, written down as plainly as they can be: what each micro-batch runs with, which rows are
//! late, what comes out. Nothing here is fast, and nothing is taken from the engine.

use std::collections::{BTreeMap, BTreeSet};

use highwater_testkit::{Row, Value};

/// One row of the input; times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Input {
    pub(crate) ts: Option<i64>,
    pub(crate) k: Option<&'static str>,
    pub(crate) v: Option<i64>,
}

/// The two watermarks of one micro-batch, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// What the micro-batch before ran with: it judges late rows.
    pub(crate) late: i64,
    /// What this one runs with: it closes and evicts.
    pub(crate) closes: i64,
}

/// The watermark between micro-batches, in milliseconds.
#[derive(Debug)]
pub(crate) struct Watermark {
    delay: i64,
    ran: i64,
    next: i64,
}

impl Watermark {
    /// At first the watermark is 1970, and it is in force.
    pub(crate) fn new(delay_ms: i64) -> Self {
        Self {
            delay: delay_ms,
            ran: 0,
            next: 0,
        }
    }

    /// The micro-batches that follow when `rows` come: the one that reads them, and one without data if the
    /// watermark has moved.
    pub(crate) fn batches(&mut self, rows: &[Input]) -> Vec<Marks> {
        let mut batches = vec![self.run()];
        if let Some(max) = rows.iter().filter_map(|row| row.ts).max() {
            self.next = self.next.max(max.div_euclid(1_000) - self.delay);
        }
        if self.next > self.ran {
            batches.push(self.run());
        }
        batches
    }

    fn run(&mut self) -> Marks {
        let marks = Marks {
            late: self.ran * 1_000,
            closes: self.next * 1_000,
        };
        self.ran = self.next;
        marks
    }
}

/// What a stateful operator does with a micro-batch.
pub(crate) trait Rules {
    /// Takes the rows that are not late and gives the late ones back.
    fn take(&mut self, rows: &[Input], late: i64) -> Vec<Input>;
    /// What comes out, once all rows were taken; then state is evicted.
    fn emit(&mut self, closes: i64) -> Vec<Row>;
}

/// Aggregates by window and key. A row is judged for each of its windows.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) size: i64,
    pub(crate) slide: i64,
    /// Start, key and value of what was not late.
    pub(crate) kept: Vec<(i64, Input)>,
    emitted: BTreeSet<(i64, Option<&'static str>)>,
}

impl Windows {
    pub(crate) fn new(size: i64, slide: i64) -> Self {
        Self {
            size,
            slide,
            kept: Vec::new(),
            emitted: BTreeSet::new(),
        }
    }

    /// The starts of the windows that `ts` is in.
    fn starts(&self, ts: i64) -> Vec<i64> {
        let last = ts.div_euclid(self.slide) * self.slide;
        let starts = (0..).map(|i| last - i * self.slide);
        starts.take_while(|start| start + self.size > ts).collect()
    }
}

impl Rules for Windows {
    fn take(&mut self, rows: &[Input], late: i64) -> Vec<Input> {
        let mut put_aside = Vec::new();
        for row in rows {
            let starts = row.ts.map(|ts| self.starts(ts)).unwrap_or_default();
            let (open, closed): (Vec<i64>, _) = starts
                .into_iter()
                .partition(|start| start + self.size > late);
            self.kept.extend(open.into_iter().map(|s| (s, row.clone())));
            if !closed.is_empty() {
                put_aside.push(row.clone());
            }
        }
        put_aside
    }

    fn emit(&mut self, closes: i64) -> Vec<Row> {
        let mut groups: BTreeMap<(i64, Option<&'static str>), Vec<Option<i64>>> = BTreeMap::new();
        for (start, row) in &self.kept {
            if start + self.size <= closes {
                groups.entry((*start, row.k)).or_default().push(row.v);
            }
        }
        groups.retain(|group, _| self.emitted.insert(*group));
        let row = |((start, k), values): ((i64, _), Vec<Option<i64>>)| {
            let mut row = vec![Value::Time(start), Value::from(k)];
            row.extend(figures(&values));
            row
        };
        groups.into_iter().map(row).collect()
    }
}

/// `count(*), sum(v), min(v)`.
fn figures(values: &[Option<i64>]) -> [Value; 3] {
    let known: Vec<i64> = values.iter().flatten().copied().collect();
    let sum = (!known.is_empty()).then(|| known.iter().sum::<i64>());
    let count = i64::try_from(values.len()).unwrap_or(i64::MAX);
    [
        Value::from(count),
        Value::from(sum),
        Value::from(known.iter().min().copied()),
    ]
}

/// Aggregates by the event time itself; a group without a time never ends.
#[derive(Debug, Default)]
pub(crate) struct Instants(BTreeMap<Option<i64>, Vec<Option<i64>>>);

impl Rules for Instants {
    fn take(&mut self, rows: &[Input], late: i64) -> Vec<Input> {
        let (put_aside, kept): (Vec<Input>, _) = rows
            .iter()
            .cloned()
            .partition(|row| row.ts.is_some_and(|ts| ts <= late));
        for row in kept {
            self.0.entry(row.ts).or_default().push(row.v);
        }
        put_aside
    }

    fn emit(&mut self, closes: i64) -> Vec<Row> {
        let over = |ts: &Option<i64>| ts.is_some_and(|ts| ts <= closes);
        let closed: Vec<_> = self.0.iter().filter(|(ts, _)| over(ts)).collect();
        let rows = closed.into_iter().map(|(ts, values)| {
            let mut row = vec![ts.map_or(Value::Null, Value::Time)];
            row.extend(figures(values));
            row
        });
        let rows = rows.collect();
        self.0.retain(|ts, _| !over(ts));
        rows
    }
}

/// Aggregates by session and key: each row opens one of its own, those that overlap or touch merge.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) gap: i64,
    open: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    k: Option<&'static str>,
    start: i64,
    end: i64,
    values: Vec<Option<i64>>,
}

impl Sessions {
    pub(crate) fn new(gap: i64) -> Self {
        Self {
            gap,
            open: Vec::new(),
        }
    }

    fn merge(&mut self, mut new: Session) {
        let meets = |old: &Session, new: &Session| {
            old.k == new.k && old.start <= new.end && new.start <= old.end
        };
        while let Some(at) = self.open.iter().position(|old| meets(old, &new)) {
            let old = self.open.swap_remove(at);
            new.start = new.start.min(old.start);
            new.end = new.end.max(old.end);
            new.values.extend(old.values);
        }
        self.open.push(new);
    }
}

impl Rules for Sessions {
    fn take(&mut self, rows: &[Input], late: i64) -> Vec<Input> {
        let mut put_aside = Vec::new();
        for row in rows {
            let Some(start) = row.ts else { continue };
            let end = start + self.gap;
            if end <= late {
                put_aside.push(row.clone());
            } else {
                self.merge(Session {
                    k: row.k,
                    start,
                    end,
                    values: vec![row.v],
                });
            }
        }
        put_aside
    }

    fn emit(&mut self, closes: i64) -> Vec<Row> {
        let (over, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|session| session.end <= closes);
        self.open = open;
        let row = |session: Session| {
            let times = [Value::Time(session.start), Value::Time(session.end)];
            let mut row = times.to_vec();
            row.push(Value::from(session.k));
            row.extend(figures(&session.values));
            row
        };
        Vec::into_iter(over).map(row).collect()
    }
}

/// The first row of each key comes out.
#[derive(Debug)]
pub(crate) struct Dedup {
    kind: DedupKind,
    /// When each key is forgotten; `None`: never.
    seen: BTreeMap<Input, Option<i64>>,
    out: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum DedupKind {
    /// By `k`.
    Key,
    /// By `k` and `ts`.
    KeyAndTime,
    /// By all columns.
    All,
    /// By `k`, for so many microseconds after the first.
    Within(i64),
}

impl Dedup {
    pub(crate) fn new(kind: DedupKind) -> Self {
        Self {
            kind,
            seen: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    fn key(&self, row: &Input) -> (Input, Option<i64>) {
        let mut key = row.clone();
        match self.kind {
            DedupKind::All => return (key, row.ts),
            DedupKind::KeyAndTime => key.v = None,
            DedupKind::Key | DedupKind::Within(_) => (key.ts, key.v) = (None, None),
        }
        let end = match self.kind {
            DedupKind::Key => None,
            DedupKind::Within(delay) => row.ts.map(|ts| ts + delay),
            _ => row.ts,
        };
        (key, end)
    }
}

impl Rules for Dedup {
    fn take(&mut self, rows: &[Input], late: i64) -> Vec<Input> {
        let mut put_aside = Vec::new();
        for row in rows {
            if row.ts.is_some_and(|ts| ts <= late) {
                put_aside.push(row.clone());
                continue;
            }
            let (key, end) = self.key(row);
            if self.seen.contains_key(&key) {
                continue;
            }
            self.seen.insert(key, end);
            let ts = row.ts.map_or(Value::Null, Value::Time);
            self.out
                .push(vec![ts, Value::from(row.k), Value::from(row.v)]);
        }
        put_aside
    }

    fn emit(&mut self, closes: i64) -> Vec<Row> {
        self.seen
            .retain(|_, end| end.is_none_or(|end| end > closes));
        std::mem::take(&mut self.out)
    }
}
