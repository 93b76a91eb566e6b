//! What the next micro-batch is: asked of the sources here, decided by the pure [`choose`].

use std::sync::Arc;

use futures::future::try_join_all;
use highwater_core::{
    BatchId, MicroBatch, Offset, OffsetRange, ReadLimit, Result, Source, Timestamp,
};

use crate::listen::Waiter;
use crate::run::Run;
use crate::status::Stage;
use crate::ticker::Tick;
use crate::watermarks::Watermarks;

impl Run {
    /// The micro-batch that is due at `tick`; `None` when there is nothing to do.
    ///
    /// # Errors
    /// What a source answers when it is asked for its latest offset.
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
            (None, None) => self.ticker.nothing(),
        }
        let batch = batch.map(Arc::new);
        if batch.is_some() {
            self.query.stage().set(Stage::Processing);
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
        let ends = self.inputs.latest(&self.position.ends, goal).await?;
        let due = self.rules.no_data_batches
            && self.watermarks.moved()
            && !self.plan.operators().is_empty();
        Ok(choose(
            &self.position,
            &self.inputs,
            ends,
            self.watermarks,
            due,
            tick.at,
        ))
    }

    /// Those who wait for all that is there: what is there now becomes the goal.
    async fn take_goal(&mut self) -> Result<()> {
        let waiters = self.query.calls().take();
        if !waiters.is_empty() {
            let targets = self.inputs.everything(&self.position.ends).await?;
            self.goal = Some(Goal { targets, waiters });
        }
        Ok(())
    }
}

/// What is the next micro-batch, from what the sources have: `ends` are the farthest offsets it may read to.
///
/// None runs when no source has moved, unless one without data is `due`.
fn choose(
    position: &Position,
    inputs: &Inputs,
    ends: Vec<Offset>,
    watermarks: Watermarks,
    due: bool,
    now: Timestamp,
) -> Option<MicroBatch> {
    if !due && ends == position.ends {
        return None;
    }
    let starts = position.ends.iter().cloned();
    let ranges = starts
        .zip(ends)
        .map(|(start, end)| OffsetRange::new(start, end));
    Some(MicroBatch {
        id: position.next,
        ranges: inputs.names().zip(ranges).collect(),
        time: now.floor_to_millis().max(position.time),
        watermark: watermarks.current,
        late_watermark: watermarks.previous,
    })
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
    /// A micro-batch that an earlier run intended and did not commit: it runs first, as it was.
    pub(crate) pending: Option<MicroBatch>,
}

impl Position {
    /// `batch` is constructed: the next begins where it ends.
    pub(crate) fn pass(&mut self, batch: &MicroBatch) {
        self.next = batch.id.next();
        self.time = batch.time;
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
    async fn everything(&self, starts: &[Offset]) -> Result<Vec<Offset>> {
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
            pending: None,
        }
    }

    fn offsets(numbers: &[u64]) -> Vec<Offset> {
        numbers.iter().copied().map(Offset::from).collect()
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
            let now = Timestamp::from_micros(200_999);
            let (position, marks) = (position(&[1, 1]), Watermarks::default());
            let batch = choose(&position, &inputs, offsets(&ends), marks, due, now);
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

    #[test]
    fn the_batch_time_never_falls() {
        for (now, time) in [(50, 100), (100, 100), (101, 101)] {
            let now = Timestamp::from_millis(now);
            let (inputs, marks) = (inputs(&["a"]), Watermarks::default());
            let batch = choose(&position(&[0]), &inputs, offsets(&[1]), marks, false, now);
            assert_eq!(batch.unwrap().time, Timestamp::from_millis(time));
        }
    }

    #[test]
    fn the_next_batch_begins_where_the_last_one_ended() {
        let mut position = position(&[1, 1]);
        let (inputs, marks) = (inputs(&["a", "b"]), Watermarks::default());
        let now = Timestamp::from_millis(200);
        let batch = choose(&position, &inputs, offsets(&[1, 7]), marks, false, now).unwrap();
        position.pass(&batch);
        assert_eq!(position.ends, offsets(&[1, 7]));
        assert_eq!((position.next, position.time), (BatchId(5), now));
    }
}
