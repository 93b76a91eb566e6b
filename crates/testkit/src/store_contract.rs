//! What a store must do so that a checkpoint or the files of a sink can lie in it: one call tries all of it.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use highwater::object_store::{ObjectStore, path::Path};
//! # async fn example(my_store: Arc<dyn ObjectStore>) -> highwater::Result<()> {
//! highwater_testkit::store_contract::all(&my_store, &Path::from("scratch")).await?;
//! highwater_testkit::store_contract::creators_race(&my_store, &Path::from("scratch")).await
//! # }
//! ```
//!
//! | promise | who leans on it |
//! |---|---|
//! | *put if absent*: of all who create an object one wins, and the others are told | log entries, claims: one owner |
//! | what is put is there at once, whole, also in listings; what is deleted is not | recovery reads what the last run wrote |
//! | a listing is complete, however long, and of that folder only | old entries, snapshots, new files of a source |
//! | parts of an object are the bytes asked for; an object that was replaced is not taken for the old one | Parquet, retries |
//! | an upload in parts is there when it is complete, not before | big files of a sink |

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future, stream};
use highwater::{Error, Result};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};

type Store = Arc<dyn ObjectStore>;

/// So many operations are under way at once where the order does not matter.
const AT_ONCE: usize = 16;

/// Tries all but [`creators_race`], in `folder`, where nothing may be yet.
///
/// # Errors
/// `Internal`, saying which promise is broken; or what the store failed with.
pub async fn all(store: &Store, folder: &Path) -> Result<()> {
    an_object_is_created_once(store, &folder.clone().join("create")).await?;
    what_is_missing_is_told_so(store, &folder.clone().join("missing")).await?;
    a_listing_is_that_of_the_folder(store, &folder.clone().join("list")).await?;
    a_long_listing_is_complete(store, &folder.clone().join("long")).await?;
    ranges_are_the_bytes_asked_for(store, &folder.clone().join("ranges")).await?;
    an_object_that_was_replaced_is_another(store, &folder.clone().join("replaced")).await?;
    an_upload_is_there_when_it_is_complete(store, &folder.clone().join("parts")).await?;
    any_name_will_do(store, &folder.clone().join("names")).await?;
    objects_are_moved(store, &folder.clone().join("moved")).await
}

/// Put if absent succeeds once, and again when the object is deleted; who comes second changes nothing.
///
/// # Errors
/// As [`all`].
pub async fn an_object_is_created_once(store: &Store, folder: &Path) -> Result<()> {
    let path = folder.clone().join("entry");
    for round in ["first", "second"] {
        hold(create(store, &path, round).await?, "nothing was there")?;
        hold(
            !create(store, &path, "another").await?,
            "an object was created twice",
        )?;
        // Also with the same bytes: who wrote them must be told that another one had been there.
        hold(
            !create(store, &path, round).await?,
            "an object was created twice",
        )?;
        same(&text(store, &path).await?, round, "of an object")?;
        store.delete(&path).await?;
    }
    store.put(&path, "old".into()).await?;
    store.put(&path, "new".into()).await?;
    same(&text(store, &path).await?, "new", "of a replaced object")?;
    hold(!create(store, &path, "x").await?, "it was there")
}

/// Of eight that create the same object at the same time one wins, and it is its object that is there.
///
/// # Errors
/// As [`all`].
pub async fn creators_race(store: &Store, folder: &Path) -> Result<()> {
    for round in 0..20 {
        let path = folder.clone().join("race").join(round.to_string());
        let creators = (0..8).map(|creator| {
            let (store, path) = (Arc::clone(store), path.clone());
            tokio::spawn(async move {
                let text = format!("creator {creator}");
                Ok::<_, Error>(create(&store, &path, &text).await?.then_some(text))
            })
        });
        let creators = future::join_all(creators.collect::<Vec<_>>()).await;
        let mut winners = Vec::new();
        for creator in creators {
            let done = creator.map_err(|e| Error::internal("a creator panicked").with_source(e))?;
            winners.extend(done?);
        }
        hold(
            winners.len() == 1,
            &format!("{winners:?} created one object"),
        )?;
        same(&text(store, &path).await?, &winners[0], "of the winner")?;
    }
    Ok(())
}

/// What is not there is told as such, and a folder without objects is an empty one.
///
/// # Errors
/// As [`all`].
pub async fn what_is_missing_is_told_so(store: &Store, folder: &Path) -> Result<()> {
    let path = folder.clone().join("no");
    let missing = |e: &object_store::Error| matches!(e, object_store::Error::NotFound { .. });
    let get = store.get(&path).await.err();
    hold(get.is_some_and(|e| missing(&e)), "getting what is missing")?;
    let head = store.head(&path).await.err();
    hold(
        head.is_some_and(|e| missing(&e)),
        "asking for what is missing",
    )?;
    let deleted = store.delete(&path).await.err();
    hold(
        deleted.is_none_or(|e| missing(&e)),
        "deleting what is missing",
    )?;
    hold(
        listed(store, folder).await?.is_empty(),
        "an empty folder has objects",
    )
}

