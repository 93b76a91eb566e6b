//! What the loss of power may leave of a folder, and what is there when the next run has opened it.
//!
//! The loss is played on the files: each one the journal vouches for is left as it is, emptied, cut, filled with
//! zeros or taken away, and the journal itself loses what was never flushed. A file the journal does not vouch for any
//! more must be on the disk already, and is left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tempfile::TempDir;

use super::super::{Deferred, DurableStore};
use super::*;

/// A small generator of numbers, from a printed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

struct Run {
    folder: TempDir,
    store: DurableStore,
    /// What was acknowledged: the text of each file.
    there: BTreeMap<String, String>,
}

impl Run {
    fn start(folder: TempDir, there: BTreeMap<String, String>, file_bytes: u64) -> Self {
        let root = folder.path().to_owned();
        let journal = Journal::with_files_of(root, file_bytes, None).expect("opened");
        Self {
            folder,
            store: DurableStore {
                local: Arc::default(),
                journal: Some(Arc::new(journal)),
            },
            there,
        }
    }

    fn path(&self, name: &str) -> ObjectPath {
        let folder = ObjectPath::from_absolute_path(self.folder.path()).expect("path");
        folder
            .parts()
            .chain(ObjectPath::from(name).parts())
            .collect()
    }

    async fn put(&self, name: &str, text: &str, options: PutOptions) -> Result<()> {
        put_by(&self.store, &self.path(name), text, options).await
    }

    /// One change of a random kind.
    async fn change(&mut self, random: &mut Random) {
        let name = format!(
            "{}/{}",
            ["a", "b", "b/c"][random.below(3) as usize],
            random.below(6)
        );
        let size = if random.below(20) == 0 {
            LARGEST + 1
        } else {
            random.below(300) as usize
        };
        let text = char::from(b'a' + random.below(26) as u8)
            .to_string()
            .repeat(size);
        match random.below(5) {
            0 => {
                drop(self.store.delete(&self.path(&name)).await);
                self.there.remove(&name);
            }
            1 => {
                self.put(&name, &text, PutOptions::default())
                    .await
                    .expect("put");
                self.there.insert(name, text);
            }
            _ => {
                let put = self.put(&name, &text, PutMode::Create.into()).await;
                assert_eq!(put.is_ok(), !self.there.contains_key(&name), "{put:?}");
                self.there.entry(name).or_insert(text);
            }
        }
    }

    /// The process and the power are gone.
    fn lose_power(self, random: &mut Random) -> (TempDir, BTreeMap<String, String>) {
        let folder = self.folder.path().join(FOLDER);
        let vouched = told(&folder, &numbers(&folder).expect("listed")).expect("read");
        for (path, bytes) in vouched {
            let file = self.folder.path().join(&path);
            let Some(bytes) = bytes else { continue };
            match random.below(5) {
                0 => drop(fs::remove_file(file)),
                1 => fs::write(file, "").expect("emptied"),
                2 => fs::write(file, &bytes[..bytes.len() / 2]).expect("cut"),
                3 => fs::write(file, vec![0; bytes.len()]).expect("zeros"),
                _ => {}
            }
        }
        (self.folder, self.there)
    }

    fn assert_whole(&self, what: &str) {
        let mut found = BTreeMap::new();
        texts(self.folder.path(), "", &mut found);
        assert_eq!(found, self.there, "{what}");
    }
}

async fn put_by(
    store: &DurableStore,
    path: &ObjectPath,
    text: &str,
    options: PutOptions,
) -> Result<()> {
    store
        .put_opts(path, text.to_owned().into(), options)
        .await
        .map(|_| ())
}

