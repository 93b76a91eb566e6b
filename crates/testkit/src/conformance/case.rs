//! What a case file says, as types.

use std::collections::BTreeMap;
use std::path::Path;

use highwater::{Error, Result};
use serde::Deserialize;
use serde_json::Value as Json;

/// A file of cases.
#[derive(Debug, Deserialize)]
struct CaseFile {
    format: u64,
    cases: Vec<Case>,
}

/// One query, what is fed to it step by step, and what must come out.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// `kind/short_name`, unique over all files.
    pub name: String,
    /// The kind, for selection.
    pub kind: String,
    /// The inputs.
    pub sources: Vec<SourceDef>,
    /// Views over the inputs, in order of definition.
    #[serde(default)]
    pub views: Vec<ViewDef>,
    /// One SELECT over sources and views.
    pub query: String,
    /// `append`, `update`, `complete`, or a nonsense word.
    pub output_mode: String,
    /// Settings of the query.
    #[serde(default)]
    pub conf: BTreeMap<String, String>,
    /// True when the order of the rows counts.
    #[serde(default)]
    pub ordered: bool,
    /// Name and Spark type of the result's columns; `None` when the query is refused.
    pub columns: Option<Vec<ColumnDef>>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// A column: its name and its Spark type.
pub type ColumnDef = (String, String);

/// An input.
#[derive(Clone, Debug, Deserialize)]
pub struct SourceDef {
    /// Its name in SQL.
    pub name: String,
    /// A stream or a table.
    pub kind: SourceKind,
    /// Its columns.
    pub columns: Vec<ColumnDef>,
    /// The rows of a table.
    #[serde(default)]
    pub rows: Vec<Vec<Json>>,
    /// The watermark put on it.
    pub watermark: Option<WatermarkDef>,
    /// The deduplication put on it, after the watermark.
    pub dedup: Option<DedupDef>,
}

/// What kind of input it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Rows come while the query runs.
    Stream,
    /// A table that is there from the start.
    Static,
}

/// A view over sources and earlier views.
#[derive(Clone, Debug, Deserialize)]
pub struct ViewDef {
    /// Its name in SQL.
    pub name: String,
    /// Its SELECT.
    pub sql: String,
    /// The watermark put on it.
    pub watermark: Option<WatermarkDef>,
    /// The deduplication put on it, after the watermark.
    pub dedup: Option<DedupDef>,
}

/// `withWatermark(column, delay)`.
#[derive(Clone, Debug, Deserialize)]
pub struct WatermarkDef {
    /// The event time column.
    pub column: String,
    /// The delay, in Spark's words.
    pub delay: String,
}

/// `dropDuplicates` or `dropDuplicatesWithinWatermark`.
#[derive(Clone, Debug, Deserialize)]
pub struct DedupDef {
    /// The key; empty: all columns.
    pub columns: Vec<String>,
    /// True: within the watermark.
    #[serde(default)]
    pub within_watermark: bool,
}

/// One step of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawStep")]
pub enum Step {
    /// Rows become available to a source.
    Add {
        /// The source.
        source: String,
        /// Its rows.
        rows: Vec<Vec<Json>>,
    },
    /// All that was added is processed.
    Process {
        /// Which micro-batch of this step fails in the sink, counted from 1.
        crash_at: Option<u64>,
    },
    /// The query stops and starts again from its checkpoint.
    Restart,
    /// Rows that must have come.
    Expect {
        /// True: the whole result table; false: what came since the last `Expect`.
        all: bool,
        /// The rows.
        rows: Vec<Vec<Json>>,
    },
    /// The watermark that the next micro-batch would use.
    ExpectWatermark(String),
    /// The query was refused or has failed.
    ExpectError {
        /// The beginning of Spark's message, for the reader.
        like: String,
    },
}

#[derive(Deserialize)]
struct RawStep {
    add: Option<RawAdd>,
    process: Option<bool>,
    crash: Option<String>,
    crash_at: Option<u64>,
    restart: Option<bool>,
    expect: Option<RawExpect>,
    expect_watermark: Option<String>,
    expect_error: Option<RawError>,
}

#[derive(Deserialize)]
struct RawAdd {
    source: String,
    rows: Vec<Vec<Json>>,
}

#[derive(Deserialize)]
struct RawExpect {
    mode: String,
    rows: Vec<Vec<Json>>,
}

#[derive(Deserialize)]
struct RawError {
    #[serde(default)]
    like: String,
}

impl TryFrom<RawStep> for Step {
    type Error = String;

    fn try_from(raw: RawStep) -> std::result::Result<Self, String> {
        if let Some(RawAdd { source, rows }) = raw.add {
            return Ok(Self::Add { source, rows });
        }
        if let Some(expect) = raw.expect {
            return expect.try_into();
        }
        if let Some(watermark) = raw.expect_watermark {
            return Ok(Self::ExpectWatermark(watermark));
        }
        if let Some(error) = raw.expect_error {
            return Ok(Self::ExpectError { like: error.like });
        }
        match (raw.process, raw.restart, raw.crash.as_deref()) {
            (Some(true), _, None) => Ok(Self::Process { crash_at: None }),
            (Some(true), _, Some("sink")) => Ok(Self::Process {
                crash_at: Some(raw.crash_at.unwrap_or(1)),
            }),
            (Some(true), _, Some(place)) => Err(format!("a crash in the {place} is not known")),
            (_, Some(true), _) => Ok(Self::Restart),
            _ => Err("a step of no known kind".into()),
        }
    }
}

impl TryFrom<RawExpect> for Step {
    type Error = String;

    fn try_from(expect: RawExpect) -> std::result::Result<Self, String> {
        let all = match expect.mode.as_str() {
            "all" => true,
            "batch" => false,
            other => return Err(format!("`expect` has no mode `{other}`")),
        };
        Ok(Self::Expect {
            all,
            rows: expect.rows,
        })
    }
}

impl Case {
    /// True when Spark refuses the query, or it fails without a crash being injected.
    #[must_use]
    pub fn expects_refusal(&self) -> bool {
        self.columns.is_none()
            && self
                .steps
                .iter()
                .any(|step| matches!(step, Step::ExpectError { .. }))
    }
}

/// Reads the cases of one file.
///
/// # Errors
/// `Unavailable` when the file cannot be read, `Invalid` when it is no case file of format 1.
pub fn read_file(path: &Path) -> Result<Vec<Case>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::from(e).context(format!("reading {}", path.display())))?;
    let bad = |why: &str| Error::invalid(format!("{} is no case file: {why}", path.display()));
    let file: CaseFile =
        serde_json::from_str(&text).map_err(|e| bad(&e.to_string()).with_source(e))?;
    if file.format != 1 {
        return Err(bad(&format!("format {}", file.format)));
    }
    Ok(file.cases)
}
