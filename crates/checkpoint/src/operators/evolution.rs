//! A query with more aggregate functions than the checkpoint: what becomes of the columns.
//!
//! With `allowStateEvolution` value columns are told apart by name and type. All that are stored must still be
//! there; a function that is gone or changed is refused, as its state would be lost or mean something else.
//! Columns that are new are completed when old records are put back: with the state of a function that has seen no
//! row. So `count(*)` of an old group is what it was, and a `max` beside it is null until a row of the group comes.
//!
//! **Crashes.** The description of the new columns is written by run S to a file of its own, `operators-S`, before
//! anything else; nothing that is there is changed. It is in force once a commit entry names it, which each commit
//! of that run and of later ones does. So there is no moment between:
//!
//! | killed | in force | what fits |
//! |---|---|---|
//! | before `operators-S`, or after it | what the last commit names | the old query; the new one, which evolves again |
//! | after `offsets/N`, or `state/N-S` | the same: `state/N-S` is named by nobody | the same; micro-batch N runs again |
//! | after `commits/N` | `operators-S` | the new query, with or without the option |
//!
//! Two runs that evolve at once write two files, and `commits/N`, put if absent, decides between them.
//! Older changelogs keep the columns they were written with. Each batch of records carries its own Arrow schema, and is
//! completed by that, whichever run wrote it.

use highwater_core::{Error, Result};

use super::WAY_OUT;
use super::column::ColumnEntry;

pub(super) const HINT: &str = "set the query's option `allowStateEvolution` to true: the state is kept, and the new \
                               functions begin empty; or give the query a new checkpoint location";

/// The value columns from now on: those of the query.
///
/// # Errors
/// `Invalid`, naming the function's column, when one that is stored is gone or has another type.
pub(super) fn evolved(
    operator: &str,
    stored: &[ColumnEntry],
    now: Vec<ColumnEntry>,
) -> Result<Vec<ColumnEntry>> {
    for column in stored {
        let same: Vec<_> = now
            .iter()
            .filter(|other| other.name == column.name)
            .collect();
        let wrong = match same.as_slice() {
            [other] if column.fits(other) => continue,
            [] => "is not in the query: the function was removed or changed",
            [_] => "has another type in the query",
            _ => "is in the query more than once",
        };
        return Err(Error::invalid(format!(
            "the state of operator `{operator}` cannot evolve: value column `{}` of the checkpoint {wrong}",
            column.name
        ))
        .with_condition("STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE")
        .with_operator(operator)
        .with_column(&column.name)
        .with_option("allowStateEvolution")
        .with_hint(WAY_OUT));
    }
    Ok(now)
}
