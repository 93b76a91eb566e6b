//! The files of one micro-batch.
//!
//! ```text
//!  rows ─► folders ─┬─► an open file a folder, the first 64 folders                 ─► cut at maxRowsPerFile
//!                   └─► rows in memory, the folders after them ─► over 64 MB: the largest becomes a file
//! ```
//!
//! So memory is bounded however many folders there are, and a folder gets few files: one, unless rows come in
//! for more folders than are open.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use highwater_core::{Result, RunId};
use object_store::path::Path;

use super::part::PartFile;
use super::target::Target;
use crate::file::sink_log::SinkFile;

/// So many files are open at once.
const OPEN: usize = 64;
/// Rows for folders without an open file take at most so many bytes of memory.
const BUFFERED: usize = 64 * 1024 * 1024;
/// Open files keep at most so many bytes of rows that are no row group yet.
const HELD: usize = 256 * 1024 * 1024;
/// So many files are finished at once.
const FINISHES: usize = 8;

/// Writes the files of one micro-batch.
#[derive(Debug)]
pub(super) struct BatchFiles<'a> {
    target: &'a Target,
    run: RunId,
    folders: HashMap<String, Folder>,
    /// The order in which folders came, so that the same rows make the same files.
    order: Vec<String>,
    open: usize,
    buffered: usize,
    finished: Vec<Path>,
    rows: u64,
}

#[derive(Debug, Default)]
struct Folder {
    file: Option<PartFile>,
    begun: u64,
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
}

impl<'a> BatchFiles<'a> {
    /// No files yet.
    pub(super) fn new(target: &'a Target, run: RunId) -> Self {
        Self {
            target,
            run,
            folders: HashMap::new(),
            order: Vec::new(),
            open: 0,
            buffered: 0,
            finished: Vec::new(),
            rows: 0,
        }
    }

    /// The number of rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// What the store says, or about a value that the format cannot hold.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.rows += rows.num_rows() as u64;
        for (name, rows) in self.target.folders.split(rows)? {
            if !self.folders.contains_key(&name) {
                self.folders.insert(name.clone(), Folder::default());
                self.order.push(name.clone());
            }
            self.put(&name, rows).await?;
        }
        self.relieve().await
    }

    async fn put(&mut self, name: &str, rows: RecordBatch) -> Result<()> {
        let Some(folder) = self.folders.get_mut(name) else {
            return Ok(());
        };
        if folder.file.is_none() && (self.open >= OPEN || !folder.waiting.is_empty()) {
            let bytes = rows.get_array_memory_size();
            folder.waiting.push(rows);
            folder.waiting_bytes += bytes;
            self.buffered += bytes;
            return Ok(());
        }
        self.append(name, &rows).await
    }

    /// Appends to the folder's open file, or to a new one, and cuts at the most rows a file may have.
    async fn append(&mut self, name: &str, rows: &RecordBatch) -> Result<()> {
        let Some(folder) = self.folders.get_mut(name) else {
            return Ok(());
        };
        let most = self.target.options.max_rows_per_file.unwrap_or(u64::MAX);
        let mut start = 0;
        while start < rows.num_rows() {
            if folder.file.is_none() {
                let file = self.target.begin(self.run, name, folder.begun).await?;
                folder.file = Some(file);
                folder.begun += 1;
                self.open += 1;
            }
            let Some(file) = &mut folder.file else { break };
            let room = usize::try_from(most - file.rows()).unwrap_or(usize::MAX);
            let count = room.min(rows.num_rows() - start);
            file.write(&rows.slice(start, count)).await?;
            start += count;
            if file.rows() >= most
                && let Some(file) = folder.file.take()
            {
                self.open -= 1;
                self.finished.push(file.path().clone());
                file.finish().await?;
            }
        }
        Ok(())
    }

    /// Keeps memory within its bounds.
    async fn relieve(&mut self) -> Result<()> {
        while self.buffered > BUFFERED {
            let largest = self
                .order
                .iter()
                .max_by_key(|name| self.folders[*name].waiting_bytes);
            let Some(largest) = largest.cloned() else {
                break;
            };
            self.write_waiting(&largest).await?;
        }
        if self.held() > HELD {
            let files = self.folders.values_mut();
            let files = files.filter_map(|folder| folder.file.as_mut());
            if let Some(largest) = files.max_by_key(|file| file.held()) {
                largest.flush().await?;
            }
        }
        Ok(())
    }

    /// The bytes of rows in open files that are no row group yet.
    fn held(&self) -> usize {
        let files = self
            .folders
            .values()
            .filter_map(|folder| folder.file.as_ref());
        files.map(PartFile::held).sum()
    }

    /// Makes a file of the rows that wait for a folder.
    async fn write_waiting(&mut self, name: &str) -> Result<()> {
        let Some(folder) = self.folders.get_mut(name) else {
            return Ok(());
        };
        let waiting = std::mem::take(&mut folder.waiting);
        self.buffered -= std::mem::take(&mut folder.waiting_bytes);
        for rows in waiting {
            self.append(name, &rows).await?;
        }
        let file = self
            .folders
            .get_mut(name)
            .and_then(|folder| folder.file.take());
        if let Some(file) = file {
            self.open -= 1;
            self.finished.push(file.path().clone());
            file.finish().await?;
        }
        Ok(())
    }

    /// Finishes all files; the log's lines for them.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn finish(&mut self) -> Result<Vec<SinkFile>> {
        let folders = &mut self.folders;
        let files: Vec<PartFile> = self
            .order
            .iter()
            .filter_map(|name| folders.get_mut(name).and_then(|folder| folder.file.take()))
            .collect();
        let paths: Vec<Path> = files.iter().map(|file| file.path().clone()).collect();
        // From here on they may exist.
        self.finished.extend(paths);
        let files: Vec<_> = files
            .into_iter()
            .map(|file| file.finish().boxed())
            .collect();
        let mut finishes = stream::iter(files).buffered(FINISHES);
        let mut first = Ok(());
        while let Some(finished) = finishes.next().await {
            first = first.and(finished);
        }
        drop(finishes);
        first?;
        self.open = 0;
        for name in self.order.clone() {
            self.write_waiting(&name).await?;
        }
        self.target.lines(&self.finished).await
    }

    /// Gives up the open files and deletes the finished ones, as far as that is possible.
    pub(super) async fn abandon(self) {
        for folder in self.folders.into_values() {
            if let Some(file) = folder.file {
                file.abort().await;
            }
        }
        self.target.discard(self.finished).await;
    }
}
