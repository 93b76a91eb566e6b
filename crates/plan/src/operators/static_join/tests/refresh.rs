//! When static tables are read again, and what is said of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::object_store::memory::InMemory;
use datafusion::object_store::{ObjectStore, PutPayload, path::Path};
use datafusion::prelude::CsvReadOptions;
use highwater_core::{OutputMode, Timestamp};

use super::{TRIGGERS, World};
use crate::static_side::{RefreshWhen, StaticRefresh, TableVersions};
use crate::table::StreamTable;
use crate::testing::{Fixture, TestSource, lines, run, schema};

#[tokio::test]
async fn what_depends_on_the_micro_batch_is_read_for_each() {
    let sql = "SELECT e.k FROM events e JOIN (SELECT k FROM dim WHERE now() > to_timestamp(0)) d ON e.k = d.k";
    let world = World::new(1);
    let plan = world
        .plan(sql, OutputMode::Append, StaticRefresh::default())
        .await
        .expect(sql);
    for id in 0..3 {
        plan.refresh(Timestamp::default()).await.expect(sql);
        run(&plan, id).await.expect(sql);
    }
    assert_eq!(world.reads.load(Ordering::Relaxed), 3);
}

/// Says of each table that it is another one each time.
#[derive(Debug, Default)]
struct OneMoreEachTime(AtomicU64);

