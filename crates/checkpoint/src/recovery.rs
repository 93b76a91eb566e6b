//! Where a query goes on: a pure function from what the two logs hold.
//!
//! ```text
//!   last offsets   last commit     then
//!   none           none            Fresh        nothing was ever intended
//!   N              N               After(N)     all that was intended is done
//!   N              N−1             Rerun(N)     N was intended, and must run again just so
//!   0              none            Rerun(0)
//!   anything else                  Corrupt      the logs contradict each other
//! ```

use highwater_core::{BatchId, Error, Result};

use crate::{CommitEntry, OffsetsEntry};

/// What a run does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It begins with micro-batch 0.
    Fresh,
    /// It runs this micro-batch again, with the ranges, watermarks and batch time that are logged.
    Rerun {
        /// The micro-batch that was intended but is not done.
        batch: BatchId,
    },
    /// It goes on with the micro-batch after this one.
    After {
        /// The last micro-batch, which is done.
        batch: BatchId,
    },
}

/// What a run finds in its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// What to do first.
    pub resume: Resume,
    /// The offsets entry of the micro-batch in `resume`; `None` when fresh.
    pub offsets: Option<OffsetsEntry>,
    /// The last commit entry; `None` when nothing is done yet.
    pub commit: Option<CommitEntry>,
    /// The offsets entry of the micro-batch before the one in `resume`; `None` when there is none.
    pub previous: Option<OffsetsEntry>,
}

/// Decides where to go on.
///
/// # Errors
/// `Corrupt` when the logs contradict each other: a micro-batch that is done but was never intended,
/// or more than one that is intended but not done.
pub fn resume(last_offsets: Option<BatchId>, last_commit: Option<BatchId>) -> Result<Resume> {
    match (last_offsets, last_commit) {
        (None, None) => Ok(Resume::Fresh),
        (Some(batch), done) if done == Some(batch) => Ok(Resume::After { batch }),
        (Some(batch), done) if done == batch.previous() => Ok(Resume::Rerun { batch }),
        (None, Some(done)) => Err(contradiction(&format!(
            "`commits/{done}` is there, but `offsets/{done}` is not: `offsets` is empty"
        ))),
        (Some(intended), Some(done)) if done > intended => Err(contradiction(&format!(
            "`commits/{done}` is there, but `offsets/{done}` is not: the last entry is {intended}"
        ))),
        (Some(intended), _) => Err(contradiction(&format!(
            "`offsets/{intended}` is there, but `commits/{}` is not",
            intended.0 - 1
        ))),
    }
}

/// Refuses a log that lacks an entry between its first and its last.
///
/// # Errors
/// `Corrupt`, naming the first entry that is missing.
pub fn check_unbroken(log: &str, ids: &[BatchId]) -> Result<()> {
    match ids
        .iter()
        .zip(ids.iter().skip(1))
        .find(|(id, next)| id.next() != **next)
    {
        Some((id, _)) => Err(contradiction(&format!(
            "`{log}/{}` is missing, and later entries are there",
            id.next()
        ))),
        None => Ok(()),
    }
}

impl Resume {
    /// The micro-batch that runs next.
    #[must_use]
    pub fn next_batch(self) -> BatchId {
        match self {
            Self::Fresh => BatchId(0),
            Self::Rerun { batch } => batch,
            Self::After { batch } => batch.next(),
        }
    }

    /// The last micro-batch that is done: state is restored up to it.
    #[must_use]
    pub fn last_done(self) -> Option<BatchId> {
        self.next_batch().previous()
    }

    /// The last micro-batch that was intended, done or not.
    #[must_use]
    pub fn last_logged(self) -> Option<BatchId> {
        match self {
            Self::Fresh => None,
            Self::Rerun { batch } | Self::After { batch } => Some(batch),
        }
    }
}

fn contradiction(found: &str) -> Error {
    Error::corrupt(format!("the checkpoint contradicts itself: {found}")).with_hint(
        "restore the checkpoint from a copy, or start the query with a new checkpoint location",
    )
}

#[cfg(test)]
mod tests {
    use highwater_core::ErrorKind;

    use super::*;

    #[test]
    fn every_state_of_the_logs_has_one_answer() {
        let rerun = |n| Some(Resume::Rerun { batch: BatchId(n) });
        let after = |n| Some(Resume::After { batch: BatchId(n) });
        for (offsets, commits, expected) in [
            (None, None, Some(Resume::Fresh)),
            (Some(0), None, rerun(0)),
            (Some(0), Some(0), after(0)),
            (Some(1), Some(0), rerun(1)),
            (Some(1), Some(1), after(1)),
            (Some(7), Some(6), rerun(7)),
            (Some(7), Some(7), after(7)),
            (None, Some(0), None),
            (None, Some(3), None),
            (Some(1), None, None),
            (Some(5), None, None),
            (Some(0), Some(1), None),
            (Some(3), Some(4), None),
            (Some(2), Some(0), None),
            (Some(9), Some(7), None),
            (Some(0), Some(u64::MAX), None),
        ] {
            let found = resume(offsets.map(BatchId), commits.map(BatchId));
            match (&found, expected) {
                (Ok(found), Some(expected)) => assert_eq!(*found, expected),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Corrupt),
                _ => panic!("({offsets:?}, {commits:?}): {found:?}"),
            }
        }
    }

    #[test]
    fn a_contradiction_names_the_entry() {
        for (offsets, commits, named) in [
            (None, Some(3), "`commits/3`"),
            (Some(3), Some(4), "`commits/4`"),
            (Some(5), None, "`commits/4` is not"),
            (Some(9), Some(7), "`commits/8` is not"),
        ] {
            let error = resume(offsets.map(BatchId), commits.map(BatchId)).expect_err("refused");
            assert!(error.message().contains(named), "{error}");
        }
    }

    #[test]
    fn a_log_has_no_holes() {
        for (ids, missing) in [
            (&[][..], None),
            (&[0], None),
            (&[4, 5, 6], None),
            (&[0, 1, 3], Some("`commits/2` is missing")),
            (&[0, 4, 9], Some("`commits/1` is missing")),
        ] {
            let ids: Vec<BatchId> = ids.iter().copied().map(BatchId).collect();
            let found = check_unbroken("commits", &ids).err();
            match (found, missing) {
                (None, None) => {}
                (Some(error), Some(missing)) => assert!(error.message().contains(missing)),
                (found, _) => panic!("{ids:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn numbers_follow_from_the_answer() {
        let batch = BatchId(4);
        for (resume, next, done, logged) in [
            (Resume::Fresh, 0, None, None),
            (Resume::Rerun { batch: BatchId(0) }, 0, None, Some(0)),
            (Resume::Rerun { batch }, 4, Some(3), Some(4)),
            (Resume::After { batch }, 5, Some(4), Some(4)),
        ] {
            assert_eq!(resume.next_batch(), BatchId(next));
            assert_eq!(resume.last_done(), done.map(BatchId));
            assert_eq!(resume.last_logged(), logged.map(BatchId));
        }
    }
}
