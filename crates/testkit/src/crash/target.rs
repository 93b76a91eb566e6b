//! The sinks of a proof, and how to tell what they hold.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::prelude::DataFrame;
use highwater::prelude::*;
use highwater::{DataStreamWriter, Result};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Process;
use super::disk::{Disk, URL};
use crate::value;

/// What a sink holds: rows as text, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// By micro-batch, where the sink tells them apart; else all under 0.
    pub batches: BTreeMap<u64, Vec<String>>,
}

/// A sink.
#[async_trait]
pub trait Target: Debug + Send + Sync {
    /// Its name, for failures.
    fn name(&self) -> String;

    /// True when it takes this mode across restarts.
    fn takes(&self, mode: OutputMode) -> bool;

    /// True when it holds what it must only after a micro-batch of the last process.
    fn forgets(&self) -> bool {
        false
    }

    /// Puts the sink at the end of the writer.
    fn attach(&self, writer: DataStreamWriter, disk: &Disk) -> DataStreamWriter;

    /// What it holds.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn output(&self, disk: &Disk, process: &Process) -> Result<Output>;
}

/// Where a query writes, and what it is told beside.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The sink.
    pub target: Arc<dyn Target>,
    /// Options of the writer: `durability`, `fsync`.
    pub options: Vec<(String, String)>,
    /// Settings of the session.
    pub settings: Vec<(String, String)>,
    /// Where disks come from.
    pub disks: Disks,
}

/// Gives empty disks: in memory, unless something else is said.
#[derive(Clone)]
pub struct Disks(Arc<dyn Fn() -> Disk + Send + Sync>);

impl Disks {
    /// Each disk is what `make` gives; it must be empty.
    #[must_use]
    pub fn new(make: impl Fn() -> Disk + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    /// An empty one.
    #[must_use]
    pub fn empty(&self) -> Disk {
        (self.0)()
    }
}

impl Default for Disks {
    fn default() -> Self {
        Self::new(Disk::new)
    }
}

impl Debug for Disks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disks")
    }
}

impl Setup {
    /// A sink without options.
    #[must_use]
    pub fn new(target: impl Target + 'static) -> Self {
        Self {
            target: Arc::new(target),
            options: Vec::new(),
            settings: Vec::new(),
            disks: Disks::default(),
        }
    }

    /// On other disks than in memory.
    #[must_use]
    pub fn on(mut self, disks: Disks) -> Self {
        self.disks = disks;
        self
    }

    /// An option of the writer.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    /// A setting of the session.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Its name, for failures.
    #[must_use]
    pub fn name(&self) -> String {
        let more = self.options.iter().chain(&self.settings);
        let more: Vec<String> = more
            .map(|(name, value)| format!(" {name}={value}"))
            .collect();
        format!("{}{}", self.target.name(), more.concat())
    }
}

/// `foreach_batch` into a store: micro-batch N is the object `out/N`, put again when it is run again.
#[derive(Clone, Copy, Debug)]
pub struct Batches;

/// The folder of [`Batches`].
const OUT: &str = "out";

#[async_trait]
impl Target for Batches {
    fn name(&self) -> String {
        "foreach_batch".into()
    }

    fn takes(&self, _mode: OutputMode) -> bool {
        true
    }

    fn attach(&self, writer: DataStreamWriter, disk: &Disk) -> DataStreamWriter {
        let store: Arc<dyn ObjectStore> = Arc::new(disk.faulty().clone());
        writer.foreach_batch(move |frame, id| keep(Arc::clone(&store), frame, id))
    }

    async fn output(&self, disk: &Disk, _process: &Process) -> Result<Output> {
        let mut output = Output::default();
        for id in disk.numbers(OUT).await? {
            let bytes = disk.read(&format!("{OUT}/{id}")).await?.unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let rows = text.lines().map(str::to_owned).collect();
            output.batches.insert(id, rows);
        }
        Ok(output)
    }
}