/// A listing has what is in the folder and below, at once, and nothing of a folder whose name begins alike.
///
/// # Errors
/// As [`all`].
pub async fn a_listing_is_that_of_the_folder(store: &Store, folder: &Path) -> Result<()> {
    let names = ["a/1", "a/2", "a/b/3", "ab/4"];
    for name in names {
        store.put(&below(folder, name)?, name.into()).await?;
    }
    let a = below(folder, "a")?;
    let found = listed(store, &a).await?;
    let expected = ["a/1", "a/2", "a/b/3"].map(|name| format!("{folder}/{name}"));
    hold(found == expected.into(), &format!("{a} has {found:?}"))?;
    let direct = store.list_with_delimiter(Some(&a)).await?;
    let mut objects: Vec<_> = direct
        .objects
        .iter()
        .map(|o| (&o.location, o.size))
        .collect();
    objects.sort_unstable();
    let (one, two) = (below(folder, "a/1")?, below(folder, "a/2")?);
    hold(
        objects == [(&one, 3), (&two, 3)],
        &format!("{a} itself has {objects:?}"),
    )?;
    let folders = direct.common_prefixes;
    hold(
        folders == [below(folder, "a/b")?],
        &format!("{a} has the folders {folders:?}"),
    )?;
    store.delete(&one).await?;
    hold(
        !listed(store, &a).await?.contains(one.as_ref()),
        "a deleted object is listed",
    )?;
    let after: Vec<_> = store.list_with_offset(Some(&a), &two).try_collect().await?;
    let after: Vec<&str> = after.iter().map(|o| o.location.as_ref()).collect();
    hold(
        after == [format!("{folder}/a/b/3")],
        &format!("after {two} there are {after:?}"),
    )
}

/// Stores answer in pages of a thousand: all of them are given. Then all are deleted in one stream.
///
/// # Errors
/// As [`all`].
pub async fn a_long_listing_is_complete(store: &Store, folder: &Path) -> Result<()> {
    let paths: Vec<Path> = (0..1_003)
        .map(|n| folder.clone().join(n.to_string()))
        .collect();
    let puts = paths.iter().map(|path| store.put(path, "x".into()));
    let puts: Vec<_> = puts.collect();
    stream::iter(puts)
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| future::ok(()))
        .await?;
    let found = listed(store, folder).await?;
    hold(
        found.len() == paths.len(),
        &format!("{} are listed", found.len()),
    )?;
    let direct = store.list_with_delimiter(Some(folder)).await?.objects;
    hold(
        direct.len() == paths.len(),
        &format!("{} are there", direct.len()),
    )?;
    let all = stream::iter(paths.into_iter().map(Ok)).boxed();
    store
        .delete_stream(all)
        .try_for_each(|_| future::ok(()))
        .await?;
    hold(
        listed(store, folder).await?.is_empty(),
        "deleted objects are listed",
    )
}

/// Ranges in the middle, to the end, from the end, and several at once.
///
/// # Errors
/// As [`all`].
pub async fn ranges_are_the_bytes_asked_for(store: &Store, folder: &Path) -> Result<()> {
    let path = folder.clone().join("object");
    let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    store.put(&path, bytes.clone().into()).await?;
    let head = store.head(&path).await?;
    hold(head.size == 10_000, "the size is another one")?;
    for (range, expected) in [
        (GetRange::Bounded(100..300), 100..300),
        (GetRange::Bounded(9_990..20_000), 9_990..10_000),
        (GetRange::Offset(9_000), 9_000..10_000),
        (GetRange::Suffix(8), 9_992..10_000),
    ] {
        let shown = format!("{range:?}");
        let options = GetOptions::new().with_range(Some(range));
        let part = store.get_opts(&path, options).await?.bytes().await?;
        hold(
            part == bytes[expected],
            &format!("the range {shown} has other bytes"),
        )?;
    }
    let ranges = [0..4, 5_000..5_010, 9_999..10_000];
    let parts = store.get_ranges(&path, &ranges).await?;
    for (range, part) in ranges.into_iter().zip(parts) {
        let expected = &bytes[range.start as usize..range.end as usize];
        hold(
            part == expected,
            &format!("the range {range:?} has other bytes"),
        )?;
    }
    store.put(&path, Bytes::new().into()).await?;
    let empty = store.get(&path).await?.bytes().await?;
    hold(
        empty.is_empty() && store.head(&path).await?.size == 0,
        "an empty object is not",
    )
}

