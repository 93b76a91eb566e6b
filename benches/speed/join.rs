//! A join of two streams: against DataFusion's over the whole, and with little and much in its state.
//!
//! - Two streams of 5 M rows in 50 triggers, equal keys at most five seconds apart, one pinned core, median of 3: at
//!   most 2 × the CPU of the same join run by DataFusion as one batch.
//! - Triggers of 1,000 rows a side with 1 M rows held on each side: at most 2 × the CPU of those with 10 k.
//! - Bytes held for a row: at most 1.3 × its Arrow columns and 24 bytes.
//! - `abort()` in the middle of a join of 10⁵ × 10⁵ rows of one key, median of 5: at most 100 ms.

use std::sync::Arc;
use std::time::Duration;

use highwater::Result;
use highwater::datafusion::arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use highwater::datafusion::arrow::datatypes::SchemaRef;
use highwater::datafusion::datasource::MemTable;
use highwater::prelude::*;

use crate::support::{cpu_seconds, median, now, report, timed};

const TRIGGERS: i64 = 50;
/// Of each side and trigger.
const ROWS: i64 = 100_000;
/// Events of each side in a second of event time.
const A_SECOND: i64 = 1_000;
const KEYS: i64 = 10_000;
const RUNS: usize = 3;
const BIDS: &str = "ts TIMESTAMP, auction BIGINT, price BIGINT";
const PERSONS: &str = "at TIMESTAMP, bidder BIGINT, score BIGINT";
const RANGE: &str = "SELECT b.auction, b.price, p.score FROM bids b JOIN people p ON b.auction = p.bidder \
    AND p.at >= b.ts - INTERVAL '5' SECOND AND p.at <= b.ts + INTERVAL '5' SECOND";

/// What the rows of a side are like.
#[derive(Clone, Copy)]
struct Shape {
    keys: i64,
    /// Rows in a second of event time.
    a_second: i64,
    salt: u64,
}

/// Rows of one side of a trigger, from row number `first` on.
fn rows(schema: &SchemaRef, first: i64, count: i64, shape: Shape) -> RecordBatch {
    let Shape {
        keys,
        a_second,
        salt,
    } = shape;
    let scatter = |i: i64| ((i as u64 ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as i64;
    let numbers = first..first + count;
    let times = numbers
        .clone()
        .map(|i| i * 1_000_000 / a_second + scatter(i) % 1_000_000);
    let columns = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)) as _,
        Arc::new(Int64Array::from_iter_values(
            numbers.clone().map(|i| scatter(i) % keys),
        )) as _,
        Arc::new(Int64Array::from_iter_values(numbers)) as _,
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).expect("three columns of the schema")
}

/// Two streams with watermarks, and a query that joins them.
struct Join {
    bids: MemoryStream,
    people: MemoryStream,
    query: StreamingQuery,
}

impl Join {
    async fn start(delay: &str) -> Result<Self> {
        let session = StreamSession::new();
        let bids = MemoryStream::new(&session, BIDS)?;
        let people = MemoryStream::new(&session, PERSONS)?;
        let marked = bids.to_frame().with_watermark("ts", delay)?;
        marked.create_or_replace_temp_view("bids")?;
        let marked = people.to_frame().with_watermark("at", delay)?;
        marked.create_or_replace_temp_view("people")?;
        let frame = session.sql(RANGE).await?;
        let query = frame.write_stream().format("noop").start().await?;
        Ok(Self {
            bids,
            people,
            query,
        })
    }

    async fn trigger(&self, bids: RecordBatch, people: RecordBatch) -> Result<()> {
        self.bids.add_batch(bids)?;
        self.people.add_batch(people)?;
        self.query.process_all_available().await
    }
}

/// The rows of both sides, a batch for each trigger.
type Sides = [(SchemaRef, Vec<RecordBatch>); 2];

fn data() -> Result<Sides> {
    let side = |columns: &str, salt| -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let schema = Arc::new(highwater::parse_schema(columns)?);
        let shape = Shape {
            keys: KEYS,
            a_second: A_SECOND,
            salt,
        };
        let triggers = (0..TRIGGERS).map(|t| rows(&schema, t * ROWS, ROWS, shape));
        Ok((Arc::clone(&schema), triggers.collect()))
    };
    Ok([side(BIDS, 0)?, side(PERSONS, 0xB1D)?])
}

async fn batch(data: &Sides) -> Result<f64> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for (name, (schema, batches)) in ["bids", "people"].into_iter().zip(data) {
        let table = MemTable::try_new(Arc::clone(schema), vec![batches.clone()])?;
        ctx.register_table(name, Arc::new(table))?;
    }
    let start = cpu_seconds();
    let counted = format!("SELECT count(*), sum(price), sum(score) FROM ({RANGE})");
    let answer = ctx.sql(&counted).await?.collect().await?;
    let used = cpu_seconds() - start;
    assert!(!answer.is_empty(), "the batch answered");
    Ok(used)
}

