//! A crash at every operation on the store, and the same micro-batch again: each row is there once.

use std::collections::BTreeMap;

use highwater_core::testing::{Fault, FaultyStore};
use highwater_core::{ErrorKind, Result};

use super::*;
use crate::file::location::Location;
use crate::file::sink::folders::Folders;
use crate::file::sink::format::Format;
use crate::file::sink::ledger::Ledger;
use crate::file::sink::options::SinkOptions;
use crate::file::sink::target::Target;

/// What a query does: so many micro-batches, into two folders, with these options.
#[derive(Clone, Copy)]
struct Script {
    format: &'static str,
    batches: u64,
    options: &'static [(&'static str, &'static str)],
}

/// Micro-batch `id`; every fifth has no rows.
fn rows(id: u64) -> Vec<RecordBatch> {
    if id % 5 == 3 {
        return vec![];
    }
    let (a, b) = (format!("{id}-a"), format!("{id}-b"));
    vec![
        lines_of(&[("x", &a), ("y", &b)]),
        lines_of(&[("x", "same")]),
    ]
}

async fn start(
    world: &World,
    script: Script,
    attempt: u128,
    logged: Option<u64>,
) -> Result<Arc<dyn Sink>> {
    let mut spec = world.spec(script.format, &lines_schema(), Options::new());
    for (name, value) in script.options {
        spec.options.set(*name, *value);
    }
    spec.partition_by = vec!["k".into()];
    let sink = world.open(spec).await?;
    begin(&*sink, attempt, logged).await?;
    Ok(sink)
}

/// Runs the script; where it fails the process has died, and a new run does that micro-batch again. Says how often it failed.
async fn drive(world: &World, faulty: &FaultyStore, script: Script) -> Result<usize> {
    let (mut id, mut attempt) = (0, 0);
    let mut sink = None;
    while id < script.batches {
        let done = async {
            if sink.is_none() {
                // Its offsets are logged before it is written.
                sink = Some(start(world, script, attempt, Some(id)).await?);
            }
            match &sink {
                Some(sink) => write(&**sink, attempt, id, rows(id)).await.map(drop),
                None => Ok(()),
            }
        };
        if let Err(error) = done.await {
            // A store that is dead says that it has no right.
            let told = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unavailable);
            assert!(told, "{error:?}");
            faulty.heal();
            sink = None;
            attempt += 1;
            // The process died before it knew: the micro-batch before is not run again, this one is.
            continue;
        }
        id += 1;
    }
    Ok(usize::try_from(attempt).unwrap_or(usize::MAX))
}

