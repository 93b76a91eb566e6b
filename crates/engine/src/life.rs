//! The task a query lives in: it drives the loop to its end, whatever that is, and tells everybody.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{AbortRegistration, Abortable};
use highwater_checkpoint::Checkpoint;
use highwater_core::{Error, ErrorKind};

use crate::failure::{Ending, in_query, panicked};
use crate::manager::Shared;
use crate::query::StreamingQuery;
use crate::run::Run;
use crate::start::{NEW_BEGINNINGS, anew, owns_although, reason};

/// Drives `run` to its end. Aborting drops it where it waits, as a crash would.
pub(crate) async fn live(
    manager: Arc<Shared>,
    query: StreamingQuery,
    run: Run,
    registration: AbortRegistration,
) {
    let mut end = End {
        manager,
        query,
        ending: None,
    };
    let manager = Arc::clone(&end.manager);
    let driven = Abortable::new(Box::pin(drive(&manager, run)), registration).await;
    end.ending = Some(driven.unwrap_or(Ending::Stopped));
}

async fn drive(manager: &Arc<Shared>, mut run: Run) -> Ending {
    let mut beginnings = 0;
    loop {
        let ran = AssertUnwindSafe(run.run()).catch_unwind().await;
        run.upkeep.close().await;
        let error = match ran {
            Ok(Ok(())) if run.query.calls().is_stopped() => return Ending::Stopped,
            Ok(Ok(())) => return Ending::Finished,
            Ok(Err(error)) => error,
            Err(payload) => panicked(payload.as_ref()),
        };
        if beginnings < NEW_BEGINNINGS && owns_although(&error, &run.checkpoint).await {
            beginnings += 1;
            tracing::info!(%error, "an older run was in the way: the run begins anew");
            let begun = AssertUnwindSafe(Box::pin(anew(manager, &mut run))).catch_unwind();
            let error = match begun.await {
                Ok(Ok(again)) => {
                    run = again;
                    continue;
                }
                Ok(Err(error)) => error,
                Err(payload) => panicked(payload.as_ref()),
            };
            return failed(error, &run);
        }
        let error = reason(error, &run.checkpoint).await;
        return failed(by_owner(error, &run.checkpoint).await, &run);
    }
}

fn failed(error: Error, run: &Run) -> Ending {
    let context = run.query.context();
    Ending::Failed(in_query(error, context, run.in_flight.as_deref()))
}

/// Who has taken over says more than that a file of his is in the way.
async fn by_owner(error: Error, checkpoint: &Checkpoint) -> Error {
    if error.kind() != ErrorKind::Fenced {
        return error;
    }
    checkpoint.check_claim().await.err().unwrap_or(error)
}

/// Tells that the query has ended, also when its task is dropped with its runtime.
struct End {
    manager: Arc<Shared>,
    query: StreamingQuery,
    ending: Option<Ending>,
}

impl Drop for End {
    fn drop(&mut self) {
        let ending = self.ending.take().unwrap_or_else(|| {
            let error = Error::unavailable("the runtime of the query was shut down");
            Ending::Failed(error.with_query(self.query.core().context()))
        });
        self.manager.ended(&self.query, &ending);
    }
}