async fn stream(data: &Sides) -> Result<f64> {
    let join = Join::start("2 seconds").await?;
    let start = cpu_seconds();
    for (bids, people) in data[0].1.iter().zip(&data[1].1) {
        join.trigger(bids.clone(), people.clone()).await?;
    }
    let used = cpu_seconds() - start;
    join.query.stop().await?;
    Ok(used)
}

pub(crate) async fn against_batch() -> Result<()> {
    let data = data()?;
    let (mut of_batch, mut of_stream) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let (b, s) = (batch(&data).await?, stream(&data).await?);
        if run > 0 {
            of_batch.push(b);
            of_stream.push(s);
        }
    }
    let (of_batch, of_stream) = (median(&mut of_batch), median(&mut of_stream));
    timed(
        "DataFusion batch, range join of 5 M × 5 M rows, CPU",
        of_batch,
    );
    timed("Highwater, the same in 50 triggers, CPU", of_stream);
    report(
        "range join, streaming against batch",
        of_stream / of_batch,
        "×",
        true,
        2.0,
    );
    Ok(())
}

/// CPU microseconds of a trigger of 1,000 rows a side with so many held, and the bytes held for a row.
async fn small_triggers(held: i64) -> Result<(f64, f64)> {
    const SMALL: i64 = 1_000;
    const MEASURED: i64 = 200;
    // Nothing leaves, and a row meets about one of the other side, however many there are.
    let join = Join::start("1 day").await?;
    let schemas = [BIDS, PERSONS].map(highwater::parse_schema);
    let [bids, people] = schemas.map(|schema| schema.map(Arc::new));
    let (bids, people) = (bids?, people?);
    let shape = |salt| Shape {
        keys: held,
        a_second: 1_000_000_000,
        salt,
    };
    let of = |first: i64, count| {
        let bids = rows(&bids, first, count, shape(0));
        (bids, rows(&people, first, count, shape(0xB1D)))
    };
    for first in (0..held).step_by(ROWS as usize) {
        let (bids, people) = of(first, ROWS.min(held - first));
        join.bids.add_batch(bids)?;
        join.people.add_batch(people)?;
    }
    join.query.process_all_available().await?;
    let triggers: Vec<_> = (0..MEASURED).map(|t| of(held + t * SMALL, SMALL)).collect();
    let start = cpu_seconds();
    for (bids, people) in triggers {
        join.trigger(bids, people).await?;
    }
    let used = cpu_seconds() - start;
    let progress = join.query.last_progress();
    let progress = progress
        .as_deref()
        .and_then(|p| p.state_operators.first().cloned());
    let a_row = progress.map_or(0.0, |p| {
        p.memory_used_bytes as f64 / p.num_rows_total.max(1) as f64
    });
    join.query.stop().await?;
    Ok((used / MEASURED as f64 * 1e6, a_row))
}

pub(crate) async fn state_size() -> Result<()> {
    let (few, _) = small_triggers(10_000).await?;
    let (many, a_row) = small_triggers(1_000_000).await?;
    timed(
        "trigger of 1,000 rows a side, 10 k rows held a side, CPU",
        few / 1e6,
    );
    timed(
        "trigger of 1,000 rows a side, 1 M rows held a side, CPU",
        many / 1e6,
    );
    report("1 M rows held against 10 k", many / few, "×", true, 2.0);
    // Three columns of eight bytes.
    report("bytes held for a row", a_row, "B", true, 1.3 * 24.0 + 24.0);
    Ok(())
}

/// Seconds from the call of `abort()` to its end, a while after the query began to join the rows of one key.
async fn abort_after(wait: Duration) -> Result<f64> {
    const ROWS: i64 = 100_000;
    let session = StreamSession::new();
    for name in ["a", "b"] {
        let stream = MemoryStream::new(&session, "k BIGINT, v BIGINT")?;
        let columns = [
            Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| 7))) as _,
            Arc::new(Int64Array::from_iter_values(0..ROWS)) as _,
        ];
        stream.add_batch(RecordBatch::try_new(
            Arc::clone(stream.schema()),
            columns.into(),
        )?)?;
        stream.to_frame().create_or_replace_temp_view(name)?;
    }
    let frame = session
        .sql("SELECT a.v, b.v FROM a JOIN b ON a.k = b.k")
        .await?;
    let query = frame.write_stream().format("noop").start().await?;
    pause(wait).await;
    let begun = now();
    query.abort().await?;
    Ok(begun.elapsed().as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the query is to be in full swing"
)]
async fn pause(wait: Duration) {
    tokio::time::sleep(wait).await;
}

pub(crate) async fn abort() -> Result<()> {
    let mut took = Vec::new();
    for n in 0..5 {
        took.push(abort_after(Duration::from_millis(200 + 30 * n)).await?);
    }
    let took = median(&mut took) * 1e3;
    report(
        "abort of a join of 10^5 × 10^5 rows of one key",
        took,
        "ms",
        true,
        100.0,
    );
    Ok(())
}
