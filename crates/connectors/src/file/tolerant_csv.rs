//! CSV, record by record: for the blocks that the strict reader cannot decode.
//!
//! Fields are split by the same splitter (`csv-core`) and parsed by the same functions as in the strict
//! reader, so both give the same for a good row. As Spark: a bad field is null, missing fields are null,
//! surplus fields are dropped; each makes the row malformed.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};
use highwater_core::{Error, Result};

use super::blocks::newlines;
use super::cells;
use super::format_options::CsvSourceOptions;
use super::options::ParseMode;
use super::rows::{RowShape, malformed};

/// The tolerant reader of one block.
#[derive(Debug)]
pub(super) struct Tolerant<'a> {
    pub(super) options: &'a CsvSourceOptions,
    pub(super) shape: &'a RowShape,
    pub(super) decoded: &'a SchemaRef,
    pub(super) batch_size: usize,
    pub(super) file: &'a str,
}

impl Tolerant<'_> {
    /// The rows of `bytes` from `start` on; `line` is the number of the first line of `bytes`.
    ///
    /// # Errors
    /// `Corrupt`, naming file and line, for a malformed row under FAILFAST.
    pub(super) fn decode(&self, bytes: &[u8], start: usize, line: u64) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut records = Vec::new();
        for mut record in CsvRecords::new(&bytes[start..], self.options) {
            record.start += start;
            record.end += start;
            records.push(record);
            if records.len() == self.batch_size {
                batches.push(self.batch(&records, bytes, line)?);
                records.clear();
            }
        }
        if !records.is_empty() {
            batches.push(self.batch(&records, bytes, line)?);
        }
        Ok(batches)
    }

    fn batch(&self, records: &[Record], bytes: &[u8], line: u64) -> Result<RecordBatch> {
        let width = self.decoded.fields().len();
        let mut bad: Vec<Option<String>> = records
            .iter()
            .map(|record| {
                (record.fields.len() != width)
                    .then(|| format!("{} fields where {width} are expected", record.fields.len()))
            })
            .collect();
        let judged: Vec<usize> = if self.shape.judges_rows() {
            (0..width).collect()
        } else {
            self.shape.wanted.clone()
        };
        let columns = judged
            .iter()
            .map(|number| self.column(*number, records, &mut bad))
            .collect::<Result<Vec<_>>>()?;
        if self.shape.mode == ParseMode::FailFast
            && let Some((record, why)) = records
                .iter()
                .zip(&bad)
                .find_map(|(r, b)| Some((r, b.as_ref()?)))
        {
            let line = line + newlines(&bytes[..record.start]);
            return Err(malformed(self.file, line, why));
        }
        self.give(&judged, columns, records, &bad, bytes)
    }

    /// One column of all records; what does not parse is noted in `bad`.
    fn column(
        &self,
        number: usize,
        records: &[Record],
        bad: &mut [Option<String>],
    ) -> Result<ArrayRef> {
        let field = &self.decoded.fields()[number];
        let texts: Vec<Option<&str>> = records
            .iter()
            .map(|record| record.fields.get(number).map(|text| self.trimmed(text)))
            .map(|text| text.filter(|text| !text.is_empty() && *text != self.options.null_value))
            .collect();
        let (column, failed) = cells::parse(&texts, field.data_type())?;
        for row in failed {
            bad[row].get_or_insert_with(|| {
                let text = texts[row].unwrap_or_default();
                format!(
                    "column `{}`: `{text}` is no {}",
                    field.name(),
                    field.data_type()
                )
            });
        }
        Ok(column)
    }

    fn trimmed<'t>(&self, mut text: &'t str) -> &'t str {
        if self.options.ignore_leading_white_space {
            text = text.trim_start();
        }
        if self.options.ignore_trailing_white_space {
            text = text.trim_end();
        }
        text
    }

    fn give(
        &self,
        judged: &[usize],
        columns: Vec<ArrayRef>,
        records: &[Record],
        bad: &[Option<String>],
        bytes: &[u8],
    ) -> Result<RecordBatch> {
        let schema = Arc::new(self.decoded.project(judged)?);
        let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
        let all = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|e| Error::internal("decoded rows do not fit the schema").with_source(e))?;
        if self.shape.mode == ParseMode::DropMalformed {
            let good: BooleanArray = bad.iter().map(|bad| Some(bad.is_none())).collect();
            return self.shape.give(&filter_record_batch(&all, &good)?, None);
        }
        let raw: StringArray = records
            .iter()
            .zip(bad)
            .map(|(record, bad)| bad.as_ref().map(|_| record.text(bytes)))
            .collect();
        self.shape.give(&all, Some(raw))
    }
}

