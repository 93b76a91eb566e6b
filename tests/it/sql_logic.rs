//! The `.slt` files of `tests/slt`, and the examples of `docs/sql.md`.

use std::path::{Path, PathBuf};

use highwater::StreamSession;
use highwater_slt::{run_file, run_markdown};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

async fn file(name: &str) {
    let path = project("tests/slt").join(name).with_extension("slt");
    if let Err(error) = run_file(path).await {
        panic!("{name}: {}", error.display(false));
    }
}

macro_rules! files {
    ($($name:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            file(stringify!($name)).await;
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
files!(batch, declare, running, spark, table_functions);

#[test]
fn every_file_is_run() {
    let files = std::fs::read_dir(project("tests/slt")).unwrap();
    for file in files {
        let name = file.unwrap().path();
        let name = name.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(NAMES.contains(&name.as_str()), "{name}.slt is not run");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_documentation_do_what_they_say() {
    let page = std::fs::read_to_string(project("docs/sql.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = run_markdown(&page, StreamSession::new(), folder.path()).await;
    match run {
        Ok(run) => assert!(run > 30, "only {run} statements were found"),
        Err(error) => panic!("docs/sql.md: {error}"),
    }
}