fn count(lines: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

async fn visible(world: &World, script: Script) -> Result<BTreeMap<String, usize>> {
    if script.format == "text" {
        return Ok(count(world.lines().await?));
    }
    let schema = Arc::new(lines_schema().project(&[1])?);
    let batches = world.rows(script.format, &schema).await?;
    let mut lines = Vec::new();
    for batch in batches {
        let column = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let column = arrow::array::AsArray::as_string::<i32>(&column).clone();
        lines.extend(
            column
                .iter()
                .map(|line| line.unwrap_or_default().to_owned()),
        );
    }
    Ok(count(lines))
}

fn expected(script: Script) -> BTreeMap<String, usize> {
    let batches = (0..script.batches).filter(|id| id % 5 != 3);
    count(batches.flat_map(|id| [format!("{id}-a"), format!("{id}-b"), "same".to_owned()]))
}

/// A crash at the nth operation, for every n that there is; `step` leaves some out.
async fn every_crash(script: Script, step: usize) -> Result<usize> {
    let mut crashes = 0;
    for fault in [None, Some(Fault::Before), Some(Fault::After)] {
        let mut nth = 1;
        loop {
            let faulty = FaultyStore::new(Arc::new(InMemory::new()));
            let world = World::on(Arc::new(faulty.clone()));
            match fault {
                None => faulty.fail_from(nth),
                Some(fault) => faulty.fail(nth, fault),
            }
            drive(&world, &faulty, script).await?;
            let operations = faulty.operations().len() as u64;
            faulty.heal();
            let seen = visible(&world, script).await?;
            let what = format!(
                "{fault:?} at operation {nth}: {:?}",
                faulty.operations().get(nth as usize - 1)
            );
            assert_eq!(seen, expected(script), "{what}");
            if nth > operations {
                break;
            }
            crashes += 1;
            nth += step as u64;
        }
    }
    Ok(crashes)
}

#[tokio::test]
async fn a_crash_at_any_operation_doubles_and_loses_nothing() -> Result<()> {
    // Parquet takes long, so every third operation has to do.
    for (format, step) in [("text", 1), ("parquet", 3)] {
        let script = Script {
            format,
            batches: 12,
            options: &[],
        };
        let crashes = every_crash(script, step).await?;
        assert!(crashes > 100 / step, "{crashes}");
    }
    Ok(())
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_and_the_query_does_not_notice() -> Result<()> {
    let options = &[("compactEvery", "4")];
    for (format, batches, step) in [("text", 9, 1), ("parquet", 5, 2)] {
        let script = Script {
            format,
            batches,
            options,
        };
        let mut nth = 1;
        loop {
            let mut operations = 0;
            for fault in [Fault::Before, Fault::After] {
                let faulty = FaultyStore::new(Arc::new(InMemory::new()));
                faulty.transient(true);
                let world = World::trying(Arc::new(faulty.clone()), 4);
                faulty.fail(nth, fault);
                let deaths = drive(&world, &faulty, script).await?;
                operations = faulty.operations().len() as u64;
                if nth > operations {
                    // Nothing failed; the next operation would be this test's own.
                    continue;
                }
                let failed = faulty.operations().get(nth as usize - 1).cloned();
                let what = format!("{format}: {fault:?} at operation {nth}: {failed:?}");
                assert_eq!(deaths, 0, "{what}");
                assert_eq!(visible(&world, script).await?, expected(script), "{what}");
            }
            if nth > operations {
                break;
            }
            nth += step;
        }
        assert!(nth > 20, "{nth} operations");
    }
    Ok(())
}

#[tokio::test]
async fn nor_does_one_while_files_are_rolled_up() -> Result<()> {
    let options = &[("compactEvery", "4")];
    let script = Script {
        format: "text",
        batches: 25,
        options,
    };
    let crashes = every_crash(script, 1).await?;
    assert!(crashes > 300, "{crashes}");
    let script = Script {
        format: "parquet",
        batches: 13,
        options,
    };
    every_crash(script, 3).await?;
    Ok(())
}

#[tokio::test]
async fn rolling_up_keeps_the_number_of_files_small_and_deletes_what_it_replaced() -> Result<()> {
    for format in ["text", "csv", "json", "parquet"] {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        let world = World::on(Arc::new(faulty.clone()));
        let options = &[("compactEvery", "5")];
        let script = Script {
            format,
            batches: 40,
            options,
        };
        drive(&world, &faulty, script).await?;
        let named: BTreeSet<String> = world.named().await?.iter().map(path_of).collect();
        // 32 micro-batches with rows make 64 files; rolled up, sizes double, so each folder has at most one file
        // for each power of two, and those since the last compact entry: 2 × (6 + 5).
        assert!(named.len() <= 22, "{format}: {} files", named.len());
        let there = world.there().await?;
        assert!(named.is_subset(&there), "{format}");
        // What is there besides was replaced by the last compact entry, 39, whose list still waits for the next.
        let lists = Path::from("out/_spark_metadata/replaced");
        let lists = world.store.list_with_delimiter(Some(&lists)).await?.objects;
        let lists: Vec<_> = lists.iter().filter_map(|o| o.location.filename()).collect();
        assert!(lists == ["39"] || lists.is_empty(), "{format}: {lists:?}");
        assert!(there.len() - named.len() <= 22, "{format}");
        assert_eq!(visible(&world, script).await?, expected(script), "{format}");
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_lost_the_race_is_fenced_and_leaves_no_files() -> Result<()> {
    let world = World::new();
    let script = Script {
        format: "text",
        batches: 0,
        options: &[],
    };
    let loser = start(&world, script, 1, None).await?;
    let winner = start(&world, script, 2, None).await?;
    write(&*winner, 2, 0, rows(0)).await?;
    let there = world.there().await?;
    let error = write(&*loser, 1, 0, rows(0)).await.expect_err("fenced");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(world.there().await?, there);
    Ok(())
}

#[tokio::test]
async fn an_entry_that_was_written_and_whose_answer_was_lost_is_known_as_ours() -> Result<()> {
    // A store's client that asks again is told that the entry is there: then what it names tells whose it is.
    let world = World::new();
    let target = || -> Result<Target> {
        let mut options = Options::new();
        let location = Location::parse(OUT, world.session.runtime_env())?;
        let folders = Folders::new(&lines_schema(), &[])?;
        let shared = SinkOptions::take(&mut options)?;
        let format = Format::take("csv", &mut options)?;
        Ok(Target::new(location, format, folders, shared))
    };
    let (target, id) = (target()?, BatchId(0));
    let mut file = target.begin(run(1), "", 0).await?;
    file.write(&lines_of(&[("a", "1")])).await?;
    let path = file.path().clone();
    file.finish().await?;
    let written = target.lines(&[path]).await?;
    let mut before = Ledger::load(&target).await?;
    let mut first = Ledger::load(&target).await?;
    first
        .commit(&target, run(1), &world.clock, id, &written)
        .await?;
    let again = before.commit(&target, run(1), &world.clock, id, &written);
    let error = again.await.expect_err("the entry is there");
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(before.is_ours(&target, id, &written).await?);
    let mut others = written.clone();
    others[0].path.push('x');
    assert!(!before.is_ours(&target, id, &others).await?);
    // Micro-batches without rows cannot be told apart, so such a run stops.
    assert!(!before.is_ours(&target, id, &[]).await?);
    Ok(())
}