#[async_trait]
impl TableVersions for OneMoreEachTime {
    async fn version_of(&self, _table: &dyn TableProvider) -> highwater_core::Result<Option<u64>> {
        Ok(Some(self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

#[tokio::test]
async fn a_table_with_another_version_is_read_again() {
    let sql = "SELECT e.k FROM events e JOIN dim d ON e.k = d.k";
    let world = World::new(1);
    let refresh = StaticRefresh {
        versions: Some(Arc::new(OneMoreEachTime::default())),
        ..StaticRefresh::default()
    };
    let plan = world
        .plan(sql, OutputMode::Append, refresh)
        .await
        .expect(sql);
    for id in 0..3 {
        plan.refresh(Timestamp::default()).await.expect(sql);
        run(&plan, id).await.expect(sql);
    }
    assert_eq!(world.reads.load(Ordering::Relaxed), 3);
}

/// By when it is looked: the rows of each of four micro-batches, ten seconds apart, where a third file comes after the
/// first, and where the table cannot tell.
#[tokio::test]
async fn a_new_file_is_seen_when_it_is_looked_for() {
    let twenty = Duration::from_secs(20);
    for (when, files) in [
        (RefreshWhen::OnChange, ["1 2", "1 2 3", "1 2 3", "1 2 3"]),
        (RefreshWhen::Never, ["1 2"; 4]),
        (RefreshWhen::Every(twenty), ["1 2", "1 2", "1 2 3", "1 2 3"]),
    ] {
        let world = World::new(1);
        let source = Arc::new(TestSource::default());
        let table = StreamTable::new("one", Arc::clone(&source) as _, false);
        world
            .ctx
            .register_table("one", Arc::new(table))
            .expect("one");
        let store = Arc::new(InMemory::new());
        let url = ListingTableUrl::parse("mem://t/dim/").expect("a URL");
        world
            .ctx
            .register_object_store(url.object_store().as_ref(), Arc::clone(&store) as _);
        put(&store, "dim/1.csv", "n\n1\n").await;
        let options = CsvReadOptions::new();
        let registered = world.ctx.register_csv("files", "mem://t/dim/", options);
        registered.await.expect("registered");
        // What the session has listed before the query starts is old by then.
        let sql = "SELECT f.n FROM files f";
        let listed = world.ctx.sql(sql).await.expect(sql).collect().await;
        assert_eq!(lines(&listed.expect(sql)), ["1"]);
        put(&store, "dim/2.csv", "n\n2\n").await;
        let sql = "SELECT f.n FROM one e JOIN files f ON f.n < 10";
        let refresh = StaticRefresh {
            when,
            versions: None,
        };
        let plan = world.plan(sql, OutputMode::Append, refresh).await;
        let plan = plan.expect(sql);
        for (id, expected) in files.iter().enumerate() {
            source.add(&[(Some(0), "a", 1)]);
            plan.refresh(Timestamp::from_millis(10_000 * id as i64))
                .await
                .expect(sql);
            let rows = lines(&run(&plan, id as u64).await.expect(sql));
            assert_eq!(rows.join(" "), *expected, "{when:?}, micro-batch {id}");
            if id == 0 {
                put(&store, "dim/3.csv", "n\n3\n").await;
            }
        }
    }
}

async fn put(store: &InMemory, path: &str, text: &str) {
    let payload = PutPayload::from(text.to_owned().into_bytes());
    let put = store
        .put_opts(&Path::from(path), payload, Default::default())
        .await;
    put.expect("written");
}

#[tokio::test]
async fn a_table_that_cannot_tell_is_read_again_by_time_only() {
    let sql = "SELECT e.k FROM events e JOIN dim d ON e.k = d.k";
    let every = RefreshWhen::Every(Duration::from_secs(20));
    for (when, reads) in [
        (RefreshWhen::OnChange, 1),
        (RefreshWhen::Never, 1),
        (every, 3),
    ] {
        let world = World::new(1);
        let refresh = StaticRefresh {
            when,
            versions: None,
        };
        let plan = world
            .plan(sql, OutputMode::Append, refresh)
            .await
            .expect(sql);
        // At 0, 10, … 50 s: read at 0, and again at 20 and 40.
        for id in 0..TRIGGERS {
            plan.refresh(Timestamp::from_millis(10_000 * id as i64))
                .await
                .expect(sql);
            run(&plan, id).await.expect(sql);
        }
        assert_eq!(world.reads.load(Ordering::Relaxed), reads, "{when:?}");
    }
}

#[tokio::test]
async fn explain_tells_what_is_kept() {
    let sql = "SELECT e.k, d.v FROM events e LEFT JOIN dim d ON e.k = d.k AND d.v > e.v";
    let world = World::new(1);
    let plan = world
        .plan(sql, OutputMode::Append, StaticRefresh::default())
        .await
        .expect(sql);
    let shown = plan.explain();
    let line = "  dim: outer join on (k = k) where v@1 > v@0, not read yet, never read again, as it cannot tell whether \
                it has changed\n";
    assert!(shown.contains(line), "{shown}");
    run(&plan, 0).await.expect(sql);
    let shown = plan.explain();
    // A row with a null key matches nothing, so it is not read at all.
    let kept = world.answer("SELECT count(*) AS c FROM dim WHERE k IS NOT NULL");
    let kept = kept.await.expect("counted").concat();
    let kept = format!("outer join on (k = k) where v@1 > v@0, {kept} rows in ");
    assert!(shown.contains(&kept), "{shown}");
}

/// A table in memory to which INSERT adds rows, which UPDATE changes and from which DELETE takes some, each between two
/// micro-batches.
#[tokio::test]
async fn a_table_in_memory_is_read_again_when_it_was_written() {
    let fixture = Fixture::new();
    let table = MemTable::try_new(schema(), vec![vec![]]).expect("a table");
    fixture
        .ctx
        .register_table("memory", Arc::new(table))
        .expect("memory");
    let sql = "SELECT m.k, m.v FROM events e CROSS JOIN memory m";
    let plan = fixture.plan(sql, OutputMode::Append).await.expect(sql);
    let line = "memory: inner join on every row, not read yet, read again when it has changed\n";
    assert!(plan.explain().contains(line), "{}", plan.explain());
    let steps = [
        ("INSERT INTO memory VALUES (NULL, 'x', 1)", "x|1"),
        ("SELECT 1", "x|1"),
        ("INSERT INTO memory VALUES (NULL, 'y', 2)", "x|1 y|2"),
        ("UPDATE memory SET v = 3 WHERE k = 'x'", "x|3 y|2"),
        ("DELETE FROM memory WHERE k = 'y'", "x|3"),
        ("DELETE FROM memory", ""),
    ];
    for (id, (statement, expected)) in steps.into_iter().enumerate() {
        fixture.events.add(&[(Some(0), "a", 1)]);
        let frame = fixture.ctx.sql(statement).await.expect(statement);
        frame.collect().await.expect(statement);
        plan.refresh(Timestamp::default()).await.expect(statement);
        let rows = run(&plan, id as u64).await.expect(statement);
        assert_eq!(lines(&rows).join(" "), expected, "{statement}");
    }
}

/// What two tables of one side say together: one that can tell, and one that cannot.
#[tokio::test]
async fn explain_names_the_tables_that_cannot_tell() {
    let world = World::new(1);
    let table = MemTable::try_new(schema(), vec![vec![]]).expect("a table");
    world
        .ctx
        .register_table("memory", Arc::new(table))
        .expect("memory");
    let sql = "SELECT e.k, s.v FROM events e JOIN (SELECT d.k, d.v FROM dim d JOIN memory m ON d.k = m.k) s ON e.k = s.k";
    for (when, said) in [
        (
            RefreshWhen::OnChange,
            "read again when it has changed, which dim cannot tell\n",
        ),
        (RefreshWhen::Never, "never read again\n"),
        (
            RefreshWhen::Every(Duration::from_secs(90)),
            "read again every 90 s\n",
        ),
    ] {
        let refresh = StaticRefresh {
            when,
            versions: None,
        };
        let plan = world
            .plan(sql, OutputMode::Append, refresh)
            .await
            .expect(sql);
        assert!(plan.explain().contains(said), "{}", plan.explain());
    }
}
