//! The load: rows that depend on nothing but the seed and their number, and the thread that writes them into files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use highwater::{Error, Result, Timestamp, parse_schema};

use crate::rng::Rng;

/// The columns of the load.
pub const SCHEMA: &str = "id BIGINT, ts TIMESTAMP, k STRING, v BIGINT";
/// Rows of one file.
pub const ROWS_PER_FILE: u64 = 250;
/// Different keys.
const KEYS: usize = 200;
/// 2024-05-01 00:00:00 UTC.
const START_MS: i64 = 1_714_521_600_000;
/// From one row to the next, in milliseconds of event time.
const STEP_MS: i64 = 10;
/// A row may be so far from its place, in milliseconds of event time. Together with what a listing may overlook while
/// files come it stays far below the delay of the watermark, which is 300 seconds or 120 files: no row is late.
const JITTER_MS: i64 = 5_000;

/// One row of the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadRow {
    /// Its number, from 0.
    pub id: i64,
    /// Its event time, in milliseconds since 1970.
    pub ts_ms: i64,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: i64,
}

/// Row `id` of the load of `seed`.
#[must_use]
pub fn row(seed: u64, id: i64) -> LoadRow {
    let mut rng = Rng::new(seed.rotate_left(32) ^ id.unsigned_abs());
    LoadRow {
        id,
        ts_ms: START_MS + id * STEP_MS + rng.between(-JITTER_MS, JITTER_MS + 1),
        key: format!("key-{}", rng.below(KEYS)),
        value: rng.between(-1_000, 1_001),
    }
}

/// The rows of file `number`, as lines of JSON.
#[must_use]
pub fn text(seed: u64, number: u64) -> String {
    let mut text = String::new();
    for id in ids(number) {
        let row = row(seed, id);
        let ts = Timestamp::from_millis(row.ts_ms).to_iso();
        let (key, value) = (row.key, row.value);
        // Writing into a string cannot fail.
        let _ = writeln!(text, r#"{{"id":{id},"ts":"{ts}","k":"{key}","v":{value}}}"#);
    }
    text
}

/// The rows of file `number` under [`SCHEMA`].
///
/// # Errors
/// None, as the columns fit.
pub fn batch(seed: u64, number: u64) -> Result<RecordBatch> {
    let rows: Vec<LoadRow> = ids(number).map(|id| row(seed, id)).collect();
    let times = rows.iter().map(|row| row.ts_ms * 1_000);
    let columns: [ArrayRef; 4] = [
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.id))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| &row.key),
        )),
        Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|row| row.value),
        )),
    ];
    let schema = Arc::new(parse_schema(SCHEMA)?);
    let columns = columns.iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn ids(number: u64) -> std::ops::Range<i64> {
    let first = number * ROWS_PER_FILE;
    first.cast_signed()..(first + ROWS_PER_FILE).cast_signed()
}

/// Writes files at a steady pace while its budget lasts; a file appears whole or not at all.
#[derive(Debug)]
pub struct Feeder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    seed: u64,
    pace: Duration,
    budget: AtomicU64,
    closed: AtomicBool,
}

impl Feeder {
    /// A feeder of `folder` that writes a file each `pace` once it has a budget.
    #[must_use]
    pub fn start(folder: &Path, seed: u64, pace: Duration) -> Self {
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            seed,
            pace,
            budget: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || own.run()));
        Self { shared, thread }
    }

    /// Allows `files` more.
    pub fn allow(&self, files: u64) {
        self.shared.budget.fetch_add(files, Ordering::SeqCst);
    }

    /// Writes what is left of the budget, and tells how many files there are.
    ///
    /// # Errors
    /// When a file could not be written.
    pub fn finish(mut self) -> Result<u64> {
        self.shared.closed.store(true, Ordering::SeqCst);
        let thread = self.thread.take();
        match thread.map(JoinHandle::join) {
            Some(Ok(done)) => done?,
            Some(Err(_)) => {
                return Err(Error::internal("the thread that writes the load panicked"));
            }
            None => {}
        }
        Ok(self.shared.budget.load(Ordering::SeqCst))
    }
}

impl Drop for Feeder {
    /// A proof that failed writes no more.
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.shared.budget.store(0, Ordering::SeqCst);
            self.shared.closed.store(true, Ordering::SeqCst);
        }
    }
}

impl Shared {
    fn run(&self) -> Result<()> {
        let mut next = 0;
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            if next < self.budget.load(Ordering::SeqCst) {
                self.write(next)?;
                next += 1;
            } else if closed {
                return Ok(());
            }
            if !closed {
                thread::sleep(self.pace);
            }
        }
    }

    fn write(&self, number: u64) -> Result<()> {
        // Names that begin with a dot are not listed.
        let aside = self.folder.join(format!(".load-{number:06}"));
        fs::write(&aside, text(self.seed, number))?;
        fs::rename(aside, self.folder.join(format!("load-{number:06}.json")))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_load_and_another_seed_another() {
        assert_eq!(text(1, 3), text(1, 3));
        assert_ne!(text(1, 3), text(2, 3));
        let batch = batch(1, 3).unwrap();
        assert_eq!(batch.num_rows() as u64, ROWS_PER_FILE);
        assert_eq!(text(1, 3).lines().count() as u64, ROWS_PER_FILE);
    }
}
