//! Lines of JSON, each made fit for the reader: for blocks that the strict reader cannot decode.
//!
//! Each line is checked alone; a line that is no object stands for a row of nulls. The others are written
//! anew with the schema's spelling of the keys, and decoded with "a value of another type is null".
//! As Spark: an object or array where the schema says STRING is its text.

use arrow::array::{BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Fields};
use highwater_core::{Error, Result};
use serde::de::IgnoredAny;

use super::blocks::Block;
use super::options::ParseMode;
use super::read_json::JsonReader;
use super::rows::malformed;

/// A line: its number, its text, and its normal form; `None` when it is no object.
struct Line {
    number: u64,
    text: String,
    normal: Option<String>,
}

/// The rows of a block.
///
/// # Errors
/// `Corrupt`, naming file and line, for a malformed line under FAILFAST.
pub(super) fn decode(reader: &JsonReader, block: &Block, file: &str) -> Result<Vec<RecordBatch>> {
    let schema = reader.decoded();
    let lines = block.bytes.split(|byte| *byte == b'\n').enumerate();
    let lines: Vec<Line> = lines
        .filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace))
        .map(|(number, line)| {
            let text = String::from_utf8_lossy(line)
                .trim_end_matches('\r')
                .to_owned();
            Line {
                number: block.line + number as u64,
                normal: normalize(&text, schema.fields()),
                text,
            }
        })
        .collect();
    lines
        .chunks(reader.batch_size())
        .map(|lines| batch(reader, lines, file))
        .collect()
}

fn batch(reader: &JsonReader, lines: &[Line], file: &str) -> Result<RecordBatch> {
    let shape = reader.shape();
    let mut rows = String::new();
    for line in lines {
        rows.push_str(line.normal.as_deref().unwrap_or("{}"));
        rows.push('\n');
    }
    let decoded = reader
        .lenient(rows.as_bytes())
        .map_err(|e| Error::from(e).context(format_args!("file {file}")))?;
    if !shape.judges_rows() {
        return shape.give(&decoded, None);
    }
    let mut bad: Vec<bool> = lines.iter().map(|line| line.normal.is_none()).collect();
    find_bad(reader, lines, &mut bad);
    match shape.mode {
        ParseMode::FailFast => match lines.iter().zip(&bad).find(|(_, bad)| **bad) {
            Some((line, _)) => {
                let why = why(reader, line);
                Err(malformed(file, line.number, &why))
            }
            None => shape.give(&decoded, None),
        },
        ParseMode::DropMalformed => {
            let good: BooleanArray = bad.iter().map(|bad| Some(!bad)).collect();
            shape.give(&filter_record_batch(&decoded, &good)?, None)
        }
        ParseMode::Permissive => {
            let raw: StringArray = lines
                .iter()
                .zip(&bad)
                .map(|(line, bad)| bad.then_some(line.text.as_str()))
                .collect();
            shape.give(&decoded, Some(raw))
        }
    }
}

/// Marks the lines that the strict reader refuses, halving the lines until it accepts.
fn find_bad(reader: &JsonReader, lines: &[Line], bad: &mut [bool]) {
    let rows: String = lines
        .iter()
        .filter_map(|line| line.normal.as_deref())
        .flat_map(|normal| [normal, "\n"])
        .collect();
    if rows.is_empty() || reader.strict(rows.as_bytes(), reader.decoded()).is_ok() {
        return;
    }
    if lines.len() == 1 {
        bad[0] = true;
        return;
    }
    let half = lines.len() / 2;
    find_bad(reader, &lines[..half], &mut bad[..half]);
    find_bad(reader, &lines[half..], &mut bad[half..]);
}

fn why(reader: &JsonReader, line: &Line) -> String {
    let cause = match &line.normal {
        None => "the line is no JSON object".to_owned(),
        Some(normal) => match reader.strict(normal.as_bytes(), reader.decoded()) {
            Err(e) => e.to_string(),
            Ok(_) => "the line does not fit the schema".to_owned(),
        },
    };
    format!("{cause}: `{}`", line.text)
}

/// The line with the schema's keys only, in its spelling; `None` when it is no JSON object.
fn normalize(line: &str, fields: &Fields) -> Option<String> {
    let line = line.trim();
    if !line.starts_with('{') || serde_json::from_str::<IgnoredAny>(line).is_err() {
        return None;
    }
    let mut out = String::with_capacity(line.len());
    object(line, fields, &mut out);
    Some(out)
}

