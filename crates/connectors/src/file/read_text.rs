//! Text: a column `value` with one row a line, or one row a file.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray, StringViewBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use highwater_core::{Error, Result};

use super::blocks::{Block, Cut};
use super::format_options::TextSourceOptions;
use super::layout::{Layout, ReadPlan};
use super::rows::RowReader;

/// The schema of text files without a schema of the user's.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "value",
        DataType::Utf8View,
        true,
    )]))
}

/// Text files have one column, a string.
///
/// # Errors
/// `Invalid` for any other schema.
pub(super) fn check_types(schema: &Schema) -> Result<()> {
    match schema.fields().iter().as_slice() {
        [field] if field.data_type().is_string() => Ok(()),
        fields => Err(Error::invalid(format!(
            "text files have one column of type STRING; the schema has {} columns",
            fields.len()
        ))
        .with_hint("leave the schema out: the column is `value`")),
    }
}

/// The reader of one request.
#[derive(Debug)]
pub(super) struct TextReader {
    options: TextSourceOptions,
    given: SchemaRef,
    batch_size: usize,
}

impl TextReader {
    /// A reader of `layout`'s files for `plan`.
    ///
    /// # Errors
    /// `Internal` when the plan names a column that is not there.
    pub(super) fn new(
        options: &TextSourceOptions,
        layout: &Layout,
        plan: &ReadPlan,
        batch_size: usize,
    ) -> Result<Self> {
        Ok(Self {
            options: options.clone(),
            given: Arc::new(layout.file_schema.project(&plan.file_columns)?),
            batch_size,
        })
    }

    fn batch(&self, lines: StringViewArray) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(lines.len()));
        let lines: ArrayRef = Arc::new(lines);
        let columns = self
            .given
            .fields()
            .iter()
            .map(|field| cast(&lines, field.data_type()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.given),
            columns,
            &options,
        )?)
    }
}

impl RowReader for TextReader {
    fn cut(&self) -> Cut {
        match &self.options.line_sep {
            _ if self.options.whole_text => Cut::Never,
            Some(line_sep) => Cut::After(line_sep.as_bytes().to_vec()),
            None => Cut::After(vec![b'\n']),
        }
    }

    fn decode(&self, block: &Block, _file: &str) -> Result<Vec<RecordBatch>> {
        let text = String::from_utf8_lossy(&block.bytes);
        if self.options.whole_text {
            let whole = StringViewArray::from_iter_values([text.as_ref()]);
            return Ok(vec![self.batch(whole)?]);
        }
        let mut batches = Vec::new();
        let mut lines = StringViewBuilder::new();
        let mut count = 0;
        for line in Lines::new(&text, self.options.line_sep.as_deref()) {
            lines.append_value(line);
            count += 1;
            if count == self.batch_size {
                batches.push(self.batch(lines.finish())?);
                count = 0;
            }
        }
        if count > 0 {
            batches.push(self.batch(lines.finish())?);
        }
        Ok(batches)
    }
}

/// The lines of a text, without their ends; there is no line after the last end.
struct Lines<'a> {
    rest: &'a str,
    line_sep: Option<&'a str>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str, line_sep: Option<&'a str>) -> Self {
        Self {
            rest: text,
            line_sep,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, length) = match self.line_sep {
            Some(line_sep) => match self.rest.find(line_sep) {
                Some(at) => (at, line_sep.len()),
                None => (self.rest.len(), 0),
            },
            None => match memchr::memchr2(b'\n', b'\r', self.rest.as_bytes()) {
                Some(at) if self.rest[at..].starts_with("\r\n") => (at, 2),
                Some(at) => (at, 1),
                None => (self.rest.len(), 0),
            },
        };
        let found = &self.rest[..line];
        self.rest = &self.rest[line + length..];
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_spark_says() {
        for (text, line_sep, expected) in [
            ("a\nb\r\nc\rd", None, vec!["a", "b", "c", "d"]),
            ("a\n\nb\n", None, vec!["a", "", "b"]),
            ("", None, vec![]),
            ("a||b\nc||", Some("||"), vec!["a", "b\nc"]),
        ] {
            assert_eq!(
                Lines::new(text, line_sep).collect::<Vec<_>>(),
                expected,
                "{text:?}"
            );
        }
    }
}
