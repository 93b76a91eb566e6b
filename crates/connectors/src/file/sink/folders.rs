//! Which folder a row belongs to: `country=NO/day=2024-05-01`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use highwater_core::{Error, Result};

use super::texts::{Texts, Times, has_text};
use crate::file::partitions::NULL;

/// Takes a result apart into folders, and the columns that make them out of it.
#[derive(Debug)]
pub(super) struct Folders {
    /// The columns of the folders, in the order of the folders.
    keys: Vec<(usize, String)>,
    /// The columns of the files.
    values: Vec<usize>,
    schema: SchemaRef,
}

impl Folders {
    /// The folders that the columns `by` of `schema` make; no folders without any.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with Spark's conditions when the columns cannot make folders.
    pub(super) fn new(schema: &Schema, by: &[String]) -> Result<Self> {
        names_differ(schema.fields().iter().map(|field| field.name()))?;
        names_differ(by.iter())?;
        let keys = by
            .iter()
            .map(|name| key(schema, name))
            .collect::<Result<Vec<_>>>()?;
        let is_key = |number: &usize| keys.iter().any(|(key, _)| key == number);
        let values: Vec<usize> = (0..schema.fields().len()).filter(|n| !is_key(n)).collect();
        if values.is_empty() {
            return Err(
                Error::invalid("Cannot use all columns for partition columns")
                    .with_condition("ALL_PARTITION_COLUMNS_NOT_ALLOWED")
                    .with_option("partitionBy")
                    .with_hint("files must have a column: leave one out of `partition_by`"),
            );
        }
        let fields = values.iter().map(|n| plain(schema.field(*n)));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self {
            keys,
            values,
            schema,
        })
    }

    /// The columns of the files.
    pub(super) fn file_schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows by folder, in the order in which the folders first come.
    ///
    /// # Errors
    /// `Invalid` for a value that has no text.
    pub(super) fn split(&self, rows: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        if self.keys.is_empty() {
            return Ok(vec![(String::new(), self.rows_of_file(rows, None)?)]);
        }
        let keys = self.keys.iter().map(|(n, _)| Arc::clone(rows.column(*n)));
        let keys: Vec<ArrayRef> = keys.collect();
        let texts = keys.iter().map(|key| Texts::new(key, Times::InFolders));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        groups(&keys)?
            .into_iter()
            .map(|members| {
                let first = members[0] as usize;
                let folder = self.folder(&keys, &texts, first)?;
                let all = members.len() == rows.num_rows();
                let members = (!all).then(|| UInt32Array::from(members));
                Ok((folder, self.rows_of_file(rows, members.as_ref())?))
            })
            .collect()
    }

    fn folder(&self, keys: &[ArrayRef], texts: &[Texts<'_>], row: usize) -> Result<String> {
        let mut folder = String::new();
        let mut value = String::new();
        for (number, (_, name)) in self.keys.iter().enumerate() {
            value.clear();
            if !keys[number].is_null(row) {
                texts[number].write(row, &mut value)?;
            }
            if number > 0 {
                folder.push('/');
            }
            folder.push_str(name);
            folder.push('=');
            if value.is_empty() {
                folder.push_str(NULL);
            } else {
                escape(&value, &mut folder);
            }
        }
        Ok(folder)
    }

    /// The columns of the file, of all rows or of these.
    fn rows_of_file(&self, rows: &RecordBatch, of: Option<&UInt32Array>) -> Result<RecordBatch> {
        let columns = self.values.iter().map(|n| match of {
            None => Ok(Arc::clone(rows.column(*n))),
            Some(of) => take(rows.column(*n), of, None),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let count = of.map_or(rows.num_rows(), Array::len);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

/// The numbers of the rows that have the same key, by key.
fn groups(keys: &[ArrayRef]) -> Result<Vec<Vec<u32>>> {
    let fields = keys
        .iter()
        .map(|key| SortField::new(key.data_type().clone()));
    let rows = RowConverter::new(fields.collect())?.convert_columns(keys)?;
    let mut known: HashMap<_, usize> = HashMap::new();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    for (number, row) in (0_u32..).zip(&rows) {
        let group = *known.entry(row).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(number);
    }
    Ok(groups)
}

/// The number and the escaped name of a column that makes folders.
fn key(schema: &Schema, name: &str) -> Result<(usize, String)> {
    let fields = schema.fields();
    let exact = fields.iter().position(|field| field.name() == name);
    let found = exact.or_else(|| {
        let mut fields = fields.iter();
        fields.position(|field| field.name().eq_ignore_ascii_case(name))
    });
    let Some(number) = found else {
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        return Err(Error::invalid(format!(
            "partition column `{name}` not found in the result, whose columns are {names:?}"
        ))
        .with_condition("PARTITION_COLUMN_NOT_FOUND_IN_SCHEMA")
        .with_option("partitionBy")
        .with_column(name));
    };
    let field = schema.field(number);
    if !has_text(field.data_type()) {
        return Err(Error::unsupported(format!(
            "Cannot use {} for partition column `{name}`",
            field.data_type()
        ))
        .with_condition("INVALID_PARTITION_COLUMN_DATA_TYPE")
        .with_column(name)
        .with_hint("partition by a part of it, or by a text made of it"));
    }
    let mut escaped = String::new();
    escape(field.name(), &mut escaped);
    Ok((number, escaped))
}

/// Case does not make a difference (Spark).
fn names_differ<'a>(names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = Vec::new();
    for name in names {
        let folded = name.to_lowercase();
        if seen.contains(&folded) {
            return Err(
                Error::invalid(format!("the column `{name}` already exists"))
                    .with_condition("COLUMN_ALREADY_EXISTS")
                    .with_column(name)
                    .with_hint("give each column a name of its own; case does not count"),
            );
        }
        seen.push(folded);
    }
    Ok(())
}

/// Files may be rolled up with files of earlier runs, so what is not in the data does not count.
fn plain(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), true)
}

/// Appends `text` as it stands in the name of a folder: what Hive and Spark escape is `%` and two hex digits.
pub(super) fn escape(text: &str, out: &mut String) {
    const ESCAPED: &str = "\"#%'*/:=?\\\u{7f}{[]^";
    for c in text.chars() {
        if c < ' ' || ESCAPED.contains(c) {
            out.push_str(&format!("%{:02X}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_escaped_as_hive_does() {
        // The list of `ExternalCatalogUtils.charToEscape`; a blank, `~` and letters of any script stay.
        for (text, folder) in [
            ("a b", "a b"),
            ("a/b:c=d", "a%2Fb%3Ac%3Dd"),
            ("50%", "50%25"),
            ("\t\u{7f}", "%09%7F"),
            ("[x]{y}", "%5Bx%5D%7By}"),
            ("ø~é", "ø~é"),
        ] {
            let mut out = String::new();
            escape(text, &mut out);
            assert_eq!(out, folder);
        }
    }
}
