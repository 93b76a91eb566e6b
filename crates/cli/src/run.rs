//! `highwater run`: a script to its end, and until all queries that it started have ended.
//!
//! ```text
//!  script ─► statement by statement ─► all queries ended ─► 0
//!                │ a statement or a query fails    ─► stop what runs ─► say what ran ─► 1
//!                └ Ctrl-C, SIGTERM, nobody reads   ─► stop what runs ─► 130
//! ```

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use highwater::script::{Script, Statement};
use highwater::{Error, Result, Trigger};

use crate::errors::{Source, render};
use crate::output::{Format, Printer, Screen};
use crate::progress::{Board, Mode};
use crate::session::{self, Dialect};
use crate::signals::Interrupt;
use crate::statement::Runner;
use crate::{Exit, usage};

/// Runs a script of SQL statements to its end, and until all streaming queries it started have ended.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The script; `-` reads the standard input
    #[arg(value_name = "FILE", required_unless_present = "command")]
    file: Option<PathBuf>,
    /// The script itself
    #[arg(
        short = 'c',
        long,
        value_name = "SQL",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    command: Option<String>,
    /// Variables: `${NAME}` in the script stands for the value; the environment comes after these
    #[arg(last = true, value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Prints results and errors only
    #[arg(short, long)]
    quiet: bool,
    /// When a streaming SELECT that stands alone runs: `available now` ends with what is there, `5 seconds`, `once`
    #[arg(long, value_name = "TRIGGER", value_parser = trigger)]
    trigger: Option<Trigger>,
    /// Whose meaning SQL has
    #[arg(long, value_enum, default_value_t)]
    dialect: Dialect,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is given as NAME=VALUE".to_owned()),
    }
}

fn trigger(text: &str) -> Result<Trigger, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

/// Runs the script.
pub(crate) async fn run(args: RunArgs) -> Exit {
    let (name, text) = match read(&args) {
        Ok(script) => script,
        Err(said) => return usage(&said),
    };
    let live = !args.quiet && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let screen = Arc::new(Screen::new(live));
    let given: HashMap<String, String> = args.variables.iter().cloned().collect();
    let variables = |name: &str| {
        given
            .get(name)
            .cloned()
            .or_else(|| std::env::var(name).ok())
    };
    let script = Script::parse(&text, variables);
    let script = script.map_err(hint_variables);
    let opened = script.and_then(|script| Ok((script, Job::open(&args, &name, &text, &screen)?)));
    match opened {
        Ok((script, job)) => job.run(&script).await,
        Err(error) => {
            let source = Source {
                name: &name,
                text: &text,
                statement: None,
            };
            screen.note(&render(&error, Some(source), Screen::coloured()));
            Exit::Failed
        }
    }
}

/// How a variable gets a value here.
fn hint_variables(error: Error) -> Error {
    match error.hint().map(str::to_owned) {
        Some(hint) if hint.starts_with("give it one") => error.with_hint(hint.replacen(
            "give it one",
            "give it one after `--`: `-- name=value`",
            1,
        )),
        _ => error,
    }
}

/// The name and the text of the script.
fn read(args: &RunArgs) -> Result<(String, String), String> {
    if let Some(text) = &args.command {
        return Ok(("-c".to_owned(), text.clone()));
    }
    let file = args.file.clone().unwrap_or_default();
    let name = file.display().to_string();
    let read = match name.as_str() {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            return match read {
                Ok(_) => Ok(("stdin".to_owned(), text)),
                Err(e) => Err(format!("the standard input cannot be read: {e}")),
            };
        }
        _ => std::fs::read_to_string(&file),
    };
    match read {
        Ok(text) => Ok((name, text)),
        Err(e) => Err(format!("the script `{name}` cannot be read: {e}")),
    }
}

/// A script that runs.
struct Job<'a> {
    name: &'a str,
    text: &'a str,
    runner: Runner,
    board: Arc<Board>,
    interrupt: Interrupt,
    quiet: bool,
}

/// Why a script does not go on.
enum Halt {
    /// A statement failed, or a query; which statement it was, counted from 0.
    Failed(Error, usize),
    /// Somebody wants it to stop.
    Interrupted,
}

