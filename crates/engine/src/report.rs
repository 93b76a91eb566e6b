//! How the facts about a micro-batch become its progress.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion::common::ScalarValue;
use highwater_core::{MicroBatch, ReadLimit, SinkCommit, Timestamp};
use highwater_plan::operators::OperatorMetrics;
use highwater_plan::operators::watermark::EventTimes;
use serde_json::Value;

use crate::progress::{
    DurationProgress, EventTimeProgress, SinkProgress, SourceProgress, StateOperatorProgress,
    StreamingQueryProgress, WatermarkProgress,
};
use crate::run::Run;

/// When the steps of the micro-batch in flight were taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Laps {
    /// The trigger fired.
    pub(crate) fired: Timestamp,
    /// The ranges were chosen.
    pub(crate) chosen: Timestamp,
    /// The intent was logged.
    pub(crate) intended: Timestamp,
    /// The plan was opened.
    pub(crate) opened: Timestamp,
    /// The sink had all rows.
    pub(crate) written: Timestamp,
    /// The commit was logged.
    pub(crate) committed: Timestamp,
}

impl Laps {
    /// The micro-batch begins: its trigger fired at `fired`, its ranges are `chosen`.
    pub(crate) fn begin(&mut self, fired: Timestamp, chosen: Timestamp) {
        self.fired = fired;
        self.chosen = chosen;
    }

    fn durations(&self, planning: Duration) -> DurationProgress {
        let ms = |from: Timestamp, to: Timestamp| millis(to.since(from));
        DurationProgress {
            latest_offset_ms: ms(self.fired, self.chosen),
            wal_commit_ms: ms(self.chosen, self.intended),
            get_batch_ms: ms(self.intended, self.opened),
            query_planning_ms: millis(planning),
            add_batch_ms: ms(self.opened, self.written),
            commit_offsets_ms: ms(self.written, self.committed),
            trigger_execution_ms: ms(self.fired, self.committed),
        }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// What a run's progress has in common from one micro-batch to the next.
#[derive(Debug)]
pub(crate) struct Reporter {
    /// How the sources describe themselves, in the order of the inputs.
    pub(crate) sources: Vec<String>,
    /// How the sink describes itself.
    pub(crate) sink: String,
    /// The time planning took; told once.
    pub(crate) planning: Duration,
    /// When the trigger before fired; `None` before the first.
    pub(crate) fired_before: Option<Timestamp>,
}

/// Rows for each second, of the input and of the work.
#[derive(Clone, Copy)]
struct Rates {
    between: Option<Duration>,
    worked: Duration,
}

impl Rates {
    /// For each second since the trigger before; 0 for the first (Spark).
    fn input(self, rows: u64) -> Option<f64> {
        self.between.map_or(Some(0.0), |length| rate(rows, length))
    }

    fn processed(self, rows: u64) -> Option<f64> {
        rate(rows, self.worked)
    }
}

/// Rows for each second; none when no time has passed.
fn rate(rows: u64, length: Duration) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a rate is a rough figure")]
    (!length.is_zero()).then(|| rows as f64 / length.as_secs_f64())
}

impl Run {
    /// The progress of the micro-batch that was just committed.
    pub(crate) fn report(
        &mut self,
        batch: &MicroBatch,
        written: &SinkCommit,
    ) -> StreamingQueryProgress {
        let laps = self.laps;
        let worked = laps.committed.since(laps.fired);
        let rates = Rates {
            between: self
                .reporter
                .fired_before
                .map(|before| laps.fired.since(before)),
            worked,
        };
        self.reporter.fired_before = Some(laps.fired);
        let rows = self.plan.input_rows();
        let total = rows.values().sum();
        let durations = laps.durations(std::mem::take(&mut self.reporter.planning));
        StreamingQueryProgress {
            id: self.query.id(),
            run_id: self.query.run_id(),
            name: self.query.name().map(str::to_owned),
            timestamp: laps.fired,
            batch_id: batch.id,
            batch_duration_ms: millis(worked),
            num_input_rows: total,
            input_rows_per_second: rates.input(total),
            processed_rows_per_second: rates.processed(total),
            state_operators: self
                .plan
                .operators()
                .iter()
                .filter(|o| o.shows())
                .map(|o| state_progress(o.kind(), o.metrics(), &durations))
                .collect(),
            durations,
            event_time: self.report_event_time(batch),
            watermarks: self.report_watermarks(),
            sources: self.report_sources(batch, &rows, rates),
            sink: SinkProgress {
                description: self.reporter.sink.clone(),
                num_output_rows: written.rows,
                metrics: BTreeMap::new(),
            },
            observed_metrics: observed(self.plan.observed()),
        }
    }

