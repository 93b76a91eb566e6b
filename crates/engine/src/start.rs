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
use crate::life;
use crate::listen::Changes;
use crate::manager::{
    CheckpointLocation, Shared, StartRequest, already_active, new_query_id, new_run_id,
};
use crate::query::{Identity, QueryCore, StreamingQuery};
use crate::recover::Standing;
use crate::report::{Laps, Reporter};
use crate::run::Run;
use crate::steps::Rules;
use crate::ticker::Ticker;

/// Starts a query, or says why not.
pub(crate) async fn start(manager: &Arc<Shared>, request: StartRequest) -> Result<StreamingQuery> {
    check_sink(&request)?;
    let begun = manager.clock.now();
    let mut plan = plan(&request).await?;
    let planning = manager.clock.now().since(begun);
    let run_id = new_run_id();
    let checkpoint = open(manager, &request, run_id).await?;
    check_operators(&checkpoint, &plan).await?;
    let mut inputs = inputs(manager, &checkpoint, &mut plan).await?;
    let standing = Standing::of(&checkpoint, &inputs).await?;
    standing.restore(&checkpoint, &plan).await?;
    match request.trigger {
        Trigger::AvailableNow => inputs.pin(&standing.position.ends).await?,
        Trigger::Once => inputs.unlimited(),
        _ => {}
    }
    begin_sink(&request, &checkpoint, run_id, &plan, &standing).await?;
    let (abort, registration) = AbortHandle::new_pair();
    let parts = Parts {
        plan,
        checkpoint,
        inputs,
        standing,
        planning,
        run_id,
    };
    let run = assemble(manager, request, parts, abort);
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

async fn begin_sink(
    request: &StartRequest,
    checkpoint: &Checkpoint,
    run_id: RunId,
    plan: &IncrementalPlan,
    standing: &Standing,
) -> Result<()> {
    let mut run = SinkRun::new(checkpoint.query_id(), run_id, request.mode, plan.schema());
    run.last_logged = standing.last_logged;
    request.sink.begin(&run).await
}

fn assemble(manager: &Shared, request: StartRequest, parts: Parts, abort: AbortHandle) -> Run {
    let Parts {
        plan,
        checkpoint,
        inputs,
        standing,
        planning,
        run_id,
    } = parts;
    let settings = request.settings;
    let identity = Identity {
        id: checkpoint.query_id(),
        run_id,
        name: request.name,
        location: request.checkpoint.display(),
        explain: plan.explain(),
        keep: settings.recent_progress,
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
    Run {
        ticker: Ticker::new(
            request.trigger,
            Arc::clone(&query),
            changes,
            settings.polling,
        ),
        query,
        inputs,
        plan,
        sink: request.sink,
        checkpoint,
        rules: Rules::new(request.mode, &settings, standing.conf),
        rerun: standing.position.pending.as_ref().map(|batch| batch.id),
        position: standing.position,
        watermarks: standing.watermarks,
        goal: None,
        in_flight: None,
        laps: Laps::default(),
        reporter,
    }
}
