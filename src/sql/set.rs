//! `SET spark.sql.streaming.… = …` sets the same as `SET highwater.… = …`.

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Set, Statement, Value,
};

use crate::Result;
use crate::settings::canonical_key;

/// Replaces Spark's name of a setting by ours.
///
/// # Errors
/// `Invalid` for a setting of Spark's that has no counterpart here.
pub(super) fn alias(statement: &mut Statement) -> Result<()> {
    let Statement::Set(Set::SingleAssignment {
        variable, values, ..
    }) = statement
    else {
        return Ok(());
    };
    let key = variable.to_string();
    let lower = key.to_ascii_lowercase();
    if !lower.starts_with("spark.") && !lower.starts_with("highwater.") {
        return Ok(());
    }
    let canonical = canonical_key(&key)?;
    let parts = canonical
        .split('.')
        .map(Ident::new)
        .map(ObjectNamePart::Identifier);
    *variable = ObjectName(parts.collect());
    for value in values {
        bare_word_is_text(value);
    }
    Ok(())
}

/// `SET … = max` means the text `max`, as in Spark.
fn bare_word_is_text(value: &mut Expr) {
    if let Expr::Identifier(word) = value {
        *value = Expr::value(Value::SingleQuotedString(word.value.clone()));
    }
}

/// True when the session has Spark's meaning of SQL.
pub(super) fn is_spark(state: &SessionState) -> bool {
    state
        .analyzer()
        .rules
        .iter()
        .any(|rule| rule.name() == "spark_semantics")
}
