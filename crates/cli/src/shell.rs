//! `highwater shell`: statements as they are typed.
//!
//! A statement ends with `;` and may have several lines. Ctrl-C gives up what runs, Ctrl-D leaves. Streaming queries go
//! on while the user types; what they print stands above the prompt. Leaving stops them.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use clap::Args;
use highwater::script::{Script, Statement};
use highwater::{Clock, Error, Result, SystemClock};
use parking_lot::RwLock;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor, ExternalPrinter};
use tokio::runtime::Runtime;

use crate::Exit;
use crate::complete::{Guide, Names, is_whole, tables_of};
use crate::errors::{Paint, Source, render};
use crate::live::length;
use crate::output::{Format, Printer, Screen, Shown, counted};
use crate::progress::{Board, Mode};
use crate::session::{self, Dialect};
use crate::signals::Interrupt;
use crate::statement::Runner;

const HELP: &str = "\
  SELECT …;          runs a statement; it ends with `;` and may have several lines
  \\d                 tables and views
  \\d NAME            the columns of a table
  \\s                 streaming queries that run
  \\f FORMAT          how rows are printed: table, json, csv
  \\i FILE            runs the statements of a file
  \\?                 this help
  \\q                 leaves and stops the streaming queries; so does Ctrl-D
  Ctrl-C gives up the statement that runs; Tab completes words, tables and columns.";

/// Runs statements as they are typed.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// How rows are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Whose meaning SQL has
    #[arg(long, value_enum, default_value_t)]
    dialect: Dialect,
}

/// Runs the shell.
pub(crate) fn shell(runtime: &Runtime, args: &ShellArgs) -> Exit {
    let typed = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let screen = Arc::new(Screen::new(typed && std::io::stderr().is_terminal()));
    let opened = runtime.block_on(async { Shell::open(args, &screen, typed) });
    let shell = match opened {
        Ok(shell) => shell,
        Err(error) => {
            screen.note(&render(&error, None, Screen::coloured()));
            return Exit::Failed;
        }
    };
    let exit = match typed {
        true => shell.type_in(runtime),
        false => shell.read_in(runtime),
    };
    runtime.block_on(shell.leave());
    exit
}

struct Shell {
    runner: Runner,
    board: Arc<Board>,
    interrupt: Interrupt,
    names: Arc<RwLock<Names>>,
    typed: bool,
}

/// What a line asks for.
enum Next {
    Go,
    Failed,
    Leave,
}

impl Shell {
    fn open(args: &ShellArgs, screen: &Arc<Screen>, typed: bool) -> Result<Self> {
        let interrupt = Interrupt::listen(false)?;
        let printer = Arc::new(Printer::new(Arc::clone(screen), args.format));
        let session = session::open(&printer, args.dialect)?;
        let mode = match screen.bars() {
            Some(_) => Mode::Live,
            None => Mode::Silent,
        };
        Ok(Self {
            board: Board::watch(&session, screen, mode),
            runner: Runner::new(session, printer, None),
            interrupt,
            names: Arc::default(),
            typed,
        })
    }

    fn screen(&self) -> &Screen {
        &self.runner.printer().screen
    }

    /// Reads what a person types.
    fn type_in(&self, runtime: &Runtime) -> Exit {
        let config = Config::builder().auto_add_history(false).build();
        let mut editor: Editor<Guide, DefaultHistory> = match Editor::with_config(config) {
            Ok(editor) => editor,
            Err(error) => {
                self.screen()
                    .note(&format!("error: the terminal cannot be used: {error}"));
                return Exit::Failed;
            }
        };
        editor.set_helper(Some(Guide(Arc::clone(&self.names))));
        let history = history();
        if let Some(history) = &history {
            // The first time there is none.
            let _ = editor.load_history(history);
        }
        let hello = "highwater shell: statements end with `;`, \\? helps, \\q leaves";
        self.screen().note(&Paint(Screen::coloured()).dim(hello));
        loop {
            *self.names.write() = runtime.block_on(Names::of(self.runner.session()));
            self.screen().set_prompt(above(&mut editor));
            let line = editor.readline("highwater> ");
            self.screen().set_prompt(None);
            let line = match line {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Exit::Fine,
                Err(error) => {
                    self.screen()
                        .note(&format!("error: the terminal cannot be read: {error}"));
                    return Exit::Failed;
                }
            };
            if !line.trim().is_empty() {
                // A history that cannot be kept is no reason to stop.
                let _ = editor.add_history_entry(line.trim());
                if let Some(history) = &history {
                    let _ = editor.append_history(history);
                }
            }
            if matches!(runtime.block_on(self.line(&line)), Next::Leave) {
                return Exit::Fine;
            }
        }
    }

