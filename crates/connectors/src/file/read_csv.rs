//! CSV, by the reader that DataFusion uses (arrow's), a block at a time; headers are compared here.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::csv::ReaderBuilder;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use highwater_core::{Error, Result};
use memchr::{memchr, memchr_iter};
use regex::Regex;

use super::blocks::{Block, Cut};
use super::format_options::CsvSourceOptions;
use super::layout::{Layout, ReadPlan};
use super::rows::{RowReader, RowShape};
use super::tolerant_csv::{self, CsvRecords};

/// The reader of one request.
#[derive(Debug)]
pub(super) struct CsvReader {
    options: Arc<CsvSourceOptions>,
    shape: RowShape,
    /// The types that the columns are decoded as: the schema's, or STRING for what is cast afterwards.
    decoded: SchemaRef,
    nulls: Option<Regex>,
    batch_size: usize,
}

impl CsvReader {
    /// A reader of `layout`'s files for `plan`.
    ///
    /// # Errors
    /// `Invalid` when `nullValue` cannot be compared with.
    pub(super) fn new(
        options: &Arc<CsvSourceOptions>,
        layout: &Layout,
        plan: &ReadPlan,
        batch_size: usize,
    ) -> Result<Self> {
        let corrupt = layout
            .schema
            .fields()
            .iter()
            .find(|field| *field.name() == options.column_name_of_corrupt_record);
        let fields = layout.file_schema.fields().iter().map(decoded_field);
        let nulls = match options.null_value.as_str() {
            "" => None,
            null => Some(
                Regex::new(&format!("^(?:{})?$", regex::escape(null))).map_err(|e| {
                    Error::invalid("option `nullValue` is too long")
                        .with_option("nullValue")
                        .with_source(e)
                })?,
            ),
        };
        Ok(Self {
            shape: RowShape::new(&layout.file_schema, plan, options.mode, corrupt),
            decoded: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            options: Arc::clone(options),
            nulls,
            batch_size,
        })
    }

    /// Decodes with arrow's reader; it fails on the first row that is not as it should be.
    fn strict(&self, bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
        // A row has at least one byte for each column, so short files need no large buffers.
        let most = bytes.len() / self.decoded.fields().len().max(1) + 1;
        let mut builder = ReaderBuilder::new(Arc::clone(&self.decoded))
            .with_batch_size(self.batch_size.min(most))
            .with_delimiter(self.options.sep)
            .with_quote(self.options.quote);
        if let Some(escape) = self.options.escape {
            builder = builder.with_escape(escape);
        }
        if let Some(comment) = self.options.comment {
            builder = builder.with_comment(comment);
        }
        if let Some(line_sep) = self.options.line_sep {
            builder = builder.with_terminator(line_sep);
        }
        if let Some(nulls) = &self.nulls {
            builder = builder.with_null_regex(nulls.clone());
        }
        if !self.shape.judges_rows() {
            builder = builder.with_projection(self.shape.wanted.clone());
        }
        let mut decoder = builder.build_decoder();
        let mut rest = bytes;
        let mut batches = Vec::new();
        loop {
            loop {
                let read = decoder.decode(rest)?;
                rest = &rest[read..];
                if read == 0 {
                    break;
                }
            }
            match decoder.flush()? {
                Some(batch) => batches.push(batch),
                None => return Ok(batches),
            }
        }
    }

    fn newline(&self) -> u8 {
        self.options.line_sep.unwrap_or(b'\n')
    }

    /// True when arrow's reader cannot be asked, or would read other rows than a line-wise one.
    fn needs_tolerance(&self, bytes: &[u8]) -> bool {
        self.options.ignore_leading_white_space
            || self.options.ignore_trailing_white_space
            || (!self.options.multi_line
                && quotes_span_lines(bytes, self.options.quote, self.newline()))
    }

