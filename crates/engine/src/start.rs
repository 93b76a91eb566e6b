//! From a request to a running query: plan, open the checkpoint, recover, begin the sink, let the loop go.
//!
//! Everything that can be refused is refused here, so that a query that started can run. Nothing has started
//! until the last lines of [`start`], which wait for nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, AbortRegistration};
use highwater_checkpoint::{Checkpoint, OperatorIdentity};
use highwater_core::{Error, Result, RunId, SinkRun, Trigger};
use highwater_plan::{IncrementalPlan, PlanRequest, plan_query};

use crate::construct::{Input, Inputs};
use crate::late::LateSink;
use crate::life;
use crate::listen::Changes;
use crate::manager::{
    CheckpointLocation, Shared, StartRequest, already_active, new_query_id, new_run_id,
};
use crate::options;
use crate::query::{Identity, QueryCore, StreamingQuery};
use crate::recover::Standing;
use crate::report::{Laps, Reporter};
use crate::run::Run;
use crate::steps::Rules;
use crate::ticker::Ticker;
use crate::watermarks::Watermarks;

/// Starts a query, or says why not.
pub(crate) async fn start(manager: &Arc<Shared>, request: StartRequest) -> Result<StreamingQuery> {
    check_sink(&request)?;
    let begun = manager.clock.now();
    let mut plan = plan(&request).await?;
    let planning = manager.clock.now().since(begun);
    let late = with_options(&request, &plan).await?;
    let run_id = new_run_id();
    let checkpoint = open(manager, &request, run_id).await?;
    check_operators(&checkpoint, &plan).await?;
    let mut inputs = inputs(manager, &checkpoint, &mut plan).await?;
    let standing = Standing::of(&checkpoint, &inputs).await?;
    standing.refuse_after_flush(&inputs).await?;
    standing.restore(&checkpoint, &plan).await?;
    if request.trigger == Trigger::AvailableNow || request.options.flush_on_end {
        inputs.pin(&standing.position.ends).await?;
    }
    if request.trigger == Trigger::Once {
        inputs.unlimited();
    }
    let parts = Parts {
        plan,
        checkpoint,
        inputs,
        standing,
        planning,
        run_id,
        late,
    };
    begin_sinks(&request, &parts).await?;
    let (abort, registration) = AbortHandle::new_pair();
    let run = assemble(manager, request, parts, abort)?;
    launch(manager, run, registration)
}

/// What a start has gathered.
struct Parts {
    plan: IncrementalPlan,
    checkpoint: Checkpoint,
    inputs: Inputs,
    standing: Standing,
    planning: Duration,
    run_id: RunId,
    late: Option<LateSink>,
}

/// The query is active from here on.
fn launch(
    manager: &Arc<Shared>,
    run: Run,
    registration: AbortRegistration,
) -> Result<StreamingQuery> {
    let query = StreamingQuery::new(Arc::clone(&run.query));
    manager.register(&query)?;
    query.core().started();
    let life = life::live(Arc::clone(manager), query.clone(), run, registration);
    manager.runtime.spawn(life);
    Ok(query)
}

/// Mode and checkpoint are what the sink can do with.
fn check_sink(request: &StartRequest) -> Result<()> {
    let (sink, mode) = (&request.sink, request.mode);
    if !sink.supports(mode) {
        return Err(Error::unsupported(format!(
            "{} does not support the output mode {mode}",
            sink.description()
        ))
        .with_condition("STREAMING_OUTPUT_MODE.UNSUPPORTED_DATASOURCE")
        .with_hint("choose another output mode or another sink"));
    }
    let temporary = matches!(request.checkpoint, CheckpointLocation::Temporary);
    if temporary && sink.needs_checkpoint() {
        return Err(Error::invalid(
            "checkpointLocation must be specified either through option(\"checkpointLocation\", …) \
             or the setting highwater.checkpoint_location",
        )
        .with_option("checkpointLocation"));
    }
    Ok(())
}

/// Tells the plan what the query was told beyond Spark; opens the sink of the late rows.
async fn with_options(request: &StartRequest, plan: &IncrementalPlan) -> Result<Option<LateSink>> {
    options::check(request, !plan.watermarks().is_empty())?;
    if let Some(skew) = request.options.max_event_time_skew {
        plan.limit_skew(i64::try_from(skew.as_micros()).unwrap_or(i64::MAX));
    }
    let Some(target) = &request.options.late_rows else {
        return Ok(None);
    };
    let durable = !matches!(request.checkpoint, CheckpointLocation::Temporary);
    LateSink::open(target.as_ref(), plan, durable)
        .await
        .map(Some)
}

async fn plan(request: &StartRequest) -> Result<IncrementalPlan> {
    let request = PlanRequest {
        plan: request.plan.clone(),
        session: request.session.clone(),
        mode: request.mode,
    };
    Box::pin(plan_query(request)).await
}

