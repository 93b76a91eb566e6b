//! From a request to a running query: plan, open the checkpoint, recover, begin the sink, let the loop go.
//!
//! Everything that can be refused is refused here, so that a query that started can run. Nothing has started
//! until the last lines of [`start`], which wait for nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, AbortRegistration};
use highwater_checkpoint::{Checkpoint, OperatorIdentity, Upkeep};
use highwater_core::{Error, ErrorKind, Result, RunId, SinkRun, Trigger};
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
    let planned = planned(manager, &request).await?;
    let run_id = new_run_id();
    let checkpoint = open(manager, &request, run_id).await?;
    let parts = settle(manager, &request, planned, checkpoint, run_id).await?;
    let (abort, registration) = AbortHandle::new_pair();
    let query = query_core(manager, &request, &parts, abort)?;
    let run = assemble(Arc::new(request), parts, query)?;
    launch(manager, run, registration)
}

/// Begins the run anew, from what the checkpoint holds now.
///
/// An older run may be in the middle of a micro-batch when this one claims the checkpoint. What it writes until it
/// notices (an entry of a source's log, `offsets/N`, `commits/N`) may be found in the way of this run, which owns
/// the checkpoint and has not seen it. All of it is written once and whole, so this run goes on from it as a
/// restart would.
///
/// # Errors
/// What [`start`] says.
pub(crate) async fn anew(manager: &Arc<Shared>, run: &mut Run) -> Result<Run> {
    let (request, query) = (Arc::clone(&run.request), Arc::clone(&run.query));
    let planned = planned(manager, &request).await?;
    let checkpoint = run.checkpoint.clone();
    let parts = settle(manager, &request, planned, checkpoint, query.run_id()).await?;
    let mut again = assemble(request, parts, query)?;
    again.goal = run.goal.take();
    Ok(again)
}

/// A query, planned.
struct Planned {
    plan: IncrementalPlan,
    late: Option<LateSink>,
    took: Duration,
}

async fn planned(manager: &Shared, request: &StartRequest) -> Result<Planned> {
    let begun = manager.clock.now();
    let plan = plan(request).await?;
    let took = manager.clock.now().since(begun);
    let late = with_options(request, &plan).await?;
    Ok(Planned { plan, late, took })
}

/// So often a run begins anew because an older one was in its way. Each older run can be in the way three times: with
/// an entry of a source's log, with its last intent and with its last commit.
pub(crate) const NEW_BEGINNINGS: u32 = 12;

/// True when something that another run wrote is in the way, and yet the checkpoint is this run's.
pub(crate) async fn owns_although(error: &Error, checkpoint: &Checkpoint) -> bool {
    error.kind() == ErrorKind::Fenced
        && !checkpoint.is_temporary()
        && checkpoint.check_claim().await.is_ok()
}

/// Recovers and begins the sinks; once more, when an older run was in the way.
async fn settle(
    manager: &Shared,
    request: &StartRequest,
    mut first: Planned,
    checkpoint: Checkpoint,
    run_id: RunId,
) -> Result<Parts> {
    for _ in 0..NEW_BEGINNINGS {
        match gather(manager, request, first, checkpoint.clone(), run_id).await {
            Err(error) if owns_although(&error, &checkpoint).await => {
                first = planned(manager, request).await?;
            }
            Err(error) => return Err(reason(error, &checkpoint).await),
            gathered => return gathered,
        }
    }
    gather(manager, request, first, checkpoint, run_id).await
}

/// Why a run fails: what a run finds that was overtaken may be half old and half new, and then it is not the
/// checkpoint that is damaged.
pub(crate) async fn reason(error: Error, checkpoint: &Checkpoint) -> Error {
    if error.kind() != ErrorKind::Corrupt || checkpoint.is_temporary() {
        return error;
    }
    match checkpoint.check_claim().await {
        Err(fenced) if fenced.kind() == ErrorKind::Fenced => fenced,
        _ => error,
    }
}