    /// Looks at the first record of a file, and gives how many bytes of it are header.
    fn header(&self, bytes: &[u8], file: &str) -> Result<usize> {
        let mut records = CsvRecords::new(bytes, &self.options);
        let Some(first) = records.next() else {
            return Ok(0);
        };
        let names: Vec<&str> = first.fields.iter().map(|field| field.trim()).collect();
        if self.options.header {
            if !self.options.enforce_schema {
                self.compare_header(&names, file)?;
            }
            return Ok(first.end);
        }
        let fields = self.shape.file.fields();
        let same = |(field, name): (&FieldRef, &&str)| field.name().eq_ignore_ascii_case(name);
        let is_word = fields.len() == 1 && fields[0].data_type().is_string();
        if !is_word && fields.len() == names.len() && fields.iter().zip(&names).all(same) {
            return Err(Error::invalid(format!(
                "the first line of file {file} is the names of the columns"
            ))
            .with_option("header")
            .with_hint("set option `header` to true"));
        }
        Ok(0)
    }

    fn compare_header(&self, names: &[&str], file: &str) -> Result<()> {
        let fields = self.shape.file.fields();
        let hint = "columns go by position; correct the schema, or set `enforceSchema` to true to skip headers unread";
        for (number, field) in fields.iter().enumerate() {
            let name = names.get(number).copied().unwrap_or("");
            if !field.name().eq_ignore_ascii_case(name) {
                return Err(Error::invalid(format!(
                    "the header of file {file} does not fit the schema: column {} is `{}` in the schema and `{name}` in the file",
                    number + 1,
                    field.name()
                ))
                .with_column(field.name())
                .with_hint(hint));
            }
        }
        match names.get(fields.len()) {
            Some(name) => Err(Error::invalid(format!(
                "the header of file {file} does not fit the schema: it has a column `{name}` more"
            ))
            .with_column(*name)
            .with_hint(hint)),
            None => Ok(()),
        }
    }
}

impl RowReader for CsvReader {
    fn cut(&self) -> Cut {
        let newline = self.newline();
        if self.options.multi_line {
            return Cut::OutsideQuotes {
                newline,
                quote: self.options.quote,
            };
        }
        Cut::After(vec![newline])
    }

    fn decode(&self, block: &Block, file: &str) -> Result<Vec<RecordBatch>> {
        let start = if block.first {
            self.header(&block.bytes, file)?
        } else {
            0
        };
        let bytes = &block.bytes[start..];
        if !self.needs_tolerance(bytes)
            && let Ok(batches) = self.strict(bytes)
        {
            return batches
                .iter()
                .map(|batch| self.shape.give(batch, None))
                .collect();
        }
        let tolerant = tolerant_csv::Tolerant {
            options: &self.options,
            shape: &self.shape,
            decoded: &self.decoded,
            batch_size: self.batch_size,
            file,
        };
        tolerant.decode(&block.bytes, start, block.line)
    }
}

/// Refuses columns whose type CSV cannot hold.
///
/// # Errors
/// `Unsupported`, naming the column.
pub(super) fn check_types(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        if decoded_type(field.data_type()).is_none() {
            return Err(Error::unsupported(format!(
                "column `{}` is {}, which CSV files cannot hold",
                field.name(),
                field.data_type()
            ))
            .with_column(field.name())
            .with_hint("read it as STRING"));
        }
    }
    Ok(())
}

fn decoded_field(field: &FieldRef) -> FieldRef {
    match decoded_type(field.data_type()) {
        Some(decoded) if &decoded != field.data_type() => {
            Arc::new(field.as_ref().clone().with_data_type(decoded))
        }
        _ => Arc::clone(field),
    }
}

/// The type that arrow's reader decodes a column of this type as.
fn decoded_type(wanted: &DataType) -> Option<DataType> {
    Some(match wanted {
        DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            DataType::Utf8View
        }
        DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        | DataType::Boolean
        | DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Utf8
        | DataType::Utf8View => wanted.clone(),
        number if number.is_primitive() && number.is_numeric() && !number.is_decimal() => {
            number.clone()
        }
        _ => return None,
    })
}

/// True when a line ends inside quotes, or a quote stands alone.
fn quotes_span_lines(bytes: &[u8], quote: u8, newline: u8) -> bool {
    let mut quotes = memchr_iter(quote, bytes);
    while let Some(open) = quotes.next() {
        let Some(close) = quotes.next() else {
            return true;
        };
        if memchr(newline, &bytes[open..close]).is_some() {
            return true;
        }
    }
    false
}
