//! The three queries of the proofs, what DataFusion's batch engine says they come to, and where they write.
//!
//! Each sink is exactly once: a micro-batch is one file named by its id, written aside and renamed. A micro-batch that
//! runs again must write what it wrote before; if it does not, the query fails, and so does the proof.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arrow::json::LineDelimitedWriter;
use highwater::prelude::*;
use highwater::{DataStreamWriter, Result};

/// The delay of the watermark: nothing of the load is later than this.
const DELAY: &str = "300 seconds";

/// What a query computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Stateless: each row once.
    Projection,
    /// Windows of ten seconds by key, written once they are over.
    Windows,
    /// Running figures of each key, in update mode.
    Keys,
}

impl Query {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Projection, Self::Windows, Self::Keys];

    /// Its name, which is that of its folders.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Projection => "projection",
            Self::Windows => "windows",
            Self::Keys => "keys",
        }
    }

    /// The columns of its result, as DDL.
    #[must_use]
    pub fn columns(self) -> &'static str {
        match self {
            Self::Projection => "id BIGINT, ts TIMESTAMP, k STRING, v BIGINT, w BIGINT",
            Self::Windows => "opened TIMESTAMP, k STRING, n BIGINT, s BIGINT, newest BIGINT",
            Self::Keys => "k STRING, n BIGINT, s BIGINT, newest BIGINT",
        }
    }

    /// The batch query over table `input` that gives what its output must come to.
    ///
    /// A window is written when its end is not after the watermark, which is the latest time of all less the delay.
    #[must_use]
    pub fn batch(self) -> String {
        match self {
            Self::Projection => "SELECT id, ts, k, v, v * 2 + id AS w FROM input".into(),
            Self::Windows => format!(
                "WITH windows AS (SELECT date_bin(INTERVAL '10 seconds', ts) AS opened, k, count(*) AS n, \
                 sum(v) AS s, max(id) AS newest FROM input GROUP BY 1, 2), \
                 marks AS (SELECT max(ts) - INTERVAL '{DELAY}' AS mark FROM input) \
                 SELECT opened, k, n, s, newest FROM windows CROSS JOIN marks \
                 WHERE opened + INTERVAL '10 seconds' <= mark"
            ),
            Self::Keys => {
                "SELECT k, count(*) AS n, sum(v) AS s, max(id) AS newest FROM input GROUP BY k"
                    .into()
            }
        }
    }

    /// Describes the streaming query over `input`, up to its sink.
    ///
    /// # Errors
    /// None, as the columns fit.
    pub fn write(self, input: &StreamFrame) -> Result<DataStreamWriter> {
        let figures = [
            count_all().alias("n"),
            sum(col("v")).alias("s"),
            max(col("id")).alias("newest"),
        ];
        let input = input.clone();
        let (frame, mode) = match self {
            Self::Projection => {
                let columns = ["id", "ts", "k", "v", "v * 2 + id AS w"];
                (input.select_exprs(&columns)?, OutputMode::Append)
            }
            Self::Windows => {
                let windows = input
                    .with_watermark("ts", DELAY)?
                    .group_by([window(col("ts"), "10 seconds"), col("k")])
                    .agg(figures)?;
                let columns = ["window.start AS opened", "k", "n", "s", "newest"];
                (windows.select_exprs(&columns)?, OutputMode::Append)
            }
            Self::Keys => (input.group_by([col("k")]).agg(figures)?, OutputMode::Update),
        };
        let writer = frame.write_stream().output_mode(mode);
        Ok(writer.query_name(self.name()))
    }
}

/// What writes the results that are append-only; an update stream always goes through `foreach_batch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkKind {
    /// `foreach_batch`: lines of JSON, a file for each micro-batch.
    #[default]
    Foreach,
    /// The file sink: `format("parquet")`.
    Parquet,
}

impl SinkKind {
    /// The sink that `query` has when this kind is asked for.
    #[must_use]
    pub fn of(self, query: Query) -> Self {
        match query {
            Query::Keys => Self::Foreach,
            Query::Projection | Query::Windows => self,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreach => "foreach",
            Self::Parquet => "parquet",
        }
    }

    /// Sends the rows into `folder`.
    pub fn attach(self, writer: DataStreamWriter, folder: &Path) -> DataStreamWriter {
        match self {
            Self::Parquet => writer.format("parquet").path(folder.to_string_lossy()),
            Self::Foreach => {
                let folder = folder.to_owned();
                writer.foreach_batch(move |rows, id| write_batch(folder.clone(), rows, id))
            }
        }
    }
}

impl FromStr for SinkKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "foreach" => Ok(Self::Foreach),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::invalid(format!("`{text}` is no sink"))
                .with_hint("say `foreach` or `parquet`")),
        }
    }
}

/// Writes the rows of micro-batch `id` into its file.
async fn write_batch(folder: PathBuf, rows: DataFrame, id: BatchId) -> Result<()> {
    let mut lines = LineDelimitedWriter::new(Vec::new());
    for batch in rows.collect().await? {
        lines.write(&batch)?;
    }
    lines.finish()?;
    let text = String::from_utf8(lines.into_inner()).map_err(Error::user)?;
    let file = folder.join(format!("{id}.jsonl"));
    match fs::read_to_string(&file) {
        Ok(before) => must_agree(&file, &before, &text)?,
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    // Two processes may be at the same micro-batch when they fight.
    let aside = folder.join(format!(".{id}-{}", std::process::id()));
    fs::write(&aside, text)?;
    fs::rename(aside, file)?;
    Ok(())
}

/// A micro-batch has the same rows whenever it runs; their order is free.
fn must_agree(file: &Path, before: &str, now: &str) -> Result<()> {
    let (old, new): (BTreeSet<&str>, BTreeSet<&str>) =
        (before.lines().collect(), now.lines().collect());
    if old == new && before.len() == now.len() {
        return Ok(());
    }
    let show = |rows: Vec<&&str>| {
        let some: Vec<&str> = rows.iter().take(3).map(|row| **row).collect();
        format!("{} ({})", rows.len(), some.join(" "))
    };
    Err(Error::user(format!(
        "{} was written before with other rows; gone: {}, new: {}",
        file.display(),
        show(old.difference(&new).collect()),
        show(new.difference(&old).collect()),
    )))
}
