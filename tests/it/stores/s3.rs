//! The same against a server that really speaks S3, and queries whose checkpoint and files lie there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater::datafusion::execution::object_store::ObjectStoreUrl;
use highwater::datafusion::prelude::SessionContext;
use highwater::object_store::ObjectStore;
use highwater::object_store::prefix::PrefixStore;
use highwater::prelude::*;
use highwater::{ErrorKind, Result};
use highwater_core::testing::Fault;
use highwater_testkit::crash::fight::{Meeting, alone, fight};
use highwater_testkit::crash::target::{Batches, Files};
use highwater_testkit::crash::{Disk, Disks, FileScript, Proof, Setup};
use highwater_testkit::rng::Rng;
use highwater_testkit::s3::S3Server;

/// The seed of everything that is chosen at random here; a failure tells it.
const SEED: u64 = 20_260_712;

/// One server for all, as it takes seconds to begin: a test of its own for each part would start one each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proven_in_memory_holds_on_s3() {
    let Some(server) = S3Server::find().unwrap_or_else(|e| panic!("{e}")) else {
        return;
    };
    let store = server.store().unwrap();
    let told = |what: &str, done: Result<()>| done.unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let suites: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&store), "suites"));
    told(
        "suites",
        super::suites(&suites, server.races_are_fair()).await,
    );
    told("a query", a_query(&server, &store).await);
    told("crashes", crashes(&store).await);
    told("fights", fights(&store).await);
}

/// Empty disks in the bucket, one after the other.
fn disks(store: &Arc<dyn ObjectStore>, name: &'static str) -> Disks {
    let (store, number) = (Arc::clone(store), AtomicU64::new(0));
    Disks::new(move || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let folder = format!("{name}/{number}");
        Disk::over(Arc::new(PrefixStore::new(Arc::clone(&store), folder)))
    })
}

/// A process dies in one of its operations, is started again, and the files have each row once.
async fn crashes(store: &Arc<dyn ObjectStore>) -> Result<()> {
    let files = Files {
        format: "json".into(),
    };
    let setup = Setup::new(files).on(disks(store, "crashes"));
    let script = FileScript::named("window-append", SEED)?;
    let proof = Proof {
        subject: &script,
        setup: &setup,
        seed: SEED,
        points: 12,
    };
    let tally = proof.run().await?;
    assert!(tally.points == 12 && tally.deaths >= 12, "{tally:?}");
    Ok(())
}

/// A second run takes over in the middle of an operation of the first: one wins, the other is fenced, and no row is doubled.
async fn fights(store: &Arc<dyn ObjectStore>) -> Result<()> {
    let setup = Setup::new(Batches).on(disks(store, "fights"));
    let script = FileScript::named("window-update", SEED)?;
    let (expected, operations) = alone(&script, &setup).await?;
    let mut rng = Rng::new(SEED);
    let number = usize::try_from(operations).unwrap_or(usize::MAX);
    for when in [Fault::Before, Fault::After] {
        for second in [None, Some(rng.below(number) as u64 + 1)] {
            let meeting = Meeting {
                first: rng.below(number) as u64 + 1,
                second,
                when,
            };
            fight(&script, &setup, meeting, &expected).await?;
        }
    }
    Ok(())
}

/// As a user would: the store is registered, and `s3://…` stands for checkpoint, files and table.
async fn a_query(server: &S3Server, store: &Arc<dyn ObjectStore>) -> Result<()> {
    let at = |path: &str| format!("{}/a query/{path}", server.url());
    let session = || -> Result<StreamSession> {
        let context = SessionContext::new();
        let url = ObjectStoreUrl::parse(server.url())?;
        context.register_object_store(url.as_ref(), Arc::clone(store));
        StreamSession::from_context(context)
    };
    let rows = [("a", 1_i64), ("b", 2), ("a", 3)];
    for n in 1..=rows.len() {
        let session = session()?;
        let stream = MemoryStream::new(&session, "k STRING, v BIGINT")?;
        for row in &rows[..n] {
            stream.add_data([*row])?;
        }
        let writer = stream.to_frame().write_stream();
        let query = writer
            .path(at("out"))
            .partition_by(&["k"])
            .checkpoint_location(at("ckpt"))
            .trigger(Trigger::AvailableNow)
            .to_table("t")
            .await?;
        query.await_termination().await?;
        let table = session.sql("SELECT sum(v) FROM t WHERE k = 'a'").await?;
        let expected: i64 = rows[..n]
            .iter()
            .filter(|row| row.0 == "a")
            .map(|row| row.1)
            .sum();
        let sum = table.collect().await?[0].column(0).to_data();
        assert_eq!(sum.buffers()[0].typed_data::<i64>(), [expected]);
    }
    let session = session()?;
    let stream = MemoryStream::new(&session, "k STRING, v BIGINT")?;
    // Another query would lose its rows there.
    let other = stream
        .to_frame()
        .write_stream()
        .format("parquet")
        .path(at("out"));
    let error = other.checkpoint_location(at("other")).start().await;
    assert_eq!(error.expect_err("refused").kind(), ErrorKind::Invalid);
    let read = session.read().parquet(at("out")).await?;
    assert_eq!(read.count().await?, rows.len());
    Ok(())
}
