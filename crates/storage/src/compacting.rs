//! A log of items in which every tenth entry holds all items so far.
//!
//! ```text
//!  0 1 2 3 4 5 6 7 8 9.compact 10 11 12        a reader needs: 9.compact 10 11 12
//!  ──────── may go ────────                    the older entries went after 9.compact was there
//! ```
//!
//! The files are Spark's: `N` and `N.compact`, a line `v1`, then one line of JSON for each item. In
//! addition each line says in `batchId` which entry the item came with, as in the log of Spark's
//! file source; a log that is [`untagged`](CompactingLog::untagged) leaves that out, as the log of Spark's
//! file sink. A [`sealed`](CompactingLog::sealed) log has a last line with a checksum, see [`seal`].

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use highwater_core::{BatchId, Error, Result};
use object_store::{ObjectStore, path::Path};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::log::number;
use crate::object;
use crate::text::{decode_lines, encode_lines, from_json, seal, to_json, unseal};

/// A log of items: entry N is a list of items, and the log is all of them.
///
/// An item is written as a JSON object. Its field `batchId`, if it has none, is the log's. Cloning is cheap.
pub struct CompactingLog<T> {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    every: u64,
    tagged: bool,
    sealed: bool,
    item: PhantomData<fn() -> T>,
}

/// Every entry whose number is one less than a multiple of this is a compact one, unless said otherwise (Spark's
/// default).
const EVERY: u64 = 10;
/// The end of the name of a compact entry.
const COMPACT: &str = ".compact";
/// So many entries are read at once.
const READS: usize = 8;
/// So often a log is listed anew when an entry is compacted away while it is read.
const ATTEMPTS: usize = 5;

