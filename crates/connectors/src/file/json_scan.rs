//! A quick look over lines of JSON: is each line one object, and how are the keys spelled?
//!
//! Columns match keys exactly first, then ignoring case. When a block spells every column in one way,
//! the strict reader is given that spelling; everything else is left to the tolerant reader.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use memchr::memchr3;
use std::sync::Arc;

/// The names of the columns and of the fields inside them, by their lower-case form.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    by_folded: HashMap<String, String>,
    /// Two names differ only in case.
    ambiguous: bool,
}

impl Names {
    /// The names in `schema`, at every depth.
    pub(super) fn new(schema: &Schema) -> Self {
        let mut names = Self::default();
        names.add(schema.fields());
        names
    }

    fn add(&mut self, fields: &Fields) {
        for field in fields {
            let folded = field.name().to_lowercase();
            let known = self
                .by_folded
                .entry(folded)
                .or_insert_with(|| field.name().clone());
            self.ambiguous |= known != field.name();
            self.inside(field.data_type());
        }
    }

    fn inside(&mut self, data_type: &DataType) {
        match data_type {
            DataType::Struct(fields) => self.add(fields),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::Map(item, _) => self.inside(item.data_type()),
            _ => {}
        }
    }
}

/// How a block spells the columns: lower-case form → spelling, where it is not the schema's own.
pub(super) type Spelling = HashMap<String, String>;

/// `None` when a line is not one object, or a column is spelled in two ways.
pub(super) fn scan(bytes: &[u8], names: &Names) -> Option<Spelling> {
    let mut keys = Keys::new(names);
    let (mut depth, mut objects, mut at) = (0_usize, 0_usize, 0_usize);
    let mut text: Option<&[u8]> = None;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at)?;
                text = Some(&bytes[at + 1..end]);
                at = end;
            }
            b':' => keys.see(text.take()?)?,
            b'{' if depth == 0 => {
                objects += 1;
                if objects > 1 {
                    return None;
                }
                depth = 1;
            }
            b'{' | b'[' if depth > 0 => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b'\n' if depth == 0 => {
                objects = 0;
                keys.next = 0;
            }
            b'\n' => return None,
            b' ' | b'\t' | b'\r' => {}
            _ if depth == 0 => return None,
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then(|| keys.spelling())
}

/// The place of the quote that ends the string that begins at `start`; `None` when the line ends first.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr3(b'"', b'\\', b'\n', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => return None,
        }
    }
}

/// The keys seen so far.
struct Keys<'a> {
    names: &'a Names,
    /// Lower-case form of a column → how it was spelled.
    used: HashMap<String, &'a [u8]>,
    /// The keys of the last line, in order: most lines have the same.
    last: Vec<&'a [u8]>,
    next: usize,
}

impl<'a> Keys<'a> {
    fn new(names: &'a Names) -> Self {
        Self {
            names,
            used: HashMap::new(),
            last: Vec::new(),
            next: 0,
        }
    }

    /// `None` when it is spelled in a second way.
    fn see(&mut self, key: &'a [u8]) -> Option<()> {
        if self.last.get(self.next) == Some(&key) {
            self.next += 1;
            return Some(());
        }
        let text = std::str::from_utf8(key)
            .ok()
            .filter(|text| !text.contains('\\'))?;
        let folded = text.to_lowercase();
        if self.names.by_folded.contains_key(&folded) {
            if self.names.ambiguous {
                return None;
            }
            if *self.used.entry(folded).or_insert(key) != key {
                return None;
            }
        }
        self.last.truncate(self.next);
        self.last.push(key);
        self.next += 1;
        Some(())
    }

    fn spelling(self) -> Spelling {
        let names = &self.names.by_folded;
        self.used
            .into_iter()
            .filter_map(|(folded, key)| {
                let key = std::str::from_utf8(key).ok()?;
                let differs = names.get(&folded).is_some_and(|name| name != key);
                differs.then(|| (folded, key.to_owned()))
            })
            .collect()
    }
}

/// `schema` with its names, at every depth, spelled as the file does.
pub(super) fn respell(schema: &SchemaRef, spelling: &Spelling) -> SchemaRef {
    if spelling.is_empty() {
        return Arc::clone(schema);
    }
    Arc::new(Schema::new(respell_fields(schema.fields(), spelling)))
}

fn respell_fields(fields: &Fields, spelling: &Spelling) -> Fields {
    fields
        .iter()
        .map(|field| respell_field(field, spelling))
        .collect()
}

fn respell_field(field: &FieldRef, spelling: &Spelling) -> FieldRef {
    let inner = respell_item(field, spelling);
    match spelling.get(&field.name().to_lowercase()) {
        Some(name) => Arc::new(inner.as_ref().clone().with_name(name)),
        None => inner,
    }
}

/// Only what is inside: the name of a list's item is not a key.
fn respell_item(field: &FieldRef, spelling: &Spelling) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(respell_fields(fields, spelling)),
        DataType::List(item) => DataType::List(respell_item(item, spelling)),
        DataType::LargeList(item) => DataType::LargeList(respell_item(item, spelling)),
        DataType::FixedSizeList(item, size) => {
            DataType::FixedSizeList(respell_item(item, spelling), *size)
        }
        DataType::Map(entries, sorted) => DataType::Map(respell_map(entries, spelling), *sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

fn respell_map(entries: &FieldRef, spelling: &Spelling) -> FieldRef {
    let DataType::Struct(fields) = entries.data_type() else {
        return Arc::clone(entries);
    };
    let fields: Fields = fields
        .iter()
        .map(|field| respell_item(field, spelling))
        .collect();
    Arc::new(Field::new(
        entries.name(),
        DataType::Struct(fields),
        entries.is_nullable(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_judged() {
        let schema = highwater_core::parse_schema("a int, s struct<b: int>").expect("schema");
        let names = Names::new(&schema);
        for (text, expected) in [
            ("{\"a\":1}\n{\"a\":2}\n", Some(vec![])),
            ("{\"A\":1}\n\n {\"A\":2}", Some(vec![("a", "A")])),
            ("{\"a\":1}\n{\"A\":2}", None),
            ("{\"a\":{\"B\":\"x}\\\"\"}}", Some(vec![("b", "B")])),
            ("{\"a\":1}{\"a\":2}", None),
            ("{\"a\":\n1}", None),
            ("[1]", None),
            ("{\"a\":1", None),
            ("{\"other\":1,\"Other\":2}", Some(vec![])),
        ] {
            let expected = expected.map(|pairs: Vec<(&str, &str)>| {
                pairs
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .collect()
            });
            assert_eq!(scan(text.as_bytes(), &names), expected, "{text}");
        }
    }
}