/// One record: its fields, and where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The fields, without their quotes.
    pub(super) fields: Vec<String>,
    /// Its first byte.
    pub(super) start: usize,
    /// The byte after it and its line end.
    pub(super) end: usize,
}

impl Record {
    /// The record as it is written, without its line end.
    fn text(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(&bytes[self.start..self.end]);
        text.trim_end_matches(['\r', '\n']).to_owned()
    }
}

/// Splits bytes into records: by lines, or by line ends outside quotes with `multiLine`.
pub(super) struct CsvRecords<'a> {
    bytes: &'a [u8],
    at: usize,
    options: &'a CsvSourceOptions,
    splitter: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> CsvRecords<'a> {
    /// The records of `bytes`.
    pub(super) fn new(bytes: &'a [u8], options: &'a CsvSourceOptions) -> Self {
        let mut builder = ReaderBuilder::new();
        builder
            .delimiter(options.sep)
            .quote(options.quote)
            .escape(options.escape)
            .comment(options.comment);
        if let Some(line_sep) = options.line_sep {
            builder.terminator(Terminator::Any(line_sep));
        }
        Self {
            bytes,
            at: 0,
            options,
            splitter: builder.build(),
            text: vec![0; 1024],
            ends: vec![0; 64],
        }
    }

    /// Where the line that begins at `at` ends, without and with its line end.
    fn line(&self) -> (usize, usize) {
        let rest = &self.bytes[self.at..];
        let found = match self.options.line_sep {
            Some(line_sep) => memchr::memchr(line_sep, rest),
            None => memchr::memchr2(b'\n', b'\r', rest),
        };
        match found {
            Some(end) if rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n') => {
                (self.at + end, self.at + end + 2)
            }
            Some(end) => (self.at + end, self.at + end + 1),
            None => (self.bytes.len(), self.bytes.len()),
        }
    }

    /// Splits the record at the front of `input`; gives its fields and its length. `None`: no record.
    fn split(&mut self, input: &[u8]) -> Option<(Vec<String>, usize)> {
        let (mut read, mut written, mut ended) = (0, 0, 0);
        self.splitter.reset();
        loop {
            let (result, nin, nout, nend) = self.splitter.read_record(
                &input[read..],
                &mut self.text[written..],
                &mut self.ends[ended..],
            );
            read += nin;
            written += nout;
            ended += nend;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return None,
            }
        }
        let mut start = 0;
        let fields = self.ends[..ended]
            .iter()
            .map(|end| {
                let field = String::from_utf8_lossy(&self.text[start..*end]).into_owned();
                start = *end;
                field
            })
            .collect();
        Some((fields, read))
    }

    /// True for a line that is no record at all.
    fn is_blank(&self, line: &[u8]) -> bool {
        line.iter().all(u8::is_ascii_whitespace)
            || line
                .first()
                .is_some_and(|byte| Some(*byte) == self.options.comment)
    }
}

impl Iterator for CsvRecords<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let (content_end, line_end) = self.line();
            let bytes = self.bytes;
            if self.is_blank(&bytes[start..content_end]) {
                self.at = line_end;
                continue;
            }
            let input = if self.options.multi_line {
                &bytes[start..]
            } else {
                &bytes[start..content_end]
            };
            let Some((fields, length)) = self.split(input) else {
                self.at = line_end;
                continue;
            };
            self.at = if self.options.multi_line {
                start + length
            } else {
                line_end
            };
            return Some(Record {
                fields,
                start,
                end: self.at,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_by_lines_or_outside_quotes() {
        let bytes = "a,\"b\n\nc\"\r\n \r\n#x\nd,e,f";
        for (multi_line, expected) in [
            (
                false,
                vec![vec!["a", "b"], vec!["c\""], vec!["d", "e", "f"]],
            ),
            (true, vec![vec!["a", "b\n\nc"], vec!["d", "e", "f"]]),
        ] {
            let options = CsvSourceOptions::new().multi_line(multi_line).comment(b'#');
            let records: Vec<_> = CsvRecords::new(bytes.as_bytes(), &options).collect();
            let fields: Vec<_> = records.iter().map(|record| &record.fields).collect();
            assert_eq!(fields.len(), expected.len(), "{fields:?}");
            for (fields, expected) in fields.iter().zip(expected) {
                assert_eq!(**fields, expected);
            }
        }
    }
}
