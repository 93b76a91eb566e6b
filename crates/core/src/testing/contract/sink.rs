//! What every sink must do: one call runs all of it, in every mode the sink supports.
//!
//! ```ignore
//! contract::sink::all(async |mode| Ok(Subject::blind(Arc::new(NoopSink::new())))).await?;
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Int64Array, StringViewArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use futures::stream;
use uuid::Uuid;

use crate::{
    BatchId, BatchOutput, Error, ErrorKind, Guarantee, OutputMode, QueryId, Result, RunId, Sink,
    SinkCommit, SinkRun,
};

/// The rows that a sink shows.
pub type Visible = Box<dyn Fn() -> BoxFuture<'static, Result<Vec<RecordBatch>>> + Send + Sync>;

/// A sink under test, and the eyes to see what it shows.
pub struct Subject {
    /// The sink, fresh, made for the columns of [`schema`].
    pub sink: Arc<dyn Sink>,
    /// Its visible rows; an exactly-once sink must have it.
    pub visible: Option<Visible>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("sink", &self.sink)
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// A sink nobody can look into.
    #[must_use]
    pub fn blind(sink: Arc<dyn Sink>) -> Self {
        Self {
            sink,
            visible: None,
        }
    }

    /// A sink whose rows can be seen at once.
    #[must_use]
    pub fn seen(
        sink: Arc<dyn Sink>,
        rows: impl Fn() -> Vec<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        let visible: Visible = Box::new(move || {
            let rows = rows();
            Box::pin(std::future::ready(Ok(rows)))
        });
        Self {
            sink,
            visible: Some(visible),
        }
    }
}

/// The columns of the rows that the suite writes: `k STRING, n BIGINT`.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8View, true),
        Field::new("n", DataType::Int64, true),
    ]))
}

/// Runs the whole suite in every mode.
///
/// `make` gives a new sink each time; for a mode that it refuses as `Unsupported`, or that
/// [`Sink::supports`] denies, nothing is tested.
///
/// # Errors
/// `Internal`, saying which promise is broken; or what the sink itself failed with.
pub async fn all(make: impl AsyncFn(OutputMode) -> Result<Subject>) -> Result<()> {
    let mut tested = 0;
    for mode in [OutputMode::Append, OutputMode::Update, OutputMode::Complete] {
        if supported(&make, mode).await?.is_none() {
            continue;
        }
        rows_are_written(&fresh(&make, mode).await?, mode).await?;
        the_same_id_twice(&fresh(&make, mode).await?, mode).await?;
        a_failed_stream_leaves_nothing(&fresh(&make, mode).await?, mode).await?;
        tested += 1;
    }
    match tested {
        0 => broken("it supports no output mode"),
        _ => Ok(()),
    }
}

/// Micro-batches are taken one after the other, also empty ones, each pulled to its end.
///
/// # Errors
/// `Internal`, saying what is broken.
pub async fn rows_are_written(subject: &Subject, mode: OutputMode) -> Result<()> {
    for (id, n) in [(0, 2), (1, 0), (2, 3)] {
        let commit = write(subject, mode, id, n).await?;
        if commit.rows.is_some_and(|rows| rows != n) {
            return broken(format!("of {n} rows it says that it wrote {commit:?}"));
        }
    }
    let expected = match mode {
        OutputMode::Complete => rows(2, 3)?,
        _ => concat_batches(&schema(), &[rows(0, 2)?, rows(2, 3)?])?,
    };
    match seen(subject).await? {
        Some(seen) if seen != expected => broken(format!("it shows {seen:?}, not {expected:?}")),
        _ => Ok(()),
    }
}

/// An exactly-once sink shows a batch id once; every sink runs the query again when asked.
///
/// # Errors
/// `Internal`, saying what is broken.
pub async fn the_same_id_twice(subject: &Subject, mode: OutputMode) -> Result<()> {
    write(subject, mode, 0, 2).await?;
    write(subject, mode, 1, 3).await?;
    let before = seen(subject).await?;
    write(subject, mode, 1, 3).await?;
    if exactly_once(subject) && seen(subject).await? != before {
        return broken("the same batch id became visible twice");
    }
    Ok(())
}

