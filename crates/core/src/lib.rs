//! The contracts and the vocabulary of Highwater: what every other crate agrees on.
//!
//! A query reads [`Source`]s, runs one micro-batch after another, and writes to a [`Sink`].
//! This crate says what those words mean, and nothing more:
//!
//! ```text
//!  Source ──(start, end]──► MicroBatch ──► BatchOutput ──► Sink
//!    ▲                          │
//!  Options, schemas        Clock, Trigger, OutputMode
//! ```
//!
//! **Architecture invariant:** no I/O and no async runtime here. Time comes in through [`Clock`],
//! options are parsed once into typed structs, errors are one type ([`Error`]) with its cause kept.
//!
//! Reading order: [`source`], [`sink`], [`batch`], then the values at the border
//! ([`options`], [`interval`], [`schema`]).

pub mod batch;
pub mod error;
pub mod hash;
pub mod ids;
pub mod interval;
pub mod offset;
pub mod options;
pub mod output_mode;
pub mod records;
pub mod schema;
pub mod sink;
pub mod source;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod trigger;

pub use batch::{MicroBatch, Watermark};
pub use error::{Error, ErrorKind, Position, QueryContext, Result};
pub use hash::stable_hash;
pub use ids::{BatchId, QueryId, RunId};
pub use interval::{Interval, IntoInterval};
pub use offset::{Offset, OffsetRange};
pub use options::{OptionValue, Options};
pub use output_mode::OutputMode;
pub use records::Pane;
pub use schema::{IntoSchema, parse_data_type, parse_schema};
pub use sink::{BatchOutput, Guarantee, Sink, SinkCommit, SinkProvider, SinkRun, SinkSpec};
pub use source::{
    ReadLimit, ReadRequest, Source, SourceContext, SourceProvider, SourceSpec, SourceTraits,
};
pub use time::{Clock, Timestamp};
pub use trigger::Trigger;
