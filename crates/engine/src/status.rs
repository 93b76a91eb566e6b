//! What a query is doing right now, in Spark's words.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

/// What a query is doing right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StreamingQueryStatus {
    /// What it does, in words.
    pub message: String,
    /// True when the last look at the sources found something new.
    pub is_data_available: bool,
    /// True while a trigger is being worked on: offsets are asked for, or a micro-batch runs.
    pub is_trigger_active: bool,
}

impl StreamingQueryStatus {
    /// The status as one line of JSON, spelled as Spark's.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The stages of a query's life between which its status moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Initializing,
    WaitingForData,
    WaitingForTrigger,
    GettingOffsets,
    Processing,
    Ended,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Initializing,
        Self::WaitingForData,
        Self::WaitingForTrigger,
        Self::GettingOffsets,
        Self::Processing,
        Self::Ended,
    ];

    fn message(self) -> &'static str {
        match self {
            Self::Initializing => "Initializing sources",
            Self::WaitingForData => "Waiting for data to arrive",
            Self::WaitingForTrigger => "Waiting for next trigger",
            Self::GettingOffsets => "Getting offsets from sources",
            Self::Processing => "Processing new data",
            Self::Ended => "Stopped",
        }
    }
}

/// The stage, set by the loop and read by anybody.
#[derive(Debug)]
pub(crate) struct StageCell(AtomicU8);

impl StageCell {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(Stage::Initializing as u8))
    }

    pub(crate) fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> StreamingQueryStatus {
        let stage = Stage::ALL[usize::from(self.0.load(Ordering::Relaxed))];
        StreamingQueryStatus {
            message: stage.message().to_owned(),
            is_data_available: stage == Stage::Processing,
            is_trigger_active: matches!(stage, Stage::GettingOffsets | Stage::Processing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_is_told_as_it_was_set() {
        let cell = StageCell::new();
        for stage in Stage::ALL {
            cell.set(stage);
            assert_eq!(cell.status().message, stage.message());
        }
        cell.set(Stage::Processing);
        assert_eq!(
            cell.status().json(),
            r#"{"message":"Processing new data","isDataAvailable":true,"isTriggerActive":true}"#
        );
    }
}
