//! Forms that a later version takes: refused by name, where DataFusion would read something else into them.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::{Error, Result};

/// Looks at the words of the text: `FROM STREAM t` would be a table `STREAM`, `SELECT STREAM *` a product.
///
/// # Errors
/// `Unsupported`, naming the form and what to write instead.
pub(super) fn refuse(text: &str) -> Result<()> {
    // What cannot be cut into words is the parser's to tell.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).tokenize() else {
        return Ok(());
    };
    let words: Vec<String> = tokens
        .iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)))
        .map(|token| match token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            Token::Word(_) | Token::SingleQuotedString(_) => String::new(),
            other => other.to_string(),
        })
        .collect();
    for start in 0..words.len() {
        let rest: Vec<&str> = words[start..].iter().map(String::as_str).collect();
        if let Some((form, hint)) = later(&rest) {
            return Err(Error::unsupported(format!("`{form}` in SQL"))
                .with_operator(form)
                .with_hint(hint));
        }
    }
    Ok(())
}

type Form = (&'static str, &'static str);

fn later(words: &[&str]) -> Option<Form> {
    const STREAM: Form = (
        "STREAM",
        "leave the word out: a streaming table streams by its name alone",
    );
    const START: &str = "take the SELECT as a frame and start it with `write_stream()`";
    Some(match words {
        ["FROM" | "JOIN", "STREAM", next, ..] if names_a_table(next) => STREAM,
        ["SELECT", "STREAM", next, ..] if *next == "*" || is_word(next) => STREAM,
        ["CREATE", "STREAMING", "TABLE", ..] | ["CREATE", "OR", "REPLACE", "STREAMING", ..] => {
            ("CREATE STREAMING TABLE", START)
        }
        ["CREATE", "UNBOUNDED", ..] => (
            "CREATE UNBOUNDED EXTERNAL TABLE",
            "read it with `read_stream()` and make it known with `create_or_replace_temp_view`",
        ),
        ["WATERMARK", "FOR", ..] | ["WATERMARK", _, "DELAY", "OF", ..] => {
            ("WATERMARK", "this version has no watermarks in SQL")
        }
        ["EMIT", "CHANGES", ..] | ["EMIT", "ON", "WINDOW", ..] => (
            "EMIT",
            "say the output mode with `write_stream().output_mode(…)`",
        ),
        [
            "AWAIT" | "STOP" | "SHOW" | "DESCRIBE",
            "STREAMING",
            "QUERY" | "QUERIES",
            ..,
        ] => (
            "STREAMING QUERY",
            "use the handle that `start` gives, or `session.streams()`",
        ),
        ["SESSION_WINDOW", "(", ..] => (
            "session_window",
            "this version groups by `window(ts, …)` only",
        ),
        ["WINDOW_TIME", "(", ..] => (
            "window_time",
            "take `window.end` instead, which is a microsecond later",
        ),
        _ => return None,
    })
}

/// What may follow STREAM where it is Spark's word and not a table of that name.
fn names_a_table(next: &str) -> bool {
    const AFTER_A_TABLE: [&str; 22] = [
        "WHERE",
        "GROUP",
        "ORDER",
        "LIMIT",
        "OFFSET",
        "HAVING",
        "JOIN",
        "INNER",
        "LEFT",
        "RIGHT",
        "FULL",
        "CROSS",
        "NATURAL",
        "ON",
        "USING",
        "AS",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "QUALIFY",
        "WITH",
        "TABLESAMPLE",
    ];
    next == "(" || (is_word(next) && !AFTER_A_TABLE.contains(&next))
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text != "FROM"
}

/// What is seen only once it is parsed.
///
/// # Errors
/// `Unsupported` for a table that is said to be unbounded.
pub(super) fn refuse_statement(statement: &Statement) -> Result<()> {
    match statement {
        Statement::CreateExternalTable(table) if table.unbounded => Err(Error::unsupported(
            "`CREATE UNBOUNDED EXTERNAL TABLE` in SQL",
        )
        .with_hint("read it with `read_stream()`")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_later_versions_are_named() {
        for (text, form) in [
            ("SELECT k FROM STREAM events", "STREAM"),
            ("select * from stream(events)", "STREAM"),
            ("SELECT STREAM * FROM events", "STREAM"),
            (
                "CREATE STREAMING TABLE t AS SELECT 1",
                "CREATE STREAMING TABLE",
            ),
            (
                "SELECT 1 FROM t WATERMARK ts DELAY OF INTERVAL 5 SECONDS",
                "WATERMARK",
            ),
            ("SELECT 1 FROM t GROUP BY k EMIT CHANGES", "EMIT"),
            ("STOP STREAMING QUERY q", "STREAMING QUERY"),
        ] {
            let error = refuse(text).expect_err(text);
            assert_eq!(error.operator(), Some(form), "{text}");
        }
    }

    #[test]
    fn a_table_may_be_called_stream() {
        for text in [
            "SELECT * FROM stream",
            "SELECT * FROM stream WHERE v > 1",
            "SELECT stream FROM t",
            "SELECT 'FROM STREAM x'",
            "SELECT \"STREAM\" k FROM t",
        ] {
            assert!(refuse(text).is_ok(), "{text}");
        }
    }
}
