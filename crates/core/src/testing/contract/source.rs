//! What every source must do: one call runs all of it.
//!
//! ```ignore
//! contract::source::all(async || Ok(Arc::new(my_source_with_rows()?) as Arc<dyn Source>)).await?;
//! ```

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::TaskContext;
use futures::TryStreamExt;

use crate::{Error, OffsetRange, ReadLimit, ReadRequest, Result, Source, Timestamp};

/// How many micro-batches a source may be cut into before we say that it never gets to its end.
const MOST_STEPS: usize = 100_000;

/// Runs the whole suite.
///
/// `make` gives a new source each time, as a query would have it, with the same rows in it, at least two.
///
/// # Errors
/// `Internal`, saying which promise is broken; or what the source itself failed with.
pub async fn all(make: impl AsyncFn() -> Result<Arc<dyn Source>>) -> Result<()> {
    columns_are_nullable(&*make().await?)?;
    an_empty_range_has_no_rows(&*make().await?).await?;
    the_same_range_is_the_same_rows(&*make().await?).await?;
    a_limited_walk_reaches_the_end(&make).await?;
    a_limit_is_kept(&make).await?;
    the_end_that_was_pinned_is_kept(&*make().await?).await?;
    a_commit_changes_nothing_after_it(&*make().await?).await?;
    a_projection_is_obeyed(&make).await?;
    a_source_with_rows_wakes_its_reader(&*make().await?).await
}

/// A source makes every column nullable (Spark).
///
/// # Errors
/// `Internal`, naming the column.
pub fn columns_are_nullable(source: &dyn Source) -> Result<()> {
    match source.schema().fields().iter().find(|f| !f.is_nullable()) {
        None => Ok(()),
        Some(field) => broken(format!("column `{}` is not nullable", field.name())),
    }
}

/// `(a, a]` is empty wherever `a` is, and at the end there is nothing new.
///
/// # Errors
/// `Internal`, saying what is broken.
pub async fn an_empty_range_has_no_rows(source: &dyn Source) -> Result<()> {
    let whole = whole(source).await?;
    for position in [&whole.start, &whole.end] {
        let range = OffsetRange::new(position.clone(), position.clone());
        if rows(source, &range, None).await?.num_rows() != 0 {
            return broken(format!("the empty range at {position} has rows"));
        }
        let latest = source
            .latest_offset(position, &ReadLimit::All, Some(position))
            .await?;
        if latest != *position {
            return broken(format!(
                "pinned to {position}, the latest offset is {latest}"
            ));
        }
    }
    Ok(())
}

/// A replayable source gives the same rows in the same order.
///
/// # Errors
/// `Internal` when it does not.
pub async fn the_same_range_is_the_same_rows(source: &dyn Source) -> Result<()> {
    if !source.traits().replayable {
        return Ok(());
    }
    let whole = whole(source).await?;
    let first = rows(source, &whole, None).await?;
    for _ in 0..2 {
        if rows(source, &whole, None).await? != first {
            return broken("a second read of the same range gives other rows");
        }
    }
    Ok(())
}

/// Cut into small micro-batches, the rows are all there, each once, and in order.
///
/// # Errors
/// `Internal` when the walk gets stuck, leaves the range, or loses rows.
pub async fn a_limited_walk_reaches_the_end(
    make: &impl AsyncFn() -> Result<Arc<dyn Source>>,
) -> Result<()> {
    let own = make().await?.read_limit();
    let small = [
        own,
        ReadLimit::MaxRows(1),
        ReadLimit::MaxFiles(1),
        ReadLimit::MaxBytes(1),
    ];
    for limit in small {
        let source = make().await?;
        let whole = whole(&*source).await?;
        let expected = rows(&*make().await?, &whole, None).await?.num_rows();
        let walked: usize = walk(&*source, &whole, &limit).await?.iter().sum();
        if walked != expected {
            return broken(format!(
                "under {limit:?} there are {walked} rows, at once {expected}"
            ));
        }
    }
    Ok(())
}

/// No more rows than asked for, but for the smallest step that the source can take.
///
/// # Errors
/// `Internal` when a micro-batch is larger.
pub async fn a_limit_is_kept(make: &impl AsyncFn() -> Result<Arc<dyn Source>>) -> Result<()> {
    let source = make().await?;
    let whole = whole(&*source).await?;
    let steps = walk(&*source, &whole, &ReadLimit::MaxRows(1)).await?;
    let smallest = steps.into_iter().max().unwrap_or(0);
    for limit in [2, 3, 5] {
        let steps = walk(&*make().await?, &whole, &ReadLimit::MaxRows(limit)).await?;
        let most = steps.into_iter().max().unwrap_or(0);
        if most > smallest.max(usize::try_from(limit).unwrap_or(usize::MAX)) {
            return broken(format!("under a limit of {limit} rows, {most} rows came"));
        }
    }
    Ok(())
}

