//! A session as sqllogictest knows databases.

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use highwater::{Error, Result, StreamFrame, StreamSession, Trigger};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

use crate::rows;

/// A session under test.
#[derive(Debug)]
pub struct SltSession {
    session: StreamSession,
    /// How many streaming SELECTs were run.
    selects: usize,
}

impl SltSession {
    /// The session as a database.
    #[must_use]
    pub fn new(session: StreamSession) -> Self {
        Self {
            session,
            selects: 0,
        }
    }

    /// The rows of a statement: a batch's, or those a stream gives until all that is there is done.
    pub(crate) async fn rows(&mut self, frame: StreamFrame) -> Result<Vec<RecordBatch>> {
        if !frame.is_streaming() {
            return frame.collect().await;
        }
        self.selects += 1;
        let name = format!("slt_select_{}", self.selects);
        let query = frame
            .write_stream()
            .format("memory")
            .query_name(&name)
            .trigger(Trigger::AvailableNow)
            .start()
            .await?;
        query.await_termination().await?;
        let rows = self.session.table(name.as_str()).await?.collect().await;
        self.session.context().deregister_table(name.as_str())?;
        rows
    }

    /// Runs one statement, or `process`.
    pub(crate) async fn statement(&mut self, sql: &str) -> Result<Vec<RecordBatch>> {
        let words = sql.trim().trim_end_matches(';');
        let mut words = words.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(process), query, None) if process.eq_ignore_ascii_case("process") => {
                self.process(query).await?;
                Ok(Vec::new())
            }
            _ => {
                let frame = self.session.sql(sql).await?;
                self.rows(frame).await
            }
        }
    }

    /// Lets the active queries, or one of them, do all that is there, in the order in which they were started.
    async fn process(&self, only: Option<&str>) -> Result<()> {
        let mut queries = self.session.streams().active();
        if let Some(name) = only {
            queries.retain(|query| query.name() == Some(name));
            if queries.is_empty() {
                return Err(Error::invalid(format!("there is no active query `{name}`")));
            }
        }
        for query in queries {
            query.process_all_available().await?;
        }
        Ok(())
    }
}

#[async_trait]
impl AsyncDB for SltSession {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>> {
        let batches = self.statement(sql).await?;
        rows::output(&batches)
    }

    async fn shutdown(&mut self) {
        // Queries that fail while they end have told so before.
        let _stopped = self.session.streams().stop_all().await;
    }

    fn engine_name(&self) -> &str {
        "highwater"
    }
}
