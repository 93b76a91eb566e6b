//! A query whose operators are maps, and which keeps every state it ever had.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use highwater_core::{BatchId, QueryId, Result, RunId, stable_hash};
use highwater_storage::object;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use uuid::Uuid;

use crate::history::{History, Rotation};
use crate::{
    Checkpoint, CommitEntry, OffsetsEntry, OperatorChanges, ReadOnly, SnapshotPolicy, StateParts,
    Upkeep,
};

/// An operator's state: a key, its value, and when it is over.
pub(super) type Records = BTreeMap<i64, (i64, i64)>;

/// What a micro-batch does to an operator.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) put: Records,
    pub(super) removed: Vec<i64>,
    /// What is over by then is forgotten.
    pub(super) until: Option<i64>,
}

/// The operators of the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State(pub(super) [Records; 3]);

const NAMES: [&str; 3] = ["aggregate", "session", "limit"];

fn batch(records: &Records, note: Option<(&str, String)>) -> RecordBatch {
    let fields = ["key", "value", "end"].map(|name| Field::new(name, DataType::Int64, false));
    let note = note.map(|(key, value)| (key.to_owned(), value));
    let schema = Schema::new(fields.to_vec()).with_metadata(note.into_iter().collect());
    let column = |of: fn((&i64, &(i64, i64))) -> i64| {
        Arc::new(Int64Array::from_iter_values(records.iter().map(of))) as _
    };
    let columns = vec![
        column(|(k, _)| *k),
        column(|(_, v)| v.0),
        column(|(_, v)| v.1),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).expect("records")
}

impl Change {
    fn batches(&self) -> Vec<RecordBatch> {
        let gone = self.removed.iter().map(|key| (*key, (0, 0))).collect();
        vec![
            batch(&gone, Some(("removed", "1".to_owned()))),
            batch(
                &self.put,
                self.until.map(|until| ("until", until.to_string())),
            ),
        ]
    }
}

impl State {
    /// Puts records back, as an operator does.
    fn apply(&mut self, operator: &str, records: &RecordBatch) {
        let number = NAMES.iter().position(|name| *name == operator);
        let state = &mut self.0[number.expect("an operator of ours")];
        let column = |at: usize| {
            records
                .column(at)
                .as_primitive::<Int64Type>()
                .values()
                .clone()
        };
        let (keys, values, ends) = (column(0), column(1), column(2));
        let notes = records.schema_ref().metadata();
        for at in 0..records.num_rows() {
            if notes.contains_key("removed") {
                state.remove(&keys[at]);
            } else {
                state.insert(keys[at], (values[at], ends[at]));
            }
        }
        if let Some(until) = notes.get("until") {
            let until: i64 = until.parse().expect("a time");
            state.retain(|_, (_, end)| *end > until);
        }
    }
}

impl StateParts for State {
    fn sizes(&self) -> Vec<u64> {
        self.0.iter().map(|records| records.len() as u64).collect()
    }

    fn part(&self, operator: usize, number: u32, of: u32) -> Result<OperatorChanges> {
        let is_in = |key: &i64| {
            let hash = stable_hash(&key.to_le_bytes()) >> 32;
            hash >> (32 - of.ilog2()) == u64::from(number)
        };
        let records = self.0[operator].iter().filter(|(key, _)| is_in(key));
        Ok(OperatorChanges {
            operator: NAMES[operator].to_owned(),
            records: vec![batch(&records.map(|(k, v)| (*k, *v)).collect(), None)],
        })
    }
}

pub(super) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

pub(super) fn path(name: &str) -> Path {
    Path::from(format!("ckpt/{name}"))
}

/// One run after the other over one checkpoint.
pub(super) struct Query {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) checkpoint: Checkpoint,
    pub(super) upkeep: Upkeep,
    /// As the run has it, which may have restored it.
    pub(super) state: State,
    /// The state after each micro-batch, never restored.
    pub(super) twins: Vec<State>,
    pub(super) next: u64,
    pub(super) retain: u64,
    runs: u128,
}

