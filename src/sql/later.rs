//! Forms that are not ours, or stand in the wrong place: refused by name, where DataFusion would read something else
//! into them.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::words::{at, is_name, names_a_table};
use crate::{Error, Result};

/// Looks at the words of the text: `SELECT STREAM *` would be a product.
///
/// # Errors
/// `Unsupported`, naming the form and what to write instead.
pub(super) fn refuse(tokens: &[TokenWithSpan]) -> Result<()> {
    let tokens: Vec<&TokenWithSpan> = tokens
        .iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_)))
        .collect();
    let words: Vec<String> = tokens
        .iter()
        .map(|t| match &t.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            Token::Word(_) | Token::SingleQuotedString(_) => String::new(),
            other => other.to_string(),
        })
        .collect();
    for start in 0..words.len() {
        let rest: Vec<&str> = words[start..].iter().map(String::as_str).collect();
        if let Some((form, hint)) = later(&rest) {
            let error = Error::unsupported(format!("`{form}` in SQL"));
            return Err(at(error, tokens[start]).with_operator(form).with_hint(hint));
        }
    }
    Ok(())
}

type Form = (&'static str, &'static str);

fn later(words: &[&str]) -> Option<Form> {
    const STREAM: Form = (
        "STREAM",
        "write `FROM STREAM t`, or leave the word out: a streaming table streams by its name alone",
    );
    Some(match words {
        ["FROM" | "JOIN", "STREAM", next, ..] if names_a_table(next) => STREAM,
        ["SELECT", "STREAM", next, ..] if *next == "*" || is_name(next) => STREAM,
        ["CREATE", "MATERIALIZED", "VIEW", ..]
        | ["CREATE", "OR", "REPLACE", "MATERIALIZED", ..] => (
            "CREATE MATERIALIZED VIEW",
            "write `CREATE STREAMING TABLE name AS SELECT …`",
        ),
        ["CREATE", "FLOW", ..] => (
            "CREATE FLOW",
            "write `INSERT INTO table SELECT … FROM STREAM …`: it starts the query",
        ),
        ["WATERMARK", "FOR", ..] => (
            "WATERMARK FOR",
            "declare it with `CREATE UNBOUNDED EXTERNAL TABLE`, or write `FROM t WATERMARK ts DELAY OF INTERVAL 10 SECONDS`",
        ),
        ["WATERMARK", _, "DELAY", "OF", ..] => (
            "WATERMARK",
            "it stands right after the table or subquery, and before its alias",
        ),
        ["EMIT", "CHANGES", ..] | ["EMIT", "ON", "WINDOW", ..] => {
            ("EMIT", "it stands once, at the end of the statement")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    fn refused(text: &str) -> Option<Error> {
        let mut tokenizer = Tokenizer::new(&GenericDialect {}, text);
        refuse(&tokenizer.tokenize_with_location().expect(text)).err()
    }

    #[test]
    fn forms_of_later_versions_are_named() {
        for (text, form) in [
            ("SELECT STREAM * FROM events", "STREAM"),
            (
                "CREATE MATERIALIZED VIEW t AS SELECT 1",
                "CREATE MATERIALIZED VIEW",
            ),
            (
                "SELECT 1 FROM t AS a WATERMARK ts DELAY OF INTERVAL 5 SECONDS",
                "WATERMARK",
            ),
            (
                "CREATE TABLE t (ts TIMESTAMP, WATERMARK FOR ts AS ts)",
                "WATERMARK FOR",
            ),
            ("SELECT 1 FROM t GROUP BY k EMIT CHANGES", "EMIT"),
            ("CREATE FLOW f AS INSERT INTO t SELECT 1", "CREATE FLOW"),
        ] {
            let error = refused(text).expect(text);
            assert_eq!(error.operator(), Some(form), "{text}");
            assert!(error.position().is_some(), "{text}");
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
            assert!(refused(text).is_none(), "{text}");
        }
    }
}
