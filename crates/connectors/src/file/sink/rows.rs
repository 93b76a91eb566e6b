//! Rows as lines: CSV, JSON and text.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use highwater_core::{Error, Options, Result};

use super::json::JsonLines;
use super::texts::{Texts, Times, has_text};
use crate::file::format_options::{byte, unescape};
use crate::file::options::unsupported;

/// What turns rows into lines.
pub(super) trait Lines: Debug + Send + Sync {
    /// What stands before the first row of each file.
    fn head(&self, schema: &Schema) -> Vec<u8>;

    /// Appends the rows to `out`.
    ///
    /// # Errors
    /// `Invalid` for a value that has no text.
    fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()>;

    /// Refuses columns that such files cannot hold.
    ///
    /// # Errors
    /// `Unsupported`, naming the column.
    fn check(&self, schema: &Schema) -> Result<()>;
}

/// Takes the options of the format `name`.
///
/// # Errors
/// Naming the option that is wrong or not supported.
pub(super) fn take(name: &str, options: &mut Options) -> Result<Arc<dyn Lines>> {
    uncompressed(options)?;
    for name in ["encoding", "charset"] {
        if let Some(value) = options.take_str(name)
            && !["utf-8", "utf8"].contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(unsupported(name, "files are written as UTF-8"));
        }
    }
    Ok(match name {
        "csv" => Arc::new(CsvLines::take(options)?),
        "json" => Arc::new(JsonLines::take(options)?),
        _ => Arc::new(TextLines {
            line_sep: line_sep(options)?,
        }),
    })
}

fn uncompressed(options: &mut Options) -> Result<()> {
    match options.take_str("compression") {
        Some(codec) if !["none", "uncompressed"].contains(&codec.to_ascii_lowercase().as_str()) => {
            let hint = "text files are written uncompressed, as the file source reads them: leave it out, or write Parquet";
            Err(unsupported("compression", hint))
        }
        _ => Ok(()),
    }
}

fn line_sep(options: &mut Options) -> Result<String> {
    match options.take_str("lineSep").map(|text| unescape(&text)) {
        Some(text) if text.is_empty() => {
            Err(Error::invalid("option `lineSep` must not be empty").with_option("lineSep"))
        }
        text => Ok(text.unwrap_or_else(|| "\n".to_owned())),
    }
}

/// Refuses a format of dates or times that is not the one that is written.
///
/// # Errors
/// `Unsupported`, naming the option.
pub(super) fn fixed_formats(options: &mut Options) -> Result<()> {
    const TIMES: &str = "yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]";
    for (name, written) in [
        ("dateFormat", "yyyy-MM-dd"),
        ("timestampFormat", TIMES),
        ("timestampNTZFormat", TIMES),
    ] {
        if options.take_str(name).is_some_and(|text| text != written) {
            let hint = format!(
                "values are written `{written}`: make a column of type STRING with to_char"
            );
            return Err(unsupported(name, &hint));
        }
    }
    Ok(())
}

/// The error for a column that files of `format` cannot hold (Spark's condition).
pub(super) fn cannot_hold(format: &str, field: &Field) -> Error {
    Error::unsupported(format!(
        "the {format} datasource doesn't support the column `{}` of the type {}",
        field.name(),
        field.data_type()
    ))
    .with_condition("UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE")
    .with_column(field.name())
    .with_hint("select its parts, make it a STRING, or write Parquet")
}

/// CSV as Spark writes it, except that white space around a value is kept, and that a quote is doubled unless `escape`
/// is set (as the `csv` source reads it).
///
/// Arrow's writer cannot tell null from an empty text, so the cells are put together here.
#[derive(Debug)]
struct CsvLines {
    header: bool,
    quote_all: bool,
    sep: u8,
    quote: u8,
    escape: Option<u8>,
    null_value: String,
    empty_value: Option<String>,
    line_sep: String,
}

