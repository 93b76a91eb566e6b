//! Snapshots of the state, part by part: what is taken when, and who pays.
//!
//! A *rotation* is one pass over the whole state in parts. Every trigger earns what it changed, every part costs the
//! records in it, and a part is taken when it can be paid: the cost of snapshots follows the changes and not the size
//! of the state, no trigger stalls for more than a few parts, and a restart has about as much to replay as there is
//! state.

use std::future::Future;
use std::ops::Range;

use futures::FutureExt;
use highwater_core::{Error, Result};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::OperatorChanges;

/// How much is taken, and when. The numbers are records of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// What a part costs at least.
    pub least_price: u64,
    /// What a trigger earns at least, so that a query with few changes has snapshots, too.
    pub least_earned: u64,
    /// A part has at most about so many records.
    pub part: u64,
    /// Parts of about so many records are taken in one trigger, or of as many as the trigger changed.
    pub at_once: u64,
}

impl SnapshotPolicy {
    /// The policy in which a snapshot of fewer than `least` records costs as much as one of `least`; the other numbers
    /// keep their proportion.
    #[must_use]
    pub fn of_at_least(least: u64) -> Self {
        let least = least.max(1);
        Self {
            least_price: least,
            least_earned: (least / 16).max(1),
            part: least.saturating_mul(8),
            at_once: least.saturating_mul(16),
        }
    }
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self::of_at_least(4_096)
    }
}

/// The state of all operators, as upkeep sees it between two micro-batches.
pub trait StateParts: Send + Sync {
    /// How many records each operator has, in an order that stays.
    fn sizes(&self) -> Vec<u64>;

    /// One part of an operator's state: `number` of `of`, which is a power of two.
    ///
    /// # Errors
    /// `Internal` when the state cannot be read.
    fn part(&self, operator: usize, number: u32, of: u32) -> Result<OperatorChanges>;
}

/// The most parts of one operator.
const MOST_PARTS: u64 = 4_096;

/// A pass over the state, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    pub(crate) number: u64,
    /// The parts of each operator.
    parts: Vec<u32>,
    /// The next part that is taken.
    pub(crate) next: u32,
}

impl Pass {
    /// The pass `number` over operators of these sizes.
    pub(crate) fn new(number: u64, sizes: &[u64], policy: &SnapshotPolicy) -> Self {
        let parts = sizes.iter().map(|size| {
            let parts = size.div_ceil(policy.part.max(1)).clamp(1, MOST_PARTS);
            u32::try_from(parts.next_power_of_two()).unwrap_or(1)
        });
        Self {
            number,
            parts: parts.collect(),
            next: 0,
        }
    }

    /// How many parts there are.
    pub(crate) fn of(&self) -> u32 {
        self.parts.iter().sum()
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.next == self.of()
    }

    /// The operator, number and count of the next part.
    pub(crate) fn place(&self) -> Option<(usize, u32, u32)> {
        let mut number = self.next;
        for (operator, of) in self.parts.iter().enumerate() {
            if number < *of {
                return Some((operator, number, *of));
            }
            number -= of;
        }
        None
    }

    /// True when the state has grown so much that parts would be far too large, or has other operators.
    pub(crate) fn is_outgrown(&self, sizes: &[u64], policy: &SnapshotPolicy) -> bool {
        let mut each = self.parts.iter().zip(sizes);
        sizes.len() != self.parts.len()
            || each.any(|(of, size)| {
                let full = u64::from(*of) == MOST_PARTS;
                !full && size / u64::from(*of) > policy.part.saturating_mul(4)
            })
    }

    /// What the whole pass costs.
    pub(crate) fn price(&self, sizes: &[u64], policy: &SnapshotPolicy) -> u64 {
        let each = self.parts.iter().zip(sizes).map(|(of, size)| {
            let of = u64::from(*of);
            of * (size / of).max(policy.least_price)
        });
        each.sum()
    }
}

/// Parts that were taken together.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) parts: Range<u32>,
    pub(crate) records: Vec<OperatorChanges>,
    pub(crate) count: u64,
}

/// Does work for the processor beside the loop.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.unwrap_or_else(|e| {
            Err(Error::internal("work beside the loop was given up").with_source(e))
        }),
        Err(_) => work(),
    }
}

/// A task that ends when nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// What came out, when it is done: an error when it was given up.
    pub(crate) fn finished(&mut self) -> Option<Result<T>> {
        if !self.0.is_finished() {
            return None;
        }
        (&mut self.0)
            .now_or_never()
            .map(|done| done.map_err(given_up))
    }

    /// Waits for what comes out.
    pub(crate) async fn wait(&mut self) -> Result<T> {
        (&mut self.0).await.map_err(given_up)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn given_up(cause: tokio::task::JoinError) -> Error {
    Error::internal("a task beside the loop was given up").with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_and_cover_every_operator() {
        let policy = SnapshotPolicy::default();
        let mut pass = Pass::new(7, &[0, 1_000_000, 5, 32_768, 32_769], &policy);
        // 1,000,000 records are more than 16 parts of 32,768, so 32.
        assert_eq!(pass.parts, [1, 32, 1, 1, 2]);
        let mut places = Vec::new();
        while let Some((operator, number, _)) = pass.place() {
            places.push((operator, number));
            pass.next += 1;
        }
        assert!(pass.is_taken());
        let expected = [1, 32, 1, 1, 2].into_iter().enumerate();
        let expected = expected.flat_map(|(operator, of)| (0..of).map(move |n| (operator, n)));
        assert_eq!(places, expected.collect::<Vec<_>>());
        let huge = Pass::new(0, &[u64::MAX], &policy);
        assert_eq!(huge.parts, [4_096]);
        assert!(!huge.is_outgrown(&[u64::MAX], &policy));
    }

    #[test]
    fn a_pass_costs_its_records_and_something_for_each_part() {
        let policy = SnapshotPolicy::default();
        for (sizes, price) in [
            (vec![0], 4_096),
            (vec![10, 1], 8_192),
            (vec![1 << 20], 1 << 20),
            (vec![32_769], 32_768),
        ] {
            let pass = Pass::new(0, &sizes, &policy);
            assert_eq!(pass.price(&sizes, &policy), price, "{sizes:?}");
        }
    }

    #[test]
    fn a_state_that_grows_fourfold_gets_other_parts() {
        let policy = SnapshotPolicy::default();
        let pass = Pass::new(0, &[30_000], &policy);
        assert!(!pass.is_outgrown(&[131_072], &policy));
        assert!(pass.is_outgrown(&[131_073], &policy));
        assert!(pass.is_outgrown(&[30_000, 1], &policy));
    }
}