impl Query {
    pub(super) async fn start(
        store: Arc<dyn ObjectStore>,
        policy: SnapshotPolicy,
        retain: u64,
    ) -> Self {
        let checkpoint = open(&store, 0).await;
        let upkeep = Upkeep::new(&checkpoint, Default::default(), policy, retain);
        Self {
            store,
            checkpoint,
            upkeep,
            state: State::default(),
            twins: Vec::new(),
            next: 0,
            retain,
            runs: 1,
        }
    }

    /// The run dies, and another one restores the state, which is the twin's.
    pub(super) async fn restart(&mut self, policy: SnapshotPolicy, retain: u64) {
        self.upkeep = Upkeep::default();
        self.checkpoint = open(&self.store, self.runs).await;
        self.runs += 1;
        self.retain = retain;
        let recovery = self.checkpoint.recover().await.expect("recovered");
        let done = recovery.resume.last_done();
        assert_eq!(done.map_or(0, |done| done.0 + 1), self.next);
        self.state = State::default();
        let mut restored = Default::default();
        if let Some(done) = done {
            let state = &mut self.state;
            let mut apply = |operator: &str, records: RecordBatch| {
                state.apply(operator, &records);
                Ok(())
            };
            restored = self
                .checkpoint
                .restore(done, &mut apply)
                .await
                .expect("restored");
            assert_eq!(Some(&self.state), self.twins.last(), "after {done}");
        }
        self.upkeep = Upkeep::new(&self.checkpoint, restored, policy, retain);
        if let Some(done) = done {
            self.upkeep
                .catch_up(done, &self.state)
                .await
                .expect("caught up");
        }
    }

    /// Writes that the next micro-batch is intended.
    pub(super) async fn intend(&self) {
        let recovery = self.checkpoint.recover().await.expect("recovered");
        if recovery.resume.last_logged() != Some(BatchId(self.next)) {
            let (id, entry) = (BatchId(self.next), OffsetsEntry::default());
            self.checkpoint.intend(id, &entry).await.expect("intended");
        }
    }

    /// Writes what the next micro-batch changes.
    pub(super) async fn write(&mut self, changes: &[Change; 3]) -> Option<String> {
        let changes = NAMES.iter().zip(changes);
        let changes: Vec<_> = changes
            .map(|(name, change)| OperatorChanges {
                operator: (*name).to_owned(),
                records: change.batches(),
            })
            .collect();
        let rows = changes.iter().flat_map(|change| &change.records);
        self.upkeep.changed(rows.map(|r| r.num_rows() as u64).sum());
        let written = self.checkpoint.write_state(BatchId(self.next), &changes);
        written.await.expect("written")
    }

    /// Writes that the next micro-batch is done; it is part of the state then.
    pub(super) async fn done(
        &mut self,
        state: Option<String>,
        changes: &[Change; 3],
    ) -> CommitEntry {
        let entry = CommitEntry {
            state,
            snapshots: self.upkeep.finished(),
            ..CommitEntry::default()
        };
        let done = self.checkpoint.done(BatchId(self.next), &entry);
        done.await.expect("done");
        self.next += 1;
        let mut twin = self.twins.last().cloned().unwrap_or_default();
        for state in [&mut twin, &mut self.state] {
            for (name, change) in NAMES.iter().zip(changes) {
                change
                    .batches()
                    .iter()
                    .for_each(|records| state.apply(name, records));
            }
        }
        self.twins.push(twin);
        entry
    }

    pub(super) fn step(&mut self, entry: &CommitEntry) {
        let id = BatchId(self.next - 1);
        self.upkeep.step(id, entry, &self.state).expect("kept up");
    }

