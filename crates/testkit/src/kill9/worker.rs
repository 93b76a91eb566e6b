//! What the child does: three queries over one folder of files, until somebody kills it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;
use highwater::prelude::*;
use highwater::{QueryProgressEvent, Result, StreamingQueryListener};

use super::load::SCHEMA;
use super::place::Place;
use super::queries::{Query, SinkKind};

/// What a worker is told.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// The folder that has all of it.
    pub folder: PathBuf,
    /// What writes the results that are append-only.
    pub sink: SinkKind,
    /// The option `durability` of the queries; by default it is not given.
    pub durability: Option<String>,
    /// Ends when all that is there is processed.
    pub available_now: bool,
    /// How many committed micro-batches stay in a checkpoint at least; by default the session's.
    pub retain: Option<u64>,
}

/// Files of one micro-batch.
const FILES: u64 = 2;

/// Runs the queries, and says a line for each event: see [`Report`](super::child::Report).
///
/// # Errors
/// The first failure of a query.
pub async fn work(
    options: WorkerOptions,
    say: impl Fn(&str) + Send + Sync + 'static,
) -> Result<()> {
    let place = Place::new(&options.folder);
    let mut session = StreamSession::builder();
    if let Some(retain) = options.retain {
        session = session.config("highwater.min_batches_to_retain", retain.to_string());
    }
    let session = session.build()?;
    let say = Arc::new(say);
    let listener = Teller(Arc::clone(&say));
    session.streams().add_listener(listener);
    let mut queries = Vec::new();
    for query in Query::ALL {
        queries.push(start(&session, query, &place, &options).await?);
        say(&format!("started {}", query.name()));
    }
    try_join_all(queries.iter().map(StreamingQuery::await_termination)).await?;
    Ok(())
}

async fn start(
    session: &StreamSession,
    query: Query,
    place: &Place,
    options: &WorkerOptions,
) -> Result<StreamingQuery> {
    let input = session
        .read_stream()
        .schema(SCHEMA)
        .option("maxFilesPerTrigger", FILES)
        .option("pollInterval", "50 milliseconds")
        .json(place.input().to_string_lossy())
        .await?;
    let folder = place.output(query);
    fs::create_dir_all(&folder)?;
    let mut writer = options.sink.of(query).attach(query.write(&input)?, &folder);
    if options.available_now {
        writer = writer.trigger(Trigger::AvailableNow);
    }
    if let Some(durability) = &options.durability {
        writer = writer.option("durability", durability.as_str());
    }
    let checkpoint = place.checkpoint(query);
    let writer = writer.checkpoint_location(checkpoint.to_string_lossy());
    writer.start().await.map_err(|e| e.context(query.name()))
}

/// Says what was committed.
struct Teller<F>(Arc<F>);

impl<F: Fn(&str) + Send + Sync + 'static> StreamingQueryListener for Teller<F> {
    fn on_query_progress(&self, event: &QueryProgressEvent) {
        let progress = &event.progress;
        let name = progress.name.as_deref().unwrap_or_default();
        let operators = progress.state_operators.iter();
        let late: u64 = operators.map(|operator| operator.num_late_rows).sum();
        (self.0)(&format!("progress {name} {} {late}", progress.batch_id));
    }
}
