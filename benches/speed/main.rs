//! The speed bars, each with its baseline in the same run.
//!
//! Run with `cargo bench` (all of them) or `cargo bench --bench speed -- trigger retail=DIR state aggregate windows dedup evict`
//! (those named). Every line is a figure; where there is a bar it says whether it is met.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod aggregate;
mod event_time;
mod evict;
mod retail;
mod support;
mod trigger;

use std::path::Path;

use highwater::Result;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
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
    Ok(())
}
