//! The grouping key that tells when a group is over, and the judgement of rows by it.
//!
//! A record of the state is in a *pane*: the records that are over at the same time. For a window, or an
//! instant, that time is the end of the group itself. Where the windows share panes (a sliding window kept
//! as pieces of gcd(size, slide)) it is the end of the piece, and [`EventKey::over`] says of a watermark
//! which pieces no open window needs any more.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::min;
use arrow::datatypes::{DataType, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;

use super::shared::SharedPanes;
use crate::event_time::{EventTime, Span, ends, event_time_of, until_end};

/// The key column that tells the time of a group.
#[derive(Clone, Debug)]
pub(super) struct EventKey {
    /// Its place among the key columns.
    pub(super) column: usize,
    /// False for pieces of windows over a time without a watermark: nothing is ever late or over.
    pub(super) marked: bool,
    /// The windows, where the column holds their starts.
    span: Option<Span>,
    /// How windows are made of the column's pieces, where it holds pieces.
    pub(super) shared: Option<SharedPanes>,
}

/// What a watermark says of the rows of one batch.
#[derive(Debug)]
pub(super) struct Late {
    /// Rows that are late for a window: they are counted and put aside.
    pub(super) late: BooleanArray,
    /// Rows that count; where windows share panes, a late row still counts in those that are open.
    pub(super) counts: BooleanArray,
}

impl EventKey {
    /// The first of the key columns that is event time, or that holds pieces of windows.
    pub(super) fn of(keys: &Schema) -> Option<Self> {
        let column = match event_time_of(keys) {
            Some((column, _)) => column,
            None => keys
                .fields()
                .iter()
                .position(|field| Span::of(field).is_some_and(|span| span.panes))?,
        };
        let field = keys.field(column);
        let span = Span::of(field);
        Some(Self {
            column,
            marked: EventTime::of(field).is_some(),
            shared: span.filter(|span| span.panes).map(SharedPanes::of),
            span,
        })
    }

    /// When each key's pane is over, in microseconds; null where the time is.
    ///
    /// # Errors
    /// `Internal` when the column holds no time.
    pub(super) fn ends(&self, keys: &ArrayRef) -> Result<Int64Array> {
        match self.shared {
            Some(shared) => Ok(ends(keys, None)?.unary(|pane| pane.saturating_add(shared.length))),
            None => ends(keys, self.span),
        }
    }

    /// How many microseconds after the time in the key column, which has this type, a record is over.
    pub(super) fn until_end(&self, column: &DataType) -> i64 {
        let shared = self.shared.map(|shared| shared.length);
        shared.unwrap_or_else(|| until_end(column, self.span))
    }

    /// The panes with an end up to this are over at the watermark `us`.
    pub(super) fn over(&self, us: i64) -> i64 {
        self.shared.map_or(us, |shared| shared.over(us))
    }

    /// Judges rows by the watermark `us`; `None` when none is late, which costs no copy.
    ///
    /// # Errors
    /// `Internal` when the column holds no time.
    pub(super) fn judge(&self, keys: &ArrayRef, us: i64) -> Result<Option<Late>> {
        let late_until = self.shared.map_or(us, |shared| shared.touched(us));
        if self.least_end(keys)?.is_none_or(|end| end > late_until) {
            return Ok(None);
        }
        let ends = self.ends(keys)?;
        let over = self.over(us);
        let up_to = |until: i64, row: usize| ends.is_valid(row) && ends.value(row) <= until;
        let mask = |f: &dyn Fn(usize) -> bool| {
            BooleanArray::new(BooleanBuffer::collect_bool(ends.len(), f), None)
        };
        Ok(Some(Late {
            late: mask(&|row| up_to(late_until, row)),
            counts: mask(&|row| !up_to(over, row)),
        }))
    }

    /// The least of the ends, found without making them where that can be.
    fn least_end(&self, keys: &ArrayRef) -> Result<Option<i64>> {
        if let DataType::Timestamp(TimeUnit::Microsecond, _) = keys.data_type() {
            let length = match (self.shared, self.span) {
                (Some(shared), _) => shared.length,
                (None, span) => span.map_or(0, |span| span.size),
            };
            let least = min(keys.as_primitive::<TimestampMicrosecondType>());
            return Ok(least.map(|least| least.saturating_add(length)));
        }
        Ok(min(&self.ends(keys)?))
    }
}
