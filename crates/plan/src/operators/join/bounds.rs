//! What bounds the state of a join: up to which watermark a row can still match.
//!
//! - *By key*: a pair of equal columns of which one is event time. A row is over when the watermark has passed its own
//!   column of the pair.
//! - *By range*: a condition that gives the event time of one side a lower limit in terms of the other's. From
//!   `r.ts <= l.ts + 10 s` follows `l.ts >= r.ts - 10 s`; rows of `r` to come are after the watermark, so a row of
//!   `l` is over when the watermark less 10.001 s has passed it. Of several limits the lowest counts.
//!
//! Limits are in milliseconds, as Spark's: a limit that may be met exactly is one less, any other is rounded down.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal, NegativeExpr};
use datafusion::scalar::ScalarValue;

use super::recipe::Side;
use crate::cell::BatchNumbers;
use crate::event_time::{EventTime, Span};

/// When a row of a side leaves: once its time is at or before the watermark plus the shift; or, by age, once it came at
/// or before the batch time less the age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// The column that tells its time.
    pub(super) column: usize,
    /// What the column holds, where it holds the starts of windows.
    pub(super) span: Option<Span>,
    /// Milliseconds.
    pub(super) shift_ms: i64,
    pub(super) by_key: bool,
    /// Microseconds after which a row leaves, whatever the watermark: `stateTtl`. The column is then that of arrival.
    pub(super) age_us: Option<i64>,
}

impl Bound {
    /// By age: the column at `column` tells when a row came.
    pub(super) fn by_age(column: usize, age_us: i64) -> Self {
        Self {
            column,
            span: None,
            shift_ms: 0,
            by_key: false,
            age_us: Some(age_us),
        }
    }

    /// The time, in microseconds, at or before which rows leave in a micro-batch.
    pub(super) fn until(&self, numbers: &BatchNumbers) -> i64 {
        if let Some(age_us) = self.age_us {
            return numbers.time.as_micros().saturating_sub(age_us);
        }
        match numbers.closes_us() {
            i64::MAX => i64::MAX,
            us => us.saturating_add(self.shift_ms.saturating_mul(1_000)),
        }
    }
}

/// The watermark plus the shift, in words.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shift_ms {
            0 => f.write_str("watermark"),
            ms if ms < 0 => write!(f, "watermark − {}", length(ms)),
            ms => write!(f, "watermark + {}", length(ms)),
        }
    }
}

/// A length of time in words, whatever its sign: `10.001 s`.
pub(crate) fn length(ms: i64) -> String {
    let (seconds, rest) = (ms.unsigned_abs() / 1_000, ms.unsigned_abs() % 1_000);
    match rest {
        0 => format!("{seconds} s"),
        rest => {
            let digits = format!("{rest:03}");
            format!("{seconds}.{} s", digits.trim_end_matches('0'))
        }
    }
}

/// A comparison of the join's condition, and which column of which side each of its columns is.
pub(super) struct Conjunct<'a> {
    pub(super) expr: &'a Arc<dyn PhysicalExpr>,
    pub(super) columns: &'a [(Side, usize)],
}

/// The pair of equal columns by which both sides are bound: the first whose left column is event time, else the
/// first whose right one is.
pub(super) fn by_key(
    left: &Schema,
    right: &Schema,
    on: &[(usize, usize)],
) -> Option<(Bound, Bound)> {
    let of_left = |pair: &&(usize, usize)| EventTime::of(left.field(pair.0)).is_some();
    let of_right = |pair: &&(usize, usize)| EventTime::of(right.field(pair.1)).is_some();
    let (l, r) = *on
        .iter()
        .find(of_left)
        .or_else(|| on.iter().find(of_right))?;
    let (left, right) = (Span::of(left.field(l)), Span::of(right.field(r)));
    let bound = |column, span: Option<Span>| Bound {
        column,
        span,
        shift_ms: 0,
        by_key: true,
        age_us: None,
    };
    Some((bound(l, left.or(right)), bound(r, right.or(left))))
}

