//! The operations of one micro-batch, in their order: the table of `docs/recovery.md`.

use highwater_testkit::crash::drive::{begin, start};
use highwater_testkit::crash::proof::unnumbered;
use highwater_testkit::crash::target::Batches;
use highwater_testkit::crash::{Disk, FileScript, Setup, Subject};

use super::SEED;

/// What a micro-batch does, as the documentation lists it.
const DOCS: &str = include_str!("../../../docs/recovery.md");

#[tokio::test]
async fn a_micro_batch_does_what_the_documentation_says_in_that_order() {
    let (script, setup) = (
        FileScript::named("window-update", SEED).expect("a script"),
        Setup::new(Batches).setting("highwater.no_data_batches", "false"),
    );
    let disk = Disk::new();
    script.deliver(&disk, 0).await.unwrap();
    let process = begin(&script, &setup, &disk, true).await.unwrap();
    let query = start(&script, &setup, &disk, &process).await.unwrap();
    query.process_all_available().await.unwrap();
    let before = disk.faulty().operations().len();
    disk.lay(
        "in/one-more.json",
        "{\"ts\":\"2024-05-01 00:01:00\",\"k\":\"a\",\"v\":1}\n",
    )
    .await
    .unwrap();
    query.process_all_available().await.unwrap();
    query.stop().await.unwrap();
    let done = disk.faulty().operations();
    // Lists look for files and come as often as somebody asks; they change nothing.
    let done = done[before..].iter().filter(|o| !o.starts_with("list"));
    let done: Vec<String> = done.map(|operation| unnumbered(operation)).collect();
    let documented = DOCS
        .lines()
        .skip_while(|line| *line != "<!-- the operations of one micro-batch -->")
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(operation, _)| operation.to_owned());
    let documented: Vec<String> = documented.take(done.len()).collect();
    assert_eq!(done, documented);
    assert!(done.len() > 6, "{done:?}");
}
