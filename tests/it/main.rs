//! The integration tests, in one binary: a test file of its own would cost a link of DataFusion each.

mod aggregates;
mod api;
mod conformance;
mod examples_data;
mod property;
mod tidy;
