//! The records of a checkpoint: the identity of the query, what is intended, what is done, who runs.

use std::collections::BTreeMap;

use highwater_core::{
    BatchId, Error, OffsetRange, QueryId, Result, RunId, SinkCommit, Timestamp, Watermark,
    stable_hash,
};
use highwater_storage::LogEntry;
use highwater_storage::text::{decode_json, encode_json};
use serde::{Deserialize, Serialize};

/// Micro-batch N as it is intended: run again, it is the same again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffsetsEntry {
    /// The batch time, in whole milliseconds (Spark).
    #[serde(rename = "batchTimestampMs", with = "millis")]
    pub batch_time: Timestamp,
    /// The watermark that closes windows and evicts state.
    #[serde(rename = "batchWatermarkMs")]
    pub watermark: Watermark,
    /// The watermark that judges late rows.
    #[serde(rename = "lateWatermarkMs")]
    pub late_watermark: Watermark,
    /// The settings that must not change while there is state.
    #[serde(default)]
    pub conf: BTreeMap<String, String>,
    /// The range of each source, by the source's name.
    pub sources: BTreeMap<String, OffsetRange>,
    /// True for the last micro-batch of `flushOnEnd`: in it everything closes, whatever the watermark.
    #[serde(rename = "final", default, skip_serializing_if = "is_false")]
    pub is_final: bool,
}

/// Micro-batch N as it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitEntry {
    /// The watermark that micro-batch N+1 runs with.
    #[serde(rename = "nextBatchWatermarkMs")]
    pub next_watermark: Watermark,
    /// The state file that counts, relative to the checkpoint's folder; `None` when no state changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The snapshots that became whole since the last commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotEntry>,
    /// The file that describes the stateful operators, where it is not `operators`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operators: Option<String>,
    /// What the sink reported.
    #[serde(default)]
    pub sink: SinkCommit,
    /// True after the last micro-batch of `flushOnEnd`: no micro-batch may follow.
    #[serde(rename = "final", default, skip_serializing_if = "is_false")]
    pub is_final: bool,
}

/// A snapshot of consecutive parts of the state, all as of one micro-batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// The file, relative to the checkpoint's folder.
    pub file: String,
    /// The micro-batch that the parts are as of.
    pub batch: BatchId,
    /// The pass over the whole state that the parts belong to.
    pub rotation: u64,
    /// The first part in the file.
    pub from: u32,
    /// The part after the last one in the file.
    pub to: u32,
    /// So many parts are the whole state.
    pub of: u32,
    /// Records in the file.
    pub records: u64,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The identity of the query that owns a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// The version of the whole format; a checkpoint of Spark has none.
    #[serde(default)]
    pub(crate) version: Option<u32>,
    /// The query.
    pub(crate) id: QueryId,
    /// The checksum of the other two, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<MetadataChecksum>,
}

/// The checksum of the metadata: of `metadata`, the version and the identity, with spaces between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct MetadataChecksum(#[serde(with = "hex")] u64);

impl MetadataChecksum {
    fn of(version: u32, id: QueryId) -> Self {
        Self(stable_hash(format!("metadata {version} {id}").as_bytes()))
    }
}

/// Who runs the query since this claim was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunClaim {
    /// The run.
    pub(crate) run_id: RunId,
    /// The process it runs in, to find it by.
    pub(crate) process: u32,
}

/// The version of the format that this crate writes and reads.
pub(crate) const VERSION: u32 = 1;

impl LogEntry for OffsetsEntry {
    fn encode(&self) -> Result<Vec<u8>> {
        if self.batch_time != self.batch_time.floor_to_millis() {
            return Err(Error::internal("the batch time is no whole millisecond"));
        }
        encode_json(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        decode_json(bytes)
    }
}

impl LogEntry for CommitEntry {
    fn encode(&self) -> Result<Vec<u8>> {
        encode_json(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        decode_json(bytes)
    }
}

impl LogEntry for RunClaim {
    fn encode(&self) -> Result<Vec<u8>> {
        encode_json(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        decode_json(bytes)
    }
}

impl Metadata {
    pub(crate) fn new(id: QueryId) -> Self {
        Self {
            version: Some(VERSION),
            id,
            checksum: Some(MetadataChecksum::of(VERSION, id)),
        }
    }

    /// One JSON object, without the line `v1`, as in Spark.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|e| Error::internal("the metadata cannot be written as JSON").with_source(e))
    }

    /// Refuses what is no metadata, and what another format's is.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let metadata: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::corrupt("it is no metadata of a checkpoint").with_source(e))?;
        let told = metadata.checksum;
        let whole = |version| told == Some(MetadataChecksum::of(version, metadata.id));
        match metadata.version {
            version if told.is_some() && !version.is_some_and(whole) => {
                Err(Error::corrupt("its checksum is wrong"))
            }
            Some(VERSION) if told.is_none() => Err(Error::corrupt("it has no checksum")),
            Some(VERSION) => Ok(metadata),
            Some(newer) => Err(Error::unsupported(format!(
                "it has format version {newer}, and this Highwater reads version {VERSION}"
            ))
            .with_hint("open it with the newer Highwater that wrote it")),
            None => Err(
                Error::unsupported("it has no format version, as in Spark's checkpoints")
                    .with_hint(
                        "Highwater cannot go on from a checkpoint of Spark: choose a new location",
                    ),
            ),
        }
    }
}

/// A number as 16 hexadecimal digits.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let number = u64::from_str_radix(&text, 16).map_err(D::Error::custom)?;
        match format!("{number:016x}") == text {
            true => Ok(number),
            false => Err(D::Error::custom("not 16 hexadecimal digits")),
        }
    }
}

