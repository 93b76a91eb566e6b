//! The stateful operators a checkpoint belongs to, and whether a query still fits them.
//!
//! Operators are told apart by name, state columns by position. Two columns fit when their types are
//! the same and no null that may be stored meets a column without nulls; the names of columns do not
//! count. Spark compares the schemas of state so, too.

use arrow::datatypes::{DataType, Field, SchemaRef};
use highwater_core::{Error, Result};
use highwater_storage::LogEntry;
use highwater_storage::text::{decode_json, encode_json};
use serde::{Deserialize, Serialize};

/// What identifies a stateful operator in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorIdentity {
    /// Its name, unique in the query.
    pub name: String,
    /// The key columns of its state.
    pub keys: SchemaRef,
    /// The value columns of its state.
    pub values: SchemaRef,
}

/// All stateful operators of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorsEntry {
    operators: Vec<OperatorEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OperatorEntry {
    name: String,
    keys: Vec<ColumnEntry>,
    values: Vec<ColumnEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ColumnEntry {
    name: String,
    /// The Arrow type as Arrow writes it: `Int64`, `Timestamp(µs)`.
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
}

impl LogEntry for OperatorsEntry {
    fn encode(&self) -> Result<Vec<u8>> {
        encode_json(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        decode_json(bytes)
    }
}

impl OperatorsEntry {
    pub(crate) fn new(operators: &[OperatorIdentity]) -> Self {
        let operators = operators.iter().map(|operator| OperatorEntry {
            name: operator.name.clone(),
            keys: columns(&operator.keys),
            values: columns(&operator.values),
        });
        Self {
            operators: operators.collect(),
        }
    }

    /// Refuses a query whose operators are not those of the checkpoint.
    pub(crate) fn check(&self, query: &[OperatorIdentity]) -> Result<()> {
        for stored in &self.operators {
            match query.iter().find(|operator| operator.name == stored.name) {
                Some(operator) => stored.check(operator)?,
                None => return Err(unmatched(&stored.name, "in the checkpoint", "the query")),
            }
        }
        let known = |name: &str| self.operators.iter().any(|stored| stored.name == name);
        match query.iter().find(|operator| !known(&operator.name)) {
            Some(new) => Err(unmatched(&new.name, "in the query", "the checkpoint")),
            None => Ok(()),
        }
    }
}

impl OperatorEntry {
    fn check(&self, query: &OperatorIdentity) -> Result<()> {
        let parts = [
            (Part::Key, &self.keys, &query.keys),
            (Part::Value, &self.values, &query.values),
        ];
        for (part, stored, now) in parts {
            if let Some(misfit) = first_misfit(stored, now) {
                return Err(misfit.error(&self.name, part));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
}

/// A column that differs: its number from 1, its name, and what it is on both sides.
struct Misfit {
    number: usize,
    name: String,
    stored: String,
    now: String,
}

impl Misfit {
    fn error(self, operator: &str, part: Part) -> Error {
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

const WAY_OUT: &str =
    "start the query that made the checkpoint, or give this one a new checkpoint location";

fn unmatched(operator: &str, here: &str, there: &str) -> Error {
    Error::invalid(format!(
        "stateful operator `{operator}` is {here}, but not in {there}"
    ))
    .with_condition("STREAMING_STATEFUL_OPERATOR_NOT_MATCH_IN_STATE_METADATA")
    .with_operator(operator)
    .with_hint(WAY_OUT)
}

fn columns(schema: &SchemaRef) -> Vec<ColumnEntry> {
    let column = |field: &Field| ColumnEntry {
        name: field.name().clone(),
        data_type: field.data_type().to_string(),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(|field| column(field)).collect()
}

fn first_misfit(stored: &[ColumnEntry], now: &SchemaRef) -> Option<Misfit> {
    (0..stored.len().max(now.fields().len())).find_map(|i| {
        let (stored, now) = (stored.get(i), now.fields().get(i));
        let fits = matches!((stored, now), (Some(stored), Some(now)) if fits(stored, now));
        let name = match (stored, now) {
            (_, Some(now)) => now.name(),
            (Some(stored), None) => &stored.name,
            (None, None) => "",
        };
        (!fits).then(|| Misfit {
            number: i + 1,
            name: name.to_owned(),
            stored: stored.map_or("missing".into(), |c| shown(&c.data_type, c.nullable)),
            now: now.map_or("missing".into(), |f| {
                shown(&f.data_type().to_string(), f.is_nullable())
            }),
        })
    })
}

fn fits(stored: &ColumnEntry, now: &Field) -> bool {
    let same_type = stored.data_type == now.data_type().to_string()
        || stored
            .data_type
            .parse::<DataType>()
            .is_ok_and(|stored| stored.equals_datatype(now.data_type()));
    same_type && (now.is_nullable() || !stored.nullable)
}

fn shown(data_type: &str, nullable: bool) -> String {
    let nulls = if nullable { "" } else { " NOT NULL" };
    format!("{data_type}{nulls}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Schema, TimeUnit};

    use super::*;

    fn operator(
        name: &str,
        keys: &[(&str, DataType)],
        values: &[(&str, DataType)],
    ) -> OperatorIdentity {
        let schema = |columns: &[(&str, DataType)]| {
            let field = |(name, t): &(&str, DataType)| Field::new(*name, t.clone(), true);
            Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
        };
        OperatorIdentity {
            name: name.into(),
            keys: schema(keys),
            values: schema(values),
        }
    }

    fn query() -> Vec<OperatorIdentity> {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let list = DataType::new_list(DataType::Decimal128(10, 2), true);
        let pair = DataType::Struct(vec![Field::new("a b", DataType::Utf8View, false)].into());
        vec![
            operator(
                "aggregate",
                &[("pump", DataType::Utf8View), ("at", utc)],
                &[("n", DataType::Int64)],
            ),
            operator("aggregate_2", &[], &[("all", list), ("pair", pair)]),
        ]
    }

    #[test]
    fn the_same_query_fits() {
        let bytes = OperatorsEntry::new(&query()).encode().expect("encoded");
        let stored = OperatorsEntry::decode(&bytes).expect("decoded");
        stored.check(&query()).expect("fits");
        let mut other = query();
        other.reverse();
        other[1].keys = Arc::clone(
            &operator(
                "",
                &[
                    ("renamed", DataType::Utf8View),
                    ("t", other[1].keys.field(1).data_type().clone()),
                ],
                &[],
            )
            .keys,
        );
        stored
            .check(&other)
            .expect("order of operators and names of columns do not count");
        OperatorsEntry::new(&[]).check(&[]).expect("no operator");
    }

    #[test]
    fn another_query_is_told_what_differs() {
        let int = || ("n", DataType::Int64);
        let key = || ("pump", DataType::Utf8View);
        let stored = OperatorsEntry::new(&[operator("agg", &[key()], &[int()])]);
        for (query, column, message) in [
            (
                vec![operator("agg", &[("id", DataType::Int32)], &[int()])],
                Some("id"),
                "key column 1, `id`, is Utf8View in the checkpoint and Int32 in the query",
            ),
            (
                vec![operator("agg", &[key()], &[("avg", DataType::Float64)])],
                Some("avg"),
                "value column 1, `avg`, is Int64 in the checkpoint and Float64 in the query",
            ),
            (
                vec![operator(
                    "agg",
                    &[key()],
                    &[int(), ("max", DataType::Int32)],
                )],
                Some("max"),
                "value column 2, `max`, is missing in the checkpoint and Int32 in the query",
            ),
            (
                vec![operator("agg", &[], &[int()])],
                Some("pump"),
                "key column 1, `pump`, is Utf8View in the checkpoint and missing in the query",
            ),
            (
                vec![],
                None,
                "stateful operator `agg` is in the checkpoint, but not in the query",
            ),
            (
                vec![
                    operator("agg", &[key()], &[int()]),
                    operator("dedup", &[], &[]),
                ],
                None,
                "stateful operator `dedup` is in the query, but not in the checkpoint",
            ),
        ] {
            let error = stored.check(&query).expect_err(message);
            assert!(error.message().ends_with(message), "{error}");
            assert_eq!(error.column(), column);
            assert!(error.operator().is_some() && error.hint().is_some());
        }
    }

    #[test]
    fn nulls_that_are_stored_need_a_column_with_nulls() {
        let mut strict = operator("agg", &[], &[]);
        strict.keys = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let loose = operator("agg", &[("k", DataType::Int64)], &[]);
        OperatorsEntry::new(std::slice::from_ref(&strict))
            .check(std::slice::from_ref(&loose))
            .expect("fits");
        let error = OperatorsEntry::new(&[loose])
            .check(&[strict])
            .expect_err("no");
        let message = "is Int64 in the checkpoint and Int64 NOT NULL in the query";
        assert!(error.message().ends_with(message), "{error}");
    }
}
