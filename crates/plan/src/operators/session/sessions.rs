//! The sessions there are: for each key a list in the order of time, and all of them in the order of their ends.

use std::collections::BTreeSet;
use std::ops::Range;

/// A session of a key. Times are in microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) start: i64,
    /// The first moment after it.
    pub(super) end: i64,
    /// The state of the aggregate functions.
    pub(super) state: Box<[u8]>,
}

/// Where a session is: the slot of its key, and its place in the key's list.
pub(super) type Place = (u32, usize);

/// All sessions. Those of one key neither overlap nor touch.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By the slot of the key, each list in the order of time.
    by_key: Vec<Vec<Session>>,
    /// End, slot and start of each.
    ends: BTreeSet<(i64, u32, i64)>,
    state_bytes: usize,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.by_key.capacity() * size_of::<Vec<Session>>()
            + self.len() * (size_of::<Session>() + 2 * size_of::<(i64, u32, i64)>())
            + self.state_bytes
    }

    /// The sessions of a key.
    pub(super) fn of(&self, slot: u32) -> &[Session] {
        self.by_key.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn at(&self, (slot, at): Place) -> &Session {
        &self.by_key[slot as usize][at]
    }

    /// Puts one session, still without state, in place of those in `range`, which are given back.
    pub(super) fn replace(
        &mut self,
        slot: u32,
        range: Range<usize>,
        start: i64,
        end: i64,
    ) -> Vec<Session> {
        let session = Session {
            start,
            end,
            state: Box::default(),
        };
        let sessions = list(&mut self.by_key, slot);
        let replaced: Vec<_> = sessions.splice(range, [session]).collect();
        for old in &replaced {
            self.ends.remove(&(old.end, slot, old.start));
            self.state_bytes -= old.state.len();
        }
        self.ends.insert((end, slot, start));
        replaced
    }

    pub(super) fn set_state(&mut self, (slot, at): Place, state: Box<[u8]>) {
        let session = &mut self.by_key[slot as usize][at];
        self.state_bytes += state.len();
        self.state_bytes -= session.state.len();
        session.state = state;
    }

    /// Puts a session in as it is, in place of the one with its start.
    pub(super) fn put(&mut self, slot: u32, session: Session) {
        self.remove(slot, session.start);
        self.ends.insert((session.end, slot, session.start));
        self.state_bytes += session.state.len();
        let sessions = list(&mut self.by_key, slot);
        let at = sessions.partition_point(|other| other.start < session.start);
        sessions.insert(at, session);
    }

    /// Takes the session with this start out, where there is one.
    pub(super) fn remove(&mut self, slot: u32, start: i64) {
        let sessions = list(&mut self.by_key, slot);
        if let Ok(at) = sessions.binary_search_by_key(&start, |session| session.start) {
            let old = sessions.remove(at);
            self.ends.remove(&(old.end, slot, start));
            self.state_bytes -= old.state.len();
        }
        if sessions.is_empty() {
            *sessions = Vec::new();
        }
    }

    /// The sessions that end at `until` or before, those that end first first.
    pub(super) fn due(&self, until: i64) -> Vec<Place> {
        self.due_ends(until)
            .map(|&(_, slot, start)| {
                let before = |session: &Session| session.start < start;
                (slot, self.of(slot).partition_point(before))
            })
            .collect()
    }

    pub(super) fn count_due(&self, until: i64) -> usize {
        self.due_ends(until).count()
    }

    fn due_ends(&self, until: i64) -> impl Iterator<Item = &(i64, u32, i64)> {
        self.ends.range(..=(until, u32::MAX, i64::MAX))
    }

    /// Removes the sessions that end at `until` or before; the slots of keys that have none left.
    pub(super) fn evict(&mut self, until: i64) -> Vec<u32> {
        let mut bare = Vec::new();
        while let Some(&entry) = self.ends.first().filter(|(end, ..)| *end <= until) {
            self.ends.remove(&entry);
            let (_, slot, start) = entry;
            self.remove(slot, start);
            if self.of(slot).is_empty() {
                bare.push(slot);
            }
        }
        bare
    }

    /// At most `rows` places from `from` on, and where to go on.
    pub(super) fn scan(&self, from: Place, rows: usize) -> (Vec<Place>, Place) {
        let (mut slot, mut at) = from;
        let mut places = Vec::new();
        while let Some(sessions) = self.by_key.get(slot as usize) {
            let take = (sessions.len() - at).min(rows - places.len());
            places.extend((at..at + take).map(|at| (slot, at)));
            if at + take < sessions.len() {
                return (places, (slot, at + take));
            }
            (slot, at) = (slot + 1, 0);
        }
        (places, (slot, at))
    }
}

fn list(by_key: &mut Vec<Vec<Session>>, slot: u32) -> &mut Vec<Session> {
    let slot = slot as usize;
    if slot >= by_key.len() {
        by_key.resize_with(slot + 1, Vec::new);
    }
    &mut by_key[slot]
}
