//! What the commits that are still there name: state files, and snapshots by rotation. Pure facts and choices.
//!
//! ```text
//!  rotation 4   parts 0-2 as of 12   parts 2-3 as of 15   part 3-4 as of 16
//!  commits      … 12  13*  14  15  16*  17*  18 …          * names a snapshot
//!               first ─┘                  └─ since
//! ```
//! At 17 or later the state is: parts 0-2, what 13 to 15 changed, part 2-3, what 16 changed, part 3-4, what 17 and
//! the later ones changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_core::BatchId;

use crate::entries::{CommitEntry, SnapshotEntry};

/// What the commits name, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The state file of each micro-batch.
    states: VecDeque<(BatchId, Option<String>)>,
    /// The snapshots, and the micro-batch whose commit names each.
    snapshots: Vec<(BatchId, SnapshotEntry)>,
    /// Rotations of which a file is missing or damaged.
    damaged: BTreeSet<u64>,
}

/// A pass over the whole state that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) number: u64,
    /// The micro-batch that its first part is as of: what came after it is needed.
    pub(crate) first: BatchId,
    /// The micro-batch whose commit named the last of its files: from it on the rotation may be used.
    pub(crate) since: BatchId,
    /// The micro-batch that its last part is as of.
    pub(crate) last: BatchId,
    /// Its files, by the parts in them.
    pub(crate) files: Vec<SnapshotEntry>,
}

impl History {
    /// Micro-batch `id` is done, as `commit` says.
    pub(crate) fn push(&mut self, id: BatchId, commit: &CommitEntry) {
        self.states.push_back((id, commit.state.clone()));
        let named = commit.snapshots.iter().cloned();
        self.snapshots.extend(named.map(|snapshot| (id, snapshot)));
    }

    /// A rotation cannot be used.
    pub(crate) fn set_damaged(&mut self, rotation: u64) {
        self.damaged.insert(rotation);
    }

    /// The first micro-batch whose commit is still there.
    pub(crate) fn first(&self) -> Option<BatchId> {
        self.states.front().map(|(id, _)| *id)
    }

    /// The state files of the micro-batches after `after`.
    pub(crate) fn states_after(
        &self,
        after: Option<BatchId>,
    ) -> impl Iterator<Item = &(BatchId, Option<String>)> {
        let states = self.states.iter();
        states.filter(move |(id, _)| after.is_none_or(|after| *id > after))
    }

    /// A number that no rotation has.
    pub(crate) fn next_rotation(&self) -> u64 {
        let numbers = self.snapshots.iter().map(|(_, s)| s.rotation);
        numbers.max().map_or(0, |last| last + 1)
    }

    /// The rotations that are whole and may be used as of `upto`, newest first.
    pub(crate) fn rotations(&self, upto: BatchId) -> Vec<Rotation> {
        let mut by_number: BTreeMap<u64, Vec<&(BatchId, SnapshotEntry)>> = BTreeMap::new();
        for named in &self.snapshots {
            let number = named.1.rotation;
            if named.0 <= upto && !self.damaged.contains(&number) {
                by_number.entry(number).or_default().push(named);
            }
        }
        let whole = by_number.into_iter().rev();
        whole
            .filter_map(|(number, files)| whole_rotation(number, files))
            .collect()
    }

    /// True when the commits name no file: the query remembers nothing.
    pub(crate) fn is_stateless(&self) -> bool {
        self.snapshots.is_empty() && self.states.iter().all(|(_, state)| state.is_none())
    }

    /// All files that the commits name.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        let states = self.states.iter().filter_map(|(_, state)| state.clone());
        let snapshots = self.snapshots.iter().map(|(_, s)| s.file.clone());
        states.chain(snapshots).collect()
    }

    /// Forgets what is not needed to restore from `rotation` on; the names of the files.
    pub(crate) fn forget_before(&mut self, rotation: &Rotation) -> Vec<String> {
        let mut files = Vec::new();
        let old = self.states.partition_point(|(id, _)| *id <= rotation.first);
        files.extend(self.states.drain(..old).filter_map(|(_, state)| state));
        self.snapshots.retain(|(_, snapshot)| {
            let keep = snapshot.rotation >= rotation.number;
            if !keep {
                files.push(snapshot.file.clone());
            }
            keep
        });
        self.damaged.retain(|number| *number >= rotation.number);
        files
    }
}

