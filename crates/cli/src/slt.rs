//! `highwater test`: files of SQL logic tests, streaming statements included.

use std::path::PathBuf;

use clap::Args;

use crate::Exit;
use crate::output::Screen;

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files in the format of sqllogictest; `process` advances the running queries
    #[arg(required = true, value_name = "FILE.slt")]
    files: Vec<PathBuf>,
}

/// Runs every file, each with a session of its own, and tells of each how it went.
pub(crate) async fn test(args: TestArgs) -> Exit {
    let screen = Screen::new(false);
    let mut exit = Exit::Fine;
    for file in &args.files {
        match highwater_slt::run_file(file).await {
            Ok(()) => screen.note(&format!("ok: {}", file.display())),
            Err(error) => {
                screen.note(&format!("error: {}", error.display(false)));
                exit = Exit::Failed;
            }
        }
    }
    exit
}