/// An object has a tag, which changes with its bytes; who asks for the old one does not get the new one.
///
/// # Errors
/// As [`all`].
pub async fn an_object_that_was_replaced_is_another(store: &Store, folder: &Path) -> Result<()> {
    let path = folder.clone().join("object");
    store.put(&path, "old".into()).await?;
    let old = store.head(&path).await?.e_tag;
    let listed: Vec<_> = store.list(Some(folder)).try_collect().await?;
    hold(
        old.is_some() && listed[0].e_tag == old,
        "an object has no tag, or two",
    )?;
    store.put(&path, "newer".into()).await?;
    hold(
        store.head(&path).await?.e_tag != old,
        "a tag stays with other bytes",
    )?;
    let asked = GetOptions::new().with_if_match(old);
    let answer = store.get_opts(&path, asked).await.err();
    let refused = matches!(answer, Some(object_store::Error::Precondition { .. }));
    hold(refused, "a replaced object was taken for the old one")
}

/// Nobody sees an upload in parts before it is complete; one that is given up leaves nothing.
///
/// # Errors
/// As [`all`].
pub async fn an_upload_is_there_when_it_is_complete(store: &Store, folder: &Path) -> Result<()> {
    let path = folder.clone().join("object");
    // Stores of clouds want all parts but the last to be of 5 MiB at least.
    let parts = [vec![1_u8; 5 << 20], vec![2; 5 << 20], vec![3; 7]];
    for completes in [false, true] {
        let mut upload: Box<dyn MultipartUpload> = store.put_multipart(&path).await?;
        for part in &parts {
            upload.put_part(part.clone().into()).await?;
        }
        hold(
            listed(store, folder).await?.is_empty(),
            "an upload is seen before its end",
        )?;
        if completes {
            upload.complete().await?;
        } else {
            upload.abort().await?;
        }
    }
    let whole = store.get(&path).await?.bytes().await?;
    hold(
        whole == parts.concat(),
        "an upload has other bytes than its parts",
    )
}

/// Names as the folders of partitions have them.
///
/// # Errors
/// As [`all`].
pub async fn any_name_will_do(store: &Store, folder: &Path) -> Result<()> {
    let names = ["k=a b+c~", "k=50%25", "k=a%2Fb/x", "ø=日本", "(x)!$&',;@"];
    for name in names {
        let path = below(folder, name)?;
        store.put(&path, name.into()).await?;
        same(&text(store, &path).await?, name, "of a name")?;
    }
    let expected: BTreeSet<String> = names.map(|name| format!("{folder}/{name}")).into();
    let found = listed(store, folder).await?;
    hold(found == expected, &format!("the names are {found:?}"))
}

/// Copies and moves, for `cleanSource` = `archive`.
///
/// # Errors
/// As [`all`].
pub async fn objects_are_moved(store: &Store, folder: &Path) -> Result<()> {
    let [a, b, c] = ["a", "deep/b", "c"].map(|name| below(folder, name));
    let (a, b, c) = (a?, b?, c?);
    store.put(&a, "text".into()).await?;
    store.copy(&a, &b).await?;
    store.rename(&a, &c).await?;
    let found = listed(store, folder).await?;
    let expected = [b.to_string(), c.to_string()];
    hold(found == expected.into(), &format!("there are {found:?}"))?;
    same(&text(store, &b).await?, "text", "of a copy")?;
    same(&text(store, &c).await?, "text", "of a moved object")
}

/// True when it was created, false when it was there.
async fn create(store: &Store, path: &Path, text: &str) -> Result<bool> {
    let options = PutOptions::from(PutMode::Create);
    let put = store.put_opts(path, text.to_owned().into(), options).await;
    match put {
        Ok(_) => Ok(true),
        Err(
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn text(store: &Store, path: &Path) -> Result<String> {
    let bytes = store.get(path).await?.bytes().await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn listed(store: &Store, folder: &Path) -> Result<BTreeSet<String>> {
    let found: Vec<_> = store.list(Some(folder)).try_collect().await?;
    Ok(found.into_iter().map(|o| o.location.to_string()).collect())
}

fn below(folder: &Path, name: &str) -> Result<Path> {
    let path = Path::parse(format!("{folder}/{name}"));
    path.map_err(|e| object_store::Error::from(e).into())
}

fn same(found: &str, expected: &str, of: &str) -> Result<()> {
    hold(
        found == expected,
        &format!("the bytes {of}: `{found}`, expected `{expected}`"),
    )
}

/// Says which promise is broken, unless it holds.
fn hold(holds: bool, promise: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::internal(format!(
        "the store breaks a promise: {promise}"
    )))
}
