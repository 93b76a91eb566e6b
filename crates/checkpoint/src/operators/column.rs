//! A column of state as it is written down: its name, its type, whether it holds nulls.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use highwater_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{Part, WAY_OUT};

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ColumnEntry {
    pub(super) name: String,
    /// The Arrow type as Arrow writes it: `Int64`, `Timestamp(µs)`.
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
    /// The type as the schema of an Arrow IPC stream, in hexadecimal digits: only where the text does not say it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipc: Option<String>,
}

impl ColumnEntry {
    fn new(field: &Field) -> Self {
        let data_type = field.data_type().to_string();
        let said = data_type.parse::<DataType>();
        let ipc = match said.is_ok_and(|said| said == *field.data_type()) {
            true => None,
            false => to_ipc(field.data_type()),
        };
        Self {
            name: field.name().clone(),
            data_type,
            nullable: field.is_nullable(),
            ipc,
        }
    }

    /// Its type.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be read.
    fn arrow_type(&self) -> Result<DataType> {
        let read = match &self.ipc {
            Some(digits) => from_ipc(digits),
            None => self.data_type.parse().ok(),
        };
        read.ok_or_else(|| {
            Error::corrupt(format!(
                "column `{}` of state has the type `{}`, which is none",
                self.name, self.data_type
            ))
            .with_column(&self.name)
        })
    }

    /// True when what is stored here can be read as `now`.
    pub(super) fn fits(&self, now: &Self) -> bool {
        let same = self.data_type == now.data_type
            || matches!((self.arrow_type(), now.arrow_type()), (Ok(one), Ok(other)) if one.equals_datatype(&other));
        same && (now.nullable || !self.nullable)
    }

    fn shown(&self) -> String {
        let nulls = if self.nullable { "" } else { " NOT NULL" };
        format!("{}{nulls}", self.data_type)
    }
}

/// The columns of a schema.
pub(super) fn columns(schema: &SchemaRef) -> Vec<ColumnEntry> {
    let fields = schema.fields().iter();
    fields.map(|field| ColumnEntry::new(field)).collect()
}

