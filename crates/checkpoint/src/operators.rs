//! The stateful operators a checkpoint belongs to, and whether a query still fits them.
//!
//! Operators are told apart by name, state columns by position. Two columns fit when their types are
//! the same and no null that may be stored meets a column without nulls; the names of columns do not
//! count. Spark compares the schemas of state so, too.
//!
//! A query that asks for it may bring more value columns than the checkpoint has ([`evolution`]): then the
//! columns of the checkpoint are looked up by name, and none of them may be gone.

mod column;
mod evolution;

use std::collections::BTreeSet;

use arrow::datatypes::SchemaRef;
use highwater_core::{Error, Pane, Result};
use highwater_storage::LogEntry;
use highwater_storage::text::{decode_json, encode_json};
use serde::{Deserialize, Serialize};

use self::column::{ColumnEntry, columns, first_misfit, schema};
use self::evolution::evolved;

/// What identifies a stateful operator in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorIdentity {
    /// Its name, unique in the query.
    pub name: String,
    /// What Spark calls such an operator: `stateStoreSave`, `dedupe`. Empty where that is not known.
    pub kind: String,
    /// The key columns of its state.
    pub keys: SchemaRef,
    /// The value columns of its state.
    pub values: SchemaRef,
    /// What tells when a record is over; `None` where none ever is.
    pub pane: Option<Pane>,
    /// The names of the sources it reads, in order. Empty where they are not known.
    pub sources: Vec<String>,
    /// True where old records can be completed when a value column is added. It is of the query, and not stored.
    pub takes_new_values: bool,
}

/// All stateful operators of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OperatorsEntry {
    operators: Vec<OperatorEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OperatorEntry {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kind: String,
    keys: Vec<ColumnEntry>,
    values: Vec<ColumnEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pane: Option<PaneEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
}

/// A record is over so many microseconds after the time in this column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaneEntry {
    column: usize,
    add_us: i64,
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
        Self {
            operators: operators.iter().map(OperatorEntry::new).collect(),
        }
    }

    /// The operators, in the order of the query that wrote them.
    ///
    /// # Errors
    /// `Corrupt`, naming the column, when a type cannot be read.
    pub(crate) fn identities(&self) -> Result<Vec<OperatorIdentity>> {
        self.operators.iter().map(OperatorEntry::identity).collect()
    }

    /// Refuses a query whose operators are not those of the checkpoint.
    ///
    /// With `evolve`, value columns may be added. What is to be written for this query, where that is more than
    /// what is stored: the query has columns that are new, or says when records are over and the stored did not.
    pub(crate) fn check(&self, query: &[OperatorIdentity], evolve: bool) -> Result<Option<Self>> {
        if self.operators.is_empty() && !query.is_empty() {
            return Err(was_stateless(&query[0].name));
        }
        let mut next = Vec::with_capacity(self.operators.len());
        for stored in &self.operators {
            match query.iter().find(|operator| operator.name == stored.name) {
                Some(operator) => next.push(stored.check(operator, evolve)?),
                None => return Err(unmatched(&stored.name, "in the checkpoint", "the query")),
            }
        }
        let known = |name: &str| self.operators.iter().any(|stored| stored.name == name);
        if let Some(new) = query.iter().find(|operator| !known(&operator.name)) {
            return Err(unmatched(&new.name, "in the query", "the checkpoint"));
        }
        self.check_sources(query)?;
        let next = Self { operators: next };
        Ok((next != *self).then_some(next))
    }
}

impl OperatorsEntry {
    /// Where two operators have taken each other's places, each would go on with the other's state.
    ///
    /// Sources that were added or are gone are told elsewhere, of the whole query.
    fn check_sources(&self, query: &[OperatorIdentity]) -> Result<()> {
        let before: BTreeSet<_> = self.operators.iter().flat_map(|o| &o.sources).collect();
        let now: BTreeSet<_> = query.iter().flat_map(|o| &o.sources).collect();
        if before != now {
            return Ok(());
        }
        let read = |sources: &[String]| {
            let names = sources.iter().map(|name| format!("`{name}`"));
            names.collect::<Vec<_>>().join(", ")
        };
        for stored in &self.operators {
            let same = |operator: &&OperatorIdentity| operator.name == stored.name;
            let sources = query.iter().find(same).map(|operator| &operator.sources);
            if let Some(sources) = sources.filter(|sources| **sources != stored.sources) {
                let said = format!(
                    "stateful operator `{}` reads {} in the checkpoint and {} in the query",
                    stored.name,
                    read(&stored.sources),
                    read(sources)
                );
                return Err(not_matching(&stored.name, said));
            }
        }
        Ok(())
    }
}

