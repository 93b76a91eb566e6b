//! What the next micro-batch is: asked of the sources here, decided by the pure [`choose`].

use std::sync::Arc;

use futures::future::try_join_all;
use highwater_core::{
    BatchId, Error, MicroBatch, Offset, OffsetRange, ReadLimit, Result, Source, Timestamp,
    Watermark,
};

use crate::listen::Waiter;
use crate::run::Run;
use crate::status::Stage;
use crate::ticker::Tick;
use crate::watermarks::InForce;

impl Run {
    /// The micro-batch that is due at `tick`; `None` when there is nothing to do.
    ///
    /// # Errors
    /// What a source answers when it is asked for its latest offset; `Invalid` when there is new data after the final
    /// micro-batch of `flushOnEnd`.
    pub(crate) async fn construct(&mut self, tick: Tick) -> Result<Option<Arc<MicroBatch>>> {
        self.query.stage().set(Stage::GettingOffsets);
        let batch = match self.position.pending.take() {
            Some(pending) => Some(pending),
            None => self.ask_sources(tick).await?,
        };
        let goal_open = self.goal.is_some();
        match (&batch, self.goal.take_if(|_| batch.is_none())) {
            (Some(_), _) => self.ticker.ran(goal_open),
            // Only what the goal covered was looked at: look again, without it.
            (None, Some(goal)) => {
                goal.reached();
                self.ticker.look_again();
            }
            (None, None) => self.ticker.nothing(self.deadline()),
        }
        let batch = batch.map(Arc::new);
        if batch.is_some() {
            self.query.stage().set(Stage::Processing);
            self.watermarks.begin(self.position.time_at(tick.at));
            self.laps.begin(tick.at, self.query.clock().now());
        }
        self.in_flight.clone_from(&batch);
        Ok(batch)
    }

    async fn ask_sources(&mut self, tick: Tick) -> Result<Option<MicroBatch>> {
        self.ticker.arm().await;
        if self.goal.is_none() {
            self.take_goal().await?;
        }
        let goal = self.goal.as_ref().map(|goal| goal.targets.as_slice());
        let time = self.position.time_at(tick.at);
        let facts = Facts {
            ends: self.inputs.latest(&self.position.ends, goal).await?,
            marks: self.watermarks.in_force(time),
            due: self.may_run_without_data()
                && (self.watermarks.moved() || self.watermarks.released(time)),
            last: self.rules.flush
                && self.inputs.latest(&self.position.ends, None).await? == self.position.ends,
            time,
        };
        choose(&self.position, &self.inputs, facts)
    }

    /// True when a micro-batch without data would be of use (Spark): an operator has something to do in it.
    fn may_run_without_data(&self) -> bool {
        let mut operators = self.plan.operators().iter();
        self.rules.no_data_batches && operators.any(|o| o.wants_batch_without_data())
    }

    /// When a micro-batch without data is due because nothing comes: an idle input is left out of the watermark.
    fn deadline(&self) -> Option<Timestamp> {
        self.watermarks
            .deadline()
            .filter(|_| self.may_run_without_data())
    }

