//! The mark of event time on a column: which columns say when something happened, and when that is over.
//!
//! `with_watermark` puts the mark into a field's metadata; it goes with the column through projections,
//! aliases, joins, unions and grouping keys, as Spark's `spark.watermarkDelayMs` does, and is lost in
//! arithmetic. `window`, `session_window` and `window_time` hand it on. Sinks never see it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use highwater_core::{Watermark, records};

/// The metadata key of the mark.
const EVENT_TIME_KEY: &str = "highwater.event_time";
/// The metadata key of a column that holds the starts of windows; its value is [`Span`].
const SPAN_KEY: &str = "highwater.window";
/// The metadata key of a grouping key that holds sessions.
pub(crate) const SESSION_KEY: &str = "highwater.session";

/// The mark of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EventTime {
    /// What the column holds where it holds the starts of windows.
    pub(crate) span: Option<Span>,
}

/// The windows that a column of starts stands for, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Span {
    /// The length of a window.
    pub(crate) size: i64,
    /// The distance of two starts; less than `size` where a row is in several windows.
    pub(crate) slide: i64,
    /// The shift of the starts.
    pub(crate) start: i64,
    /// True where the column holds the pane of a row, and the windows are still to be made of panes.
    pub(crate) panes: bool,
}

impl EventTime {
    /// The mark of an instant.
    pub(crate) fn instant() -> Self {
        Self { span: None }
    }

    /// The mark of `field`; what is cast to something that is no time has none.
    pub(crate) fn of(field: &Field) -> Option<Self> {
        let metadata = field.metadata();
        let is_time = matches!(
            field.data_type(),
            DataType::Timestamp(_, _) | DataType::Struct(_)
        );
        if !is_time || !metadata.contains_key(EVENT_TIME_KEY) {
            return None;
        }
        Some(Self {
            span: Span::of(field),
        })
    }

    /// `field` with this mark in place of any it had.
    pub(crate) fn mark(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        metadata.insert(EVENT_TIME_KEY.to_owned(), "1".to_owned());
        let field = field.with_metadata(metadata);
        match self.span {
            Some(span) => span.put(field),
            None => field,
        }
    }
}

impl Span {
    /// The span that `field` stands for, marked as event time or not.
    pub(crate) fn of(field: &Field) -> Option<Self> {
        let mut numbers = field.metadata().get(SPAN_KEY)?.split(',');
        let mut next = || numbers.next()?.parse::<i64>().ok();
        Some(Self {
            size: next()?,
            slide: next()?,
            start: next()?,
            panes: next()? != 0,
        })
    }

    /// `field` as one that holds starts of such windows.
    pub(crate) fn put(self, field: Field) -> Field {
        let mut metadata = field.metadata().clone();
        let Self {
            size,
            slide,
            start,
            panes,
        } = self;
        let text = format!("{size},{slide},{start},{}", u8::from(panes));
        metadata.insert(SPAN_KEY.to_owned(), text);
        field.with_metadata(metadata)
    }
}

/// What only plans understand.
const PLAN_KEYS: [&str; 3] = [EVENT_TIME_KEY, SPAN_KEY, SESSION_KEY];

/// The first marked column of a schema, and its mark; it is the one that judges late rows (Spark).
pub(crate) fn event_time_of(schema: &Schema) -> Option<(usize, EventTime)> {
    let fields = schema.fields().iter().enumerate();
    fields
        .filter_map(|(at, field)| EventTime::of(field).map(|mark| (at, mark)))
        .next()
}

/// True when a column of `schema` is marked.
pub(crate) fn is_marked(schema: &DFSchema) -> bool {
    schema
        .fields()
        .iter()
        .any(|field| EventTime::of(field).is_some())
}

/// When what each value stands for is over, in microseconds since 1970: an instant at itself, a window at
/// its end. It is over once this is at or before the watermark. Null where the value is.
///
/// `span` is that of the column's field; a struct of `start` and `end` is a window by its type.
///
/// # Errors
/// `Internal` when the column holds no time.
pub(crate) fn ends(column: &ArrayRef, span: Option<Span>) -> Result<Int64Array> {
    Ok(records::ends(column, until_end(column.data_type(), span))?)
}

/// How many microseconds after the time in a column of this type what it stands for is over.
pub(crate) fn until_end(column: &DataType, span: Option<Span>) -> i64 {
    match (column, span) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), Some(span)) => span.size,
        _ => 0,
    }
}

/// A watermark in microseconds, to compare with [`ends`].
pub(crate) fn micros(watermark: Watermark) -> i64 {
    watermark.0.saturating_mul(1_000)
}

/// The schema without the marks that only plans understand.
pub(crate) fn without_marks(schema: &SchemaRef) -> SchemaRef {
    let marked = |field: &FieldRef| {
        let metadata = field.metadata();
        PLAN_KEYS.iter().any(|key| metadata.contains_key(*key))
    };
    if !schema.fields().iter().any(marked) {
        return Arc::clone(schema);
    }
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| {
            let mut metadata = field.metadata().clone();
            for key in PLAN_KEYS {
                metadata.remove(key);
            }
            Arc::new(field.as_ref().clone().with_metadata(metadata))
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