impl OperatorEntry {
    fn new(operator: &OperatorIdentity) -> Self {
        Self {
            name: operator.name.clone(),
            kind: operator.kind.clone(),
            sources: operator.sources.clone(),
            keys: columns(&operator.keys),
            values: columns(&operator.values),
            pane: operator
                .pane
                .map(|Pane { column, add_us }| PaneEntry { column, add_us }),
        }
    }

    fn identity(&self) -> Result<OperatorIdentity> {
        let pane = |PaneEntry { column, add_us }| Pane { column, add_us };
        let read = |columns| schema(columns).map_err(|e| e.with_operator(&self.name));
        Ok(OperatorIdentity {
            name: self.name.clone(),
            kind: self.kind.clone(),
            sources: self.sources.clone(),
            keys: read(&self.keys)?,
            values: read(&self.values)?,
            pane: self.pane.map(pane),
            takes_new_values: false,
        })
    }

    /// What is stored from now on.
    fn check(&self, query: &OperatorIdentity, evolve: bool) -> Result<Self> {
        self.check_kind(query)?;
        if let Some(misfit) = first_misfit(&self.keys, &query.keys) {
            return Err(misfit.error(&self.name, Part::Key));
        }
        self.check_pane(query)?;
        let now = Self::new(query);
        let mut next = Self {
            kind: now.kind,
            sources: now.sources,
            pane: now.pane.or(self.pane),
            ..self.clone()
        };
        let misfit = first_misfit(&self.values, &query.values);
        match (misfit, evolve) {
            (None, _) => {}
            (Some(_), true) if query.takes_new_values => {
                next.values = evolved(&self.name, &self.values, now.values)?;
            }
            (Some(misfit), _) => {
                let error = misfit.error(&self.name, Part::Value);
                let could = !evolve
                    && query.takes_new_values
                    && evolved(&self.name, &self.values, now.values).is_ok();
                return Err(match could {
                    true => error.with_hint(evolution::HINT),
                    false => error,
                });
            }
        }
        Ok(next)
    }

    fn check_kind(&self, query: &OperatorIdentity) -> Result<()> {
        if self.kind.is_empty() || query.kind.is_empty() || self.kind == query.kind {
            return Ok(());
        }
        Err(not_matching(
            &self.name,
            format!(
                "stateful operator `{}` is a `{}` in the checkpoint and a `{}` in the query",
                self.name, self.kind, query.kind
            ),
        ))
    }

    /// Records say when they are over by a column; read otherwise, they would be of other windows.
    fn check_pane(&self, query: &OperatorIdentity) -> Result<()> {
        let (Some(stored), Some(now)) = (self.pane, query.pane) else {
            return Ok(());
        };
        if (stored.column, stored.add_us) == (now.column, now.add_us) {
            return Ok(());
        }
        let fields = query.keys.fields().iter().chain(query.values.fields());
        let names: Vec<_> = fields.map(|field| field.name().as_str()).collect();
        let column = |at: usize| names.get(at).copied().unwrap_or_default();
        let shown = |at: usize, add_us: i64| match add_us {
            0 => format!("at the time in `{}`", column(at)),
            add => format!("{add} µs after the time in `{}`", column(at)),
        };
        Err(Error::invalid(format!(
            "the state of operator `{}` does not fit the query: a record is over {} in the checkpoint and {} in the query",
            self.name,
            shown(stored.column, stored.add_us),
            shown(now.column, now.add_us),
        ))
        .with_condition("STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE")
        .with_operator(&self.name)
        .with_column(column(now.column))
        .with_hint(WAY_OUT))
    }
}

#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
}

const WAY_OUT: &str =
    "start the query that made the checkpoint, or give this one a new checkpoint location";

fn unmatched(operator: &str, here: &str, there: &str) -> Error {
    let said = format!("stateful operator `{operator}` is {here}, but not in {there}");
    not_matching(operator, said)
}

fn not_matching(operator: &str, said: String) -> Error {
    Error::invalid(said)
        .with_condition("STREAMING_STATEFUL_OPERATOR_NOT_MATCH_IN_STATE_METADATA")
        .with_operator(operator)
        .with_hint(WAY_OUT)
}

/// Micro-batches ran before there was anything to remember: what they should have left is missing (Spark).
fn was_stateless(operator: &str) -> Error {
    Error::invalid(format!(
        "stateful operator `{operator}` is in the query, and the query of the checkpoint had no state"
    ))
    .with_condition("STREAMING_STATEFUL_OPERATOR_MISSING_STATE_DIRECTORY")
    .with_operator(operator)
    .with_hint(WAY_OUT)
}

#[cfg(test)]
mod tests;
