//! The durable store is the local file system, as far as anybody can see; and what the disk holds afterwards.

use std::collections::BTreeSet;
use std::fs;

use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStoreExt, WriteMultipart};
use tempfile::TempDir;

use super::*;

async fn in_folder(folder: &TempDir) -> Arc<dyn ObjectStore> {
    let store = DurableStore::open(folder.path().to_owned())
        .await
        .expect("opened");
    let prefix = Path::from_absolute_path(folder.path()).expect("path");
    Arc::new(PrefixStore::new(store, prefix))
}

async fn both() -> [(TempDir, Arc<dyn ObjectStore>); 2] {
    let folders = [(), ()].map(|()| tempfile::tempdir().expect("folder"));
    let [ours, theirs] = folders;
    let local = LocalFileSystem::new_with_prefix(theirs.path()).expect("store");
    let durable = in_folder(&ours).await;
    [(ours, durable), (theirs, Arc::new(local))]
}

/// The names of all files below a folder, hidden ones too.
fn files(folder: &path::Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.ends_with(journal::FOLDER) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.file_name().expect("name").to_string_lossy().into());
        }
    }
    found
}

/// What a script of puts answers, and what is there in the end.
async fn script(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let mut answers = Vec::new();
    for (name, text, mode) in [
        ("a b/x", "1", PutMode::Create),
        ("a b/x", "2", PutMode::Create),
        ("a b/x", "3", PutMode::Overwrite),
        ("a b/c/d/y", "4", PutMode::Overwrite),
        ("a b/c/d/z#q", "5", PutMode::Create),
        ("empty", "", PutMode::Create),
        ("empty", "", PutMode::Create),
    ] {
        let path = Path::from(name);
        let put = store.put_opts(&path, text.into(), mode.into()).await;
        answers.push(match put {
            Ok(put) => format!(
                "{name}: {}",
                put.e_tag == store.head(&path).await.expect("there").e_tag
            ),
            Err(Error::AlreadyExists { .. }) => format!("{name}: there"),
            Err(error) => format!("{name}: {error}"),
        });
    }
    let big = Path::from("new/big");
    let mut upload = WriteMultipart::new(store.put_multipart(&big).await.expect("begun"));
    upload.write(b"parts");
    upload.finish().await.expect("complete");
    store
        .rename(&big, &Path::from("moved/big"))
        .await
        .expect("renamed");
    store
        .copy(&Path::from("moved/big"), &Path::from("copied/big"))
        .await
        .expect("copied");
    store.delete(&Path::from("empty")).await.expect("deleted");
    let mut objects: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("listed");
    objects.retain(|o| o.location.parts().next() != Some(journal::FOLDER.into()));
    objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    for object in objects {
        let read = store.get(&object.location).await.expect("there");
        let bytes = read.bytes().await.expect("read");
        answers.push(format!("{} = {bytes:?}", object.location));
    }
    answers
}

#[tokio::test]
async fn it_answers_as_the_local_file_system() {
    let [(folder, durable), (_local, local)] = both().await;
    let answers = script(&durable).await;
    assert_eq!(answers, script(&local).await);
    assert!(answers.contains(&"a b/x: there".to_owned()), "{answers:?}");
    let left = files(folder.path());
    assert_eq!(left, ["big", "x", "y", "z%23q"].map(str::to_owned).into());
}

#[tokio::test]
async fn of_many_creators_exactly_one_wins() {
    let folder = tempfile::tempdir().expect("folder");
    for round in 0..20 {
        let path = Path::from(format!("offsets/{round}"));
        let root = Path::from_absolute_path(folder.path()).expect("path");
        let at: Path = root.parts().chain(path.parts()).collect();
        let puts = (0..8).map(|creator| {
            let (store, path) = (DurableStore::new(), at.clone());
            tokio::spawn(async move {
                let text = format!("creator {creator}");
                let put = store.put_opts(&path, text.clone().into(), PutMode::Create.into());
                (text, put.await)
            })
        });
        let puts = futures::future::join_all(puts.collect::<Vec<_>>()).await;
        let mut winners = Vec::new();
        for put in puts {
            match put.expect("ran") {
                (text, Ok(_)) => winners.push(text),
                (_, Err(Error::AlreadyExists { .. })) => {}
                (_, Err(error)) => panic!("{error}"),
            }
        }
        let there = in_folder(&folder).await.get(&path).await.expect("there");
        let there = there.bytes().await.expect("read");
        assert_eq!(winners, [String::from_utf8_lossy(&there)]);
    }
    assert!(files(folder.path()).iter().all(|name| !name.contains('#')));
}

#[tokio::test]
async fn what_a_dead_run_left_is_cleaned_up_and_is_no_entry() {
    let folder = tempfile::tempdir().expect("folder");
    let offsets = folder.path().join("offsets");
    fs::create_dir_all(&offsets).expect("made");
    for (name, text) in [
        ("0", "whole"),
        ("1#1", "torn"),
        ("2#17", ""),
        ("x#y", "kept"),
    ] {
        fs::write(offsets.join(name), text).expect("written");
    }
    let store = in_folder(&folder).await;
    assert_eq!(files(folder.path()), ["0", "x#y"].map(str::to_owned).into());
    // One that another run writes at this moment is in nobody's way either.
    fs::write(offsets.join("1#1"), "theirs").expect("written");
    let path = Path::from("offsets/1");
    let put = store.put_opts(&path, "ours".into(), PutMode::Create.into());
    put.await.expect("put");
    assert_eq!(fs::read(offsets.join("1")).expect("read"), b"ours");
    assert_eq!(fs::read(offsets.join("1#1")).expect("read"), b"theirs");
}

#[tokio::test]
async fn what_a_local_disk_does_not_have_it_does_not_have_either() {
    let [(_a, durable), (_b, local)] = both().await;
    let update = || {
        PutMode::Update(object_store::UpdateVersion {
            e_tag: None,
            version: None,
        })
    };
    for store in [durable, local] {
        let path = Path::from("x");
        let put = store.put_opts(&path, "1".into(), update().into());
        let error = put.await.expect_err("refused");
        assert!(matches!(error, Error::NotImplemented { .. }), "{error}");
    }
}
