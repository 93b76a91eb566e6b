//! Statements about queries: `AWAIT`, `STOP`, `SHOW`, `DESCRIBE`, `EXPLAIN STREAMING QUERY`.
//!
//! A query that ended is still known by its name, so that a script can await one that was done before it asked.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use highwater_engine::StreamingQuery;
use parking_lot::Mutex;

use super::near::nearest;
use super::statement::QueryName;
use super::words::at_location;
use crate::{Error, Interval, Result, StreamFrame, StreamSession};

/// So many queries that ended are remembered.
const KEPT: usize = 1000;

/// The queries that SQL has started, also those that have ended; the last one of a name counts.
#[derive(Debug, Default)]
pub(crate) struct Started(Mutex<Vec<StreamingQuery>>);

impl Started {
    fn all(&self) -> Vec<StreamingQuery> {
        self.0.lock().clone()
    }

    fn keep(&self, query: StreamingQuery) {
        let mut queries = self.0.lock();
        queries.retain(|other| other.name() != query.name());
        if queries.len() >= KEPT
            && let Some(ended) = queries.iter().position(|q| !q.is_active())
        {
            queries.remove(ended);
        }
        queries.push(query);
    }
}

/// Remembers a query that SQL has started.
pub(super) fn keep(session: &StreamSession, query: StreamingQuery) -> StreamingQuery {
    session.started().keep(query.clone());
    query
}

/// The query of that name: the active one, else the last one that SQL has started.
pub(super) fn find(session: &StreamSession, name: &str) -> Option<StreamingQuery> {
    let active = session.streams().by_name(name);
    active.or_else(|| {
        known(session)
            .into_iter()
            .rev()
            .find(|q| is_called(q, name))
    })
}

fn is_called(query: &StreamingQuery, name: &str) -> bool {
    query.name() == Some(name) || query.id().to_string() == name
}

/// The active queries and those that SQL has started, in the order in which they were.
fn known(session: &StreamSession) -> Vec<StreamingQuery> {
    let mut all = session.started().all();
    for query in session.streams().active() {
        if !all.iter().any(|other| other.run_id() == query.run_id()) {
            all.push(query);
        }
    }
    all
}

/// # Errors
/// `Invalid`, with its place, when there is no query of that name.
fn get(session: &StreamSession, asked: &QueryName) -> Result<StreamingQuery> {
    find(session, &asked.name).ok_or_else(|| {
        let all = known(session);
        let names: Vec<&str> = all.iter().filter_map(StreamingQuery::name).collect();
        let error = Error::invalid(format!("there is no query `{}`", asked.name))
            .with_operator("STREAMING QUERY");
        let error = match nearest(&asked.name, names.iter().copied()) {
            Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
            None if names.is_empty() => error.with_hint("no query was started in this session"),
            None => error.with_hint(format!("the queries are {}", names.join(", "))),
        };
        at_location(error, asked.place)
    })
}

/// `AWAIT STREAMING QUERY q [TIMEOUT …]`: one row, and whether the query has ended.
///
/// # Errors
/// The query's own failure, at its name.
pub(super) async fn wait(
    session: &StreamSession,
    asked: &QueryName,
    limit: Option<Interval>,
) -> Result<StreamFrame> {
    let query = get(session, asked)?;
    let ended = match limit {
        Some(limit) => query.await_termination_timeout(limit).await,
        None => query.await_termination().await.map(|()| true),
    };
    let ended = ended.map_err(|e| at_location(e, asked.place))?;
    let mut columns = identity(Some(&query));
    columns.push(("ended", Arc::new(BooleanArray::from(vec![ended]))));
    frame(session, columns)
}

/// `STOP STREAMING QUERY q`: it finishes the micro-batch in flight.
///
/// # Errors
/// `Invalid` when there is no such query.
pub(super) async fn stop(session: &StreamSession, asked: &QueryName) -> Result<StreamFrame> {
    let query = get(session, asked)?;
    query.stop().await?;
    one_row(session, Some(&query))
}

/// `EXPLAIN STREAMING QUERY q`.
///
/// # Errors
/// `Invalid` when there is no such query.
pub(super) fn explain(session: &StreamSession, asked: &QueryName) -> Result<StreamFrame> {
    let query = get(session, asked)?;
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let columns = vec![
        ("plan_type", text("incremental_plan")),
        ("plan", text(&query.explain())),
    ];
    frame(session, columns)
}

