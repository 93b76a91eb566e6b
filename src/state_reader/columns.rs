//! The columns of what is read.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use highwater_checkpoint::OperatorIdentity;

/// The columns of the state: keys, values, `bucket`, `pane`.
pub(super) fn of_state(operator: &OperatorIdentity) -> SchemaRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let added = [
        Field::new("bucket", DataType::Int32, false),
        Field::new("pane", micros, true),
    ];
    schema(stored(operator).chain(added.map(Arc::new)))
}

/// The columns of changes: `batch_id`, `change`, keys, values.
pub(super) fn of_changes(operator: &OperatorIdentity) -> SchemaRef {
    let added = [
        Field::new("batch_id", DataType::Int64, false),
        Field::new("change", DataType::Utf8, false),
    ];
    schema(added.map(Arc::new).into_iter().chain(stored(operator)))
}

/// The columns of what there is to read.
pub(super) fn of_metadata() -> SchemaRef {
    let names = || DataType::new_list(DataType::Utf8, true);
    schema(
        [
            Field::new("operator", DataType::Int32, false),
            Field::new("name", DataType::Utf8, false),
            Field::new("kind", DataType::Utf8, false),
            Field::new("keys", names(), false),
            Field::new("values", names(), false),
            Field::new("rows", DataType::Int64, false),
            Field::new("min_batch", DataType::Int64, false),
            Field::new("max_batch", DataType::Int64, false),
        ]
        .map(Arc::new),
    )
}

/// Keys and values; any may be null, as a function may be newer than a record.
fn stored(operator: &OperatorIdentity) -> impl Iterator<Item = FieldRef> + '_ {
    let fields = operator
        .keys
        .fields()
        .iter()
        .chain(operator.values.fields());
    fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
}

/// A schema in which each name is there once: a second one gets a number.
fn schema(fields: impl IntoIterator<Item = FieldRef>) -> SchemaRef {
    let mut taken = HashSet::new();
    let unique = fields.into_iter().map(|field| {
        let name = field.name();
        let again = (2..).map(|n| format!("{name}_{n}"));
        let mut names = std::iter::once(name.clone()).chain(again);
        let name = names.find(|name| taken.insert(name.clone()));
        field.as_ref().clone().with_name(name.unwrap_or_default())
    });
    let fields: Vec<Field> = unique.collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let schema_of = |names: &[&str]| {
            let field = |name: &&str| Field::new(*name, DataType::Int64, false);
            Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
        };
        let operator = OperatorIdentity {
            name: "aggregate".to_owned(),
            kind: String::new(),
            keys: schema_of(&["bucket", "change"]),
            values: schema_of(&["n", "n", "n_2"]),
            pane: None,
            sources: Vec::new(),
            takes_new_values: false,
        };
        let names = |schema: SchemaRef| {
            schema
                .fields()
                .iter()
                .map(|f| f.name().clone())
                .collect::<Vec<_>>()
        };
        let state = ["bucket", "change", "n", "n_2", "n_2_2", "bucket_2", "pane"];
        assert_eq!(names(of_state(&operator)), state);
        let changes = [
            "batch_id", "change", "bucket", "change_2", "n", "n_2", "n_2_2",
        ];
        assert_eq!(names(of_changes(&operator)), changes);
    }
}
