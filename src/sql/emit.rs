//! `EMIT ON WINDOW CLOSE` and `EMIT CHANGES` at the end of a query: append and update, in other engines' words.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::cursor::Cursor;
use super::near::nearest;
use super::words::{at_location, closes, is, opens};
use crate::{Error, OutputMode, Result};

/// The clause, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emit {
    pub(super) mode: OutputMode,
    pub(super) place: Location,
}

/// Takes the clause off the end.
///
/// # Errors
/// `Invalid`, with its place, when something else follows EMIT.
pub(super) fn take(mut tokens: Vec<TokenWithSpan>) -> Result<(Vec<TokenWithSpan>, Option<Emit>)> {
    let Some(at) = emit_at(&tokens) else {
        return Ok((tokens, None));
    };
    let mut cursor = Cursor::new(&tokens);
    cursor.skip(at + 1);
    let place = tokens[at].span.start;
    let mode = if cursor.eat(&["CHANGES"]) {
        OutputMode::Update
    } else if cursor.eat(&["ON"]) {
        cursor.expect(&["WINDOW", "CLOSE"])?;
        OutputMode::Append
    } else {
        return Err(cursor.wrong(&["CHANGES", "ON"]));
    };
    cursor.end(&[])?;
    tokens.truncate(at);
    Ok((tokens, Some(Emit { mode, place })))
}

/// Where the clause is: an EMIT outside parentheses, with a word after it that no name has after it.
fn emit_at(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0;
    let mut found = None;
    for (at, token) in tokens.iter().enumerate() {
        depth += opens(token) - closes(token);
        let next = |offset: usize, word: &str| {
            tokens
                .get(at + offset)
                .is_some_and(|t| is_or_nearly(t, word))
        };
        let on = tokens.get(at + 1).is_some_and(|t| is(t, "ON"));
        let window = next(2, "WINDOW") || next(3, "CLOSE");
        let clause = next(1, "CHANGES") || next(1, "WINDOW") || (on && window);
        let named = at > 0 && is(&tokens[at - 1], "AS");
        if depth == 0 && at > 0 && !named && clause && is(token, "EMIT") {
            found = Some(at);
        }
    }
    found
}

/// The word, or one that was probably meant to be it.
fn is_or_nearly(token: &TokenWithSpan, word: &str) -> bool {
    match &token.token {
        Token::Word(typed) => is(token, word) || nearest(&typed.value, [word]).is_some(),
        _ => false,
    }
}

/// The mode of a query whose options say one, too, perhaps.
///
/// # Errors
/// `Invalid` when the two differ.
pub(super) fn mode(emit: Option<Emit>, option: Option<OutputMode>) -> Result<Option<OutputMode>> {
    match (emit, option) {
        (Some(emit), Some(option)) if emit.mode != option => {
            let error = Error::invalid(format!(
                "EMIT asks for the output mode {}, and the options for {option}",
                emit.mode
            ))
            .with_option("output_mode")
            .with_hint("say it once");
            Err(at_location(error, emit.place))
        }
        (Some(emit), _) => Ok(Some(emit.mode)),
        (None, option) => Ok(option),
    }
}

/// What a clause is told that stands after something which is no query of streams.
pub(super) fn misplaced(emit: Emit) -> Error {
    let error = Error::invalid("EMIT stands after a query that streams, and this is none")
        .with_operator("EMIT")
        .with_hint("leave it out");
    at_location(error, emit.place)
}