    /// Reads the standard input to its end.
    fn read_in(&self, runtime: &Runtime) -> Exit {
        let (mut exit, mut text) = (Exit::Fine, String::new());
        let mut lines = std::io::stdin().lock().lines();
        loop {
            let line = lines.next();
            let last = line.is_none();
            match line {
                Some(Ok(line)) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Some(Err(error)) => {
                    self.screen()
                        .note(&format!("error: the standard input: {error}"));
                    return Exit::Failed;
                }
                None => {}
            }
            if last || is_whole(&text) {
                match runtime.block_on(self.line(&std::mem::take(&mut text))) {
                    Next::Go => {}
                    Next::Failed => exit = Exit::Failed,
                    Next::Leave => return exit,
                }
            }
            if self.screen().is_gone() {
                return Exit::Interrupted;
            }
            if last {
                return exit;
            }
        }
    }

    async fn line(&self, line: &str) -> Next {
        let line = line.trim();
        let done = match line.strip_prefix('\\') {
            Some(order) => return self.order(order).await,
            None => self.statements("typed", line).await,
        };
        for failed in self.board.take_failed() {
            self.tell(&failed.error);
        }
        match done {
            true => Next::Go,
            false => Next::Failed,
        }
    }

    fn tell(&self, error: &Error) {
        self.screen().note(&render(error, None, Screen::coloured()));
    }

    /// Runs statements until one fails; false when one did.
    async fn statements(&self, name: &str, text: &str) -> bool {
        let script = match Script::parse(text, |name| std::env::var(name).ok()) {
            Ok(script) => script,
            Err(error) => {
                self.wrong(&error, name, text, None);
                return false;
            }
        };
        for statement in script.statements() {
            if let Err(error) = self.statement(statement).await {
                let error = statement.locate(error);
                self.wrong(&error, name, text, Some(statement));
                return false;
            }
        }
        true
    }

    fn wrong(&self, error: &Error, name: &str, text: &str, statement: Option<&Statement>) {
        let source = Source {
            name,
            text,
            statement: statement.map(Statement::position),
        };
        let text = render(error, Some(source), Screen::coloured());
        self.screen().note(&text);
    }

    async fn statement(&self, statement: &Statement) -> Result<()> {
        let clock = SystemClock;
        let began = clock.now();
        let printed = tokio::select! {
            printed = self.runner.run(statement.text()) => printed?,
            () = self.interrupt.next() => {
                self.runner.cancel().await?;
                self.screen().note("given up");
                return Ok(());
            }
        };
        if self.typed {
            let took = length(clock.now().since(began));
            let said = match printed {
                Some(rows) => format!("{} in {took}", counted(rows, "row")),
                None => format!("done in {took}"),
            };
            self.screen().note(&Paint(Screen::coloured()).dim(&said));
        }
        Ok(())
    }

    /// An order to the shell, without its backslash.
    async fn order(&self, order: &str) -> Next {
        let (order, rest) = order.split_once(char::is_whitespace).unwrap_or((order, ""));
        let rest = rest.trim().trim_end_matches(';').trim();
        let done = match (order.trim_end_matches(';'), rest) {
            ("q", "") => return Next::Leave,
            ("?", "") => {
                self.screen().note(HELP);
                Ok(())
            }
            ("d", "") => self.tables().await,
            ("d", name) => self.columns(name).await,
            ("s", "") => self.queries(),
            ("f", format) => self.format(format),
            ("i", file) if !file.is_empty() => match std::fs::read_to_string(file) {
                Ok(text) if self.statements(file, &text).await => Ok(()),
                Ok(_) => return Next::Failed,
                Err(error) => Err(Error::from(error).context(file)),
            },
            _ => Err(
                Error::invalid(format!("there is no order `\\{order} {rest}`"))
                    .with_hint("\\? tells what there is"),
            ),
        };
        match done {
            Ok(()) => Next::Go,
            Err(error) => {
                self.tell(&error);
                Next::Failed
            }
        }
    }