/// Writes the members of an object that are in `fields`; `text` is valid JSON.
fn object(text: &str, fields: &Fields, out: &mut String) {
    let members = members(text);
    out.push('{');
    let mut comma = false;
    for field in fields {
        let exact = members.iter().rfind(|(key, _)| key == field.name());
        let found = exact.or_else(|| {
            let folded = field.name().to_lowercase();
            members
                .iter()
                .rfind(|(key, _)| key.to_lowercase() == folded)
        });
        let Some((_, member)) = found else {
            continue;
        };
        if std::mem::replace(&mut comma, true) {
            out.push(',');
        }
        quote(field.name(), out);
        out.push(':');
        value(member, field.data_type(), out);
    }
    out.push('}');
}

fn value(text: &str, data_type: &DataType, out: &mut String) {
    match (text.as_bytes().first(), data_type) {
        (Some(b'{'), DataType::Struct(fields)) => object(text, fields, out),
        (Some(b'{'), DataType::Map(entries, _)) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                map(text, fields[1].data_type(), out);
            }
            _ => out.push_str(text),
        },
        (
            Some(b'['),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
        ) => {
            out.push('[');
            for (number, element) in elements(text).into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                value(element, item.data_type(), out);
            }
            out.push(']');
        }
        (Some(b'{' | b'['), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            quote(text, out);
        }
        _ => out.push_str(text),
    }
}

fn map(text: &str, values: &DataType, out: &mut String) {
    out.push('{');
    for (number, (key, member)) in members(text).into_iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        quote(&key, out);
        out.push(':');
        value(member, values, out);
    }
    out.push('}');
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// The keys and values of an object of valid JSON.
fn members(text: &str) -> Vec<(String, &str)> {
    let parts = elements(text);
    let members = parts.into_iter().filter_map(|part| {
        let key = &part[..end_of_value(part, 0)];
        let value = part[key.len()..].trim_start().strip_prefix(':')?.trim();
        Some((serde_json::from_str(key).ok()?, value))
    });
    members.collect()
}

/// What is between the commas of an array or object of valid JSON.
fn elements(text: &str) -> Vec<&str> {
    let inside = text.trim();
    let inside = inside.get(1..inside.len().saturating_sub(1)).unwrap_or("");
    let bytes = inside.as_bytes();
    let (mut start, mut at) = (0, 0);
    let mut parts = Vec::new();
    while at < bytes.len() {
        match bytes[at] {
            b',' => {
                parts.push(inside[start..at].trim());
                start = at + 1;
                at += 1;
            }
            b'"' | b'{' | b'[' => at = end_of_value(inside, at),
            _ => at += 1,
        }
    }
    if !inside[start..].trim().is_empty() {
        parts.push(inside[start..].trim());
    }
    parts
}

/// The place after the string, object or array that begins at `start` of valid JSON.
fn end_of_value(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut quoted, mut at) = (0_usize, false, start);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        if depth == 0 && !quoted {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_the_schemas_spelling() {
        let schema = highwater_core::parse_schema(
            "a int, s string, t struct<b: int>, l array<struct<c: int>>, m map<string, int>",
        )
        .expect("schema");
        for (line, expected) in [
            (
                r#"{"A": 1, "x": [1,{"y":"]"}], "a": 2}"#,
                Some(r#"{"a":2}"#),
            ),
            (
                r#"{"S": {"k": [1, 2]}}"#,
                Some(r#"{"s":"{\"k\": [1, 2]}"}"#),
            ),
            (
                r#"{"T":{"B":1},"L":[{"C":1},null]}"#,
                Some(r#"{"t":{"b":1},"l":[{"c":1},null]}"#),
            ),
            (
                r#"{"m":{"A":1,"b,\"":2}}"#,
                Some(r#"{"m":{"A":1,"b,\"":2}}"#),
            ),
            (r#"{"s":"a\"b,c"}"#, Some(r#"{"s":"a\"b,c"}"#)),
            ("{}", Some("{}")),
            ("[1]", None),
            (r#"{"a":1"#, None),
            (r#"{"a":1} x"#, None),
        ] {
            assert_eq!(
                normalize(line, schema.fields()).as_deref(),
                expected,
                "{line}"
            );
        }
    }
}
