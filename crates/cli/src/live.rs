//! The line of a query on a terminal.

use std::time::Duration;

use highwater::{
    Clock, Offset, QueryStartedEvent, RunId, SourceProgress, StreamingQueryProgress, SystemClock,
    Timestamp, Watermark,
};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::errors::Paint;
use crate::output::{Screen, counted, grouped};

/// Without an end that is known.
const ENDLESS: &str = "{spinner:.cyan} {prefix:.bold} {wide_msg}";
/// With one.
const TO_AN_END: &str =
    "{spinner:.cyan} {prefix:.bold} {bar:20.cyan/blue} {percent:>3}% {wide_msg}";
/// The length of a bar, whatever it stands for.
const WHOLE: u64 = 1_000;
/// How often the sign turns that says the query is alive.
const TICK: Duration = Duration::from_millis(120);

/// A query that runs.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) run: RunId,
    /// The statement that has started it, counted from 0.
    pub(crate) statement: usize,
    label: String,
    started: Timestamp,
    batches: u64,
    rows_in: u64,
    rows_out: Option<u64>,
    last: Option<String>,
    /// Where each source began, and how far it has come: known when something was left to read.
    road: Option<Road>,
    bar: Option<ProgressBar>,
}

/// The way of a query to an end that is known.
#[derive(Clone, Copy, Debug)]
struct Road {
    start: f64,
    left_behind: bool,
}

impl Line {
    pub(crate) fn new(
        event: &QueryStartedEvent,
        statement: usize,
        bars: Option<&MultiProgress>,
    ) -> Self {
        let label = event.name.clone();
        let label = label.unwrap_or_else(|| format!("query {}", statement + 1));
        let bar = bars.map(|bars| {
            let bar = bars.add(ProgressBar::new(WHOLE));
            bar.set_style(style(ENDLESS));
            bar.set_prefix(label.clone());
            bar.set_message("starting");
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            run: event.run_id,
            statement,
            label,
            started: event.timestamp,
            batches: 0,
            rows_in: 0,
            rows_out: Some(0),
            last: None,
            road: None,
            bar,
        }
    }

    /// A micro-batch is committed.
    pub(crate) fn progress(&mut self, progress: &StreamingQueryProgress) {
        self.batches += 1;
        self.rows_in += progress.num_input_rows;
        let rows_out = self.rows_out.zip(progress.sink.num_output_rows);
        self.rows_out = rows_out.map(|(before, now)| before + now);
        self.last = Some(standing(progress));
        let done = self.done(progress);
        let Some(bar) = &self.bar else { return };
        if let Some(done) = done {
            if bar.position() == 0 {
                bar.set_style(style(TO_AN_END));
            }
            bar.set_position(done);
        }
        bar.set_message(message(progress));
    }

    /// Nothing has run for a while.
    pub(crate) fn idle(&mut self) {
        if let Some(bar) = &self.bar {
            let last = self.last.as_deref().unwrap_or_default();
            bar.set_message(format!("waiting for data{last}"));
        }
    }

    /// The query has ended: the line that stays.
    pub(crate) fn end(self, failed: bool) -> String {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let paint = Paint(Screen::coloured());
        let sign = match failed {
            true => paint.red("✗"),
            false => paint.green("✓"),
        };
        let took = length(SystemClock.now().since(self.started));
        let mut text = format!("{sign} {}", paint.bold(&self.label));
        text += &format!(" {}", counted(self.batches, "batch"));
        text += &format!(" · {} in", counted(self.rows_in, "row"));
        if let Some(rows) = self.rows_out {
            text += &format!(" · {} out", counted(rows, "row"));
        }
        text += &self.last.unwrap_or_default();
        text + &format!(" · {took}")
    }

    /// How much of the way is done, in thousandths; `None` where the end is not known.
    fn done(&mut self, progress: &StreamingQueryProgress) -> Option<u64> {
        let sources = &progress.sources;
        let of = |place: fn(&SourceProgress) -> Option<&Offset>| -> Option<f64> {
            let places = sources.iter().map(|source| number(place(source)?.json()));
            places.sum()
        };
        let start = of(|source| Some(&source.start_offset))?;
        let end = of(|source| Some(&source.end_offset))?;
        let latest = of(|source| source.latest_offset.as_ref())?;
        let road = self.road.get_or_insert(Road {
            start,
            left_behind: false,
        });
        road.left_behind |= latest > end;
        if !road.left_behind || latest <= road.start {
            return None;
        }
        let part = (end - road.start) / (latest - road.start);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000"
        )]
        let done = (part.clamp(0.0, 1.0) * 1_000.0) as u64;
        Some(done)
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    // The templates are ours: the default would only look different.
    style
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("━╸─")
}

