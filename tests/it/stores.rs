//! Every store that a checkpoint may lie in, by the same suites: in memory, on a disk, flushed, tried again, and S3.

mod logs;
mod s3;

use std::sync::Arc;

use highwater::Result;
use highwater::object_store::ObjectStore;
use highwater::object_store::local::LocalFileSystem;
use highwater::object_store::memory::InMemory;
use highwater::object_store::path::Path;
use highwater::object_store::prefix::PrefixStore;
use highwater_core::testing::{FaultyStore, ManualClock};
use highwater_storage::{DurableStore, RetryPolicy, RetryStore};
use highwater_testkit::store_contract;

/// All that a store must do, and all that is built on it; nothing may be in the folder yet.
async fn suites(store: &Arc<dyn ObjectStore>, races: bool) -> Result<()> {
    let root = Path::from("some/where");
    store_contract::all(store, &root).await?;
    if races {
        store_contract::creators_race(store, &root).await?;
    }
    logs::all(store, &root.join("ckpt")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_this_machine_keep_their_promises() -> Result<()> {
    let (plain, flushed) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let root = Path::from_absolute_path(flushed.path()).expect("a path");
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // Not one operation fails here: what a store does that tries again must be what the store does.
    let behind: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
    let clock = Arc::new(ManualClock::at("2024-05-01 12:00:00")?);
    let stores: [(&str, Arc<dyn ObjectStore>); 4] = [
        ("memory", memory),
        (
            "disk",
            Arc::new(LocalFileSystem::new_with_prefix(plain.path())?),
        ),
        (
            "flushed disk",
            Arc::new(PrefixStore::new(DurableStore::new(), root)),
        ),
        (
            "tried again",
            RetryStore::around(behind, RetryPolicy::default(), clock),
        ),
    ];
    for (name, store) in stores {
        suites(&store, true).await.map_err(|e| e.context(name))?;
    }
    Ok(())
}