/// The error comes out, nothing of an exactly-once sink is half-visible, and the retry is.
///
/// # Errors
/// `Internal`, saying what is broken.
pub async fn a_failed_stream_leaves_nothing(subject: &Subject, mode: OutputMode) -> Result<()> {
    write(subject, mode, 0, 2).await?;
    let before = seen(subject).await?;
    let failure = DataFusionError::from(Error::unavailable("the stream failed"));
    let items = vec![Ok(rows(1, 3)?), Err(failure)];
    match subject.sink.write(output(mode, 1, items).0).await {
        Err(error) if error.kind() == ErrorKind::Unavailable => {}
        other => return broken(format!("a failed stream ended as {other:?}")),
    }
    if exactly_once(subject) && seen(subject).await? != before {
        return broken("a failed stream left something visible");
    }
    write(subject, mode, 1, 3).await?;
    if exactly_once(subject) && seen(subject).await? == before {
        return broken("after a failed stream, the same batch id is ignored");
    }
    Ok(())
}

async fn supported(
    make: &impl AsyncFn(OutputMode) -> Result<Subject>,
    mode: OutputMode,
) -> Result<Option<Subject>> {
    match make(mode).await {
        Ok(subject) if subject.sink.supports(mode) => Ok(Some(subject)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// A sink that has begun a run with a fresh checkpoint.
async fn fresh(
    make: &impl AsyncFn(OutputMode) -> Result<Subject>,
    mode: OutputMode,
) -> Result<Subject> {
    let subject = make(mode).await?;
    if exactly_once(&subject) && subject.visible.is_none() {
        return broken("an exactly-once sink must be seen: give `visible`");
    }
    let run = SinkRun::new(QUERY, RUN, mode, schema());
    subject.sink.begin(&run).await?;
    Ok(subject)
}

fn exactly_once(subject: &Subject) -> bool {
    subject.sink.guarantee() == Guarantee::ExactlyOnce
}

/// Writes `n` rows, and looks whether the sink pulled the stream to its end.
async fn write(subject: &Subject, mode: OutputMode, id: u64, n: u64) -> Result<SinkCommit> {
    let items = match n {
        0 => Vec::new(),
        n => vec![Ok(rows(id, n)?)],
    };
    let (output, ended) = output(mode, id, items);
    let commit = subject.sink.write(output).await?;
    if !ended.load(Ordering::Relaxed) {
        return broken(format!(
            "batch {id} was not pulled to its end, so the query did not run"
        ));
    }
    Ok(commit)
}

async fn seen(subject: &Subject) -> Result<Option<RecordBatch>> {
    match &subject.visible {
        None => Ok(None),
        Some(visible) => Ok(Some(concat_batches(&schema(), &visible().await?)?)),
    }
}

const QUERY: QueryId = QueryId(Uuid::from_u128(1));
const RUN: RunId = RunId(Uuid::from_u128(2));

/// `n` rows that only batch `id` has.
fn rows(id: u64, n: u64) -> Result<RecordBatch> {
    let keys = (0..n).map(|i| Some(format!("key {i} of the micro-batch {id}")));
    let keys: StringViewArray = keys.collect();
    let numbers: Int64Array = (0..n).map(|i| i64::try_from(id * 1_000 + i).ok()).collect();
    Ok(RecordBatch::try_new(
        schema(),
        vec![Arc::new(keys), Arc::new(numbers)],
    )?)
}

type Item = Result<RecordBatch, DataFusionError>;

/// One micro-batch, and a flag that is set once its stream has been pulled to the end.
fn output(mode: OutputMode, id: u64, items: Vec<Item>) -> (BatchOutput, Arc<AtomicBool>) {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let mut items = items.into_iter();
    let stream = stream::poll_fn(move |_| {
        let item = items.next();
        flag.fetch_or(item.is_none(), Ordering::Relaxed);
        std::task::Poll::Ready(item)
    });
    let output = BatchOutput {
        id: BatchId(id),
        query_id: QUERY,
        run_id: RUN,
        mode,
        schema: schema(),
        keys: None,
        stream: Box::pin(RecordBatchStreamAdapter::new(schema(), stream)),
    };
    (output, ended)
}

fn broken<T>(how: impl fmt::Display) -> Result<T> {
    Err(Error::internal(format!(
        "the contract of a sink is broken: {how}"
    )))
}