async fn keep(store: Arc<dyn ObjectStore>, frame: DataFrame, id: BatchId) -> Result<()> {
    let rows = value::rows(&frame.collect().await?)?;
    let text = lines(&rows).join("\n");
    store
        .put(&Path::from(format!("{OUT}/{id}")), text.into())
        .await?;
    Ok(())
}

fn lines(rows: &[value::Row]) -> Vec<String> {
    let mut lines: Vec<String> = rows.iter().map(|row| value::show(row)).collect();
    lines.sort();
    lines
}

/// The sink `memory` in complete mode: its table is gone with the process, and is whole again with the next
/// micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

/// The name of the query and its table.
const TABLE: &str = "proof";

#[async_trait]
impl Target for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    fn takes(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Complete
    }

    fn forgets(&self) -> bool {
        true
    }

    fn attach(&self, writer: DataStreamWriter, _disk: &Disk) -> DataStreamWriter {
        writer.format("memory").query_name(TABLE)
    }

    async fn output(&self, _disk: &Disk, process: &Process) -> Result<Output> {
        let table = process.session.table(TABLE).await?.collect().await?;
        let rows = lines(&value::rows(&table)?);
        Ok(Output {
            batches: BTreeMap::from([(0, rows)]),
        })
    }
}

/// The file sink, in append mode. It is read as Spark reads it: exactly the files that the log names.
#[derive(Clone, Debug)]
pub struct Files {
    /// The format: `json`, or another one that is one row a line.
    pub format: String,
}

#[async_trait]
impl Target for Files {
    fn name(&self) -> String {
        format!("files of {}", self.format)
    }

    fn takes(&self, mode: OutputMode) -> bool {
        mode == OutputMode::Append
    }

    fn attach(&self, writer: DataStreamWriter, _disk: &Disk) -> DataStreamWriter {
        writer.format(&self.format).path(format!("{URL}/{OUT}"))
    }

    async fn output(&self, disk: &Disk, _process: &Process) -> Result<Output> {
        let mut rows = Vec::new();
        for path in committed(disk).await? {
            let bytes = disk.read(&path).await?.ok_or_else(|| {
                Error::corrupt(format!("the log names `{path}`, which is not there"))
            })?;
            let text = String::from_utf8_lossy(&bytes);
            rows.extend(text.lines().map(str::to_owned));
        }
        rows.sort();
        Ok(Output {
            batches: BTreeMap::from([(0, rows)]),
        })
    }
}

/// The files that the log of a file sink names, less those it has given up.
async fn committed(disk: &Disk) -> Result<Vec<String>> {
    let log = format!("{OUT}/_spark_metadata");
    let number = |path: &str| -> Option<(u64, bool)> {
        let name = path.rsplit('/').next()?;
        let plain = name.strip_suffix(".compact");
        Some((plain.unwrap_or(name).parse().ok()?, plain.is_some()))
    };
    let mut entries: Vec<((u64, bool), String)> = Vec::new();
    for path in disk.files(&log).await? {
        entries.extend(number(&path).map(|number| (number, path)));
    }
    entries.sort();
    let newest = entries.iter().rposition(|((_, compact), _)| *compact);
    let (mut files, mut gone) = (Vec::new(), Vec::new());
    for (_, entry) in &entries[newest.unwrap_or(0)..] {
        let bytes = disk.read(entry).await?.unwrap_or_default();
        for line in String::from_utf8_lossy(&bytes).lines().skip(1) {
            let item: serde_json::Value = serde_json::from_str(line)
                .map_err(|e| Error::corrupt(format!("{entry}: {line}")).with_source(e))?;
            let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
            let path = text("path").replace(&format!("{URL}/"), "");
            match text("action").as_str() {
                "delete" => gone.push(path),
                _ => files.push(path),
            }
        }
    }
    files.retain(|path| !gone.contains(path));
    Ok(files)
}
