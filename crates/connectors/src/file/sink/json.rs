//! JSON as Spark writes it, by arrow's writer: an object a line.
//!
//! Where the two differ, Spark's form is written: bytes as base64, `"NaN"` and `"Infinity"` as strings,
//! points in time as `2024-05-01T00:00:00.000Z`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder, WriterBuilder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use arrow::record_batch::RecordBatch;
use highwater_core::{Options, Result};

use super::rows::{Lines, cannot_hold, fixed_formats};
use super::texts::{Texts, Times, has_text};
use crate::file::format_options::unescape;
use crate::file::options::unsupported;

/// An object a line.
#[derive(Debug)]
pub(super) struct JsonLines {
    ignore_null_fields: bool,
}

impl JsonLines {
    /// Takes the options of this format.
    ///
    /// # Errors
    /// Naming the option that is wrong or not supported.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        fixed_formats(options)?;
        let line_sep = options.take_str("lineSep");
        if line_sep.is_some_and(|text| unescape(&text) != "\n") {
            return Err(unsupported("lineSep", "lines of JSON end with `\\n`"));
        }
        Ok(Self {
            ignore_null_fields: options.take("ignoreNullFields")?.unwrap_or(true),
        })
    }
}

impl Lines for JsonLines {
    fn head(&self, _schema: &Schema) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(!self.ignore_null_fields)
            .with_encoder_factory(Arc::new(Sparks))
            .build::<_, LineDelimited>(out);
        writer.write(rows)?;
        Ok(writer.finish()?)
    }

    fn check(&self, schema: &Schema) -> Result<()> {
        let mut fields = schema.fields().iter();
        match fields.find(|field| !is_json(field)) {
            None => Ok(()),
            Some(field) => Err(cannot_hold("JSON", field)),
        }
    }
}

/// True when values of this type have a place in JSON; the keys of a map must be strings.
fn is_json(field: &Field) -> bool {
    match field.data_type() {
        DataType::Struct(fields) => fields.iter().all(|field| is_json(field)),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => is_json(item),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                fields[0].data_type().is_string() && fields.iter().all(|field| is_json(field))
            }
            _ => false,
        },
        DataType::Null => true,
        other => other.is_binary() || has_text(other),
    }
}

/// Spark's forms where arrow's differ.
#[derive(Debug)]
struct Sparks;

impl EncoderFactory for Sparks {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(_, _) => Box::new(Quoted(Texts::new(array, Times::InFiles)?)),
            DataType::Float16 | DataType::Float32 | DataType::Float64 if !all_finite(array)? => {
                Box::new(Float {
                    texts: Texts::new(array, Times::InFiles)?,
                    values: cast(array, &DataType::Float64)?,
                })
            }
            bytes if bytes.is_binary() => Box::new(Base64(cast(array, &DataType::LargeBinary)?)),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

fn all_finite(array: &dyn Array) -> Result<bool, ArrowError> {
    let values = cast(array, &DataType::Float64)?;
    let mut values = values.as_primitive::<Float64Type>().iter().flatten();
    Ok(values.all(f64::is_finite))
}

/// Text that needs no escapes, in quotes.
struct Quoted<'a>(Texts<'a>);

impl Encoder for Quoted<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        quoted(&self.0, row, out);
    }
}

fn quoted(texts: &Texts<'_>, row: usize, out: &mut Vec<u8>) {
    let mut text = String::from("\"");
    // What has no text was refused when the encoder was made.
    texts.write(row, &mut text).ok();
    text.push('"');
    out.extend_from_slice(text.as_bytes());
}

/// Numbers, and words for those that are none.
struct Float<'a> {
    texts: Texts<'a>,
    values: ArrayRef,
}

impl Encoder for Float<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        if !self
            .values
            .as_primitive::<Float64Type>()
            .value(row)
            .is_finite()
        {
            return quoted(&self.texts, row, out);
        }
        let mut text = String::new();
        self.texts.write(row, &mut text).ok();
        out.extend_from_slice(text.as_bytes());
    }
}

/// Bytes in base64, with padding.
struct Base64(ArrayRef);

impl Encoder for Base64 {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        out.push(b'"');
        for three in self.0.as_binary::<i64>().value(row).chunks(3) {
            let bits = (0..3).fold(0_usize, |bits, i| {
                bits << 8 | usize::from(three.get(i).copied().unwrap_or(0))
            });
            for digit in 0..4 {
                out.push(if digit <= three.len() {
                    DIGITS[bits >> (18 - 6 * digit) & 63]
                } else {
                    b'='
                });
            }
        }
        out.push(b'"');
    }
}