    /// A micro-batch that puts so many keys into the first operator, of about twenty times as many.
    pub(super) async fn put_keys(&mut self, keys: i64) {
        let n = i64::try_from(self.next).expect("small");
        let put = (0..keys).map(|k| ((n * 7 + k * 13) % (20 * keys), (n, 0)));
        let change = Change {
            put: put.collect(),
            ..Change::default()
        };
        let changes = [change, Change::default(), Change::default()];
        self.intend().await;
        let state = self.write(&changes).await;
        let entry = self.done(state, &changes).await;
        self.step(&entry);
    }

    pub(super) fn size(&self) -> u64 {
        self.state.sizes().iter().sum()
    }

    /// The rotations that the commits up to `upto` name.
    pub(super) async fn rotations(&self, upto: BatchId) -> Vec<Rotation> {
        let mut history = History::default();
        let mut ids: Vec<u64> = self
            .names("commits")
            .await
            .iter()
            .map(|name| name.parse().expect("a number"))
            .collect();
        ids.sort_unstable();
        for id in ids {
            let log = self
                .store
                .get(&path(&format!("commits/{id}")))
                .await
                .expect("there");
            let bytes = log.bytes().await.expect("read");
            let text = highwater_storage::text::unseal(&format!("commits/{id}"), &bytes);
            let entry = text.and_then(highwater_storage::LogEntry::decode);
            let entry = entry.expect("an entry");
            history.push(BatchId(id), &entry);
        }
        history.rotations(upto)
    }

    pub(super) async fn names(&self, folder: &str) -> Vec<String> {
        let mut names = object::names(&*self.store, &path(folder))
            .await
            .expect("listed");
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    /// Flips a bit of a file, or deletes it.
    pub(super) async fn damage(&self, file: &str, at: Option<usize>) {
        let path = path(file);
        let Some(at) = at else {
            return self.store.delete(&path).await.expect("deleted");
        };
        let bytes = self.store.get(&path).await.expect("there").bytes().await;
        let mut bytes = bytes.expect("read").to_vec();
        bytes[at] ^= 0x20;
        self.store.put(&path, bytes.into()).await.expect("put");
    }

    async fn looking(&self) -> ReadOnly {
        let looking = Checkpoint::read_only(Arc::clone(&self.store), path("")).await;
        looking.expect("opened")
    }

    pub(super) async fn readable(&self) -> RangeInclusive<BatchId> {
        let readable = self.looking().await.readable().await;
        readable.expect("read").expect("some")
    }

    pub(super) async fn restored(&self, upto: BatchId) -> Result<State> {
        let mut state = State::default();
        let mut apply = |operator: &str, records: RecordBatch| {
            state.apply(operator, &records);
            Ok(())
        };
        self.checkpoint.restore_state(upto, &mut apply).await?;
        Ok(state)
    }

    pub(super) async fn restored_by(&self, looking: &ReadOnly, upto: BatchId) -> State {
        let mut state = State::default();
        let mut apply = |operator: &str, records: RecordBatch| {
            state.apply(operator, &records);
            Ok(())
        };
        looking
            .restore_state(upto, &mut apply)
            .await
            .expect("restored");
        state
    }

    /// Everything that is to be kept is there: the state after each of those micro-batches is the twin's.
    pub(super) async fn check_every_retained(&self) {
        if self.next == 0 {
            return;
        }
        let kept = self.readable().await;
        assert!(
            kept.start().0 <= self.next.saturating_sub(self.retain),
            "{kept:?}"
        );
        for batch in kept.start().0..self.next {
            let found = self.restored(BatchId(batch)).await.expect("restored");
            let twin = &self.twins[usize::try_from(batch).expect("small")];
            assert_eq!(&found, twin, "after {batch}");
        }
    }
}

async fn open(store: &Arc<dyn ObjectStore>, run: u128) -> Checkpoint {
    let (run, id) = (RunId(Uuid::from_u128(run)), QueryId(Uuid::from_u128(7)));
    let opened = Checkpoint::open(Arc::clone(store), path(""), run, id).await;
    opened.expect("opened")
}
