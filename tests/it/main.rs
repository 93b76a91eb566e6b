//! The integration tests, in one binary: a test file of its own would cost a link of DataFusion each.

mod aggregates;
mod api;
mod beyond_event_time;
mod conformance;
mod deduplication;
mod event_time;
mod event_time_sql;
mod examples_data;
mod property;
mod sessions;
mod tidy;
