//! The published facts about one micro-batch, in Spark's shape. Everything that shows a query's life is a view of them.

use std::collections::BTreeMap;

use highwater_core::{BatchId, Offset, QueryId, RunId, Timestamp, Watermark};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one micro-batch did. [`json`](Self::json) spells it as Spark does.
///
/// What Spark writes as −1, for "not known", is `None` here and `null` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StreamingQueryProgress {
    /// The query.
    pub id: QueryId,
    /// The run.
    pub run_id: RunId,
    /// The query's name.
    pub name: Option<String>,
    /// When the trigger fired; ISO 8601 in UTC with milliseconds.
    #[serde(with = "iso")]
    pub timestamp: Timestamp,
    /// The micro-batch.
    pub batch_id: BatchId,
    /// How long it took from the trigger to the commit, in milliseconds.
    #[serde(rename = "batchDuration")]
    pub batch_duration_ms: u64,
    /// Rows read from all sources; a source that the query reads twice counts twice.
    pub num_input_rows: u64,
    /// Rows for each second since the trigger before; `None` when no time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_rows_per_second: Option<f64>,
    /// Rows for each second of the micro-batch; `None` when it took no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_rows_per_second: Option<f64>,
    /// Where the time went, in milliseconds.
    #[serde(rename = "durationMs")]
    pub durations: DurationProgress,
    /// Event times; empty for a query without a watermark.
    pub event_time: EventTimeProgress,
    /// The inputs of the watermark, from the sink towards the sources; not in Spark's progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<WatermarkProgress>,
    /// The stateful operators, from the sink towards the sources.
    pub state_operators: Vec<StateOperatorProgress>,
    /// The sources.
    pub sources: Vec<SourceProgress>,
    /// The sink.
    pub sink: SinkProgress,
    /// What `observe` was asked to watch: by its name, then by the name of the aggregate.
    pub observed_metrics: BTreeMap<String, BTreeMap<String, Value>>,
}

impl StreamingQueryProgress {
    /// The progress as one line of JSON, spelled as Spark's.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The progress as indented JSON, spelled as Spark's.
    #[must_use]
    pub fn pretty_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

/// Where the time of a micro-batch went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DurationProgress {
    /// Asking the sources for their latest offsets.
    #[serde(rename = "latestOffset")]
    pub latest_offset_ms: u64,
    /// Writing the intent, `offsets/N`.
    #[serde(rename = "walCommit")]
    pub wal_commit_ms: u64,
    /// Handing the ranges to the plan.
    #[serde(rename = "getBatch")]
    pub get_batch_ms: u64,
    /// Planning; once for each run, told with its first micro-batch.
    #[serde(rename = "queryPlanning")]
    pub query_planning_ms: u64,
    /// Running the plan and writing to the sink.
    #[serde(rename = "addBatch")]
    pub add_batch_ms: u64,
    /// Writing the state and `commits/N`.
    #[serde(rename = "commitOffsets")]
    pub commit_offsets_ms: u64,
    /// All of it, from the trigger on.
    #[serde(rename = "triggerExecution")]
    pub trigger_execution_ms: u64,
}

/// The event times of a micro-batch, of the first `with_watermark` from the sink that saw any (Spark).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventTimeProgress {
    /// The latest event time seen.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "iso_option")]
    pub max: Option<Timestamp>,
    /// The earliest event time seen.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "iso_option")]
    pub min: Option<Timestamp>,
    /// The mean of the event times seen.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "iso_option")]
    pub avg: Option<Timestamp>,
    /// The watermark this micro-batch ran with.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "iso_watermark"
    )]
    pub watermark: Option<Watermark>,
}

/// One `with_watermark` of the query after a micro-batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WatermarkProgress {
    /// Its name in the query: `watermark`, `watermark_2`.
    pub name: String,
    /// The column of event time.
    pub column: String,
    /// Its own watermark after this micro-batch: the greatest event time of this run less the delay.
    #[serde(with = "iso_mark")]
    pub watermark: Watermark,
    /// Rows that did not pass because their event time was too far in the future (`maxEventTimeSkew`).
    #[serde(default)]
    pub num_late_rows: u64,
}

/// What a micro-batch did to the state of one operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StateOperatorProgress {
    /// What Spark calls such an operator: `stateStoreSave`.
    pub operator_name: String,
    /// Records in the state.
    pub num_rows_total: u64,
    /// Records put in or changed.
    pub num_rows_updated: u64,
    /// Time for the changes, in milliseconds; `None`: it is part of `addBatch`.
    pub all_updates_time_ms: Option<u64>,
    /// Records removed.
    pub num_rows_removed: u64,
    /// Time for the removals, in milliseconds; `None`: it is part of `addBatch`.
    pub all_removals_time_ms: Option<u64>,
    /// Time for writing the state, in milliseconds; all operators are written together.
    pub commit_time_ms: u64,
    /// Bytes of memory the state holds.
    pub memory_used_bytes: u64,
    /// Late rows dropped, counted as Spark counts them: after partial aggregation.
    pub num_rows_dropped_by_watermark: u64,
    /// Rows of the operator's input that were late; not in Spark's progress.
    #[serde(default)]
    pub num_late_rows: u64,
    /// The state is in one piece: always 1.
    pub num_shuffle_partitions: u64,
    /// State tables: always 1.
    pub num_state_store_instances: u64,
    /// Further figures of the operator.
    pub custom_metrics: BTreeMap<String, u64>,
}