/// The schema of these columns.
///
/// # Errors
/// `Corrupt` when a type cannot be read.
pub(super) fn schema(columns: &[ColumnEntry]) -> Result<SchemaRef> {
    let field = |column: &ColumnEntry| {
        Ok(Field::new(
            &column.name,
            column.arrow_type()?,
            column.nullable,
        ))
    };
    let fields = columns.iter().map(field).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// A column that differs: its number from 1, its name, and what it is on both sides.
pub(super) struct Misfit {
    number: usize,
    name: String,
    stored: String,
    now: String,
}

impl Misfit {
    pub(super) fn error(self, operator: &str, part: Part) -> Error {
        let (part, condition) = match part {
            Part::Key => ("key", "STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE"),
            Part::Value => ("value", "STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE"),
        };
        let Self {
            number,
            name,
            stored,
            now,
        } = self;
        Error::invalid(format!(
            "the state of operator `{operator}` does not fit the query: {part} column {number}, `{name}`, \
             is {stored} in the checkpoint and {now} in the query"
        ))
        .with_condition(condition)
        .with_operator(operator)
        .with_column(name)
        .with_hint(WAY_OUT)
    }
}

/// The first column that does not fit, by position.
pub(super) fn first_misfit(stored: &[ColumnEntry], now: &SchemaRef) -> Option<Misfit> {
    let now = columns(now);
    (0..stored.len().max(now.len())).find_map(|i| {
        let pair = (stored.get(i), now.get(i));
        let name = match pair {
            (Some(stored), Some(now)) if stored.fits(now) => return None,
            (_, Some(now)) => &now.name,
            (Some(stored), None) => &stored.name,
            (None, None) => return None,
        };
        let shown =
            |column: Option<&ColumnEntry>| column.map_or("missing".into(), ColumnEntry::shown);
        Some(Misfit {
            number: i + 1,
            name: name.clone(),
            stored: shown(pair.0),
            now: shown(pair.1),
        })
    })
}

fn to_ipc(data_type: &DataType) -> Option<String> {
    let schema = Schema::new(vec![Field::new("", data_type.clone(), true)]);
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &schema).ok()?;
    writer.finish().ok()?;
    drop(writer);
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn from_ipc(digits: &str) -> Option<DataType> {
    let digits = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.map(byte).collect::<Option<Vec<u8>>>()?;
    let reader = StreamReader::try_new(bytes.as_slice(), None).ok()?;
    let schema = reader.schema();
    let field = schema.fields().first()?;
    Some(field.data_type().clone())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{IntervalUnit, TimeUnit};

    use super::*;

    fn nested() -> Vec<DataType> {
        let field = |name: &str, t: DataType, nullable| Field::new(name, t, nullable);
        let noted = field("n", DataType::Int64, false)
            .with_metadata([("unit".to_owned(), "m, \"s\"".to_owned())].into());
        let pair = vec![
            field("a b", DataType::Utf8View, false),
            field("it's \"x\"", DataType::Int8, true),
        ];
        let entries = DataType::Struct(
            vec![
                field("keys", DataType::Utf8, false),
                field("values", DataType::Float64, true),
            ]
            .into(),
        );
        vec![
            DataType::new_list(DataType::Int64, true),
            DataType::new_list(DataType::Decimal128(10, 2), false),
            DataType::List(Arc::new(field("element", DataType::Utf8, true))),
            DataType::LargeList(Arc::new(field("item", DataType::Binary, true))),
            DataType::FixedSizeList(Arc::new(field("item", DataType::Float32, true)), 3),
            DataType::ListView(Arc::new(field("item", DataType::Int64, true))),
            DataType::Struct(pair.into()),
            DataType::Struct(vec![noted].into()),
            DataType::Struct(Vec::<Field>::new().into()),
            DataType::new_list(entries.clone(), true),
            DataType::Map(Arc::new(field("entries", entries, false)), false),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            DataType::RunEndEncoded(
                Arc::new(field("run_ends", DataType::Int32, false)),
                Arc::new(field("values", DataType::Utf8, true)),
            ),
        ]
    }

    fn plain() -> Vec<DataType> {
        use DataType::*;
        let mut types = vec![
            Null,
            Boolean,
            Int8,
            Int16,
            Int32,
            Int64,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            Float16,
            Float32,
            Float64,
            Utf8,
            LargeUtf8,
            Utf8View,
            Binary,
            LargeBinary,
            BinaryView,
            FixedSizeBinary(16),
            Date32,
            Date64,
            Decimal32(9, 2),
            Decimal64(18, 0),
            Decimal128(38, -3),
            Decimal256(76, 10),
            Interval(IntervalUnit::YearMonth),
            Interval(IntervalUnit::DayTime),
            Interval(IntervalUnit::MonthDayNano),
            Time32(TimeUnit::Second),
            Time32(TimeUnit::Millisecond),
            Time64(TimeUnit::Microsecond),
            Time64(TimeUnit::Nanosecond),
        ];
        for unit in [
            TimeUnit::Second,
            TimeUnit::Millisecond,
            TimeUnit::Microsecond,
            TimeUnit::Nanosecond,
        ] {
            types.push(Duration(unit));
            for zone in [
                None,
                Some("UTC"),
                Some("+02:00"),
                Some("Europe/Berlin"),
                Some("a \"b\""),
            ] {
                types.push(Timestamp(unit, zone.map(Into::into)));
            }
        }
        types
    }

    /// Whatever a state may hold is read as what it was, also where Arrow's text of a type is no type to Arrow.
    #[test]
    fn every_type_comes_back() {
        for data_type in plain().into_iter().chain(nested()) {
            for nullable in [true, false] {
                let wanted = Arc::new(Schema::new(vec![Field::new(
                    "c",
                    data_type.clone(),
                    nullable,
                )]));
                let text = serde_json::to_string(&columns(&wanted)).expect("written");
                let read: Vec<ColumnEntry> = serde_json::from_str(&text).expect("read");
                assert_eq!(schema(&read).expect("a schema"), wanted, "{text}");
                assert!(first_misfit(&read, &wanted).is_none(), "{text}");
            }
        }
    }

    #[test]
    fn a_type_that_is_none_is_named() {
        for ipc in ["", "zz", "00ff"] {
            let ipc = if ipc.is_empty() {
                "null".to_owned()
            } else {
                format!("\"{ipc}\"")
            };
            let text =
                format!("{{\"name\":\"n\",\"type\":\"Int65\",\"nullable\":true,\"ipc\":{ipc}}}");
            let column: ColumnEntry = serde_json::from_str(&text).expect("read");
            let error = schema(&[column]).expect_err("no type");
            assert_eq!(error.column(), Some("n"));
            assert!(error.message().contains("Int65"), "{error}");
        }
    }
}
