//! What a session knows from the start.

use super::{sink_providers, source_providers};

#[test]
fn formats_are_there_once() {
    let sources = source_providers();
    let sources: Vec<&str> = sources.iter().map(|p| p.format()).collect();
    let files = ["csv", "json", "parquet", "text"];
    let others = ["rate", "rate-micro-batch", "socket"];
    assert_eq!(sources, [&files[..], &others[..]].concat());
    let sinks = sink_providers();
    let sinks: Vec<&str> = sinks.iter().map(|p| p.format()).collect();
    let others = ["memory", "console", "noop"];
    assert_eq!(sinks, [&files[..], &others[..]].concat());
}