/// `SHOW STREAMING QUERIES`: a row for each query.
///
/// # Errors
/// None that are known.
pub(super) fn show(session: &StreamSession) -> Result<StreamFrame> {
    let all = known(session);
    let texts = |f: &dyn Fn(&StreamingQuery) -> Option<String>| -> ArrayRef {
        Arc::new(all.iter().map(f).collect::<StringArray>())
    };
    let active: Vec<bool> = all.iter().map(StreamingQuery::is_active).collect();
    let numbers = |f: &dyn Fn(&StreamingQuery) -> Option<i64>| -> ArrayRef {
        Arc::new(all.iter().map(f).collect::<Int64Array>())
    };
    let columns = vec![
        ("name", texts(&|q| q.name().map(str::to_owned))),
        ("id", texts(&|q| Some(q.id().to_string()))),
        ("run_id", texts(&|q| Some(q.run_id().to_string()))),
        ("active", Arc::new(BooleanArray::from(active)) as ArrayRef),
        ("status", texts(&|q| Some(q.status().message))),
        ("batch_id", numbers(&|q| last(q, |p| p.batch_id.0))),
        (
            "num_input_rows",
            numbers(&|q| last(q, |p| p.num_input_rows)),
        ),
        (
            "watermark",
            texts(&|q| q.watermark().map(|w| w.to_string())),
        ),
    ];
    frame(session, columns)
}

fn last(query: &StreamingQuery, of: impl Fn(&crate::StreamingQueryProgress) -> u64) -> Option<i64> {
    let progress = query.last_progress()?;
    i64::try_from(of(&progress)).ok()
}

/// `DESCRIBE STREAMING QUERY q`: its properties, a row each.
///
/// # Errors
/// `Invalid` when there is no such query.
pub(super) fn describe(session: &StreamSession, asked: &QueryName) -> Result<StreamFrame> {
    let query = get(session, asked)?;
    let mut rows: Vec<(&str, Option<String>)> = vec![
        ("name", query.name().map(str::to_owned)),
        ("id", Some(query.id().to_string())),
        ("run_id", Some(query.run_id().to_string())),
        ("active", Some(query.is_active().to_string())),
        ("status", Some(query.status().message)),
        ("watermark", query.watermark().map(|w| w.to_string())),
        ("exception", query.exception().map(|e| e.to_string())),
    ];
    let progress = query.last_progress();
    let of = |f: &dyn Fn(&crate::StreamingQueryProgress) -> String| progress.as_deref().map(f);
    rows.push(("batch_id", of(&|p| p.batch_id.to_string())));
    rows.push(("num_input_rows", of(&|p| p.num_input_rows.to_string())));
    rows.push(("last_progress", of(&|p| p.json())));
    rows.push(("plan", Some(query.explain())));
    let (names, values): (Vec<&str>, Vec<Option<String>>) = rows.into_iter().unzip();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("property", Arc::new(StringArray::from(names))),
        ("value", Arc::new(StringArray::from(values))),
    ];
    frame(session, columns)
}

/// The row that a statement gives which has started or stopped a query.
///
/// # Errors
/// None that are known.
pub(super) fn one_row(
    session: &StreamSession,
    query: Option<&StreamingQuery>,
) -> Result<StreamFrame> {
    frame(session, identity(query))
}

type Columns = Vec<(&'static str, ArrayRef)>;

fn identity(query: Option<&StreamingQuery>) -> Columns {
    let text = |f: &dyn Fn(&StreamingQuery) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from(vec![query.and_then(f)]))
    };
    vec![
        ("name", text(&|q| q.name().map(str::to_owned))),
        ("id", text(&|q| Some(q.id().to_string()))),
        ("run_id", text(&|q| Some(q.run_id().to_string()))),
    ]
}

fn frame(session: &StreamSession, columns: Vec<(&str, ArrayRef)>) -> Result<StreamFrame> {
    let fields = columns.iter().map(|(name, column)| {
        let data_type: &DataType = column.data_type();
        Field::new(*name, data_type.clone(), true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let rows = RecordBatch::try_new(schema, columns)?;
    Ok(session.frame(session.context().read_batch(rows)?))
}