/// What a micro-batch took from one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SourceProgress {
    /// How the source describes itself.
    pub description: String,
    /// Where the micro-batch began.
    pub start_offset: Offset,
    /// Where it ended.
    pub end_offset: Offset,
    /// The latest offset there was, and in an available-now run where it ends; `None` where a limit hides it.
    pub latest_offset: Option<Offset>,
    /// Rows read.
    pub num_input_rows: u64,
    /// Rows for each second since the trigger before; `None` when no time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_rows_per_second: Option<f64>,
    /// Rows for each second of the micro-batch; `None` when it took no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_rows_per_second: Option<f64>,
    /// Further figures of the source.
    pub metrics: BTreeMap<String, String>,
}

/// What a micro-batch gave to the sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SinkProgress {
    /// How the sink describes itself.
    pub description: String,
    /// Rows written; `None` where the sink does not count (Spark writes −1).
    pub num_output_rows: Option<u64>,
    /// Further figures of the sink.
    pub metrics: BTreeMap<String, String>,
}

mod iso {
    use super::{Deserialize, Timestamp};
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_iso())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

mod iso_option {
    use super::{Timestamp, iso};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => iso::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        iso::deserialize(from).map(Some)
    }
}

mod iso_mark {
    use super::{Timestamp, Watermark, iso};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(mark: &Watermark, to: S) -> Result<S::Ok, S::Error> {
        iso::serialize(&mark.as_timestamp(), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Watermark, D::Error> {
        iso::deserialize(from).map(|time: Timestamp| Watermark(time.as_millis()))
    }
}

mod iso_watermark {
    use super::{Watermark, iso_mark, iso_option};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        watermark: &Option<Watermark>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        iso_option::serialize(&watermark.map(Watermark::as_timestamp), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Watermark>, D::Error> {
        iso_mark::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn progress() -> StreamingQueryProgress {
        let uuid = "d4d0d1f8-2f1c-4b8e-9e55-6d2a1f6f0a01";
        StreamingQueryProgress {
            id: uuid.parse().unwrap(),
            run_id: uuid.parse().unwrap(),
            name: None,
            timestamp: Timestamp::from_millis(1_714_564_800_000),
            batch_id: BatchId(3),
            batch_duration_ms: 12,
            num_input_rows: 2,
            input_rows_per_second: Some(0.5),
            processed_rows_per_second: None,
            durations: DurationProgress::default(),
            event_time: EventTimeProgress {
                watermark: Some(Watermark(1_000)),
                ..EventTimeProgress::default()
            },
            watermarks: vec![WatermarkProgress {
                name: "watermark".into(),
                column: "ts".into(),
                watermark: Watermark(2_000),
                num_late_rows: 1,
            }],
            state_operators: vec![StateOperatorProgress {
                operator_name: "stateStoreSave".into(),
                ..StateOperatorProgress::default()
            }],
            sources: vec![SourceProgress {
                description: "MemoryStream[a]".into(),
                start_offset: Offset::from(1),
                end_offset: Offset::from(2),
                latest_offset: None,
                num_input_rows: 2,
                input_rows_per_second: None,
                processed_rows_per_second: None,
                metrics: BTreeMap::new(),
            }],
            sink: SinkProgress {
                description: "MemorySink".into(),
                num_output_rows: None,
                metrics: BTreeMap::new(),
            },
            observed_metrics: BTreeMap::new(),
        }
    }

    #[test]
    fn the_json_is_spelled_as_sparks() {
        let json: Value = serde_json::from_str(&progress().json()).unwrap();
        for (path, expected) in [
            ("/name", json!(null)),
            ("/timestamp", json!("2024-05-01T12:00:00.000Z")),
            ("/batchId", json!(3)),
            ("/batchDuration", json!(12)),
            ("/durationMs/triggerExecution", json!(0)),
            (
                "/eventTime",
                json!({"watermark": "1970-01-01T00:00:01.000Z"}),
            ),
            (
                "/watermarks/0",
                json!({"name": "watermark", "column": "ts", "watermark": "1970-01-01T00:00:02.000Z", "numLateRows": 1}),
            ),
            ("/stateOperators/0/operatorName", json!("stateStoreSave")),
            ("/stateOperators/0/numLateRows", json!(0)),
            ("/sources/0/endOffset", json!(2)),
            ("/sources/0/latestOffset", json!(null)),
            ("/sink/numOutputRows", json!(null)),
        ] {
            assert_eq!(json.pointer(path), Some(&expected), "{path}");
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let read: StreamingQueryProgress = serde_json::from_str(&progress().json()).unwrap();
        assert_eq!(read, progress());
    }
}