/// With `upto` at the first step's end, the second step is never begun.
///
/// # Errors
/// `Internal` when the source goes beyond it.
pub async fn the_end_that_was_pinned_is_kept(source: &dyn Source) -> Result<()> {
    let whole = whole(source).await?;
    let one = ReadLimit::MaxRows(1);
    let first = source
        .latest_offset(&whole.start, &one, Some(&whole.end))
        .await?;
    for limit in [ReadLimit::All, one] {
        let pinned = source
            .latest_offset(&whole.start, &limit, Some(&first))
            .await?;
        if pinned != first {
            return broken(format!("pinned to {first}, the latest offset is {pinned}"));
        }
    }
    Ok(())
}

/// What comes after a committed position can still be read; a commit may come twice.
///
/// # Errors
/// `Internal` when rows changed.
pub async fn a_commit_changes_nothing_after_it(source: &dyn Source) -> Result<()> {
    let whole = whole(source).await?;
    let one = ReadLimit::MaxRows(1);
    source.commit(&whole.start).await?;
    let middle = source
        .latest_offset(&whole.start, &one, Some(&whole.end))
        .await?;
    let rest = OffsetRange::new(middle.clone(), whole.end.clone());
    let before = rows(source, &rest, None).await?;
    for _ in 0..2 {
        source.commit(&middle).await?;
    }
    if rows(source, &rest, None).await? != before {
        return broken("a commit changed rows that come after it");
    }
    source.commit(&whole.end).await?;
    let end = source
        .latest_offset(&whole.end, &ReadLimit::All, Some(&whole.end))
        .await?;
    if end != whole.end {
        return broken(format!(
            "after a commit of {}, the latest offset is {end}",
            whole.end
        ));
    }
    Ok(())
}

/// Each column alone, all of them backwards, and none at all.
///
/// # Errors
/// `Internal` when other columns, or other rows, come.
pub async fn a_projection_is_obeyed(
    make: &impl AsyncFn() -> Result<Arc<dyn Source>>,
) -> Result<()> {
    let source = make().await?;
    let whole = whole(&*source).await?;
    let all = rows(&*source, &whole, None).await?;
    let columns = all.num_columns();
    let mut projections: Vec<Vec<usize>> = (0..columns).map(|column| vec![column]).collect();
    projections.push((0..columns).rev().collect());
    projections.push(Vec::new());
    for projection in projections {
        let source = make().await?;
        let some = rows(&*source, &whole, Some(projection.clone())).await?;
        if some != all.project(&projection)? {
            return broken(format!("the projection {projection:?} gives other columns"));
        }
    }
    Ok(())
}

/// A reader that has seen nothing of a source that has rows does not sleep.
///
/// # Errors
/// `Internal` when `changed` does not come back.
pub async fn a_source_with_rows_wakes_its_reader(source: &dyn Source) -> Result<()> {
    let start = source.initial_offset().await?;
    source.latest_offset(&start, &ReadLimit::All, None).await?;
    let mut changed = source.changed();
    for _ in 0..MOST_STEPS {
        if futures::poll!(changed.as_mut()).is_ready() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    broken("it has rows that were not read, and `changed` sleeps")
}

/// From before the first row to the last one.
async fn whole(source: &dyn Source) -> Result<OffsetRange> {
    let start = source.initial_offset().await?;
    let end = source.latest_offset(&start, &ReadLimit::All, None).await?;
    if start == end {
        return broken("`make` must give a source with rows in it, but it has none");
    }
    Ok(OffsetRange::new(start, end))
}

/// The numbers of rows of the micro-batches that `limit` cuts `whole` into.
async fn walk(source: &dyn Source, whole: &OffsetRange, limit: &ReadLimit) -> Result<Vec<usize>> {
    let mut steps = Vec::new();
    let mut start = whole.start.clone();
    while start != whole.end {
        let end = source
            .latest_offset(&start, limit, Some(&whole.end))
            .await?;
        if end == start || steps.len() == MOST_STEPS {
            return broken(format!(
                "under {limit:?} it is stuck at {start} before {}",
                whole.end
            ));
        }
        let range = OffsetRange::new(start, end.clone());
        steps.push(rows(source, &range, None).await?.num_rows());
        start = end;
    }
    Ok(steps)
}

/// All rows of a range, as one batch.
async fn rows(
    source: &dyn Source,
    range: &OffsetRange,
    projection: Option<Vec<usize>>,
) -> Result<RecordBatch> {
    let schema = match &projection {
        Some(columns) => Arc::new(source.schema().project(columns)?),
        None => source.schema(),
    };
    let request = ReadRequest {
        range: range.clone(),
        projection,
        filters: Vec::new(),
        batch_time: Timestamp::default(),
        task: Arc::new(TaskContext::default()),
    };
    let mut batches = Vec::new();
    for mut stream in source.read(request).await? {
        same_columns(&stream.schema(), &schema)?;
        while let Some(batch) = stream.try_next().await? {
            same_columns(&batch.schema(), &schema)?;
            batches.push(batch);
        }
    }
    Ok(concat_batches(&schema, &batches)?)
}

fn same_columns(found: &SchemaRef, expected: &SchemaRef) -> Result<()> {
    if found.fields() == expected.fields() {
        return Ok(());
    }
    broken(format!("a stream has {found:?} instead of {expected:?}"))
}

fn broken<T>(how: impl std::fmt::Display) -> Result<T> {
    Err(Error::internal(format!(
        "the contract of a source is broken: {how}"
    )))
}