/// The texts of all files below a folder but the journal's, by their paths.
fn texts(folder: &Path, above: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy();
        let name = format!("{above}{name}");
        if name == FOLDER {
            continue;
        }
        if path.is_dir() {
            texts(&path, &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_loss_of_power() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let mut folder = tempfile::tempdir().expect("folder");
        let mut there = BTreeMap::new();
        for lives in 0..4 {
            // Small files, so that many are full and go, and one that never is.
            let file_bytes = [2_000, 10_000, FILE_BYTES][random.below(3) as usize];
            let mut run = Run::start(folder, there, file_bytes);
            run.assert_whole(&format!("seed {seed}, life {lives}"));
            for _ in 0..random.below(40) {
                run.change(&mut random).await;
            }
            (folder, there) = run.lose_power(&mut random);
        }
    }
}

#[tokio::test]
async fn a_deferred_put_is_there_once_the_next_one_is() {
    let deferred = || {
        let mut options = PutOptions::default();
        options.extensions.insert(Deferred);
        options
    };
    let run = Run::start(
        tempfile::tempdir().expect("folder"),
        BTreeMap::new(),
        FILE_BYTES,
    );
    run.put("state/1", "one", deferred()).await.expect("put");
    run.put("commits/1", "done", PutMode::Create.into())
        .await
        .expect("put");
    let folder = run.folder;
    for name in ["state/1", "commits/1"] {
        fs::write(folder.path().join(name), "").expect("lost");
    }
    let there = [("state/1", "one"), ("commits/1", "done")];
    let there = there.map(|(name, text)| (name.to_owned(), text.to_owned()));
    Run::start(folder, there.into(), FILE_BYTES).assert_whole("both");
}

#[tokio::test]
async fn a_torn_record_is_none_and_those_before_it_count() {
    let run = Run::start(
        tempfile::tempdir().expect("folder"),
        BTreeMap::new(),
        FILE_BYTES,
    );
    for n in 0..3 {
        run.put(&format!("offsets/{n}"), "an entry", PutMode::Create.into())
            .await
            .expect("put");
    }
    let journal = run.folder.path().join(FOLDER).join("0");
    let whole = fs::read(&journal).expect("read");
    let end = whole.iter().rposition(|b| *b != 0).expect("records") + 1;
    for lost in [1, 8, 20] {
        let mut torn = whole.clone();
        torn[end - lost..].fill(0);
        assert_eq!(records::all(&torn).count(), 2, "{lost}");
        let mut flipped = whole.clone();
        flipped[end - lost] ^= 1;
        assert_eq!(records::all(&flipped).count(), 2, "{lost}");
    }
    assert_eq!(records::all(&whole).count(), 3);
}

#[tokio::test]
async fn a_second_run_takes_the_journal_over_while_the_first_still_writes() {
    let mut first = Run::start(
        tempfile::tempdir().expect("folder"),
        BTreeMap::new(),
        FILE_BYTES,
    );
    first
        .put("offsets/0", "first", PutMode::Create.into())
        .await
        .expect("put");
    let root = first.folder.path().to_owned();
    let second = DurableStore::open(root.clone()).await.expect("opened");
    // The first does not know yet; its file is in the journal that both have now.
    first
        .put("offsets/1", "first", PutMode::Create.into())
        .await
        .expect("put");
    let put = put_by(
        &second,
        &first.path("offsets/1"),
        "second",
        PutMode::Create.into(),
    )
    .await;
    assert!(matches!(put, Err(Error::AlreadyExists { .. })));
    put_by(
        &second,
        &first.path("offsets/2"),
        "second",
        PutMode::Create.into(),
    )
    .await
    .expect("put");
    first
        .put("offsets/3", "first", PutMode::Create.into())
        .await
        .expect("put");
    for n in 1..4 {
        fs::write(root.join(format!("offsets/{n}")), "").expect("lost");
    }
    for (n, by) in ["first", "first", "second", "first"].iter().enumerate() {
        first.there.insert(format!("offsets/{n}"), (*by).to_owned());
    }
    drop(second);
    Run::start(first.folder, first.there, FILE_BYTES).assert_whole("after the loss of power");
}

#[tokio::test]
async fn a_run_that_does_not_flush_ends_the_journal() {
    let mut run = Run::start(
        tempfile::tempdir().expect("folder"),
        BTreeMap::new(),
        FILE_BYTES,
    );
    run.put("offsets/0", "an entry", PutMode::Create.into())
        .await
        .expect("put");
    let root = run.folder.path().to_owned();
    fs::write(root.join("offsets/0"), "").expect("lost");
    DurableStore::release(root.clone()).await.expect("ended");
    DurableStore::release(root.clone())
        .await
        .expect("there is none");
    assert_eq!(fs::read(root.join("offsets/0")).expect("read"), b"an entry");
    assert!(!root.join(FOLDER).exists());
    // The run that is still there flushes each file again, and makes no new journal.
    run.put("offsets/1", "late", PutMode::Create.into())
        .await
        .expect("put");
    run.store
        .delete(&run.path("offsets/0"))
        .await
        .expect("deleted");
    assert!(!root.join(FOLDER).exists());
    run.there.insert("offsets/1".into(), "late".into());
    run.assert_whole("afterwards");
}

#[test]
fn a_path_that_leads_out_of_the_folder_is_not_written() {
    for path in ["../x", "/x", "a/../../x"] {
        assert_eq!(below(Path::new("/root"), path), None, "{path}");
    }
}
