//! The lines that came and are not committed yet.

use std::collections::VecDeque;

use highwater_core::{Error, Offset, OffsetRange, Result, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// One line, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) came: Timestamp,
}

/// Lines, numbered on from where the query had come.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    lines: Mutex<Lines>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<Line>,
    /// How many lines were before the first one of the queue; not known until the query says where it is.
    before: Option<u64>,
    /// Lines up to here came in an earlier run and cannot be had again.
    lost: u64,
    /// Where the reader last asked what comes next.
    position: u64,
}

impl Buffer {
    pub(super) fn push(&self, line: Line) {
        self.lines.lock().queue.push_back(line);
        self.grown.notify_waiters();
    }

    /// The number of lines there are, asked by a query that has come to `start`.
    pub(super) fn end(&self, start: u64) -> u64 {
        let mut lines = self.lines.lock();
        lines.position = start;
        lines.end(start)
    }

    /// The lines of a range. A range that an earlier run had read is empty: its lines are gone.
    pub(super) fn range(&self, range: &OffsetRange) -> Result<Vec<Line>> {
        let (start, end) = (range.start.parse::<u64>()?, range.end.parse::<u64>()?);
        let mut lines = self.lines.lock();
        if lines.before.is_none() && start < end {
            lines.lost = end;
        }
        let last = lines.end(end);
        if start < end && end <= lines.lost {
            tracing::warn!(%start, %end, "lines of a socket are lost: it cannot replay");
            return Ok(Vec::new());
        }
        let before = last - lines.queue.len() as u64;
        if start == end {
            return Ok(Vec::new());
        }
        if start < before || end < start || end > last {
            return Err(Error::corrupt(format!(
                "lines ({start}, {end}] are asked for, but the socket has ({before}, {last}]"
            ))
            .with_hint("a socket cannot replay: start over with a new checkpoint"));
        }
        let skip = usize::try_from(start - before).unwrap_or(usize::MAX);
        let take = usize::try_from(end - start).unwrap_or(usize::MAX);
        Ok(lines.queue.iter().skip(skip).take(take).cloned().collect())
    }

    /// Forgets the lines up to `end`.
    pub(super) fn forget(&self, end: &Offset) -> Result<()> {
        let end: u64 = end.parse()?;
        let mut lines = self.lines.lock();
        let before = lines.end(end) - lines.queue.len() as u64;
        let gone = usize::try_from(end.saturating_sub(before)).unwrap_or(usize::MAX);
        let gone = gone.min(lines.queue.len());
        lines.queue.drain(..gone);
        lines.before = Some(before + gone as u64);
        Ok(())
    }

    /// Comes back once there is a line after the position where the reader last asked.
    pub(super) async fn changed(&self) {
        loop {
            // Registered before the look, so that a line that comes between the two wakes us.
            let grown = self.grown.notified();
            if self.lines.lock().has_news() {
                return;
            }
            grown.await;
        }
    }
}

impl Lines {
    /// The number of the last line; the first ever comes after `start`.
    fn end(&mut self, start: u64) -> u64 {
        *self.before.get_or_insert(start) + self.queue.len() as u64
    }

    fn has_news(&self) -> bool {
        let before = self.before.unwrap_or(self.position);
        before + self.queue.len() as u64 > self.position
    }
}
