//! Queries over JSON files that appear one by one: the honest source, as it survives the process.

use async_trait::async_trait;
use highwater::prelude::*;
use highwater::{Result, SqlSemantics, StreamSession};
use tokio::runtime::Handle;

use super::disk::{Disk, URL};
use super::{Process, Subject};
use crate::ManualClock;
use crate::conformance::run::Streams;
use crate::rng::Rng;

/// A query over files.
#[derive(Clone, Debug)]
pub struct FileScript {
    name: &'static str,
    mode: OutputMode,
    sql: &'static str,
    /// The key of `drop_duplicates_within_watermark`, where there is one.
    dedup: Option<&'static str>,
    /// The files of each step: path and text.
    files: Vec<Vec<(String, String)>>,
}

/// How many steps every script has.
const STEPS: usize = 4;

/// The names, modes and queries of the scripts. `events` has the columns ts, k and v.
const QUERIES: [(&str, OutputMode, &str); 8] = [
    (
        "stateless",
        OutputMode::Append,
        "SELECT k, v * 2 AS twice, ts FROM events WHERE v % 3 <> 0",
    ),
    (
        "window-append",
        OutputMode::Append,
        "SELECT window.start AS start, k, count(*) AS n, sum(v) AS total \
         FROM events GROUP BY window(ts, '10 seconds'), k",
    ),
    (
        "window-update",
        OutputMode::Update,
        "SELECT window.start AS start, k, count(*) AS n, max(v) AS top \
         FROM events GROUP BY window(ts, '10 seconds'), k",
    ),
    (
        "keys-update",
        OutputMode::Update,
        "SELECT k, count(DISTINCT v) AS n, sum(v) AS total FROM events GROUP BY k",
    ),
    (
        "keys-complete",
        OutputMode::Complete,
        "SELECT k, count(*) AS n, min(ts) AS first FROM events GROUP BY k",
    ),
    (
        "session-append",
        OutputMode::Append,
        "SELECT session_window.start AS start, session_window.end AS ended, k, count(*) AS n \
         FROM events GROUP BY session_window(ts, '4 seconds'), k",
    ),
    (
        "dedup-append",
        OutputMode::Append,
        "SELECT k, v, ts FROM events",
    ),
    (
        "limit-append",
        OutputMode::Append,
        "SELECT k, v FROM events LIMIT 7",
    ),
];

impl FileScript {
    /// All scripts, with the data of a seed.
    #[must_use]
    pub fn all(seed: u64) -> Vec<Self> {
        let scripts = QUERIES.iter().enumerate();
        scripts
            .map(|(index, (name, mode, sql))| Self {
                name,
                mode: *mode,
                sql,
                dedup: (*name == "dedup-append").then_some("k"),
                files: files(&mut Rng::new(seed ^ index as u64)),
            })
            .collect()
    }

    /// The script of this name.
    ///
    /// # Errors
    /// `Invalid` when there is none.
    pub fn named(name: &str, seed: u64) -> Result<Self> {
        let found = Self::all(seed)
            .into_iter()
            .find(|script| script.name == name);
        found.ok_or_else(|| Error::invalid(format!("there is no script `{name}`")))
    }
}

/// One to three files a step, each with a few rows; event time goes on, now and then a row comes late.
fn files(rng: &mut Rng) -> Vec<Vec<(String, String)>> {
    let mut second = 10;
    let step = |step: usize| {
        let count = 1 + rng.below(3);
        let mut files = Vec::new();
        for file in 0..count {
            let mut text = String::new();
            for _ in 0..1 + rng.below(5) {
                second += rng.between(0, 5);
                let late = if rng.chance(15) { 20 } else { 0 };
                let at = (second - late).max(0);
                let key = rng.pick(&["a", "b", "c"]);
                let v = rng.between(0, 20);
                text.push_str(&format!(
                    "{{\"ts\":\"2024-05-01 00:{:02}:{:02}\",\"k\":\"{key}\",\"v\":{v}}}\n",
                    at / 60,
                    at % 60
                ));
            }
            files.push((format!("in/{step}-{file}.json"), text));
        }
        files
    };
    (0..STEPS).map(step).collect()
}

#[async_trait]
impl Subject for FileScript {
    fn name(&self) -> String {
        self.name.into()
    }

    fn mode(&self) -> OutputMode {
        self.mode
    }

    fn steps(&self) -> usize {
        self.files.len()
    }

    async fn deliver(&self, disk: &Disk, step: usize) -> Result<()> {
        for (path, text) in &self.files[step] {
            disk.lay(path, text).await?;
        }
        Ok(())
    }

    fn feed(&self, _process: &Process, _step: usize) -> Result<()> {
        Ok(())
    }

    async fn begin(&self, disk: &Disk, settings: &[(String, String)]) -> Result<Process> {
        let session = session(settings)?;
        disk.mount(&session)?;
        let events = session
            .read_stream()
            .schema("ts TIMESTAMP, k STRING, v BIGINT")
            .option("maxFilesPerTrigger", 1)
            .name("events")
            .json(format!("{URL}/in"))
            .await?;
        let mut events = events.with_watermark("ts", "5 seconds")?;
        if let Some(key) = self.dedup {
            events = events.drop_duplicates_within_watermark(&[key])?;
        }
        events.create_or_replace_temp_view("events")?;
        let frame = session.sql(self.sql).await?;
        Ok(Process {
            session,
            frame,
            streams: Streams::new(),
        })
    }
}

/// A session whose clock stands still.
fn session(settings: &[(String, String)]) -> Result<StreamSession> {
    let mut builder = StreamSession::builder()
        .semantics(SqlSemantics::Spark)
        .clock(ManualClock::at("2024-05-01 12:00:00")?)
        .runtime(Handle::current());
    for (name, value) in settings {
        builder = builder.config(name, value);
    }
    builder.build()
}
