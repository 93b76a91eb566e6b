//! The `highwater` command: scripts of SQL over streams, a shell, and looks into checkpoints.
//!
//! ```text
//!  run.rs ───┐                              ┌─► statement.rs ─► output.rs, sinks.rs, table.rs   stdout
//!  shell.rs ─┴─► session.rs (stores.rs) ────┼─► progress.rs, live.rs                            stderr
//!  status.rs ─► checkpoints                 └─► errors.rs                                       stderr
//! ```
//! **Architecture invariant:** only this package prints. Results go to the standard output, and nothing else does.

mod complete;
mod errors;
mod live;
mod output;
mod progress;
mod run;
mod session;
mod shell;
mod signals;
mod sinks;
mod slt;
mod statement;
mod status;
mod stores;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What the process ends with when it was interrupted, as shells count it.
pub(crate) const INTERRUPTED: u8 = 130;

const CODES: &str = "\
Exit codes:
  0    all went well
  1    a statement or a query failed
  2    the command was called wrongly
  130  it was interrupted: Ctrl-C, SIGTERM, or nobody reads its output any more

Results go to the standard output. Progress and errors go to the standard error: on a terminal a
line for each query that moves, else a line of JSON for each micro-batch (Spark's progress).";

/// SQL over streams: runs scripts, and looks into the checkpoints of queries.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, after_help = CODES, after_long_help = CODES)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs a script of SQL statements to its end, and until all queries it started have ended
    #[command(after_help = CODES, after_long_help = CODES)]
    Run(run::RunArgs),
    /// Runs statements as they are typed
    Shell(shell::ShellArgs),
    /// Tells how far the query of a checkpoint has come
    Status(status::StatusArgs),
    /// Prints or exports the state that a query keeps in its checkpoint
    State(status::StateArgs),
    /// Prints the log of micro-batches of a checkpoint
    Replay(status::ReplayArgs),
    /// Runs files of SQL logic tests
    Test(slt::TestArgs),
}

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Fine,
    Failed,
    Usage,
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Interrupted => INTERRUPTED,
        })
    }
}

/// Says what is wrong with how the command was called.
pub(crate) fn usage(said: &str) -> Exit {
    output::Screen::new(false).note(&format!("error: {said}"));
    Exit::Usage
}

fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            usage(&format!("the system gives no threads: {error}"));
            return Exit::Failed.into();
        }
    };
    let exit = match command.what {
        What::Run(args) => runtime.block_on(run::run(args)),
        What::Shell(args) => shell::shell(&runtime, &args),
        What::Status(args) => runtime.block_on(status::status(args)),
        What::State(args) => runtime.block_on(status::state(args)),
        What::Replay(args) => runtime.block_on(status::replay(args)),
        What::Test(args) => runtime.block_on(slt::test(args)),
    };
    // What still runs is given up: all that counts is stopped by now.
    runtime.shutdown_background();
    exit.into()
}