    /// Those who wait for all that is there: what is there now becomes the goal.
    async fn take_goal(&mut self) -> Result<()> {
        let waiters = self.query.calls().take();
        if !waiters.is_empty() {
            match self.inputs.everything(&self.position.ends).await {
                Ok(targets) => self.goal = Some(Goal { targets, waiters }),
                Err(error) => {
                    // A run that begins anew still owes them an answer.
                    self.query.calls().give_back(waiters);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// What is known when the next micro-batch is chosen.
struct Facts {
    /// The farthest offsets it may read to.
    ends: Vec<Offset>,
    /// The watermarks it would run with.
    marks: InForce,
    /// One without data is due.
    due: bool,
    /// All there is has been read, and the query is to be flushed at its end.
    last: bool,
    /// Its batch time.
    time: Timestamp,
}

/// What is the next micro-batch: one with data when a source has moved, else one without where it is due, else
/// the final one where the query is flushed, once.
fn choose(position: &Position, inputs: &Inputs, facts: Facts) -> Result<Option<MicroBatch>> {
    let moved = facts.ends != position.ends;
    if position.closed {
        return if moved {
            Err(after_the_flush())
        } else {
            Ok(None)
        };
    }
    let flush = !moved && !facts.due && facts.last && position.next > BatchId(0);
    if !moved && !facts.due && !flush {
        return Ok(None);
    }
    let starts = position.ends.iter().cloned();
    let ranges = starts
        .zip(facts.ends)
        .map(|(start, end)| OffsetRange::new(start, end));
    Ok(Some(MicroBatch {
        id: position.next,
        ranges: inputs.names().zip(ranges).collect(),
        time: facts.time,
        watermark: if flush {
            Watermark::END
        } else {
            facts.marks.closes
        },
        late_watermark: facts.marks.late,
    }))
}

/// Every window is closed: a row that comes now would open one that was given out already.
pub(crate) fn after_the_flush() -> Error {
    Error::invalid(
        "there is new data, but an earlier run has closed every window of this checkpoint (flushOnEnd)",
    )
    .with_option("flushOnEnd")
    .with_hint(
        "start with a new checkpoint location; to go on from a checkpoint, run without `flushOnEnd`",
    )
}

/// Where a query stands between two micro-batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The number of the next micro-batch that is constructed.
    pub(crate) next: BatchId,
    /// Where it starts, for each input in order.
    pub(crate) ends: Vec<Offset>,
    /// The last batch time; batch times never fall.
    pub(crate) time: Timestamp,
    /// The final micro-batch of `flushOnEnd` is done: no row may follow.
    pub(crate) closed: bool,
    /// A micro-batch that an earlier run intended and did not commit: it runs first, as it was.
    pub(crate) pending: Option<MicroBatch>,
}

impl Position {
    /// The batch time of a micro-batch that is constructed `now`.
    fn time_at(&self, now: Timestamp) -> Timestamp {
        now.floor_to_millis().max(self.time)
    }

    /// `batch` is constructed: the next begins where it ends.
    pub(crate) fn pass(&mut self, batch: &MicroBatch) {
        self.next = batch.id.next();
        self.time = batch.time;
        self.closed = batch.is_final();
        for (end, range) in self.ends.iter_mut().zip(batch.ranges.values()) {
            end.clone_from(&range.end);
        }
    }
}

/// Waiters for all that was there when they asked, and what was there.
#[derive(Debug)]
pub(crate) struct Goal {
    targets: Vec<Offset>,
    waiters: Vec<Waiter>,
}

impl Goal {
    fn reached(self) {
        for waiter in self.waiters {
            // Who does not wait any more need not be told.
            let _ = waiter.send(());
        }
    }
}

/// One source of the query.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Its name in the checkpoint.
    pub(crate) name: String,
    /// The instance that serves this query.
    pub(crate) source: Arc<dyn Source>,
    /// How much one micro-batch takes.
    pub(crate) limit: ReadLimit,
    /// Where an available-now run ends.
    pub(crate) pin: Option<Offset>,
}

/// The sources of the query, ordered by name as the ranges of a micro-batch are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs(Vec<Input>);

impl Inputs {
    pub(crate) fn new(mut inputs: Vec<Input>) -> Self {
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        Self(inputs)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Input> {
        self.0.iter()
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|input| input.name.clone())
    }

    /// The farthest offsets after `starts` under the limits, and not beyond `goal`.
    async fn latest(&self, starts: &[Offset], goal: Option<&[Offset]>) -> Result<Vec<Offset>> {
        let asked = self
            .0
            .iter()
            .zip(starts)
            .enumerate()
            .map(|(i, (input, start))| {
                let upto = goal.and_then(|goal| goal.get(i)).or(input.pin.as_ref());
                input.source.latest_offset(start, &input.limit, upto)
            });
        try_join_all(asked).await
    }

    /// All there is after `starts`.
    pub(crate) async fn everything(&self, starts: &[Offset]) -> Result<Vec<Offset>> {
        let asked = self.0.iter().zip(starts).map(|(input, start)| {
            let upto = input.pin.as_ref();
            input.source.latest_offset(start, &ReadLimit::All, upto)
        });
        try_join_all(asked).await
    }

    /// Before the first row of each.
    pub(crate) async fn initial(&self) -> Result<Vec<Offset>> {
        try_join_all(self.0.iter().map(|input| input.source.initial_offset())).await
    }

    /// Pins the end of the run to all there is after `starts`.
    pub(crate) async fn pin(&mut self, starts: &[Offset]) -> Result<()> {
        let ends = self.everything(starts).await?;
        for (input, end) in self.0.iter_mut().zip(ends) {
            input.pin = Some(end);
        }
        Ok(())
    }

    /// Lifts the limits: one micro-batch takes all.
    pub(crate) fn unlimited(&mut self) {
        for input in &mut self.0 {
            input.limit = ReadLimit::All;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::Numbers;

    fn inputs(names: &[&str]) -> Inputs {
        let inputs = names.iter().map(|name| Input {
            name: (*name).to_owned(),
            source: Arc::new(Numbers::new()),
            limit: ReadLimit::All,
            pin: None,
        });
        Inputs::new(inputs.collect())
    }

    fn position(ends: &[u64]) -> Position {
        Position {
            next: BatchId(4),
            ends: offsets(ends),
            time: Timestamp::from_millis(100),
            closed: false,
            pending: None,
        }
    }

    fn offsets(numbers: &[u64]) -> Vec<Offset> {
        numbers.iter().copied().map(Offset::from).collect()
    }

    fn facts(ends: &[u64], now: Timestamp) -> Facts {
        Facts {
            ends: offsets(ends),
            marks: InForce::default(),
            due: false,
            last: false,
            time: position(&[]).time_at(now),
        }
    }

    #[test]
    fn a_batch_runs_when_a_source_has_moved_or_one_without_data_is_due() {
        let inputs = inputs(&["b", "a"]);
        for (ends, due, expected) in [
            ([1, 1], false, None),
            ([1, 1], true, Some([(1, 1), (1, 1)])),
            ([1, 2], false, Some([(1, 1), (1, 2)])),
            ([3, 2], true, Some([(1, 3), (1, 2)])),
        ] {
            let facts = Facts {
                due,
                ..facts(&ends, Timestamp::from_micros(200_999))
            };
            let batch = choose(&position(&[1, 1]), &inputs, facts).unwrap();
            let ranges = batch.as_ref().map(|batch| {
                let range = |name: &str| {
                    let range = &batch.ranges[name];
                    (range.start.parse().unwrap(), range.end.parse().unwrap())
                };
                [range("a"), range("b")]
            });
            assert_eq!(ranges, expected, "{ends:?}, due: {due}");
            let facts = batch.map(|batch| (batch.id, batch.time));
            let facts_expected = (BatchId(4), Timestamp::from_millis(200));
            assert_eq!(facts, expected.map(|_| facts_expected));
        }
    }

    /// The final micro-batch comes after all data and all that is due, once, and only when there was a micro-batch.
    #[test]
    fn the_final_batch_is_the_last_one() {
        let inputs = inputs(&["a"]);
        for (next, ends, due, last, expected) in [
            (4, 1, false, true, Some(true)),
            (4, 2, false, true, Some(false)),
            (4, 1, true, true, Some(false)),
            (4, 1, false, false, None),
            (0, 1, false, true, None),
        ] {
            let mut position = position(&[1]);
            position.next = BatchId(next);
            let facts = Facts {
                due,
                last,
                ..facts(&[ends], Timestamp::default())
            };
            let batch = choose(&position, &inputs, facts).unwrap();
            assert_eq!(batch.as_ref().map(MicroBatch::is_final), expected);
            if let Some(batch) = batch {
                position.pass(&batch);
                assert_eq!(position.closed, batch.is_final());
            }
        }
    }

    #[test]
    fn after_the_final_batch_nothing_runs_and_data_is_refused() {
        let (inputs, mut position) = (inputs(&["a"]), position(&[1]));
        position.closed = true;
        for due in [false, true] {
            let facts = |end| Facts {
                due,
                last: true,
                ..facts(&[end], Timestamp::default())
            };
            assert_eq!(choose(&position, &inputs, facts(1)).unwrap(), None);
            let error = choose(&position, &inputs, facts(2)).unwrap_err();
            assert_eq!(error.option(), Some("flushOnEnd"));
        }
    }

    #[test]
    fn the_batch_time_never_falls() {
        for (now, time) in [(50, 100), (100, 100), (101, 101)] {
            let facts = facts(&[1], Timestamp::from_millis(now));
            let batch = choose(&position(&[0]), &inputs(&["a"]), facts).unwrap();
            assert_eq!(batch.unwrap().time, Timestamp::from_millis(time));
        }
    }

    #[test]
    fn the_next_batch_begins_where_the_last_one_ended() {
        let mut position = position(&[1, 1]);
        let now = Timestamp::from_millis(200);
        let facts = facts(&[1, 7], now);
        let batch = choose(&position, &inputs(&["a", "b"]), facts).unwrap();
        position.pass(&batch.unwrap());
        assert_eq!(position.ends, offsets(&[1, 7]));
        assert_eq!((position.next, position.time), (BatchId(5), now));
    }
}
