//! What the expansion of `window` computes with: starts from times, ends and structs from starts.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::WindowArguments;
use super::marker::{time_type, window_type};
use crate::event_time::EventTime;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The start of the last window a time is in.
    Start,
    /// The starts of all windows a time is in, the last first.
    Starts,
    /// The start of the pane a time is in: windows are made of whole panes.
    Pane,
    /// A start as it is, with the mark of event time, or without any.
    Marked(Option<EventTime>),
    /// The end of the window that begins at a start.
    End,
    /// The window that begins at a start.
    Window,
}

/// The expression that computes `part` of `input`.
pub(super) fn call(part: Part, arguments: WindowArguments, input: Expr) -> Expr {
    with_volatility(part, arguments, Volatility::Immutable).call(vec![input])
}

/// The same for an optimizer that is to leave it where it is: it pushes no filter on it further down.
pub(super) fn call_in_place(part: Part, arguments: WindowArguments, input: Expr) -> Expr {
    with_volatility(part, arguments, Volatility::Volatile).call(vec![input])
}

fn with_volatility(part: Part, arguments: WindowArguments, volatility: Volatility) -> ScalarUDF {
    ScalarUDF::new_from_impl(Kernel {
        part,
        arguments,
        signature: Signature::any(1, volatility),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kernel {
    part: Part,
    arguments: WindowArguments,
    signature: Signature,
}

impl ScalarUDFImpl for Kernel {
    fn name(&self) -> &str {
        match self.part {
            Part::Start => "window_start",
            Part::Starts => "window_starts",
            Part::Pane => "pane_start",
            Part::Marked(Some(_)) => "marked_start",
            Part::Marked(None) => "plain_start",
            Part::End => "window_end",
            Part::Window => "window_of_start",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("return_field_from_args tells the type")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let time = time_type(args.arg_fields[0].data_type())?;
        let data_type = match self.part {
            Part::Start | Part::Pane | Part::Marked(_) | Part::End => time,
            Part::Starts => DataType::List(item(time)),
            Part::Window => window_type(time),
        };
        let field = Field::new(self.name(), data_type, true);
        Ok(Arc::new(
            self.marked(field, EventTime::of(&args.arg_fields[0])),
        ))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let input = args.args[0].to_array(args.number_rows)?;
        let time = time_type(input.data_type())?;
        let times = micros(&input, &time)?;
        let arguments = self.arguments;
        let output: ArrayRef = match self.part {
            Part::Start => mapped(&times, &time, |t| arguments.last_start(t)),
            Part::Pane => {
                let panes = arguments.panes();
                mapped(&times, &time, |t| panes.last_start(t))
            }
            Part::Marked(_) => Arc::new(times.with_data_type(time)),
            Part::Starts => Arc::new(starts(&times, &time, arguments)?),
            Part::End => mapped(&times, &time, |t| t.wrapping_add(arguments.size)),
            Part::Window => Arc::new(windows(&times, &time, arguments)?),
        };
        Ok(ColumnarValue::Array(output))
    }
}

impl Kernel {
    /// `field` with the mark that the part has where its argument has `time`.
    fn marked(&self, field: Field, time: Option<EventTime>) -> Field {
        let span = self.arguments.span(self.part == Part::Pane);
        match (self.part, time) {
            (Part::Start | Part::Pane, Some(_)) => EventTime { span: Some(span) }.mark(field),
            // The aggregate makes windows of panes, of event time or not.
            (Part::Pane, None) => span.put(field),
            (Part::Marked(Some(mark)), _) => mark.mark(field),
            (Part::Window, Some(_)) => EventTime::instant().mark(field),
            // As in Spark a window is event time, and its start and end alone are not.
            _ => field,
        }
    }
}

fn item(time: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(time, true))
}

/// The times of a column in microseconds; a window stands for the microsecond before its end (Spark).
pub(in crate::functions) fn micros(
    input: &ArrayRef,
    time: &DataType,
) -> Result<TimestampMicrosecondArray> {
    let floored = |array: &ArrayRef| -> Result<TimestampMicrosecondArray> {
        Ok(match array.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                array.as_primitive::<TimestampMicrosecondType>().clone()
            }
            // Arrow's cast rounds towards 1970, windows go by the floor.
            DataType::Timestamp(TimeUnit::Nanosecond, _) => array
                .as_primitive::<TimestampNanosecondType>()
                .unary(|ns| ns.div_euclid(1_000)),
            _ => cast(array, time)?
                .as_primitive::<TimestampMicrosecondType>()
                .clone(),
        })
    };
    match input.data_type() {
        DataType::Struct(_) => {
            let window = input.as_struct();
            let end = floored(window.column(1))?
                .unary::<_, TimestampMicrosecondType>(|t| t.wrapping_sub(1));
            let (_, values, nulls) = end.into_parts();
            let nulls = arrow::buffer::NullBuffer::union(nulls.as_ref(), window.nulls());
            Ok(PrimitiveArray::new(values, nulls))
        }
        _ => floored(input),
    }
}

fn mapped(times: &TimestampMicrosecondArray, time: &DataType, f: impl Fn(i64) -> i64) -> ArrayRef {
    let mapped: TimestampMicrosecondArray = times.unary(f);
    Arc::new(mapped.with_data_type(time.clone()))
}

/// For each time the starts of its windows; none for a null.
fn starts(
    times: &TimestampMicrosecondArray,
    time: &DataType,
    arguments: WindowArguments,
) -> Result<ListArray> {
    let WindowArguments { size, slide, .. } = arguments;
    let per_row = usize::try_from(size / slide + 1).unwrap_or(1).min(1_024);
    let mut values: Vec<<TimestampMicrosecondType as ArrowPrimitiveType>::Native> =
        Vec::with_capacity(times.len() * per_row);
    let mut lengths = Vec::with_capacity(times.len());
    for row in times.iter() {
        let before = values.len();
        if let Some(micros) = row {
            let mut start = arguments.last_start(micros);
            while micros.wrapping_sub(start) < size {
                values.push(start);
                start = start.wrapping_sub(slide);
            }
        }
        lengths.push(values.len() - before);
    }
    let values = TimestampMicrosecondArray::new(ScalarBuffer::from(values), None)
        .with_data_type(time.clone());
    Ok(ListArray::try_new(
        item(time.clone()),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(values),
        None,
    )?)
}

/// The windows that begin at the starts; null where a start is (in a total of CUBE and ROLLUP).
fn windows(
    starts: &TimestampMicrosecondArray,
    time: &DataType,
    arguments: WindowArguments,
) -> Result<StructArray> {
    let DataType::Struct(fields) = window_type(time.clone()) else {
        return internal_err!("a window is a struct");
    };
    // The fields carry the nulls too: DataFusion reads a field without looking at its struct.
    let ends = mapped(starts, time, |t| t.wrapping_add(arguments.size));
    let begins = mapped(starts, time, |t| t);
    Ok(StructArray::try_new(
        fields,
        vec![begins, ends],
        starts.nulls().cloned(),
    )?)
}