/// The rotation that these files make up, when no part is missing.
fn whole_rotation(number: u64, named: Vec<&(BatchId, SnapshotEntry)>) -> Option<Rotation> {
    let since = named.iter().map(|(id, _)| *id).max()?;
    let mut files: Vec<SnapshotEntry> = named.into_iter().map(|(_, s)| s.clone()).collect();
    files.sort_by_key(|file| file.from);
    let of = files.first()?.of;
    let end = files.iter().try_fold(0, |next, file| {
        let follows = file.from == next && file.to > next && file.of == of;
        follows.then_some(file.to)
    })?;
    let (first, last) = (
        files.iter().map(|f| f.batch).min()?,
        files.iter().map(|f| f.batch).max()?,
    );
    (end == of).then_some(Rotation {
        number,
        first,
        since,
        last,
        files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(rotation: u64, batch: u64, from: u32, to: u32, of: u32) -> SnapshotEntry {
        SnapshotEntry {
            file: format!("state/{batch}-0.{from}.snapshot"),
            batch: BatchId(batch),
            rotation,
            from,
            to,
            of,
            records: 1,
        }
    }

    /// Commits 0.., each with a state file, and the snapshots that they name.
    fn history(commits: u64, named: &[(u64, SnapshotEntry)]) -> History {
        let mut history = History::default();
        for id in 0..commits {
            let snapshots = named.iter().filter(|(by, _)| *by == id);
            let commit = CommitEntry {
                state: Some(format!("state/{id}-0")),
                snapshots: snapshots.map(|(_, s)| s.clone()).collect(),
                ..CommitEntry::default()
            };
            history.push(BatchId(id), &commit);
        }
        history
    }

    fn three() -> History {
        history(
            20,
            &[
                (2, snapshot(0, 1, 0, 2, 2)),
                (5, snapshot(1, 4, 0, 1, 3)),
                (8, snapshot(1, 6, 1, 3, 3)),
                (12, snapshot(2, 10, 0, 1, 2)),
                (12, snapshot(2, 11, 1, 2, 2)),
                (19, snapshot(3, 18, 0, 1, 2)),
            ],
        )
    }

    #[test]
    fn a_rotation_is_used_once_all_its_parts_are_named() {
        let history = three();
        for (upto, numbers) in [
            (1, vec![]),
            (2, vec![0]),
            (7, vec![0]),
            (8, vec![1, 0]),
            (11, vec![1, 0]),
            (12, vec![2, 1, 0]),
            (19, vec![2, 1, 0]),
        ] {
            let found = history.rotations(BatchId(upto)).into_iter();
            assert_eq!(
                found.map(|r| r.number).collect::<Vec<_>>(),
                numbers,
                "{upto}"
            );
        }
        let newest = &history.rotations(BatchId(19))[0];
        let facts = (newest.first.0, newest.last.0, newest.since.0);
        assert_eq!(facts, (10, 11, 12));
        assert_eq!(history.next_rotation(), 4);
    }

    #[test]
    fn parts_with_a_gap_or_of_different_counts_are_no_rotation() {
        for files in [
            [snapshot(0, 1, 0, 1, 3), snapshot(0, 2, 2, 3, 3)],
            [snapshot(0, 1, 0, 1, 2), snapshot(0, 2, 1, 3, 3)],
            [snapshot(0, 1, 1, 2, 2), snapshot(0, 2, 1, 2, 2)],
            [snapshot(0, 1, 0, 1, 2), snapshot(0, 2, 0, 2, 2)],
        ] {
            let named: Vec<_> = files.into_iter().map(|file| (3, file)).collect();
            assert!(
                history(4, &named).rotations(BatchId(9)).is_empty(),
                "{named:?}"
            );
        }
    }

    #[test]
    fn what_is_damaged_is_passed_over() {
        let mut history = three();
        history.set_damaged(2);
        assert_eq!(history.rotations(BatchId(19))[0].number, 1);
        assert_eq!(history.next_rotation(), 4, "its number is not used again");
    }

    #[test]
    fn what_is_before_a_rotation_is_forgotten() {
        let mut history = three();
        let rotation = history.rotations(BatchId(10)).remove(0);
        let mut files = history.forget_before(&rotation);
        files.sort();
        // Rotation 1 begins as of 4: its parts, and what came after 4, are needed.
        let expected = [0, 1, 2, 3, 4].map(|n| format!("state/{n}-0"));
        let mut expected = expected.to_vec();
        expected.insert(2, "state/1-0.0.snapshot".to_owned());
        assert_eq!(files, expected);
        assert_eq!(history.first(), Some(BatchId(5)));
        let numbers = history.rotations(BatchId(19)).into_iter().map(|r| r.number);
        assert_eq!(numbers.collect::<Vec<_>>(), [2, 1]);
    }
}
