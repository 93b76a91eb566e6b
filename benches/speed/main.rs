//! The speed bars, each with its baseline in the same run.
//!
//! Run with `cargo bench` (all of them) or `cargo bench --bench speed -- trigger retail=DIR state aggregate windows dedup join static evict`
//! (those named); there are also `durable throughput checkpoint restore snapshot`, which `scale=0.01` makes so much
//! smaller, to try them. Every line is a figure; where there is a bar it says whether it is met.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod aggregate;
mod durable;
mod event_time;
mod evict;
mod join;
mod restore;
mod retail;
mod static_join;
mod support;
mod trigger;

use std::path::Path;

use highwater::Result;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let (scale, named): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .partition(|a| a.starts_with("scale="));
    let wanted =
        |name: &str| named.is_empty() || named.iter().any(|n| n.split('=').next() == Some(name));
    let folder = named.iter().find_map(|n| n.strip_prefix("retail="));
    // First, while the process has no memory yet that an earlier part left to the allocator.
    if wanted("evict") {
        evict::memory()?;
        evict::panes()?;
    }
    if wanted("trigger") {
        support::block_on(trigger::one_row_triggers())?;
    }
    if wanted("retail") {
        support::block_on(retail::against_batch(folder.map(Path::new)))?;
    }
    let scale = scale.iter().find_map(|s| s.strip_prefix("scale="));
    with_checkpoint(&wanted, scale.and_then(|s| s.parse().ok()).unwrap_or(1.0))?;
    support::pin_to_one_core();
    if wanted("state") {
        support::block_on(trigger::state_size())?;
    }
    if wanted("aggregate") {
        support::block_on(aggregate::against_batch())?;
    }
    if wanted("windows") {
        support::block_on(event_time::windows())?;
    }
    if wanted("dedup") {
        support::block_on(event_time::dedup())?;
    }
    if wanted("join") {
        support::block_on(join::against_batch())?;
        support::block_on(join::state_size())?;
        support::block_on(join::abort())?;
    }
    if wanted("static") {
        support::block_on(static_join::small_triggers())?;
    }
    Ok(())
}

/// The benchmarks of checkpoints, on all cores.
fn with_checkpoint(wanted: &dyn Fn(&str) -> bool, scale: f64) -> Result<()> {
    if wanted("durable") {
        support::block_on(durable::trigger(scale))?;
    }
    if wanted("throughput") {
        support::block_on(durable::throughput(scale))?;
    }
    if wanted("checkpoint") {
        support::block_on(durable::state_size(scale))?;
    }
    if wanted("restore") {
        support::block_on(restore::restore(scale))?;
    }
    if wanted("snapshot") {
        support::block_on(durable::snapshot(scale))?;
    }
    Ok(())
}
