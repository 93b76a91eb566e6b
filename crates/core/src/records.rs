//! What all who read records of state agree on: when a record is over, and which column is which.
//!
//! Records go from an operator to the checkpoint and back, and to whoever looks into a checkpoint without the
//! query. All of them must see the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, TimeUnit, TimestampMicrosecondType};

use crate::{Error, Result};

/// Metadata of records of state: after them, all that is over by this time is forgotten; microseconds since 1970.
///
/// The time is to be compared with [`Pane::ends`].
pub const EVICTED_TO: &str = "highwater.evicted_to";

/// Metadata of records of state: they are taken out, not put in. Only their key columns count.
pub const REMOVED: &str = "highwater.removed";

/// Metadata of records of state: those that are there are marked in their column [`MATCHED_COLUMN`]. Only their key
/// columns count.
pub const MATCHED: &str = "highwater.matched";

/// The value column, true or false, of records that can be marked.
pub const MATCHED_COLUMN: &str = "matched";

/// How a record of state tells when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pane {
    /// The column that tells it, among the key columns and then the value columns.
    pub column: usize,
    /// So many microseconds after the column's time it is over: the length of a window where the column holds starts.
    pub add_us: i64,
}

impl Pane {
    /// When each record is over, in microseconds since 1970; null where it never is.
    ///
    /// `columns` are those of the records: keys, then values.
    ///
    /// # Errors
    /// `Internal` when the column is not there or holds no time.
    pub fn ends(&self, columns: &[ArrayRef]) -> Result<Int64Array> {
        let column = columns
            .get(self.column)
            .ok_or_else(|| Error::internal("records lack the column that tells their time"))?;
        ends(column, self.add_us)
    }
}

/// When what each value of a time column stands for is over, in microseconds since 1970; null where the value is.
///
/// Of a struct of start and end it is the end. `add_us` is added to any other time.
///
/// # Errors
/// `Internal` when the column holds no time.
pub fn ends(column: &ArrayRef, add_us: i64) -> Result<Int64Array> {
    let times = match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => column
            .as_primitive::<TimestampMicrosecondType>()
            .reinterpret_cast::<Int64Type>(),
        DataType::Timestamp(unit, _) => {
            let raw = cast(column, &DataType::Int64)?;
            let raw = raw.as_primitive::<Int64Type>();
            match unit {
                TimeUnit::Second => raw.unary(|t| t.saturating_mul(1_000_000)),
                TimeUnit::Millisecond => raw.unary(|t| t.saturating_mul(1_000)),
                // Rounded up: it is over at the watermark's microsecond only if all of it is.
                _ => raw.unary(|t| t.div_euclid(1_000) + i64::from(t.rem_euclid(1_000) > 0)),
            }
        }
        DataType::Struct(fields) if fields.len() == 2 => {
            let window = column.as_struct();
            let (_, values, nulls) = ends(window.column(1), 0)?.into_parts();
            let nulls = NullBuffer::union(nulls.as_ref(), window.nulls());
            return Ok(Int64Array::new(values, nulls));
        }
        other => {
            return Err(Error::internal(format!(
                "a column of {other} as event time"
            )));
        }
    };
    Ok(match add_us {
        0 => times,
        add => times.unary(|time| time.saturating_add(add)),
    })
}

/// Where each of the `wanted` columns is among those `found`; `None` inside for one that is not there.
///
/// By name and type where each found column is wanted under its name: then some may be missing, those that were added
/// since. Else by position, as the names of columns do not count (Spark), where number and types are the same.
/// `None` where neither fits.
#[must_use]
pub fn match_columns(wanted: &[FieldRef], found: &[FieldRef]) -> Option<Vec<Option<usize>>> {
    let fits =
        |one: &FieldRef, other: &FieldRef| one.data_type().equals_datatype(other.data_type());
    let same = |one: &FieldRef, other: &FieldRef| one.name() == other.name() && fits(one, other);
    let count =
        |all: &[FieldRef], one: &FieldRef| all.iter().filter(|f| f.name() == one.name()).count();
    let unique = |all: &[FieldRef]| all.iter().all(|field| count(all, field) == 1);
    let by_name =
        unique(wanted) && unique(found) && found.iter().all(|f| wanted.iter().any(|w| same(w, f)));
    if by_name {
        let place = |w: &FieldRef| found.iter().position(|f| same(w, f));
        return Some(wanted.iter().map(place).collect());
    }
    let by_place = wanted.len() == found.len() && wanted.iter().zip(found).all(|(w, f)| fits(w, f));
    by_place.then(|| (0..wanted.len()).map(Some).collect())
}

/// The column in the very type of `field`, from which its own may differ in the names of nested fields.
///
/// # Errors
/// `Internal` when it cannot be had in that type.
pub fn retyped(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    Ok(cast(column, field.data_type())?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Int32Array, StructArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::Field;

    use super::*;

    fn fields(columns: &[(&str, DataType)]) -> Vec<FieldRef> {
        let field = |(name, t): &(&str, DataType)| Arc::new(Field::new(*name, t.clone(), true));
        columns.iter().map(field).collect()
    }

    #[test]
    fn a_record_is_over_at_its_time_and_the_length_after_it() {
        let starts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let columns = [numbers, Arc::clone(&starts)];
        let over = |column, add_us| Pane { column, add_us }.ends(&columns);
        assert_eq!(
            over(1, 0).expect("ends"),
            Int64Array::from(vec![Some(5), None])
        );
        assert_eq!(
            over(1, 10).expect("ends"),
            Int64Array::from(vec![Some(15), None])
        );
        assert!(over(0, 0).is_err(), "no time");
        assert!(over(2, 0).is_err(), "no column");
    }

    #[test]
    fn of_a_window_the_end_counts_and_of_finer_times_the_next_microsecond() {
        let time = |us: i64| Arc::new(TimestampMicrosecondArray::from(vec![us])) as ArrayRef;
        let types = fields(&[
            ("start", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("end", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ]);
        let window: ArrayRef = Arc::new(StructArray::new(
            types.into(),
            vec![time(10), time(20)],
            None,
        ));
        assert_eq!(ends(&window, 7).expect("ends").value(0), 20);
        let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![2_001]));
        assert_eq!(ends(&nanos, 0).expect("ends").value(0), 3);
    }

    #[test]
    fn columns_are_found_by_name_and_failing_that_by_place() {
        use DataType::{Float64, Int64};
        let stored = [("count", Int64), ("sum", Float64)];
        for (wanted, places) in [
            (&stored[..], Some(vec![Some(0), Some(1)])),
            // Added in between, and put in another order.
            (
                &[("count", Int64), ("max", Int64), ("sum", Float64)],
                Some(vec![Some(0), None, Some(1)]),
            ),
            (
                &[("sum", Float64), ("count", Int64)],
                Some(vec![Some(1), Some(0)]),
            ),
            // Renamed: by place.
            (
                &[("n", Int64), ("total", Float64)],
                Some(vec![Some(0), Some(1)]),
            ),
            // One is gone, or has another type.
            (&[("count", Int64), ("max", Int64)], None),
            (&[("count", Int64), ("sum", Int64), ("max", Int64)], None),
            (&[("count", Int64)], None),
        ] {
            assert_eq!(
                match_columns(&fields(wanted), &fields(&stored)),
                places,
                "{wanted:?}"
            );
        }
        let twins = fields(&[("x", Int64), ("x", Int64)]);
        assert_eq!(match_columns(&twins, &twins), Some(vec![Some(0), Some(1)]));
    }
}
