//! One statement: its rows are printed, whether they come once or keep coming.

use std::sync::Arc;

use futures::TryStreamExt;
use highwater::{
    Error, ErrorKind, OutputMode, Result, StreamFrame, StreamSession, StreamingQuery, Trigger,
};
use parking_lot::Mutex;

use crate::output::{Format, Printer, Shown};
use crate::sinks::ScreenSink;

/// Runs statements and prints their rows.
#[derive(Debug)]
pub(crate) struct Runner {
    session: StreamSession,
    printer: Arc<Printer>,
    trigger: Trigger,
    /// The query of a SELECT that stands alone.
    alone: Mutex<Option<StreamingQuery>>,
}

impl Runner {
    pub(crate) fn new(
        session: StreamSession,
        printer: Arc<Printer>,
        trigger: Option<Trigger>,
    ) -> Self {
        Self {
            session,
            printer,
            trigger: trigger.unwrap_or_default(),
            alone: Mutex::default(),
        }
    }

    pub(crate) fn session(&self) -> &StreamSession {
        &self.session
    }

    pub(crate) fn printer(&self) -> &Printer {
        &self.printer
    }

    /// Runs one statement to its end; the rows it printed, `None` for one that prints none.
    ///
    /// # Errors
    /// What the statement fails with, with its place in `text`.
    pub(crate) async fn run(&self, text: &str) -> Result<Option<u64>> {
        let frame = self.session.sql(text).await?;
        if frame.is_streaming() {
            self.stream(frame).await?;
            return Ok(None);
        }
        self.batch(frame, !acts(text)).await
    }

    /// Ends the query of a SELECT that stands alone, when its statement was given up.
    pub(crate) async fn cancel(&self) -> Result<()> {
        let query = self.alone.lock().take();
        match query {
            Some(query) => query.stop().await,
            None => Ok(()),
        }
    }

    /// Prints a stream until it ends.
    async fn stream(&self, frame: StreamFrame) -> Result<()> {
        let query = self.start(frame).await?;
        *self.alone.lock() = Some(query.clone());
        let ended = query.await_termination().await;
        *self.alone.lock() = None;
        ended
    }

    /// Starts it in the output mode that its EMIT says, else in the first that it allows.
    async fn start(&self, frame: StreamFrame) -> Result<StreamingQuery> {
        let all = [OutputMode::Append, OutputMode::Update, OutputMode::Complete];
        let asked = frame.mode();
        let mut refused = None;
        for mode in all
            .into_iter()
            .filter(|mode| asked.is_none_or(|asked| asked == *mode))
        {
            let writer = frame.clone().write_stream().output_mode(mode);
            let sink = Arc::new(ScreenSink::select(Arc::clone(&self.printer)));
            match writer.sink(sink).trigger(self.trigger).start().await {
                Ok(query) => return Ok(query),
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| Error::internal("no output mode was tried")))
    }

    /// Prints the rows of a batch query, as they come where the format allows it.
    async fn batch(&self, frame: StreamFrame, shows: bool) -> Result<Option<u64>> {
        let schema = Arc::clone(frame.schema().inner());
        let mut rows = frame.execute_stream().await?;
        if !shows || schema.fields().is_empty() {
            while rows.try_next().await?.is_some() {}
            return Ok(None);
        }
        if self.printer.format() == Format::Table {
            let rows: Vec<_> = rows.try_collect().await?;
            self.printer.table(&schema, &rows, Shown::ALL)?;
            return Ok(Some(rows.iter().map(|rows| rows.num_rows() as u64).sum()));
        }
        self.printer.begin(&schema)?;
        let mut count = 0;
        while let Some(rows) = rows.try_next().await? {
            if rows.num_rows() > 0 {
                count += rows.num_rows() as u64;
                self.printer.rows(&rows)?;
            }
        }
        Ok(Some(count))
    }
}

/// True for a statement that does something; what it answers is no result.
fn acts(text: &str) -> bool {
    const WORDS: [&str; 19] = [
        "CREATE",
        "DROP",
        "ALTER",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TRUNCATE",
        "MERGE",
        "COPY",
        "SET",
        "RESET",
        "USE",
        "PREPARE",
        "DEALLOCATE",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "AWAIT",
        "STOP",
    ];
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).next();
    word.is_some_and(|word| WORDS.iter().any(|acts| word.eq_ignore_ascii_case(acts)))
}

#[cfg(test)]
mod tests {
    use super::acts;

    #[test]
    fn what_acts_answers_no_rows() {
        for (text, expected) in [
            ("CREATE TABLE t (a INT)", true),
            ("insert into t values (1)", true),
            ("await STREAMING QUERY q", true),
            ("SELECT 1", false),
            ("(SELECT 1)", false),
            ("VALUES (1)", false),
            ("SHOW STREAMING QUERIES", false),
            ("DESCRIBE STREAMING QUERY q", false),
            ("EXPLAIN SELECT 1", false),
            ("WITH a AS (SELECT 1) SELECT * FROM a", false),
        ] {
            assert_eq!(acts(text), expected, "{text}");
        }
    }
}
