//! The task a query lives in: it drives the loop to its end, whatever that is, and tells everybody.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{AbortRegistration, Abortable};
use highwater_core::Error;

use crate::failure::{Ending, in_query, panicked};
use crate::manager::Shared;
use crate::query::StreamingQuery;
use crate::run::Run;

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
    let driven = Abortable::new(Box::pin(drive(run)), registration).await;
    end.ending = Some(driven.unwrap_or(Ending::Stopped));
}

async fn drive(mut run: Run) -> Ending {
    let ran = AssertUnwindSafe(run.run()).catch_unwind().await;
    let error = match ran {
        Ok(Ok(())) if run.query.calls().is_stopped() => return Ending::Stopped,
        Ok(Ok(())) => return Ending::Finished,
        Ok(Err(error)) => error,
        Err(payload) => panicked(payload.as_ref()),
    };
    let context = run.query.context();
    Ending::Failed(in_query(error, context, run.in_flight.as_deref()))
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