impl<'a> Job<'a> {
    fn open(args: &RunArgs, name: &'a str, text: &'a str, screen: &Arc<Screen>) -> Result<Self> {
        let interrupt = Interrupt::listen(true)?;
        let printer = Arc::new(Printer::new(Arc::clone(screen), args.format));
        let session = session::open(&printer, args.dialect)?;
        let mode = match (args.quiet, screen.bars()) {
            (true, _) => Mode::Silent,
            (false, Some(_)) => Mode::Live,
            (false, None) => Mode::Json,
        };
        Ok(Self {
            name,
            text,
            board: Board::watch(&session, screen, mode),
            runner: Runner::new(session, printer, args.trigger),
            interrupt,
            quiet: args.quiet,
        })
    }

    async fn run(&self, script: &Script) -> Exit {
        let statements = script.statements();
        let ran = tokio::select! {
            ran = self.statements(statements) => ran,
            () = self.interrupt.any() => Err(Halt::Interrupted),
            () = self.screen().gone() => Err(Halt::Interrupted),
        };
        match ran {
            Ok(()) => Exit::Fine,
            // A query that could not print is no news when nobody reads.
            Err(_) if self.screen().is_gone() => self.interrupted().await,
            Err(Halt::Interrupted) => self.interrupted().await,
            Err(Halt::Failed(error, statement)) => {
                self.failed(&error, statement, statements).await;
                Exit::Failed
            }
        }
    }

    fn screen(&self) -> &Screen {
        &self.runner.printer().screen
    }

    async fn statements(&self, statements: &[Statement]) -> Result<(), Halt> {
        for (number, statement) in statements.iter().enumerate() {
            self.board.begin(number);
            let done = self.runner.run(statement.text()).await;
            done.map_err(|error| Halt::Failed(statement.locate(error), number))?;
            self.queries()?;
        }
        self.board.ended_or_failed().await;
        self.queries()
    }

    /// Tells when a query has failed meanwhile.
    fn queries(&self) -> Result<(), Halt> {
        match self.board.take_failed().into_iter().next() {
            Some(failed) => Err(Halt::Failed(failed.error, failed.statement)),
            None => Ok(()),
        }
    }

    async fn interrupted(&self) -> Exit {
        let stopped = self.stop().await;
        if !self.quiet && !self.screen().is_gone() {
            self.screen()
                .note(&format!("interrupted{}", said("; ", &stopped)));
        }
        Exit::Interrupted
    }

    /// Stops what runs, and says what is wrong and what ran.
    async fn failed(&self, error: &Error, statement: usize, statements: &[Statement]) {
        // The error of a query may be known to the one who waits before it is on the board.
        let stopped = self.stop().await;
        let source = Source {
            name: self.name,
            text: self.text,
            statement: statements.get(statement).map(Statement::position),
        };
        let screen = self.screen();
        screen.note(&render(error, Some(source), Screen::coloured()));
        for other in self.board.take_failed() {
            if other.error.message() != error.message() {
                screen.note(&render(&other.error, None, Screen::coloured()));
            }
        }
        let (at, all) = (self.board.statement(), statements.len());
        let ran = match at {
            0 => "no statement before it ran".to_owned(),
            1 => format!("the first of {all} statements ran"),
            _ => format!("the first {at} of {all} statements ran"),
        };
        if all > 1 || !stopped.is_empty() {
            screen.note(&format!("note: {ran}{}", said("; ", &stopped)));
        }
    }

    /// Stops all queries, each after its micro-batch; what was stopped.
    async fn stop(&self) -> Vec<String> {
        let queries = self.runner.session().streams();
        let active = queries.active();
        if let Err(error) = queries.stop_all().await {
            self.screen()
                .note(&render(&error, None, Screen::coloured()));
        }
        self.board.ended().await;
        let stopped = active.iter().map(|query| {
            let name = query.name().unwrap_or("a query without a name");
            match query.last_progress() {
                Some(progress) => format!("{name} (after batch {})", progress.batch_id),
                None => format!("{name} (before its first batch)"),
            }
        });
        stopped.collect()
    }
}

/// `; stopped a, b`, or nothing.
fn said(before: &str, stopped: &[String]) -> String {
    match stopped {
        [] => String::new(),
        stopped => format!("{before}stopped {}", stopped.join(", ")),
    }
}
