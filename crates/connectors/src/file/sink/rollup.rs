//! Small files become bigger ones.
//!
//! Which files: those of one folder that are smaller than `targetFileSize`, the longest run of the smallest in which the
//! largest is no larger than the others together. So a byte is rewritten about as often as the files can double
//! until they have their size, and not every time.
//!
//! How: lines are copied as they are; rows of Parquet files are decoded and written anew, a batch at a time. Files of
//! other columns than the first are begun anew, so a column that a restart added does not stand in the way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use highwater_core::{BatchId, Error, Result, RunId};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::format::Format;
use super::part::{PartFile, failed};
use super::target::Target;
use crate::file::sink_log::SinkFile;

/// What a roll-up has made.
#[derive(Debug, Default)]
pub(super) struct RolledUp {
    /// The bigger files.
    pub(super) added: Vec<SinkFile>,
    /// The files whose rows they have, as `delete`.
    pub(super) replaced: Vec<SinkFile>,
}

/// True when a multiple of `every` lies among the last `interval` micro-batches up to `id`.
pub(super) fn is_due(id: BatchId, every: u64, interval: u64) -> bool {
    let count = id.0 + 1;
    count / every > count.saturating_sub(interval) / every
}

/// Writes bigger files with the rows of small ones; nothing of it counts before the log says so.
///
/// # Errors
/// When a file cannot be read or written. Then what was written is deleted, as far as that is possible.
pub(super) async fn roll_up(target: &Target, run: RunId, files: &[SinkFile]) -> Result<RolledUp> {
    let mut rolled = RolledUp::default();
    let mut written = Vec::new();
    let done = roll_all(target, run, files, &mut rolled, &mut written).await;
    if done.is_err() {
        target.discard(written).await;
    }
    done.map(|()| rolled)
}

async fn roll_all(
    target: &Target,
    run: RunId,
    files: &[SinkFile],
    rolled: &mut RolledUp,
    written: &mut Vec<Path>,
) -> Result<()> {
    for (folder, files) in by_folder(target, files) {
        for files in choose(files, target.options.target_file_size) {
            let mut copy = Copying::new(target, run, &folder);
            let copied = copy.all(&files).await;
            written.extend(copy.written.iter().cloned());
            copied?;
            let mut added = target.lines(&copy.written).await?;
            // The rows are as old as they were, for `retention`.
            let newest = files.iter().map(|file| file.modification_time).max();
            for file in &mut added {
                file.replaces = true;
                file.modification_time = newest.unwrap_or(file.modification_time);
            }
            rolled.added.extend(added);
            rolled
                .replaced
                .extend(files.iter().map(|file| file.deleted()));
        }
    }
    Ok(())
}

/// The files that this sink could have written, by folder.
fn by_folder<'a>(target: &Target, files: &'a [SinkFile]) -> BTreeMap<String, Vec<&'a SinkFile>> {
    let mut folders: BTreeMap<String, Vec<&SinkFile>> = BTreeMap::new();
    for file in files {
        if !file.path.ends_with(target.format.ending()) {
            continue;
        }
        if let Some(folder) = target.folder_of(file) {
            folders.entry(folder).or_default().push(file);
        }
    }
    folders
}