impl<T: Serialize + DeserializeOwned> CompactingLog<T> {
    /// The log in `folder`, which need not exist yet.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Self {
            store,
            folder,
            every: EVERY,
            tagged: true,
            sealed: false,
            item: PhantomData,
        }
    }

    /// The lines do not say in `batchId` which entry their items came with: all items of a compact entry came with it.
    #[must_use]
    pub fn untagged(mut self) -> Self {
        self.tagged = false;
        self
    }

    /// Every entry whose number is one less than a multiple of `entries` is a compact one; at most 10.
    ///
    /// Spark takes 10 for granted where it finds one compact entry, so a longer interval would mislead it.
    #[must_use]
    pub fn compact_every(mut self, entries: u64) -> Self {
        self.every = entries.clamp(1, EVERY);
        self
    }

    /// How many entries lie between two compact ones, plus one.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.every
    }

    /// True when entry `id` is a compact one.
    #[must_use]
    pub fn is_compact(&self, id: BatchId) -> bool {
        (id.0 + 1).is_multiple_of(self.every)
    }

    /// The log whose entries have a checksum, which Spark could not read.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// The folder of the log.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.folder.as_ref()
    }

    /// Writes entry `id` with `items`; it must not be there yet.
    ///
    /// An entry that is compact takes all earlier items in, and then the earlier entries are deleted.
    /// One that cannot be deleted stays, without harm, until the next compact entry.
    ///
    /// # Errors
    /// `Fenced`, naming the path, when another run has written it; `Corrupt`, naming the file, when an
    /// earlier entry that is to be taken in is damaged.
    pub async fn add(&self, id: BatchId, items: &[T]) -> Result<()> {
        self.add_keeping(id, items, |_| true).await
    }

    /// As [`add`](Self::add), but an entry that is compact takes only those earlier items in that `keep` says.
    ///
    /// With such an entry, and in no other way, items leave the log: all at once, and together with what it adds.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn add_keeping(
        &self,
        id: BatchId,
        items: &[T],
        keep: impl Fn(&T) -> bool,
    ) -> Result<()> {
        let compact = self.is_compact(id);
        let mut lines: Vec<String> = Vec::new();
        if compact {
            let earlier = self.read_all(Some(id)).await?;
            let earlier = earlier.into_values().flatten();
            lines.extend(earlier.filter(|(_, item)| keep(item)).map(|(text, _)| text));
        }
        for item in items {
            lines.push(if self.tagged {
                line(id, item)?
            } else {
                to_json(item)?
            });
        }
        let path = self.path(id, compact);
        let mut text = encode_lines(&lines);
        if self.sealed {
            text = seal(&self.name(&path), text);
        }
        object::put_new(&*self.store, &path, text).await?;
        if compact {
            // The entry is there: whether the old ones go decides nothing.
            self.purge(id).await.ok();
        }
        Ok(())
    }

    /// All items, by the entry they came with, oldest first.
    ///
    /// An old entry without items may be missing; the latest entry is always there.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, when an entry is damaged.
    pub async fn load_all(&self) -> Result<Vec<(BatchId, Vec<T>)>> {
        let all = self.read_all(None).await?.into_iter();
        Ok(all
            .map(|(id, lines)| (id, lines.into_iter().map(|(_, item)| item).collect()))
            .collect())
    }

    /// The number of the latest entry; `None` when the log is empty.
    ///
    /// # Errors
    /// The store's error, naming the folder.
    pub async fn latest_id(&self) -> Result<Option<BatchId>> {
        Ok(self.entries().await?.last().map(|(id, _)| *id))
    }

    /// All items of the entries before `before`.
    async fn read_all(&self, before: Option<BatchId>) -> Result<Items<T>> {
        for _ in 0..ATTEMPTS {
            let mut needed = self.entries().await?;
            needed.retain(|(id, _)| before.is_none_or(|before| *id < before));
            let newest = needed.iter().rposition(|(_, compact)| *compact);
            needed.drain(..newest.unwrap_or(0));
            if let Some(items) = self.read(needed).await? {
                return Ok(items);
            }
        }
        Err(Error::unavailable(format!(
            "log `{}` is compacted faster than it can be read",
            self.folder
        )))
    }

    /// The items of these entries; `None` when one was compacted away since they were listed.
    async fn read(&self, needed: Vec<(BatchId, bool)>) -> Result<Option<Items<T>>> {
        let reads = needed.into_iter().map(|(id, compact)| {
            let (store, path) = (Arc::clone(&self.store), self.path(id, compact));
            async move {
                let bytes = object::read(&*store, &path).await?;
                Ok::<_, Error>((id, path, bytes))
            }
        });
        let mut reads = stream::iter(reads).buffered(READS);
        let mut all = Items::new();
        while let Some((id, path, bytes)) = reads.try_next().await? {
            let Some(bytes) = bytes else {
                return Ok(None);
            };
            self.opened(&path, &bytes)
                .and_then(|text| parse(id, text, &mut all))
                .map_err(|e| e.context(format_args!("log entry `{path}` is damaged")))?;
        }
        Ok(Some(all))
    }

    /// The numbers of the entries, in order, and whether they are compact; a plain entry is left out
    /// where there is a compact one of the same number.
    async fn entries(&self) -> Result<Vec<(BatchId, bool)>> {
        let mut entries: Vec<(BatchId, bool)> = object::names(&*self.store, &self.folder)
            .await?
            .iter()
            .filter_map(|name| match name.strip_suffix(COMPACT) {
                Some(name) => number(name).map(|id| (id, true)),
                None => number(name).map(|id| (id, false)),
            })
            .collect();
        entries.sort_unstable_by_key(|(id, compact)| (*id, !compact));
        entries.dedup_by_key(|(id, _)| *id);
        Ok(entries)
    }

    /// Deletes the entries before `before`.
    async fn purge(&self, before: BatchId) -> Result<()> {
        let entries = self.entries().await?.into_iter();
        let old = entries.filter(|(id, _)| *id < before);
        let old = old.map(|(id, compact)| self.path(id, compact)).collect();
        object::remove(&*self.store, old).await
    }

    /// The text of an entry, when its checksum is right.
    fn opened<'a>(&self, path: &Path, bytes: &'a [u8]) -> Result<&'a [u8]> {
        match self.sealed {
            true => unseal(&self.name(path), bytes),
            false => Ok(bytes),
        }
    }

    /// What the entry at `path` is sealed as.
    fn name(&self, path: &Path) -> String {
        let folder = self.folder.filename().unwrap_or_default();
        format!("{folder}/{}", path.filename().unwrap_or_default())
    }

    fn path(&self, id: BatchId, compact: bool) -> Path {
        let end = if compact { COMPACT } else { "" };
        self.folder.clone().join(format!("{id}{end}"))
    }
}

/// Lines and the items they stand for, by the entry they came with.
type Items<T> = BTreeMap<BatchId, Vec<(String, T)>>;

/// What every line says besides its item.
#[derive(Deserialize)]
struct Tag {
    #[serde(rename = "batchId")]
    batch: Option<BatchId>,
}

/// The line of an item that comes with entry `id`.
fn line(id: BatchId, item: &impl Serialize) -> Result<String> {
    let mut json = serde_json::to_value(item)
        .map_err(|e| Error::internal("a log item cannot be written as JSON").with_source(e))?;
    let Value::Object(fields) = &mut json else {
        return Err(Error::internal("a log item is no JSON object"));
    };
    fields.entry("batchId").or_insert_with(|| id.0.into());
    to_json(&json)
}

/// Puts the items of entry `id` into `items`.
fn parse<T: DeserializeOwned>(id: BatchId, bytes: &[u8], items: &mut Items<T>) -> Result<()> {
    items.entry(id).or_default();
    for text in decode_lines(bytes)? {
        let tag: Tag = from_json(text)?;
        let item = (text.to_owned(), from_json(text)?);
        items.entry(tag.batch.unwrap_or(id)).or_default().push(item);
    }
    Ok(())
}

impl<T> Clone for CompactingLog<T> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            folder: self.folder.clone(),
            every: self.every,
            tagged: self.tagged,
            sealed: self.sealed,
            item: PhantomData,
        }
    }
}

impl<T> fmt::Debug for CompactingLog<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactingLog")
            .field("store", &self.store)
            .field("folder", &self.folder.as_ref())
            .finish()
    }
}

#[cfg(test)]
mod tests;
