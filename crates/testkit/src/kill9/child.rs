//! A worker process as its parent sees it: what it reports, how it is killed, how it ended.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use highwater::{Error, Result};

use super::worker::WorkerOptions;

/// A worker that says nothing for so long hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The exit code of a worker that lost its checkpoint to another one.
pub const FENCED: i32 = 3;

/// Reads the clock.
#[expect(
    clippy::disallowed_methods,
    reason = "processes are killed in real time; no query sees this clock"
)]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// A line of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A query has started: its checkpoint is claimed and its state restored.
    Started {
        /// The query.
        query: String,
    },
    /// A query has committed a micro-batch.
    Progress {
        /// The query.
        query: String,
        /// The micro-batch.
        batch: u64,
        /// Rows that were late.
        late: u64,
    },
}

impl Report {
    /// Reads a line; `None` for any other.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["started", query] => Some(Self::Started {
                query: query.to_owned(),
            }),
            ["progress", query, batch, late] => Some(Self::Progress {
                query: query.to_owned(),
                batch: batch.parse().ok()?,
                late: late.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// How a worker ended by itself.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote to its standard error.
    pub said: String,
}

impl Ended {
    fn unexpected(&self) -> Error {
        Error::internal(format!("the worker ended, {}: {}", self.status, self.said))
    }
}

/// How to start workers.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The program; its command `worker` runs [`work`](super::work).
    pub program: PathBuf,
    /// What the workers are told.
    pub options: WorkerOptions,
}

impl Starter {
    /// Starts a worker that goes on until it is killed.
    ///
    /// # Errors
    /// When the system starts no process.
    pub fn start(&self) -> Result<Child> {
        self.spawn(false)
    }

    /// Lets a worker process all that is there, to its own end.
    ///
    /// # Errors
    /// When it fails, or hangs.
    pub fn finish(&self) -> Result<()> {
        let mut child = self.spawn(true)?;
        let ended = child.ended()?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(ended.unexpected()),
        }
    }

    fn spawn(&self, available_now: bool) -> Result<Child> {
        let options = &self.options;
        let mut command = Command::new(&self.program);
        command.arg("worker").arg(&options.folder);
        command.args(["--sink", options.sink.name()]);
        if let Some(durability) = &options.durability {
            command.args(["--durability", durability]);
        }
        if let Some(retain) = options.retain {
            command.args(["--retain", &retain.to_string()]);
        }
        if available_now {
            command.arg("--available-now");
        }
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = now();
        let process = command.spawn()?;
        Ok(Child::new(process, started))
    }
}

/// A worker process; dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// When it was started.
    pub started: Instant,
    reports: Receiver<(Instant, Report)>,
    errors: Option<JoinHandle<String>>,
}

impl Child {
    fn new(mut process: Process, started: Instant) -> Self {
        let (sender, reports) = channel();
        let lines = process.stdout.take();
        thread::spawn(move || {
            let lines = lines
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines());
            for line in lines.map_while(|line| line.ok()) {
                let report = Report::parse(&line).map(|report| (now(), report));
                if report.is_some_and(|report| sender.send(report).is_err()) {
                    return;
                }
            }
        });
        let errors = process.stderr.take();
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut errors) = errors {
                // What could be read until then is what there is to say.
                let _ = errors.read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Self {
            process,
            started,
            reports,
            errors: Some(errors),
        }
    }

    /// The number of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a report until `until`; `None` when none came by then.
    ///
    /// # Errors
    /// When the worker has ended by itself, or a row was late: then the load is wrong, and no answer would be right.
    pub fn report_until(&mut self, until: Instant) -> Result<Option<(Instant, Report)>> {
        let left = until.saturating_duration_since(now());
        match self.reports.recv_timeout(left) {
            Ok((at, report)) => match report {
                Report::Progress { late, .. } if late > 0 => Err(Error::internal(format!(
                    "{late} rows of the load were late"
                ))),
                report => Ok(Some((at, report))),
            },
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()?.unexpected()),
        }
    }

    /// Waits for a report that `wanted` takes, and tells when it came.
    ///
    /// # Errors
    /// As for [`report_until`](Self::report_until); when none comes for two minutes.
    pub fn report(&mut self, mut wanted: impl FnMut(&Report) -> bool) -> Result<Instant> {
        let until = now() + PATIENCE;
        loop {
            match self.report_until(until)? {
                Some((at, report)) if wanted(&report) => return Ok(at),
                Some(_) => {}
                None => return Err(Error::internal("the worker hangs: no progress for long")),
            }
        }
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended by itself before.
    pub fn kill(mut self) -> Result<()> {
        if self.process.try_wait()?.is_some() {
            return Err(self.ended()?.unexpected());
        }
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it says nothing more, and does not end.
    pub fn ended(&mut self) -> Result<Ended> {
        loop {
            match self.reports.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::internal("the worker hangs: it does not end"));
                }
            }
        }
        let status = self.process.wait()?;
        let errors = self.errors.take().map(JoinHandle::join);
        let said = errors.and_then(|said| said.ok()).unwrap_or_default();
        Ok(Ended { status, said })
    }
}

impl Drop for Child {
    /// No worker outlives a proof that failed. One that is gone already is no error.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_worker_are_understood() {
        let progress = Report::Progress {
            query: "keys".into(),
            batch: 7,
            late: 0,
        };
        assert_eq!(Report::parse("progress keys 7 0"), Some(progress));
        assert_eq!(Report::parse("progress keys x 0"), None);
        assert_eq!(Report::parse("warming up"), None);
    }
}
