//! Words of a text, as the tokenizer cuts them: what they are, and where.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::{Error, Position};

/// True for the unquoted word `word`, which is given in capitals.
pub(super) fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// 1 for an opening bracket, else 0.
pub(super) fn opens(token: &TokenWithSpan) -> i32 {
    i32::from(matches!(
        token.token,
        Token::LParen | Token::LBracket | Token::LBrace
    ))
}

/// 1 for a closing bracket, else 0.
pub(super) fn closes(token: &TokenWithSpan) -> i32 {
    i32::from(matches!(
        token.token,
        Token::RParen | Token::RBracket | Token::RBrace
    ))
}

/// The error at the place of the token.
pub(super) fn at(error: Error, token: &TokenWithSpan) -> Error {
    at_location(error, token.span.start)
}

/// The error at a place; words that we put in have none, nor has the end of the text.
pub(super) fn at_location(error: Error, Location { line, column }: Location) -> Error {
    match line {
        0 => error,
        _ => error.with_position(Position { line, column }),
    }
}

/// True for what may follow STREAM where it is Spark's word and not a table of that name.
pub(super) fn names_a_table(next: &str) -> bool {
    const AFTER_A_TABLE: [&str; 24] = [
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
        "AND",
        "OR",
    ];
    next == "(" || (is_name(next) && !AFTER_A_TABLE.contains(&next))
}

/// True for a word that may be a name.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text != "FROM"
}
