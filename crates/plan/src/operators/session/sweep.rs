//! Which rows and which sessions become one session: those that overlap or touch, over any number of steps.
//!
//! ```text
//!  sessions   [──old 0──)                 [─old 1─)          [─old 2─)
//!  rows                [─)  [────)    [────)
//!                       run 0          run 0                             one group: old 0, run 0, old 1
//! ```
//! Pieces come in the order of their starts (Spark), so that `first_value` and `array_agg` follow event time.

use super::sessions::{Place, Session, Sessions};

/// A row of the trigger, as far as its session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The slot of its key.
    pub(super) slot: u32,
    pub(super) start: i64,
    pub(super) end: i64,
    /// Its number among the rows of the trigger.
    pub(super) row: u32,
}

/// A session that rows opened or went into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Where it is now; good until something is evicted.
    pub(super) place: Place,
    pub(super) start: i64,
    pub(super) end: i64,
    /// How many earlier sessions it replaces.
    pub(super) replaces: usize,
}

/// What a group is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Rows between which no earlier session lies.
    Run(usize),
    /// An earlier session.
    Old(usize),
}

/// The groups of some rows.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    pub(super) groups: Vec<Group>,
    /// The run of each row.
    pub(super) runs: Vec<usize>,
    /// How many runs there are.
    pub(super) run_count: usize,
    /// The pieces with the number of their group, group by group, each group's by start.
    pub(super) pieces: Vec<(Piece, usize)>,
    /// The sessions that are replaced, group by group.
    pub(super) olds: Vec<Session>,
}

impl Sweep {
    /// The groups of `rows`, which come by slot and start; they take their places among the sessions.
    pub(super) fn of(rows: &[Row], sessions: &mut Sessions) -> Self {
        let mut sweep = Self::default();
        for rows in rows.chunk_by(|a, b| a.slot == b.slot) {
            sweep.key(rows, sessions);
        }
        sweep
    }

    /// The rows of one key.
    fn key(&mut self, rows: &[Row], sessions: &mut Sessions) {
        let slot = rows[0].slot;
        let (mut from, mut next) = (0, 0);
        while next < rows.len() {
            let first = rows[next];
            let stored = sessions.of(slot);
            from += stored[from..].partition_point(|session| session.end < first.start);
            let (span, to, after) = self.group(&rows[next..], &stored[from..]);
            let to = from + to;
            let olds = sessions.replace(slot, from..to, span.0, span.1);
            self.groups.push(Group {
                place: (slot, from),
                start: span.0,
                end: span.1,
                replaces: olds.len(),
            });
            self.olds.extend(olds);
            from += 1;
            next += after;
        }
    }

    /// One group, which the first of `rows` is in: its span, and how many of `stored` and of `rows` it takes.
    fn group(&mut self, rows: &[Row], stored: &[Session]) -> ((i64, i64), usize, usize) {
        let group = self.groups.len();
        let (mut start, mut end) = (rows[0].start, rows[0].start);
        let (mut olds, mut taken, mut in_run) = (0, 0, false);
        loop {
            let row = rows.get(taken).filter(|row| row.start <= end);
            let old = stored.get(olds).filter(|old| old.start <= end);
            // Of the two that meet the group the one that starts first; of equals the session (Spark).
            let old = old.filter(|old| row.is_none_or(|row| old.start <= row.start));
            match (old, row) {
                (Some(old), _) => {
                    (start, end) = (start.min(old.start), end.max(old.end));
                    self.pieces
                        .push((Piece::Old(self.olds.len() + olds), group));
                    (olds, in_run) = (olds + 1, false);
                }
                (None, Some(row)) => {
                    end = end.max(row.end);
                    if !in_run {
                        self.pieces.push((Piece::Run(self.run_count), group));
                        self.run_count += 1;
                    }
                    self.runs.push(self.run_count - 1);
                    (taken, in_run) = (taken + 1, true);
                }
                (None, None) => return ((start, end), olds, taken),
            }
        }
    }
}
