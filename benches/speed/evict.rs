//! Eviction from a large state: what it costs to close a pane, and the memory that comes back.
//!
//! A record is that of a windowed aggregate: key and window, four values. The keys of a pane come at
//! different times, so that they lie all over the table. Bars: closing a pane of 1 k keys in a state of 5 M
//! keys takes at most 1 ms; closing 100 panes at once takes at most 1.3 × as long as one after the other;
//! after 90 % of 10 M keys are evicted, the process has at most 2 × the memory that a table of the other keys
//! needs.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{median, now, report};
use highwater::Result;
use highwater::datafusion::arrow::array::{ArrayRef, Int64Array};
use highwater::datafusion::arrow::datatypes::{DataType, Field, Schema};
use highwater_state::StateTable;

const PANE_KEYS: i64 = 1_000;
const SINGLE_PANES: i64 = 100;
const RUNS: i64 = 5;
const TRIGGER_ROWS: i64 = 100_000;
const VALUES: usize = 4;
const MEGABYTE: f64 = 1024.0 * 1024.0;

/// The time it takes to close panes.
pub(crate) fn panes() -> Result<()> {
    let panes = 5_000;
    let mut table = filled(0..panes, panes)?;
    let (mut millis, mut ratios) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let first = run * 2 * SINGLE_PANES;
        let mut singly = 0.0;
        for pane in first..first + SINGLE_PANES {
            let took = evict(&mut table, pane, 1)?;
            millis.push(took);
            singly += took;
        }
        let together = evict(&mut table, first + 2 * SINGLE_PANES - 1, SINGLE_PANES)?;
        ratios.push(together / singly);
    }
    report(
        "closing a pane of 1 k keys in a state of 5 M keys",
        median(&mut millis),
        "ms",
        true,
        1.0,
    );
    let slowest = millis.iter().copied().fold(0.0, f64::max);
    println!("{:<72} {slowest:>9.2} ms", "  the slowest of 500");
    report(
        "closing 100 panes at once, against one after the other",
        median(&mut ratios),
        "×",
        true,
        1.3,
    );
    Ok(())
}

/// The memory after most keys were evicted.
pub(crate) fn memory() -> Result<()> {
    let panes = 10_000;
    let before = resident();
    let mut table = filled(0..panes, panes)?;
    let full = resident() - before;
    let mut slowest: f64 = 0.0;
    for pane in 0..panes / 10 * 9 {
        slowest = slowest.max(evict(&mut table, pane, 1)?);
    }
    // The allocator gives memory back a second later, when it is asked for some.
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(250));
        drop(vec![1_u8; 4 << 20]);
    }
    let left = resident() - before;
    let counted = table.memory_bytes() as f64;
    let needed = filled(panes / 10 * 9..panes, panes)?.memory_bytes() as f64;
    println!(
        "{:<72} {:>9.0} MB",
        "resident memory of 10 M keys",
        full / MEGABYTE
    );
    println!(
        "{:<72} {:>9.0} MB",
        "  what 1 M of them need",
        needed / MEGABYTE
    );
    println!(
        "{:<72} {slowest:>9.2} ms",
        "  the slowest of 9,000 panes while it shrank"
    );
    for (what, bytes) in [("held by the table", counted), ("resident", left)] {
        report(
            &format!("memory after 90 % of 10 M keys are evicted, {what}"),
            bytes / needed,
            "×",
            true,
            2.0,
        );
    }
    Ok(())
}

/// Closes the panes up to `last`, of which there are `panes`; milliseconds.
fn evict(table: &mut StateTable, last: i64, panes: i64) -> Result<f64> {
    let start = now();
    let evicted = table.evict(last)?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(evicted as i64, panes * PANE_KEYS, "all keys of the panes");
    Ok(took)
}

/// A table with the keys of these panes out of `all`, each trigger with keys of all of them.
fn filled(panes: std::ops::Range<i64>, all: i64) -> Result<StateTable> {
    let long = |name: String| Field::new(name, DataType::Int64, true);
    let keys = ["key", "window"].map(|name| long(name.to_owned()));
    let values: Vec<Field> = (0..VALUES).map(|n| long(format!("value{n}"))).collect();
    let keys = Arc::new(Schema::new(keys.to_vec()));
    let mut table = StateTable::try_new(keys, Arc::new(Schema::new(values)))?;
    let count = panes.end - panes.start;
    let pane_of = |row: i64| panes.start + row % count;
    let mut ids = Vec::new();
    for from in (0..count * PANE_KEYS).step_by(TRIGGER_ROWS as usize) {
        let rows = from..(from + TRIGGER_ROWS).min(count * PANE_KEYS);
        let ends = Int64Array::from_iter_values(rows.clone().map(pane_of));
        let key = |row: i64| (row / count) * all + pane_of(row);
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(key)));
        let columns = [Arc::clone(&key), Arc::new(ends.clone()) as ArrayRef];
        let rows = (rows.end - rows.start) as usize;
        let fresh = table.intern(&columns, rows, &mut ids)?.fresh;
        table.put_in_panes(fresh.clone(), &ends)?;
        table.set_values(fresh, &vec![key; VALUES])?;
        table.commit();
    }
    Ok(table)
}

/// Bytes of memory that this process has.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0.0) * 4096.0
}