    /// Of the first `with_watermark` that saw a time, and the watermark wherever there is one (Spark).
    fn report_event_time(&self, batch: &MicroBatch) -> EventTimeProgress {
        let inputs = self.plan.watermarks();
        let seen = inputs.iter().map(|input| input.seen());
        let seen = seen.into_iter().find(|seen| seen.count > 0);
        let mean = |seen: &EventTimes| seen.sum.div_euclid(i128::from(seen.count));
        EventTimeProgress {
            max: seen.map(|seen| Timestamp::from_micros(seen.max)),
            min: seen.map(|seen| Timestamp::from_micros(seen.min)),
            avg: seen
                .and_then(|seen| i64::try_from(mean(&seen)).ok())
                .map(Timestamp::from_micros),
            watermark: (!inputs.is_empty()).then(|| self.ordinary_watermark(batch)),
        }
    }

    fn report_watermarks(&self) -> Vec<WatermarkProgress> {
        let inputs = self.plan.watermarks().iter().zip(self.watermarks.own());
        let inputs = inputs.map(|(input, watermark)| WatermarkProgress {
            name: input.name.clone(),
            column: input.column.clone(),
            watermark,
            num_late_rows: input.late_rows(),
        });
        inputs.collect()
    }

    fn report_sources(
        &self,
        batch: &MicroBatch,
        rows: &BTreeMap<String, u64>,
        rates: Rates,
    ) -> Vec<SourceProgress> {
        let inputs = self.inputs.iter().zip(&self.reporter.sources);
        let inputs =
            inputs.filter_map(|(input, text)| Some((input, text, batch.ranges.get(&input.name)?)));
        let sources = inputs.map(|(input, description, range)| {
            let rows = rows.get(&input.name).copied().unwrap_or(0);
            let seen_all = input.limit == ReadLimit::All;
            let all = seen_all.then(|| range.end.clone());
            SourceProgress {
                description: description.clone(),
                start_offset: range.start.clone(),
                end_offset: range.end.clone(),
                latest_offset: input.pin.clone().or(all),
                num_input_rows: rows,
                input_rows_per_second: rates.input(rows),
                processed_rows_per_second: rates.processed(rows),
                metrics: input.source.metrics(range),
            }
        });
        sources.collect()
    }
}

fn state_progress(
    kind: &'static str,
    metrics: OperatorMetrics,
    durations: &DurationProgress,
) -> StateOperatorProgress {
    StateOperatorProgress {
        operator_name: kind.to_owned(),
        num_rows_total: metrics.rows_total,
        num_rows_updated: metrics.rows_updated,
        all_updates_time_ms: None,
        num_rows_removed: metrics.rows_removed,
        all_removals_time_ms: None,
        commit_time_ms: durations.commit_offsets_ms,
        memory_used_bytes: metrics.memory_bytes,
        num_rows_dropped_by_watermark: metrics.rows_dropped_by_watermark,
        num_late_rows: metrics.late_rows,
        num_shuffle_partitions: 1,
        num_state_store_instances: 1,
        custom_metrics: BTreeMap::new(),
    }
}

fn observed(
    metrics: BTreeMap<String, Vec<(String, ScalarValue)>>,
) -> BTreeMap<String, BTreeMap<String, Value>> {
    let metrics = metrics.into_iter();
    metrics
        .map(|(name, values)| {
            let values = values
                .into_iter()
                .map(|(column, value)| (column, json_of(&value)));
            (name, values.collect())
        })
        .collect()
}

/// A scalar as JSON; what JSON has no kind for is text.
fn json_of(value: &ScalarValue) -> Value {
    if value.is_null() {
        return Value::Null;
    }
    match value {
        ScalarValue::Boolean(Some(v)) => Value::from(*v),
        ScalarValue::Int8(Some(v)) => Value::from(*v),
        ScalarValue::Int16(Some(v)) => Value::from(*v),
        ScalarValue::Int32(Some(v)) => Value::from(*v),
        ScalarValue::Int64(Some(v)) => Value::from(*v),
        ScalarValue::UInt8(Some(v)) => Value::from(*v),
        ScalarValue::UInt16(Some(v)) => Value::from(*v),
        ScalarValue::UInt32(Some(v)) => Value::from(*v),
        ScalarValue::UInt64(Some(v)) => Value::from(*v),
        ScalarValue::Float32(Some(v)) if v.is_finite() => Value::from(*v),
        ScalarValue::Float64(Some(v)) if v.is_finite() => Value::from(*v),
        other => Value::from(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_sparks() {
        let second = Duration::from_secs(1);
        let first = Rates {
            between: None,
            worked: second,
        };
        assert_eq!((first.input(5), first.processed(5)), (Some(0.0), Some(5.0)));
        let fast = Rates {
            between: Some(second * 2),
            worked: Duration::ZERO,
        };
        assert_eq!((fast.input(5), fast.processed(5)), (Some(2.5), None));
    }

    #[test]
    fn scalars_keep_their_kind_in_json() {
        for (value, json) in [
            (ScalarValue::Int64(Some(7)), "7"),
            (ScalarValue::Float64(Some(0.5)), "0.5"),
            (ScalarValue::Float64(Some(f64::NAN)), "\"NaN\""),
            (ScalarValue::Boolean(Some(true)), "true"),
            (ScalarValue::Utf8View(Some("a".into())), "\"a\""),
            (ScalarValue::Int32(None), "null"),
        ] {
            assert_eq!(json_of(&value).to_string(), json);
        }
    }
}
