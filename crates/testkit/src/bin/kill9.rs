//! Proofs with real processes: `kill9 proof`, `kill9 fight`; and the process that is killed, `kill9 worker`.
//!
//! A proof ends with 0 when everything is exact, with 1 and the difference when not. See `docs/proofs.md`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command prints"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use highwater::{Error, ErrorKind, Result};
use highwater_testkit::kill9::child::FENCED;
use highwater_testkit::kill9::proof::Workplace;
use highwater_testkit::kill9::{FightOptions, ProofOptions, WorkerOptions, fight, proof, work};

const USAGE: &str = "usage:
  kill9 proof [--runs 100] [FLAGS]   kills a worker so often, and compares what it wrote
  kill9 fight [--rounds 3] [FLAGS]   lets workers take over from each other
  kill9 worker DIR [FLAGS]           the worker
flags: --seed N  --rows N (for each run)  --pace MS (a file so often)  --dir DIR  --sink foreach|parquet
       --durability process|fsync  --retain N (micro-batches)  --available-now (worker)";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match arguments.run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            match error.kind() {
                ErrorKind::Fenced => ExitCode::from(FENCED.unsigned_abs() as u8),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// What the command line says.
struct Arguments {
    command: String,
    count: Option<u64>,
    seed: u64,
    rows: u64,
    pace: Duration,
    folder: Option<PathBuf>,
    worker: WorkerOptions,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let command = words.next();
        let mut arguments = Self {
            command: command.ok_or_else(|| Error::invalid("no command given"))?,
            count: None,
            seed: 1,
            rows: 20_000,
            pace: Duration::from_millis(4),
            folder: None,
            worker: WorkerOptions::default(),
        };
        while let Some(word) = words.next() {
            arguments.take(&word, &mut words)?;
        }
        Ok(arguments)
    }

    fn take(&mut self, word: &str, words: &mut impl Iterator<Item = String>) -> Result<()> {
        let mut value = || {
            let value = words.next();
            value.ok_or_else(|| Error::invalid(format!("`{word}` needs a value")))
        };
        match word {
            "--runs" | "--rounds" => self.count = Some(number(&value()?)?),
            "--seed" => self.seed = number(&value()?)?,
            "--rows" => self.rows = number(&value()?)?,
            "--pace" => self.pace = Duration::from_millis(number(&value()?)?),
            "--dir" => self.folder = Some(value()?.into()),
            "--sink" => self.worker.sink = value()?.parse()?,
            "--durability" => self.worker.durability = Some(value()?),
            "--retain" => self.worker.retain = Some(number(&value()?)?),
            "--available-now" => self.worker.available_now = true,
            flag if flag.starts_with('-') => {
                return Err(Error::invalid(format!("unknown flag `{flag}`")));
            }
            folder => self.folder = Some(folder.into()),
        }
        Ok(())
    }

    async fn run(self) -> Result<bool> {
        match self.command.as_str() {
            "worker" => self.work().await,
            "proof" | "fight" => self.prove().await,
            other => Err(Error::invalid(format!(
                "unknown command `{other}`\n{USAGE}"
            ))),
        }
    }

    async fn work(mut self) -> Result<bool> {
        let folder = self.folder.take();
        self.worker.folder = folder.ok_or_else(|| Error::invalid("the worker needs a folder"))?;
        work(self.worker, |line| println!("{line}")).await?;
        Ok(true)
    }

    /// A proof in the folder that was given, or in one of its own, which stays when the proof fails.
    async fn prove(mut self) -> Result<bool> {
        let own = match self.folder.take() {
            Some(folder) => {
                self.worker.folder = folder;
                None
            }
            None => {
                let own = Workplace::new()?;
                self.worker.folder = own.path().to_owned();
                Some(own)
            }
        };
        let exact = self.by_name().await;
        if let (Ok(false) | Err(_), Some(own)) = (&exact, own) {
            println!("all files are kept in {}", own.keep().display());
        }
        exact
    }

    async fn by_name(self) -> Result<bool> {
        let program = std::env::current_exe()?;
        let (seed, rows, pace, worker) = (self.seed, self.rows, self.pace, self.worker);
        let say = |line: &str| println!("{line}");
        if self.command == "fight" {
            let rounds = self.count.unwrap_or(3);
            let options = FightOptions {
                program,
                rounds,
                seed,
                rows,
                pace,
                worker,
            };
            return fight(&options, &say).await;
        }
        let runs = self.count.unwrap_or(100);
        let options = ProofOptions {
            program,
            runs,
            seed,
            rows,
            pace,
            worker,
        };
        proof(&options, &say).await
    }
}

fn number(text: &str) -> Result<u64> {
    let number = text.parse();
    number.map_err(|e| Error::invalid(format!("`{text}` is no number")).with_source(e))
}