/// Which of a folder's files become one, in the order of the log.
fn choose(files: Vec<&SinkFile>, target: u64) -> Vec<Vec<&SinkFile>> {
    let mut sizes: Vec<u64> = files.iter().map(|file| file.size).collect();
    sizes.retain(|size| *size < target);
    sizes.sort_unstable();
    let mut smaller = 0;
    let mut largest = None;
    for (number, size) in sizes.iter().enumerate() {
        if number > 0 && *size <= smaller {
            largest = Some(*size);
        }
        smaller += size;
    }
    let Some(largest) = largest else {
        return Vec::new();
    };
    let mut groups: Vec<Vec<&SinkFile>> = vec![Vec::new()];
    let mut bytes = 0;
    for file in files.into_iter().filter(|file| file.size <= largest) {
        if bytes >= target {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += file.size;
        if let Some(group) = groups.last_mut() {
            group.push(file);
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// Copies files of one folder into a new one.
struct Copying<'a> {
    target: &'a Target,
    run: RunId,
    folder: &'a str,
    written: Vec<Path>,
    file: Option<PartFile>,
}

impl<'a> Copying<'a> {
    fn new(target: &'a Target, run: RunId, folder: &'a str) -> Self {
        Self {
            target,
            run,
            folder,
            written: Vec::new(),
            file: None,
        }
    }

    async fn all(&mut self, files: &[&SinkFile]) -> Result<()> {
        let copied = self.copy(files).await;
        match self.file.take() {
            Some(file) if copied.is_ok() => file.finish().await,
            Some(file) => {
                file.abort().await;
                copied
            }
            None => copied,
        }
    }

    async fn copy(&mut self, files: &[&SinkFile]) -> Result<()> {
        match &self.target.format {
            Format::Parquet { .. } => {
                for file in files {
                    self.rows(file).await?;
                }
            }
            Format::Lines { lines, .. } => {
                let head = lines.head(self.target.folders.file_schema());
                for file in files {
                    self.lines(file, &head).await?;
                }
            }
        }
        Ok(())
    }

    async fn begin(&mut self, schema: &SchemaRef) -> Result<&mut PartFile> {
        let number = self.written.len() as u64;
        let file = self
            .target
            .begin_with(self.run, self.folder, number, schema);
        let file = file.await?;
        self.written.push(file.path().clone());
        Ok(self.file.insert(file))
    }

    /// The rows of a Parquet file.
    async fn rows(&mut self, from: &SinkFile) -> Result<()> {
        let path = self.target.location.path_of(&from.path)?;
        let reader = Reader {
            store: Arc::clone(self.target.store()),
            path: path.clone(),
            size: from.size,
        };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await;
        let builder = builder.map_err(|e| failed(&path, e))?;
        let schema = Arc::clone(builder.schema());
        let mut rows = builder.build().map_err(|e| failed(&path, e))?;
        let other = self
            .file
            .as_ref()
            .is_some_and(|file| *file.schema() != schema);
        if other && let Some(file) = self.file.take() {
            file.finish().await?;
        }
        if self.file.is_none() {
            self.begin(&schema).await?;
        }
        while let Some(rows) = rows.try_next().await.map_err(|e| failed(&path, e))? {
            if let Some(file) = &mut self.file {
                file.write(&rows).await?;
            }
        }
        Ok(())
    }

    /// The lines of a file, without its head.
    async fn lines(&mut self, from: &SinkFile, head: &[u8]) -> Result<()> {
        let schema = Arc::clone(self.target.folders.file_schema());
        if self.file.is_none() {
            self.begin(&schema).await?;
        }
        let path = self.target.location.path_of(&from.path)?;
        let found = self.target.store().get(&path).await?;
        let mut chunks = found.into_stream();
        let (mut head, mut size) = (head, 0);
        while let Some(mut chunk) = chunks.try_next().await? {
            size += chunk.len() as u64;
            let common = head.len().min(chunk.len());
            if chunk[..common] != head[..common] {
                return Err(Error::corrupt(format!(
                    "file {} has another header",
                    from.path
                )));
            }
            head = &head[common..];
            let rest = chunk.split_off(common);
            if let Some(file) = &mut self.file {
                file.write_lines(rest).await?;
            }
        }
        if size != from.size {
            let (path, was) = (&from.path, from.size);
            return Err(Error::corrupt(format!(
                "file {path} had {was} bytes and has {size}"
            )));
        }
        Ok(())
    }
}

/// A Parquet file in a store, for the asynchronous reader.
struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        let found = self.store.get_range(&self.path, range);
        found
            .map(|r| r.map_err(|e| ParquetError::External(Box::new(e))))
            .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new()
                .load_and_finish(self, size)
                .await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use object_store::ObjectMeta;

    use super::*;

    fn file(size: u64) -> SinkFile {
        let meta = ObjectMeta {
            location: Path::from("f"),
            last_modified: DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        SinkFile::added("file:///f".into(), &meta)
    }

    #[test]
    fn the_smallest_files_are_chosen_until_one_outweighs_the_others() {
        // By hand: with ten fresh files of 1, the file of 10 before them is no larger than they are together,
        // one of 20 is; what has the target's size is left alone.
        let fresh = [1; 10];
        for (others, chosen) in [
            (&[][..], Some(10)),
            (&[10], Some(11)),
            (&[20], Some(10)),
            (&[20, 10], Some(12)),
            (&[99, 20], Some(10)),
        ] {
            let sizes = others.iter().chain(&fresh);
            let files: Vec<SinkFile> = sizes.map(|size| file(*size)).collect();
            let groups = choose(files.iter().collect(), 99);
            assert_eq!(groups.first().map(Vec::len), chosen, "{others:?}");
        }
        for sizes in [&[][..], &[5], &[99, 99], &[1, 50]] {
            let files: Vec<SinkFile> = sizes.iter().map(|size| file(*size)).collect();
            assert!(choose(files.iter().collect(), 99).is_empty(), "{sizes:?}");
        }
    }

    #[test]
    fn a_group_is_full_at_the_target() {
        let files: Vec<SinkFile> = (0..6).map(|_| file(40)).collect();
        let groups = choose(files.iter().collect(), 100);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn it_is_due_once_in_so_many_micro_batches_at_a_compact_entry() {
        let due = |every: u64, interval: u64| -> Vec<u64> {
            let compact = (0..60).filter(|id| (id + 1) % interval == 0);
            compact
                .filter(|id| is_due(BatchId(*id), every, interval))
                .collect()
        };
        assert_eq!(due(20, 10), [19, 39, 59]);
        assert_eq!(due(25, 10), [29, 49]);
        assert_eq!(due(4, 4).len(), 15);
    }
}