/// Recovers, and begins the sinks.
async fn gather(
    manager: &Shared,
    request: &StartRequest,
    planned: Planned,
    checkpoint: Checkpoint,
    run_id: RunId,
) -> Result<Parts> {
    let Planned {
        mut plan,
        late,
        took,
    } = planned;
    check_operators(&checkpoint, &plan, request.options.allow_state_evolution).await?;
    let mut inputs = inputs(manager, &checkpoint, &mut plan).await?;
    let standing = Standing::of(&checkpoint, &inputs).await?;
    standing.refuse_after_flush(&inputs).await?;
    let upkeep = standing
        .restore(&checkpoint, &plan, &request.settings)
        .await?;
    if request.trigger == Trigger::AvailableNow || request.options.flush_on_end {
        inputs.pin(&standing.position.ends).await?;
    }
    if request.trigger == Trigger::Once {
        inputs.unlimited();
    }
    let parts = Parts {
        plan,
        checkpoint,
        upkeep,
        inputs,
        standing,
        planning: took,
        run_id,
        late,
    };
    begin_sinks(request, &parts).await?;
    Ok(parts)
}

/// What a start has gathered.
struct Parts {
    plan: IncrementalPlan,
    checkpoint: Checkpoint,
    upkeep: Upkeep,
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
    options::check(request, plan)?;
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
        state_ttl: request.options.state_ttl,
        plan: request.plan.clone(),
        session: request.session.clone(),
        mode: request.mode,
        refresh: request.options.refresh(),
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

async fn check_operators(
    checkpoint: &Checkpoint,
    plan: &IncrementalPlan,
    evolve: bool,
) -> Result<()> {
    if checkpoint.is_temporary() {
        return Ok(());
    }
    let operators = plan.operators().iter().map(|operator| {
        let schema = operator.state_schema();
        OperatorIdentity {
            name: operator.name().to_owned(),
            kind: operator.kind().to_owned(),
            keys: schema.keys,
            values: schema.values,
            pane: schema.pane,
            sources: plan.read_by(operator.name()),
            takes_new_values: operator.takes_new_values(),
        }
    });
    let operators = operators.collect::<Vec<_>>();
    checkpoint.check_operators(&operators, evolve).await
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

/// The settings that a checkpoint pins, and the watermarks that it leaves.
fn rules(request: &StartRequest, parts: &Parts) -> Result<(Rules, Watermarks)> {
    let rules = Rules::new(request, parts.standing.conf.clone());
    let delays = parts.plan.watermarks().iter().map(|input| input.delay_ms);
    let watermarks = Watermarks::new(
        parts.standing.watermarks,
        delays,
        rules.watermark_policy()?,
        request.options.idle_after(),
    );
    Ok((rules, watermarks))
}

fn query_core(
    manager: &Shared,
    request: &StartRequest,
    parts: &Parts,
    abort: AbortHandle,
) -> Result<Arc<QueryCore>> {
    let (_, watermarks) = rules(request, parts)?;
    let identity = Identity {
        id: parts.checkpoint.query_id(),
        run_id: parts.run_id,
        name: request.name.clone(),
        location: request.checkpoint.display(),
        explain: parts.plan.explain(),
        keep: request.settings.recent_progress,
        watermark: watermarks.current(),
    };
    let (clock, bus) = (Arc::clone(&manager.clock), Arc::clone(&manager.bus));
    Ok(Arc::new(QueryCore::new(identity, clock, abort, bus)))
}

fn assemble(request: Arc<StartRequest>, parts: Parts, query: Arc<QueryCore>) -> Result<Run> {
    let (rules, watermarks) = rules(&request, &parts)?;
    let Parts {
        plan,
        checkpoint,
        upkeep,
        inputs,
        standing,
        planning,
        late,
        ..
    } = parts;
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
        sink: Arc::clone(&request.sink),
        late,
        checkpoint,
        upkeep,
        rules,
        rerun: standing.position.pending.as_ref().map(|batch| batch.id),
        position: standing.position,
        watermarks,
        goal: None,
        in_flight: None,
        laps: Laps::default(),
        reporter,
        request,
    })
}
