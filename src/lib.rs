//! Highwater: structured streaming for Arrow tables, with the API and the meaning of Spark Structured Streaming,
//! on DataFusion.
//!
//! A stream is a table that only grows. A query over it is written once, as a frame or in SQL, and its result is
//! kept up to date: each micro-batch costs what its new rows cost.
//!
//! ```
//! use highwater::prelude::*;
//!
//! #[tokio::main]
//! async fn main() -> highwater::Result<()> {
//!     let session = StreamSession::new();
//!     let readings = MemoryStream::new(&session, "ts TIMESTAMP, pump STRING, psi DOUBLE")?;
//!     let query = readings
//!         .to_frame()
//!         .group_by([window(col("ts"), "10 seconds"), col("pump")])
//!         .agg([count_all().alias("n"), min(col("psi")).alias("low")])?
//!         .write_stream()
//!         .output_mode(OutputMode::Complete)
//!         .format("memory")
//!         .query_name("pumps")
//!         .start()
//!         .await?;
//!     readings.add_data([("2024-05-01 00:00:03", "a", 0.9), ("2024-05-01 00:00:08", "a", 0.4)])?;
//!     query.process_all_available().await?;
//!     let low = session.sql("SELECT window.start AS start, n, low FROM pumps").await?.collect().await?;
//!     assert_eq!(low[0].num_rows(), 1);
//!     query.stop().await
//! }
//! ```
//!
//! # Tour
//! | what | where |
//! |---|---|
//! | a session, SQL | [`StreamSession`], [`SqlSemantics`], [`Settings`] |
//! | reading | [`DataStreamReader`], [`DataFrameReader`], [`MemoryStream`], [`Source`] for your own |
//! | computing | [`StreamFrame`], [`GroupedFrame`], [`window`], [`sliding`], [`session_window`], [`window_time`], [`current_watermark`], [`interval`] |
//! | writing | [`DataStreamWriter`], [`Trigger`], [`OutputMode`], [`ForeachWriter`], [`Sink`] for your own |
//! | scripts of several statements | [`script`] |
//! | looking into state | [`StreamSession::read_state`], SQL `state(…)` |
//! | watching | [`StreamingQuery`], [`StreamingQueryManager`], [`StreamingQueryProgress`] |
//! | DataFusion | [`datafusion`], re-exported in the version this crate is built with |
//! | S3 and other stores | [`object_store`], and how to register one |
//!
//! **Architecture invariant:** this package wires the crates below it together and holds what a user types. It
//! reads no clock and no environment variable, starts no query by itself, and prints nothing.
//!
//! Reading order of the source: `session.rs`, `reader.rs`, `frame.rs`, `writer.rs`, `sql/`, `semantics/`.

mod batch_reader;
mod builder;
mod frame;
mod functions;
mod memory_stream;
pub mod prelude;
mod reader;
mod registry;
mod row;
mod runtime;
mod semantics;
mod session;
mod settings;
mod sql;
mod state_reader;
mod static_tables;
mod writer;

pub use arrow;
pub use async_trait::async_trait;
pub use datafusion;
/// Where checkpoints and files lie. A store that is registered under a URL serves every path below it, for queries and
/// batches alike; with the features `aws`, `azure` and `gcp` the stores of clouds can be built.
///
/// ```
/// # use std::sync::Arc;
/// # use highwater::StreamSession;
/// # use highwater::object_store::memory::InMemory;
/// use highwater::datafusion::execution::object_store::ObjectStoreUrl;
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let session = StreamSession::new();
/// # let store = InMemory::new();
/// // let store = object_store::aws::AmazonS3Builder::from_env().with_bucket_name("bucket").build()?;
/// let url = ObjectStoreUrl::parse("s3://bucket")?;
/// session.context().register_object_store(url.as_ref(), Arc::new(store));
/// // … .checkpoint_location("s3://bucket/checkpoint").path("s3://bucket/out")
/// # Ok(()) }
/// ```
pub use object_store;

pub use arrow::array::RecordBatch;
pub use highwater_connectors as connectors;
pub use highwater_connectors::foreach::ForeachWriter;
pub use highwater_core::{
    BatchId, BatchOutput, Clock, Error, ErrorKind, Guarantee, Interval, IntoInterval, IntoSchema,
    MicroBatch, Offset, OffsetRange, OptionValue, Options, OutputMode, Position, QueryContext,
    QueryId, ReadLimit, ReadRequest, Result, RunId, Sink, SinkCommit, SinkProvider, SinkRun,
    SinkSpec, Source, SourceContext, SourceProvider, SourceSpec, SourceTraits, Timestamp, Trigger,
    Watermark, parse_data_type, parse_schema,
};
pub use highwater_engine::{
    Durability, DurationProgress, EventTimeProgress, ListenerId, QueryEvent, QueryEvents,
    QueryIdleEvent, QueryProgressEvent, QueryStartedEvent, QueryTerminatedEvent, SinkProgress,
    SourceProgress, StateOperatorProgress, StreamingQuery, StreamingQueryListener,
    StreamingQueryManager, StreamingQueryProgress, StreamingQueryStatus, SystemClock,
    WatermarkPolicy, WatermarkProgress,
};
pub use highwater_plan::functions::session_window::session_window;
pub use highwater_plan::functions::window::window;
pub use highwater_plan::functions::{
    SessionGap, WindowLength, WindowSpec, current_watermark, sliding, window_time,
};

pub use batch_reader::DataFrameReader;
pub use builder::StreamSessionBuilder;
pub use frame::{GroupedFrame, StreamFrame};
pub use functions::interval;
pub use memory_stream::MemoryStream;
pub use reader::DataStreamReader;
pub use row::IntoRow;
pub use semantics::SqlSemantics;
pub use session::StreamSession;
pub use settings::Settings;
pub use sql::script;
pub use state_reader::{StateOperator, StateReader};
pub use writer::{DataStreamWriter, LateRows};

/// Everything public is `Send`, `Sync` and `Debug`, and every future is `Send`.
#[cfg(test)]
mod promises {
    use super::*;

    fn shared<T: Send + Sync + std::fmt::Debug + 'static>() {}
    fn sent<T: Send>(_: T) {}

    #[test]
    fn types_can_be_shared() {
        shared::<StreamSession>();
        shared::<StreamSessionBuilder>();
        shared::<StreamFrame>();
        shared::<GroupedFrame>();
        shared::<DataStreamReader>();
        shared::<DataFrameReader>();
        shared::<DataStreamWriter>();
        shared::<LateRows>();
        shared::<MemoryStream>();
        shared::<StateReader>();
        shared::<Settings>();
        shared::<SqlSemantics>();
        shared::<StreamingQuery>();
        shared::<StreamingQueryManager>();
        shared::<Error>();
    }

    #[test]
    fn futures_can_be_sent() {
        let session = StreamSession::new();
        let frame = || {
            MemoryStream::new(&session, "v BIGINT")
                .expect("a stream")
                .to_frame()
        };
        sent(session.sql("SELECT 1"));
        sent(session.table("t"));
        sent(session.read_state("c").load());
        sent(session.read_state("c").metadata());
        sent(session.read_stream().load());
        sent(session.read_stream().table("t"));
        sent(session.read_stream().csv("p"));
        sent(session.read().csv("p"));
        sent(session.read().table("t"));
        sent(frame().collect());
        sent(frame().show());
        sent(frame().count());
        sent(frame().cache());
        sent(frame().execute_stream());
        sent(frame().write_stream().start());
        sent(frame().write_stream().to_table("t"));
    }
}
