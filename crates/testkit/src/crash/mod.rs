//! Proofs that nothing is lost and nothing doubled: a process dies at one I/O operation after the other, is started
//! again, and must come to what it would have come to.
//!
//! ```text
//!  Subject (what is asked, what comes)  ─┐
//!                                        ├─► Proof ──► drive: live, die at operation k, live again … ─► Ran
//!  Setup (sink, options, settings)      ─┘                              │
//!                                                    FaultyStore: checkpoint, source and sink,
//!                                                    counted as one sequence of operations
//! ```
//!
//! - [`disk`]: what survives a process, and the faulty store between it and the process.
//! - [`target`]: the sinks, and how to tell what they hold.
//! - [`scripts`]: queries over files that appear one by one.
//! - [`corpus`]: the conformance cases and random queries as subjects.
//! - [`drive`]: one subject through its lives.
//! - [`proof`]: crash points, chosen all or by a seed, and the comparison.
//! - [`fight`]: two processes and one checkpoint.
//! - [`damage`]: bit flips, cuts and mix-ups of the files of a checkpoint.

pub mod corpus;
pub mod damage;
pub mod disk;
pub mod drive;
pub mod fight;
pub mod proof;
pub mod scripts;
pub mod target;

use async_trait::async_trait;
use highwater::prelude::*;
use highwater::{Result, StreamSession};

use crate::conformance::run::Streams;

pub use disk::Disk;
pub use drive::{Death, Lives, Ran, drive};
pub use proof::{Proof, Tally};
pub use scripts::FileScript;
pub use target::{Disks, Output, Setup, Target};

/// A query, and what comes step by step.
///
/// A step is: something comes, and all that is there is processed.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Its name, for failures.
    fn name(&self) -> String;

    /// Its output mode.
    fn mode(&self) -> OutputMode;

    /// How many steps there are.
    fn steps(&self) -> usize;

    /// What comes with a step from outside of the process; done again, it changes nothing.
    ///
    /// # Errors
    /// The disk's.
    async fn deliver(&self, disk: &Disk, step: usize) -> Result<()>;

    /// What comes with a step inside of the process.
    ///
    /// # Errors
    /// When rows do not fit.
    fn feed(&self, process: &Process, step: usize) -> Result<()>;

    /// A process begins, with the disk under its URL and these settings.
    ///
    /// # Errors
    /// When the query is refused.
    async fn begin(&self, disk: &Disk, settings: &[(String, String)]) -> Result<Process>;
}

/// What lives in one process.
#[derive(Debug)]
pub struct Process {
    /// Its session.
    pub session: StreamSession,
    /// Its query, not started.
    pub frame: StreamFrame,
    /// Its streams in memory: they begin empty with every process.
    pub(crate) streams: Streams,
}

impl Process {
    /// A process without streams in memory.
    #[must_use]
    pub fn new(session: StreamSession, frame: StreamFrame) -> Self {
        Self {
            session,
            frame,
            streams: Streams::new(),
        }
    }
}