    fn format(&self, format: &str) -> Result<()> {
        let parsed = <Format as clap::ValueEnum>::from_str(format, true);
        let parsed = parsed.map_err(|_| {
            Error::invalid(format!("there is no format `{format}`"))
                .with_hint("the formats are table, json and csv")
        })?;
        self.runner.printer().set_format(parsed);
        Ok(())
    }

    fn print(&self, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
        let rows = RecordBatch::try_from_iter(columns)?;
        let printer = self.runner.printer();
        match printer.format() {
            Format::Table => printer.table(&rows.schema(), std::slice::from_ref(&rows), Shown::ALL),
            _ => {
                printer.begin(&rows.schema())?;
                printer.rows(&rows)
            }
        }
    }

    async fn tables(&self) -> Result<()> {
        let names = tables_of(self.runner.session());
        let mut kinds = Vec::new();
        for name in &names {
            let frame = self.runner.session().table(name.as_str()).await?;
            kinds.push(if frame.is_streaming() {
                "stream"
            } else {
                "table"
            });
        }
        self.print(vec![
            ("name", Arc::new(StringArray::from(names))),
            ("kind", Arc::new(StringArray::from(kinds))),
        ])
    }

    async fn columns(&self, table: &str) -> Result<()> {
        let frame = self.runner.session().table(table).await?;
        let fields = frame.schema().fields();
        let names = fields.iter().map(|field| Some(field.name().clone()));
        let types = fields
            .iter()
            .map(|field| Some(field.data_type().to_string()));
        let nullable = fields.iter().map(|field| Some(field.is_nullable()));
        self.print(vec![
            ("column", Arc::new(names.collect::<StringArray>())),
            ("type", Arc::new(types.collect::<StringArray>())),
            ("nullable", Arc::new(nullable.collect::<BooleanArray>())),
        ])
    }

    fn queries(&self) -> Result<()> {
        let queries = self.runner.session().streams().active();
        let names = queries
            .iter()
            .map(|q| Some(q.name().unwrap_or("").to_owned()));
        let ids = queries.iter().map(|q| Some(q.id().to_string()));
        let batches = queries
            .iter()
            .map(|q| Some(q.last_progress()?.batch_id.to_string()));
        let status = queries.iter().map(|q| Some(q.status().message));
        self.print(vec![
            ("name", Arc::new(names.collect::<StringArray>())),
            ("last batch", Arc::new(batches.collect::<StringArray>())),
            ("status", Arc::new(status.collect::<StringArray>())),
            ("id", Arc::new(ids.collect::<StringArray>())),
        ])
    }

    /// Stops what runs.
    async fn leave(&self) {
        let queries = self.runner.session().streams();
        if queries.active().is_empty() {
            return;
        }
        if self.typed {
            self.screen().note("stopping the streaming queries");
        }
        let stopped = tokio::select! {
            stopped = queries.stop_all() => stopped,
            () = self.interrupt.next() => Ok(()),
        };
        if let Err(error) = stopped {
            self.tell(&error);
        }
    }
}

/// Writes above the line that is being typed.
fn above(editor: &mut Editor<Guide, DefaultHistory>) -> Option<crate::output::Prompt> {
    let mut printer = editor.create_external_printer().ok()?;
    Some(Box::new(move |text| {
        // Where the terminal is gone nobody can be told.
        let _ = printer.print(text);
    }))
}

/// Where what was typed is kept; `HIGHWATER_HISTORY` names another file, and an empty one none.
fn history() -> Option<PathBuf> {
    match std::env::var_os("HIGHWATER_HISTORY") {
        Some(file) if file.is_empty() => None,
        Some(file) => Some(PathBuf::from(file)),
        None => Some(PathBuf::from(std::env::var_os("HOME")?).join(".highwater_history")),
    }
}
