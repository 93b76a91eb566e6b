//! The integration tests, in one binary: a test file of its own would cost a link of DataFusion each.

mod aggregates;
mod api;
mod beyond_event_time;
mod conformance;
mod deduplication;
mod durability;
mod event_time;
mod event_time_sql;
mod examples_data;
mod file_sink;
mod golden;
mod joins;
mod property;
mod recovery;
mod restart;
mod sessions;
mod snapshots;
mod source_recovery;
mod state_reader;
mod tables;
mod tidy;
mod user_sinks;
