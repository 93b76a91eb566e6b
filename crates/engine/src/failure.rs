//! How a run ends, and how a failure becomes an error that says where it happened.

use std::any::Any;

use highwater_core::{Error, ErrorKind, MicroBatch, QueryContext, Result};

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// Its trigger had nothing more to do.
    Finished,
    /// Somebody stopped or aborted it.
    Stopped,
    /// It failed.
    Failed(Error),
}

impl Ending {
    /// The error of a run that failed.
    pub(crate) fn exception(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Finished | Self::Stopped => None,
        }
    }

    /// What a waiter for the end is told.
    pub(crate) fn result(&self) -> Result<()> {
        self.exception().map_or(Ok(()), |e| Err(e.clone()))
    }
}

/// The error of code that panicked with `payload`, inside a micro-batch.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::new(
        ErrorKind::User,
        format!("a function of the query panicked: {text}"),
    )
}

/// `error` with the query, and the micro-batch and offsets it happened at.
pub(crate) fn in_query(error: Error, query: QueryContext, batch: Option<&MicroBatch>) -> Error {
    let mut context = query;
    if let Some(batch) = batch {
        context.batch = Some(batch.id);
        let ranges = batch.ranges.iter();
        let ranges =
            ranges.map(|(name, range)| format!("{name}: ({}, {}]", range.start, range.end));
        context.offsets = ranges.collect::<Vec<_>>().join(", ");
    }
    error.with_query(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_its_message() {
        for (payload, text) in [
            (Box::new("boom") as Box<dyn Any + Send>, "boom"),
            (Box::new("bo".to_owned() + "om"), "boom"),
            (Box::new(7_u8), "no message"),
        ] {
            let error = panicked(payload.as_ref());
            assert_eq!(error.kind(), ErrorKind::User);
            assert!(error.message().ends_with(text), "{error}");
        }
    }
}