/// Opens the checkpoint; a run of the same query in this session is stopped first, or this start is refused.
async fn open(manager: &Shared, request: &StartRequest, run_id: RunId) -> Result<Checkpoint> {
    let CheckpointLocation::At {
        store,
        folder,
        display,
    } = &request.checkpoint
    else {
        return Ok(Checkpoint::temporary(run_id, new_query_id()));
    };
    let stop = request.settings.stop_active_run_on_restart;
    let here = manager.find(|query| query.core().location() == Some(display.as_str()));
    make_way(here, stop).await?;
    let (store, folder) = (Arc::clone(store), folder.clone());
    let checkpoint = Checkpoint::open(store, folder, run_id, new_query_id()).await?;
    // The same location may be written in several ways.
    let same = manager.find(|query| query.id() == checkpoint.query_id());
    make_way(same, stop).await?;
    Ok(checkpoint)
}

async fn make_way(active: Option<StreamingQuery>, stop: bool) -> Result<()> {
    match active {
        None => Ok(()),
        Some(query) if stop => {
            tracing::warn!(id = %query.id(), run_id = %query.run_id(), "stopped, as it was started again");
            query.stop().await
        }
        Some(query) => Err(already_active(query.id())),
    }
}

async fn check_operators(checkpoint: &Checkpoint, plan: &IncrementalPlan) -> Result<()> {
    if checkpoint.is_temporary() {
        return Ok(());
    }
    let operators = plan.operators().iter().map(|operator| {
        let schema = operator.state_schema();
        OperatorIdentity {
            name: operator.name().to_owned(),
            keys: schema.keys,
            values: schema.values,
        }
    });
    let operators = operators.collect::<Vec<_>>();
    checkpoint.check_operators(&operators).await
}

/// The sources as this query has them; those that keep something for each query give an instance for it.
async fn inputs(
    manager: &Shared,
    checkpoint: &Checkpoint,
    plan: &mut IncrementalPlan,
) -> Result<Inputs> {
    let mut inputs = Vec::new();
    for planned in plan.sources() {
        let context = checkpoint.source_context(&planned.name, Arc::clone(&manager.clock));
        let source = match planned.source.for_query(context).await? {
            Some(own) => {
                plan.bind(&planned.name, Arc::clone(&own));
                own
            }
            None => planned.source,
        };
        if !source.traits().replayable && !checkpoint.is_temporary() {
            let source = source.description();
            tracing::warn!(
                source,
                "the source cannot replay: rows of a failed micro-batch are lost"
            );
        }
        inputs.push(Input {
            name: planned.name,
            limit: source.read_limit(),
            source,
            pin: None,
        });
    }
    Ok(Inputs::new(inputs))
}

async fn begin_sinks(request: &StartRequest, parts: &Parts) -> Result<()> {
    let (query_id, schema) = (parts.checkpoint.query_id(), parts.plan.schema());
    let mut run = SinkRun::new(query_id, parts.run_id, request.mode, schema);
    run.last_logged = parts.standing.last_logged;
    request.sink.begin(&run).await?;
    match &parts.late {
        Some(late) => late.begin(&run).await,
        None => Ok(()),
    }
}

fn assemble(
    manager: &Shared,
    request: StartRequest,
    parts: Parts,
    abort: AbortHandle,
) -> Result<Run> {
    let Parts {
        plan,
        checkpoint,
        inputs,
        standing,
        planning,
        run_id,
        late,
    } = parts;
    let rules = Rules::new(&request, standing.conf);
    let delays = plan.watermarks().iter().map(|input| input.delay_ms);
    let watermarks = Watermarks::new(
        standing.watermarks,
        delays,
        rules.watermark_policy()?,
        request.options.idle_after(),
    );
    let identity = Identity {
        id: checkpoint.query_id(),
        run_id,
        name: request.name,
        location: request.checkpoint.display(),
        explain: plan.explain(),
        keep: request.settings.recent_progress,
        watermark: watermarks.current(),
    };
    let (clock, bus) = (Arc::clone(&manager.clock), Arc::clone(&manager.bus));
    let query = Arc::new(QueryCore::new(identity, clock, abort, bus));
    let changes = Changes::new(inputs.iter().map(|input| Arc::clone(&input.source)));
    let reporter = Reporter {
        sources: inputs
            .iter()
            .map(|input| input.source.description())
            .collect(),
        sink: request.sink.description(),
        planning,
        fired_before: None,
    };
    // A run that is flushed takes further looks: what is left, and then the final micro-batch.
    let trigger = match request.trigger {
        Trigger::Once if rules.flush => Trigger::AvailableNow,
        asked => asked,
    };
    let polling = request.settings.polling;
    Ok(Run {
        ticker: Ticker::new(trigger, Arc::clone(&query), changes, polling),
        query,
        inputs,
        plan,
        sink: request.sink,
        late,
        checkpoint,
        rules,
        rerun: standing.position.pending.as_ref().map(|batch| batch.id),
        position: standing.position,
        watermarks,
        goal: None,
        in_flight: None,
        laps: Laps::default(),
        reporter,
    })
}