impl CsvLines {
    fn take(options: &mut Options) -> Result<Self> {
        const REFUSED: [(&str, &str); 6] = [
            (
                "charToEscapeQuoteEscaping",
                "an escape character is written twice",
            ),
            ("escapeQuotes", "a value with a quote is always quoted"),
            ("ignoreLeadingWhiteSpace", "white space is kept; use ltrim"),
            ("ignoreTrailingWhiteSpace", "white space is kept; use rtrim"),
            ("locale", "numbers and dates are written as in ISO 8601"),
            ("comment", "no line begins with a comment"),
        ];
        fixed_formats(options)?;
        for (name, why) in REFUSED {
            if options.take_str(name).is_some() {
                return Err(unsupported(name, why));
            }
        }
        let delimiter = byte(options, "delimiter")?;
        Ok(Self {
            header: options.take("header")?.unwrap_or(false),
            quote_all: options.take("quoteAll")?.unwrap_or(false),
            sep: byte(options, "sep")?.or(delimiter).unwrap_or(b','),
            quote: byte(options, "quote")?.unwrap_or(b'"'),
            escape: byte(options, "escape")?,
            null_value: options.take_str("nullValue").unwrap_or_default(),
            empty_value: options.take_str("emptyValue"),
            line_sep: line_sep(options)?,
        })
    }

    /// Appends a value that is not null.
    fn cell(&self, text: &str, alone: bool, out: &mut Vec<u8>) {
        if text.is_empty() {
            return match &self.empty_value {
                // A line must not be empty: readers leave it out.
                Some(empty) if !(alone && empty.is_empty()) => {
                    out.extend_from_slice(empty.as_bytes())
                }
                _ => out.extend_from_slice(&[self.quote, self.quote]),
            };
        }
        let special = |byte: u8| {
            [self.sep, self.quote, b'\n', b'\r'].contains(&byte)
                || self.escape == Some(byte)
                || self.line_sep.as_bytes().contains(&byte)
        };
        if !self.quote_all && !text.bytes().any(special) {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.push(self.quote);
        for byte in text.bytes() {
            if byte == self.quote || Some(byte) == self.escape {
                out.push(self.escape.unwrap_or(self.quote));
            }
            out.push(byte);
        }
        out.push(self.quote);
    }

    fn null(&self, alone: bool, out: &mut Vec<u8>) {
        if alone && self.null_value.is_empty() {
            out.extend_from_slice(&[self.quote, self.quote]);
        } else {
            out.extend_from_slice(self.null_value.as_bytes());
        }
    }
}

impl Lines for CsvLines {
    fn head(&self, schema: &Schema) -> Vec<u8> {
        let mut out = Vec::new();
        if self.header {
            for (number, field) in schema.fields().iter().enumerate() {
                if number > 0 {
                    out.push(self.sep);
                }
                self.cell(field.name(), false, &mut out);
            }
            out.extend_from_slice(self.line_sep.as_bytes());
        }
        out
    }

    fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let columns = rows.columns().iter();
        let columns = columns.map(|column| Ok((column, Texts::new(column, Times::InFiles)?)));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let alone = columns.len() == 1;
        let mut text = String::new();
        for row in 0..rows.num_rows() {
            for (number, (column, texts)) in columns.iter().enumerate() {
                if number > 0 {
                    out.push(self.sep);
                }
                if column.is_null(row) {
                    self.null(alone, out);
                    continue;
                }
                text.clear();
                texts.write(row, &mut text)?;
                self.cell(&text, alone, out);
            }
            out.extend_from_slice(self.line_sep.as_bytes());
        }
        Ok(())
    }

    fn check(&self, schema: &Schema) -> Result<()> {
        let mut fields = schema.fields().iter();
        match fields.find(|field| !has_text(field.data_type())) {
            None => Ok(()),
            Some(field) => Err(cannot_hold("CSV", field)),
        }
    }
}

/// One column of type STRING; a null is an empty line (Spark).
#[derive(Debug)]
struct TextLines {
    line_sep: String,
}

impl Lines for TextLines {
    fn head(&self, _schema: &Schema) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let column = arrow::compute::cast(rows.column(0), &DataType::Utf8View)?;
        for text in column.as_string_view() {
            out.extend_from_slice(text.unwrap_or_default().as_bytes());
            out.extend_from_slice(self.line_sep.as_bytes());
        }
        Ok(())
    }

    fn check(&self, schema: &Schema) -> Result<()> {
        match schema.fields().iter().as_slice() {
            [field] if field.data_type().is_string() => Ok(()),
            [field] => Err(cannot_hold("Text", field)),
            fields => Err(Error::invalid(format!(
                "Text data source supports only a single column, and you have {} columns.",
                fields.len()
            ))
            .with_hint("put what a line holds into one column of type STRING")),
        }
    }
}
