//! A stream joined with a static table: triggers of 1,000 rows against 1 M rows, which are read once and kept.
//!
//! - At most 1 ms of CPU a trigger, beside that of the same query without the join; one pinned core, median of 3, whichever
//!   side the stream is on.

use std::sync::Arc;

use highwater::Result;
use highwater::datafusion::arrow::array::{Int64Array, RecordBatch};
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::datafusion::datasource::MemTable;
use highwater::prelude::*;

use crate::support::{cpu_seconds, median, report, timed};

const TABLE_ROWS: i64 = 1_000_000;
const ROWS: i64 = 1_000;
const TRIGGERS: i64 = 200;
const RUNS: usize = 3;
const COLUMNS: &str = "id BIGINT, v BIGINT";
const ALONE: &str = "SELECT id, v, v AS w FROM events";
const LEFT: &str = "SELECT e.id, e.v, d.v AS w FROM events e LEFT JOIN dim d ON e.id = d.id";
const RIGHT: &str = "SELECT e.id, e.v, d.v AS w FROM dim d JOIN events e ON e.id = d.id";

/// Rows whose ids are scattered over the table's; every tenth is not in it.
fn rows(schema: &SchemaRef, first: i64, count: i64) -> RecordBatch {
    let scatter = |i: i64| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let ids = (first..first + count).map(|i| (scatter(i) % (TABLE_ROWS as u64 * 10 / 9)) as i64);
    columns(schema, ids, first..first + count)
}

fn columns(
    schema: &SchemaRef,
    ids: impl Iterator<Item = i64>,
    values: impl Iterator<Item = i64>,
) -> RecordBatch {
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(ids)) as _,
        Arc::new(Int64Array::from_iter_values(values)) as _,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("two columns of the schema")
}

/// CPU seconds of a trigger, after the table was read.
async fn a_trigger(sql: &str) -> Result<f64> {
    let session = StreamSession::new();
    let schema: SchemaRef = Arc::new(highwater::parse_schema(COLUMNS)?);
    let events = MemoryStream::new(&session, &schema)?;
    events.to_frame().create_or_replace_temp_view("events")?;
    let table = columns(&schema, 0..TABLE_ROWS, (0..TABLE_ROWS).rev());
    let table = MemTable::try_new(Arc::clone(&schema), vec![vec![table]])?;
    session.register_table("dim", Arc::new(table))?;
    let writer = session.sql(sql).await?.write_stream();
    let query = writer.format("noop").start().await?;
    events.add_batch(rows(&schema, 0, ROWS))?;
    query.process_all_available().await?;
    let triggers: Vec<_> = (1..=TRIGGERS)
        .map(|trigger| rows(&schema, trigger * ROWS, ROWS))
        .collect();
    let start = cpu_seconds();
    for batch in triggers {
        events.add_batch(batch)?;
        query.process_all_available().await?;
    }
    let used = cpu_seconds() - start;
    query.stop().await?;
    Ok(used / TRIGGERS as f64)
}

async fn of_three(sql: &str) -> Result<f64> {
    let mut runs = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        runs.push(a_trigger(sql).await?);
    }
    Ok(median(&mut runs))
}

pub(crate) async fn small_triggers() -> Result<()> {
    let alone = of_three(ALONE).await?;
    timed("trigger of 1,000 rows without a join, CPU", alone);
    for (what, sql) in [
        ("stream LEFT JOIN table", LEFT),
        ("table JOIN stream", RIGHT),
    ] {
        let joined = of_three(sql).await?;
        let what = format!("{what}, 1,000 rows against 1 M, CPU of the trigger");
        report(&what, joined * 1e3, "ms", true, 1.0);
    }
    Ok(())
}
