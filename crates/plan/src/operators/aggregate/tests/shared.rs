//! Sliding windows made of shared panes, against windows that are kept one by one.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use highwater_core::OutputMode;

use super::harness::{Query, session};
use crate::event_time::{EventTime, Span};
use crate::operators::aggregate::shared::SharedPanes;
use crate::testing::{batch, lines, schema};

const SECOND: i64 = 1_000_000;

/// The start of the piece that a time is in, marked as the planner marks it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Piece {
    span: Span,
    signature: Signature,
}

impl ScalarUDFImpl for Piece {
    fn name(&self) -> &str {
        "piece"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let time = &args.arg_fields[0];
        let field = Field::new("piece", time.data_type().clone(), true);
        Ok(match EventTime::of(time) {
            Some(_) => EventTime {
                span: Some(self.span),
            }
            .mark(field)
            .into(),
            None => self.span.put(field).into(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let length = SharedPanes::of(self.span).length;
        let start = self.span.start;
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let pieces: TimestampMicrosecondArray = times.unary(|t| t - (t - start).rem_euclid(length));
        Ok(ColumnarValue::Array(std::sync::Arc::new(pieces) as ArrayRef))
    }
}

fn span(size: i64, slide: i64, start: i64) -> Span {
    Span {
        size: size * SECOND,
        slide: slide * SECOND,
        start: start * SECOND,
        panes: true,
    }
}

async fn query(sql: &str, span: Span, marked: bool, mode: OutputMode) -> Query {
    let session = session();
    session.register_udf(ScalarUDF::new_from_impl(Piece {
        span,
        signature: Signature::any(1, Volatility::Immutable),
    }));
    let query = if marked {
        Query::with_watermark(session, sql, schema(), "ts", mode).await
    } else {
        Query::with_context(session, sql, schema(), mode).await
    };
    query.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

type Row = (i64, &'static str, i64);

fn batches(rows: &[Row]) -> Vec<RecordBatch> {
    let rows: Vec<_> = rows
        .iter()
        .map(|(ts, k, v)| (Some(ts * SECOND), *k, *v))
        .collect();
    rows.chunks(7).map(batch).collect()
}

const COUNT: &str = "SELECT CAST(date_part('epoch', piece(ts)) AS BIGINT) AS s, count(*) AS n FROM t GROUP BY piece(ts)";

#[tokio::test]
async fn append_closes_each_window_once() {
    let mut query = query(COUNT, span(10, 5, 0), true, OutputMode::Append).await;
    let at = |ts| (ts, "k", 1);
    let steps: &[(i64, i64, &[Row], &[&str])] = &[
        (0, 0, &[at(7), at(12)], &[]),
        (0, 12, &[], &["0|1"]),
        (12, 12, &[at(21)], &[]),
        (12, 21, &[], &["10|1", "5|2"]),
        // Late for 10–20, which is gone; the piece 15–20 is also of 15–25, where the row counts.
        (21, 21, &[at(18), at(4)], &[]),
        (21, 30, &[], &["15|2", "20|1"]),
    ];
    for (number, (late, closes, rows, expected)) in steps.iter().enumerate() {
        let output = query
            .run_at(batches(rows), *late, *closes)
            .await
            .expect("run");
        assert_eq!(lines(&output), *expected, "b{number}");
        query.commit();
        let metrics = query.operators[0].metrics();
        // Both rows were late for a window; the windows are 10–20 for one, -5–5 and 0–10 for the other.
        let expected = if number == 4 { (2, 3) } else { (0, 0) };
        let late = (metrics.late_rows, metrics.rows_dropped_by_watermark);
        assert_eq!(late, expected, "b{number}");
    }
    assert_eq!(query.operators[0].metrics().rows_total, 0);
}

/// The rules window by window, for count, sum, min and max of `v` by window and key.
#[derive(Default)]
struct Reference {
    windows: BTreeMap<(i64, &'static str), Vec<i64>>,
    late_rows: u64,
    dropped: u64,
}

impl Reference {
    fn run(
        &mut self,
        span: Span,
        mode: OutputMode,
        marked: bool,
        (late, closes): (i64, i64),
        rows: &[Row],
    ) -> BTreeMap<(i64, String), Vec<i64>> {
        let (size, slide, start) = (span.size / SECOND, span.slide / SECOND, span.start / SECOND);
        let heeds = marked && mode != OutputMode::Complete;
        let (mut touched, mut dropped) = (BTreeSet::new(), BTreeSet::new());
        self.late_rows = 0;
        for (ts, k, v) in rows {
            let mut window = ts - (ts - start).rem_euclid(slide);
            let mut is_late = false;
            while ts - window < size {
                if heeds && window + size <= late {
                    is_late = true;
                    dropped.insert((window, *k));
                } else {
                    self.windows.entry((window, k)).or_default().push(*v);
                    touched.insert((window, *k));
                }
                window -= slide;
            }
            self.late_rows += u64::from(is_late);
        }
        self.dropped = dropped.len() as u64;
        let over = |window: i64| window + size <= closes;
        let given = |key: &(i64, &'static str)| match mode {
            OutputMode::Append => over(key.0),
            OutputMode::Update => touched.contains(key),
            _ => true,
        };
        let output = self.windows.iter().filter(|(key, _)| given(key));
        let output = output
            .map(|((window, k), v)| {
                let (min, max) = (
                    v.iter().min().expect("a row"),
                    v.iter().max().expect("a row"),
                );
                let row = vec![v.len() as i64, v.iter().sum(), *min, *max];
                ((*window, (*k).to_owned()), row)
            })
            .collect();
        if heeds {
            self.windows.retain(|(window, _), _| !over(*window));
        }
        output
    }
}

fn found(output: &[RecordBatch]) -> BTreeMap<(i64, String), Vec<i64>> {
    let mut found = BTreeMap::new();
    for batch in output {
        let number =
            |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            let k = array_value_to_string(batch.column(1), row).expect("text");
            let values = (2..6).map(|column| number(column, row)).collect();
            let before = found.insert((number(0, row), k), values);
            assert!(before.is_none(), "a window comes twice");
        }
    }
    found
}

#[tokio::test]
async fn every_mode_agrees_with_windows_kept_one_by_one() {
    let sql = "SELECT CAST(date_part('epoch', piece(ts)) AS BIGINT) AS s, k, count(*) AS n, sum(v) AS s2, \
               min(v) AS l, max(v) AS g FROM t GROUP BY k, piece(ts)";
    let spans = [
        span(10, 5, 0),
        span(10, 4, 3),
        span(9, 6, -2),
        span(12, 1, 0),
        span(7, 7, 1),
    ];
    let runs = [
        (OutputMode::Append, true),
        (OutputMode::Update, true),
        (OutputMode::Complete, true),
        (OutputMode::Update, false),
        (OutputMode::Complete, false),
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move |below: i64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as i64 % below
    };
    for (span, (mode, marked)) in spans.into_iter().flat_map(|s| runs.map(|run| (s, run))) {
        let mut running = query(sql, span, marked, mode).await;
        let mut reference = Reference::default();
        let mut log = Vec::new();
        // The first rows lie before 1970, where the watermark stands at first.
        let (mut late, mut closes, mut now) = (0, 0, -5);
        for number in 0..25 {
            let what = format!("{mode}, marked {marked}, {span:?}, b{number} at {late}, {closes}");
            if roll(4) == 0 {
                running = query(sql, span, marked, mode).await;
                for records in &log {
                    running.operators[0].restore(records).expect(&what);
                }
            }
            let rows: Vec<Row> = (0..roll(30))
                .map(|_| {
                    (
                        now - roll(25) + roll(6),
                        ["a", "b", "c"][roll(3) as usize],
                        roll(100),
                    )
                })
                .collect();
            let output = running
                .run_at(batches(&rows), late, closes)
                .await
                .expect(&what);
            let expected = reference.run(span, mode, marked, (late, closes), &rows);
            assert_eq!(found(&output), expected, "{what}");
            log.extend(running.operators[0].changes().expect(&what));
            running.commit();
            let metrics = running.operators[0].metrics();
            let counted = (metrics.late_rows, metrics.rows_dropped_by_watermark);
            assert_eq!(counted, (reference.late_rows, reference.dropped), "{what}");
            now += roll(9) + if roll(8) == 0 { 40 } else { 0 };
            // A watermark moves with a delay of 6, or stands still.
            late = closes;
            closes = closes.max(now - 6 * roll(2));
        }
    }
}
