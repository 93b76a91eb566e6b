//! Who runs the query: each run claims a number, and the highest number owns the checkpoint.
//!
//! A claim is *put if absent* under the next free number. It is made before the logs are read, so a
//! new run either sees what the old one wrote, or the old one sees the new one's claim before it
//! writes more. Claims are never deleted: run S knows that it still owns the checkpoint when there is
//! no `runs/S+1`, which is one look-up.

use std::process;
use std::sync::Arc;

use highwater_core::{BatchId, Error, ErrorKind, Result, RunId};
use highwater_storage::{NumberedLog, object};
use object_store::ObjectStore;

use crate::Layout;
use crate::entries::RunClaim;

/// The claim of one run.
#[derive(Clone, Debug)]
pub struct Claim {
    store: Arc<dyn ObjectStore>,
    /// The log of claims; its entries are numbered by run, not by micro-batch.
    claims: NumberedLog<RunClaim>,
    number: u64,
    run: RunId,
}

impl Claim {
    /// Claims the checkpoint for `run`; when another run takes the number first, the next one is tried.
    ///
    /// # Errors
    /// The store's error.
    pub async fn take(store: Arc<dyn ObjectStore>, layout: &Layout, run: RunId) -> Result<Self> {
        let claims = NumberedLog::new(Arc::clone(&store), layout.runs());
        let process = process::id();
        let claim = RunClaim {
            run_id: run,
            process,
        };
        let last = claims.ids().await?.pop();
        let mut number = last.map_or(BatchId(0), BatchId::next);
        loop {
            match claims.add(number, &claim).await {
                Ok(()) => break,
                Err(taken) if taken.kind() == ErrorKind::Fenced => number = number.next(),
                Err(error) => return Err(error),
            }
        }
        let number = number.0;
        Ok(Self {
            store,
            claims,
            number,
            run,
        })
    }

    /// The number of the run, from 0: it is in the names of what the run writes.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns when no later run has claimed the checkpoint.
    ///
    /// # Errors
    /// `Fenced`, saying which run owns the checkpoint now.
    pub async fn check(&self) -> Result<()> {
        let next = self.claims.path(BatchId(self.number + 1));
        if !object::exists(&*self.store, &next).await? {
            return Ok(());
        }
        Err(match self.claims.latest().await? {
            Some((number, owner)) => self.fenced(&format!(
                "run {} (number {number}, process {})",
                owner.run_id, owner.process
            )),
            None => self.fenced("a later run"),
        })
    }

    fn fenced(&self, owner: &str) -> Error {
        Error::fenced(format!(
            "{owner} has taken over the checkpoint from run {} (number {})",
            self.run, self.number
        ))
        .with_condition("CONCURRENT_STREAM_LOG_UPDATE")
        .with_hint("stop that run first, or give this query a checkpoint location of its own")
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use uuid::Uuid;

    use super::*;

    async fn claim(store: &Arc<dyn ObjectStore>, run: u128) -> Claim {
        let layout = Layout::new(Path::from("ckpt"));
        let run = RunId(Uuid::from_u128(run));
        let claim = Claim::take(Arc::clone(store), &layout, run).await;
        claim.expect("claimed")
    }

    #[tokio::test]
    async fn a_later_run_fences_all_earlier_ones() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let first = claim(&store, 1).await;
        first.check().await.expect("alone");
        let second = claim(&store, 2).await;
        let third = claim(&store, 3).await;
        assert_eq!([first.number(), second.number(), third.number()], [0, 1, 2]);
        third.check().await.expect("the last one");
        for old in [first, second] {
            let error = old.check().await.expect_err("fenced");
            assert_eq!(error.kind(), ErrorKind::Fenced);
            let owner = "run 00000000-0000-0000-0000-000000000003 (number 2, process";
            assert!(error.message().starts_with(owner), "{error}");
        }
    }

    #[tokio::test]
    async fn runs_that_start_together_get_different_numbers() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let claims = futures::future::join_all((0..5).map(|run| claim(&store, run))).await;
        let mut numbers: Vec<u64> = claims.iter().map(Claim::number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        let owners = futures::future::join_all(claims.iter().map(Claim::check)).await;
        assert_eq!(owners.iter().filter(|owner| owner.is_ok()).count(), 1);
    }
}
