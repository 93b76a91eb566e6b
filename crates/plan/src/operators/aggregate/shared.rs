//! The arithmetic of shared panes: which windows a piece of time is in, and which pieces a window has.
//!
//! ```text
//!  size 10, slide 4: pieces of 2     0   2   4   6   8  10  12  14
//!                                    ├───┼───┼───┼───┼───┼───┼───┤
//!  window 0                          └───────────────────┘
//!  window 4                                  └───────────────────┘
//! ```
//! A row is added to one piece, whatever the number of its windows. All times are in microseconds.
//!
//! **Why lateness stays exact.** A row is late for a window W when `end(W) <= late watermark` (Spark judges
//! it window by window), but its piece belongs to other windows too. So a row enters its piece when one of
//! its windows is open, and W is made of pieces only in micro-batches whose late watermark is below `end(W)`:
//! append mode emits the windows with an end in `(late watermark, watermark]`, update mode those above the
//! late watermark. As watermarks never fall, whatever entered a piece by then entered while W was open. And
//! as the late watermark of a micro-batch is the watermark of the one before (after a restart, too), those
//! intervals cover the time line without gap or overlap: each window closes once.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::Result;
use highwater_core::Error;

use crate::event_time::Span;

/// Windows that are made of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedPanes {
    size: i64,
    /// The distance of two windows.
    pub(super) slide: i64,
    start: i64,
    /// The length of a piece: the greatest common divisor of size and slide.
    pub(super) length: i64,
}

impl SharedPanes {
    pub(super) fn of(span: Span) -> Self {
        let (mut length, mut rest) = (span.size.max(1), span.slide.max(1));
        while rest != 0 {
            (length, rest) = (rest, length % rest);
        }
        Self {
            size: span.size.max(1),
            slide: span.slide.max(1),
            start: span.start,
            length,
        }
    }

    /// The start of the last window that begins at `time` or before.
    pub(super) fn last_start(self, time: i64) -> i64 {
        let beyond = time.saturating_sub(self.start).rem_euclid(self.slide);
        time.saturating_sub(beyond)
    }

    /// The start of the first window that a piece is in.
    pub(super) fn first_start(self, piece: i64) -> i64 {
        self.last_start(piece.saturating_sub(self.size))
            .saturating_add(self.slide)
    }

    /// The end of a window.
    pub(super) fn end(self, window: i64) -> i64 {
        window.saturating_add(self.size)
    }

    /// The start of the last window that is over at the watermark `us`.
    pub(super) fn last_over(self, us: i64) -> i64 {
        self.last_start(us.saturating_sub(self.size))
    }

    /// The start of the first window that is open at the watermark `us`.
    pub(super) fn first_open(self, us: i64) -> i64 {
        self.last_over(us).saturating_add(self.slide)
    }

    /// The pieces with an end up to this are in no window that is open at `us`.
    pub(super) fn over(self, us: i64) -> i64 {
        // A piece is over with its last window, which begins within the slide before it.
        self.first_open(us)
    }

    /// The pieces with an end up to this are in a window that is over at `us`.
    pub(super) fn touched(self, us: i64) -> i64 {
        self.end(self.last_over(us))
    }

    /// Starts of windows as a key column of type `time`.
    ///
    /// # Errors
    /// `Internal` when the key holds no microseconds.
    pub(super) fn column(self, windows: &[i64], time: &DataType) -> Result<ArrayRef> {
        let DataType::Timestamp(TimeUnit::Microsecond, _) = time else {
            return Err(Error::internal(format!("pieces of windows as {time}")).into());
        };
        let windows = TimestampMicrosecondArray::from(windows.to_vec());
        Ok(Arc::new(windows.with_data_type(time.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the windows one by one, for sizes that slides divide and do not, with shifts and before 1970.
    #[test]
    fn pieces_and_windows_agree() {
        for (size, slide, start) in [
            (10, 5, 0),
            (10, 4, 0),
            (10, 4, 3),
            (9, 6, -2),
            (7, 7, 1),
            (12, 1, 0),
        ] {
            let panes = SharedPanes::of(Span {
                size,
                slide,
                start,
                panes: true,
            });
            let windows: Vec<i64> = (-200..200).map(|n| start + n * slide).collect();
            let first = start - 40 / panes.length * panes.length;
            for piece in (0..80 / panes.length).map(|n| first + n * panes.length) {
                let has = |w: &&i64| **w <= piece && piece + panes.length <= **w + size;
                let of_piece: Vec<i64> = windows.iter().filter(has).copied().collect();
                let by_arithmetic: Vec<i64> = (0..)
                    .map(|n| panes.first_start(piece) + n * slide)
                    .take_while(|w| *w <= panes.last_start(piece))
                    .collect();
                assert_eq!(of_piece, by_arithmetic, "{panes:?} piece {piece}");
                for us in -30..30 {
                    let over = |w: &i64| w + size <= us;
                    let end = piece + panes.length;
                    assert_eq!(
                        end <= panes.over(us),
                        of_piece.iter().all(over),
                        "{panes:?} {piece} {us}"
                    );
                    assert_eq!(
                        end <= panes.touched(us),
                        of_piece.iter().any(over),
                        "{panes:?} {piece} {us}"
                    );
                }
            }
        }
    }
}