/// A time in whole milliseconds.
mod millis {
    use highwater_core::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(time.as_millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(from).map(Timestamp::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use highwater_core::ErrorKind;
    use serde_json::json;

    use super::*;

    fn offsets() -> OffsetsEntry {
        let range = OffsetRange::new(3.into(), json!({"0": 7}).into());
        OffsetsEntry {
            batch_time: Timestamp::from_millis(1_795_267_709_137),
            watermark: Watermark(16_000),
            late_watermark: Watermark(9_000),
            sources: BTreeMap::from([("events".to_owned(), range)]),
            conf: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            is_final: false,
        }
    }

    #[test]
    fn offsets_are_written_with_spark_s_names() {
        let bytes = offsets().encode().expect("encoded");
        let text = std::str::from_utf8(&bytes).expect("text");
        assert_eq!(
            text,
            "v1\n{\"batchTimestampMs\":1795267709137,\"batchWatermarkMs\":16000,\"lateWatermarkMs\":9000,\
             \"conf\":{\"a\":\"b\"},\"sources\":{\"events\":{\"start\":3,\"end\":{\"0\":7}}}}"
        );
        assert_eq!(OffsetsEntry::decode(&bytes).expect("decoded"), offsets());
    }

    #[test]
    fn a_commit_is_written_with_spark_s_names() {
        for (state, text) in [
            (
                None,
                "v1\n{\"nextBatchWatermarkMs\":21,\"sink\":{\"rows\":4}}",
            ),
            (
                Some("state/3-1".to_owned()),
                "v1\n{\"nextBatchWatermarkMs\":21,\"state\":\"state/3-1\",\"sink\":{\"rows\":4}}",
            ),
        ] {
            let entry = CommitEntry {
                next_watermark: Watermark(21),
                state,
                operators: None,
                sink: SinkCommit::rows(4),
                ..CommitEntry::default()
            };
            let bytes = entry.encode().expect("encoded");
            assert_eq!(std::str::from_utf8(&bytes).expect("text"), text);
            assert_eq!(CommitEntry::decode(&bytes).expect("decoded"), entry);
        }
        let short = CommitEntry::decode(b"v1\n{\"nextBatchWatermarkMs\":0}").expect("decoded");
        assert_eq!(short, CommitEntry::default());
    }

    #[test]
    fn a_commit_names_the_snapshots_that_became_whole() {
        let snapshot = SnapshotEntry {
            file: "state/2-1.1.snapshot".to_owned(),
            batch: BatchId(2),
            rotation: 5,
            from: 1,
            to: 3,
            of: 4,
            records: 70_000,
        };
        let entry = CommitEntry {
            snapshots: vec![snapshot],
            ..CommitEntry::default()
        };
        let bytes = entry.encode().expect("encoded");
        assert_eq!(
            std::str::from_utf8(&bytes).expect("text"),
            "v1\n{\"nextBatchWatermarkMs\":0,\"snapshots\":[{\"file\":\"state/2-1.1.snapshot\",\"batch\":2,\
             \"rotation\":5,\"from\":1,\"to\":3,\"of\":4,\"records\":70000}],\"sink\":{\"rows\":null}}"
        );
        assert_eq!(CommitEntry::decode(&bytes).expect("decoded"), entry);
    }

    #[test]
    fn only_a_final_micro_batch_says_so() {
        let last = OffsetsEntry {
            is_final: true,
            ..offsets()
        };
        let bytes = last.encode().expect("encoded");
        assert!(bytes.ends_with(b",\"final\":true}"));
        assert_eq!(OffsetsEntry::decode(&bytes).expect("decoded"), last);
        let done = CommitEntry {
            is_final: true,
            ..CommitEntry::default()
        };
        let bytes = done.encode().expect("encoded");
        assert!(bytes.ends_with(b",\"final\":true}"));
        assert_eq!(CommitEntry::decode(&bytes).expect("decoded"), done);
    }

    #[test]
    fn every_cut_is_found() {
        let whole = offsets().encode().expect("encoded");
        for length in 0..whole.len() {
            let error = OffsetsEntry::decode(&whole[..length]).expect_err("cut");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}");
        }
    }

    #[test]
    fn a_batch_time_that_would_not_come_back_is_refused() {
        let entry = OffsetsEntry {
            batch_time: Timestamp::from_micros(1_001),
            ..offsets()
        };
        let error = entry.encode().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn metadata_of_others_is_refused() {
        let id = "c9a646d3-9c61-4cb7-bfcd-ee2522c8f633";
        let ours = Metadata::new(id.parse().expect("id"));
        let bytes = ours.encode().expect("encoded");
        let text = std::str::from_utf8(&bytes).expect("text");
        let begins = format!("{{\"version\":1,\"id\":\"{id}\",\"checksum\":\"");
        assert!(text.starts_with(&begins), "{text}");
        assert_eq!(Metadata::decode(&bytes).expect("decoded"), ours);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A capital in a UUID is the same UUID.
            match Metadata::decode(&flipped) {
                Ok(same) => assert_eq!(same, ours, "bit {bit}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}"),
            }
        }
        for (text, kind) in [
            (format!("{{\"id\":\"{id}\"}}"), ErrorKind::Unsupported),
            (
                format!("{{\"version\":2,\"id\":\"{id}\"}}"),
                ErrorKind::Unsupported,
            ),
            ("{\"version\":1}".to_owned(), ErrorKind::Corrupt),
            (
                format!("{{\"version\":1,\"id\":\"{id}\"}}"),
                ErrorKind::Corrupt,
            ),
            (format!("{{\"version\":1,\"id\":\"{id}"), ErrorKind::Corrupt),
            (String::new(), ErrorKind::Corrupt),
        ] {
            let error = Metadata::decode(text.as_bytes()).expect_err("refused");
            assert_eq!(error.kind(), kind, "{text}");
        }
    }
}