/// What the conditions say of rows of `side`, whose schema is `own`. Where `any_time`, its time need not have a
/// watermark: then it is known whether there is a limit, but not when to heed it.
pub(super) fn by_range(
    side: Side,
    own: &Schema,
    other: &Schema,
    conjuncts: &[Conjunct<'_>],
    any_time: bool,
) -> Option<Bound> {
    let is_time = |at: usize| {
        let field = own.field(at);
        let plain = matches!(field.data_type(), DataType::Timestamp(_, _)) && is_plain(own, at);
        plain && (any_time || EventTime::of(field).is_some())
    };
    let is_limit = |at: usize| EventTime::of(other.field(at)).is_some() && is_plain(other, at);
    let limits = conjuncts.iter().filter_map(|conjunct| {
        let (mine, theirs, shift_ms) = limit(conjunct, side)?;
        let (column, span) = (mine, None);
        let bound = Bound {
            column,
            span,
            shift_ms,
            by_key: false,
            age_us: None,
        };
        (is_time(mine) && is_limit(theirs)).then_some(bound)
    });
    limits.min_by_key(|bound| bound.shift_ms)
}

/// An instant, not the start of a window.
fn is_plain(schema: &Schema, at: usize) -> bool {
    Span::of(schema.field(at)).is_none()
}

/// `mine > theirs + shift`, or with the millisecond taken off `mine >= theirs + shift`: the columns and the shift.
fn limit(conjunct: &Conjunct<'_>, side: Side) -> Option<(usize, usize, i64)> {
    let comparison = conjunct.expr.downcast_ref::<BinaryExpr>()?;
    let (less, greater) = (comparison.left(), comparison.right());
    let (less, greater, exact) = match comparison.op() {
        Operator::Lt => (less, greater, false),
        Operator::LtEq => (less, greater, true),
        Operator::Gt => (greater, less, false),
        Operator::GtEq => (greater, less, true),
        _ => return None,
    };
    // less - greater < 0
    let form = Form::of(less)?.plus(Form::of(greater)?.negated()?)?;
    let [(a, a_times), (b, b_times)] = form.columns[..] else {
        return None;
    };
    let (mine, mine_times, theirs, theirs_times) = match conjunct.columns.get(a)?.0 == side {
        true => (a, a_times, b, b_times),
        false => (b, b_times, a, a_times),
    };
    let ((mine_side, mine), (theirs_side, theirs)) =
        (*conjunct.columns.get(mine)?, *conjunct.columns.get(theirs)?);
    let solved = mine_side == side && theirs_side != side && (mine_times, theirs_times) == (-1, 1);
    let shift_ms = form.micros.div_euclid(1_000) - i64::from(exact);
    solved.then_some((mine, theirs, shift_ms))
}

/// A sum of columns, each some times, and microseconds.
struct Form {
    columns: Vec<(usize, i32)>,
    micros: i64,
}

impl Form {
    fn of(expr: &Arc<dyn PhysicalExpr>) -> Option<Self> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            let columns = vec![(column.index(), 1)];
            return Some(Self { columns, micros: 0 });
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            let (columns, micros) = (Vec::new(), micros(literal.value())?);
            return Some(Self { columns, micros });
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            return Self::of(negative.arg())?.negated();
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            return keeps_time(cast.cast_type()).then(|| Self::of(cast.expr()))?;
        }
        let binary = expr.downcast_ref::<BinaryExpr>()?;
        let (left, right) = (Self::of(binary.left())?, Self::of(binary.right())?);
        match binary.op() {
            Operator::Plus => left.plus(right),
            Operator::Minus => left.plus(right.negated()?),
            _ => None,
        }
    }

    fn negated(mut self) -> Option<Self> {
        self.columns
            .iter_mut()
            .for_each(|(_, times)| *times = -*times);
        self.micros = self.micros.checked_neg()?;
        Some(self)
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        for (column, times) in other.columns {
            match self.columns.iter_mut().find(|(same, _)| *same == column) {
                Some((_, sum)) => *sum += times,
                None => self.columns.push((column, times)),
            }
        }
        self.columns.retain(|(_, times)| *times != 0);
        self.micros = self.micros.checked_add(other.micros)?;
        Some(self)
    }
}

/// True for a cast that leaves times and lengths of time what they are.
fn keeps_time(to: &DataType) -> bool {
    match to {
        DataType::Timestamp(unit, zone) => {
            let utc = |zone: &Arc<str>| matches!(zone.as_ref(), "UTC" | "Etc/UTC" | "+00:00" | "Z");
            let fine = matches!(unit, TimeUnit::Microsecond | TimeUnit::Nanosecond);
            fine && zone.as_ref().is_none_or(utc)
        }
        DataType::Duration(TimeUnit::Microsecond | TimeUnit::Nanosecond) => true,
        DataType::Interval(_) => true,
        _ => false,
    }
}

/// A length of time; a month has no length of its own (Spark).
fn micros(value: &ScalarValue) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) if v.months == 0 => {
            let rest = v.nanoseconds.div_euclid(1_000);
            i64::from(v.days).checked_mul(DAY)?.checked_add(rest)
        }
        ScalarValue::IntervalDayTime(Some(v)) => {
            let rest = i64::from(v.milliseconds) * 1_000;
            i64::from(v.days).checked_mul(DAY)?.checked_add(rest)
        }
        ScalarValue::IntervalYearMonth(Some(0)) => Some(0),
        ScalarValue::DurationSecond(Some(v)) => v.checked_mul(1_000_000),
        ScalarValue::DurationMillisecond(Some(v)) => v.checked_mul(1_000),
        ScalarValue::DurationMicrosecond(Some(v)) => Some(*v),
        ScalarValue::DurationNanosecond(Some(v)) => Some(v.div_euclid(1_000)),
        _ => None,
    }
}