/// The sum of the numbers in an offset: what a source counts by.
fn number(offset: &Value) -> Option<f64> {
    match offset {
        Value::Number(number) => number.as_f64(),
        Value::Array(values) => values.iter().map(number).sum(),
        Value::Object(fields) => fields.values().map(number).sum(),
        _ => None,
    }
}

/// What the line says of a micro-batch.
fn message(progress: &StreamingQueryProgress) -> String {
    let mut text = format!("batch {}", progress.batch_id);
    if let Some(rate) = progress.processed_rows_per_second {
        text += &format!(" · {} rows/s in", whole(rate));
    }
    if let Some(rows) = progress.sink.num_output_rows
        && progress.batch_duration_ms > 0
    {
        let rate = rows.saturating_mul(1_000) / progress.batch_duration_ms;
        text += &format!(" · {} rows/s out", grouped(rate));
    }
    text + &standing(progress)
}

/// Watermark and state.
fn standing(progress: &StreamingQueryProgress) -> String {
    let mut text = String::new();
    if let Some(watermark) = progress
        .event_time
        .watermark
        .filter(|mark| *mark > Watermark(0))
    {
        let lag = progress.timestamp.since(watermark.as_timestamp());
        text += &format!(" · watermark {watermark} (lag {})", length(lag));
    }
    let operators = &progress.state_operators;
    if !operators.is_empty() {
        let rows = operators
            .iter()
            .map(|operator| operator.num_rows_total)
            .sum();
        let bytes = operators
            .iter()
            .map(|operator| operator.memory_used_bytes)
            .sum();
        text += &format!(" · state {}, {}", counted(rows, "row"), HumanBytes(bytes));
    }
    let late: u64 = operators
        .iter()
        .map(|operator| operator.num_late_rows)
        .sum();
    if late > 0 {
        text += &format!(" · {} late", counted(late, "row"));
    }
    text
}

fn whole(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative, and a cast of a greater one saturates"
    )]
    let rate = rate.round() as u64;
    grouped(rate)
}

/// A length of time, in the greatest unit that leaves two or more.
pub(crate) fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let (count, unit) = match seconds {
        0..2 => return format!("{} ms", length.as_millis()),
        2..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        172_800..63_072_000 => (seconds / 86_400, "days"),
        _ => (seconds / 31_536_000, "years"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_length_is_told_in_a_unit_that_fits() {
        for (seconds, text) in [
            (0.25, "250 ms"),
            (1.9, "1900 ms"),
            (119.0, "119 s"),
            (150.0, "2 min"),
            (7_200.0, "2 h"),
            (200_000.0, "2 days"),
            (70_000_000.0, "2 years"),
        ] {
            assert_eq!(length(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn an_offset_counts_by_all_its_numbers() {
        for (offset, sum) in [
            (json!(3), Some(3.0)),
            (json!({"logOffset": -1}), Some(-1.0)),
            (json!({"topic": {"0": 7, "1": 5}}), Some(12.0)),
            (json!("2024"), None),
            (json!({"a": 1, "b": "x"}), None),
        ] {
            assert_eq!(number(&offset), sum, "{offset}");
        }
    }
}
