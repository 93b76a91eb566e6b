//! Random changes, evictions, policies and restarts; the seed is printed when it fails.

use super::model::{Change, Query, Records, memory};
use crate::SnapshotPolicy;

/// A small generator with a seed that failures print.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn number(&mut self, below: u64) -> i64 {
        self.roll(below) as i64
    }

    fn policy(&mut self) -> SnapshotPolicy {
        SnapshotPolicy {
            least_price: 1 + self.roll(30),
            least_earned: 1 + self.roll(8),
            part: 1 + self.roll(40),
            at_once: 1 + self.roll(80),
        }
    }

    /// What a micro-batch does: time goes on, and what is over may be forgotten.
    fn changes(&mut self, now: i64) -> [Change; 3] {
        let busy = self.roll(8) > 0;
        [200, 40, 1].map(|keys| {
            let rows = if busy { self.roll(keys.min(30) + 1) } else { 0 };
            let until = (self.roll(3) > 0).then_some(now - 5);
            let put: Records = (0..rows)
                .map(|_| {
                    (
                        self.number(keys),
                        (self.number(1_000), now + self.number(12)),
                    )
                })
                .collect();
            let removed = (0..self.roll(3)).map(|_| self.number(keys));
            let removed = removed.filter(|key| !put.contains_key(key)).collect();
            Change {
                put,
                removed,
                until,
            }
        })
    }
}

/// One micro-batch, which may be cut short by a crash at any of its steps, and is run again then.
async fn run_batch(query: &mut Query, dice: &mut Dice) {
    let changes = dice.changes(query.next as i64);
    let crash = dice.roll(30);
    let (policy, retain) = (dice.policy(), query.retain);
    query.intend().await;
    if crash == 0 {
        query.restart(policy, retain).await;
    }
    let mut state = query.write(&changes).await;
    if crash == 1 {
        query.restart(policy, retain).await;
        query.intend().await;
        state = query.write(&changes).await;
    }
    let entry = query.done(state, &changes).await;
    if crash == 2 {
        return query.restart(policy, retain).await;
    }
    query.step(&entry);
    match dice.roll(4) {
        0 => {}
        1 => query.upkeep.close().await,
        2 => query.upkeep.settle().await,
        _ => tokio::task::yield_now().await,
    }
    if crash == 3 {
        query.restart(policy, retain).await;
    }
}

#[tokio::test]
async fn restored_at_any_time_it_is_as_never_restored() {
    for seed in 0..12 {
        let run = async {
            let dice = &mut Dice::new(seed);
            let (policy, retain) = (dice.policy(), 1 + dice.roll(9));
            let mut query = Query::start(memory(), policy, retain).await;
            for _ in 0..120 {
                run_batch(&mut query, dice).await;
                if dice.roll(12) == 0 {
                    // Who reads what is being deleted may find it gone.
                    query.upkeep.close().await;
                    query.check_every_retained().await;
                }
            }
            query.upkeep.close().await;
            query.check_every_retained().await;
        };
        let ran = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(run)).await;
        assert!(ran.is_ok(), "seed {seed}");
    }
}
