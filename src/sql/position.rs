//! Where in the user's text an error is, and in whose words it speaks.
//!
//! Every error of a statement has a place: the one it was given, else the parser's, else that of the name it speaks of,
//! else the statement's beginning. Messages of DataFusion lose what the user has not written.

use std::error::Error as StdError;

use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::near::{KEYWORDS, nearest, nearest_type};
use super::words::at_location;
use crate::{Error, Position, Result};

/// A statement as it was written: its words, without white space and comments.
pub(super) struct Text(Vec<TokenWithSpan>);

impl Text {
    /// Cuts the text into words.
    ///
    /// # Errors
    /// `Invalid`, with its place, for a text or a comment that does not end; and when there are no words.
    pub(super) fn read(text: &str, dialect: &dyn Dialect) -> Result<Self> {
        let words = Tokenizer::new(dialect, text).tokenize_with_location();
        let mut words = words.map_err(|e| {
            let error = locate(DataFusionError::from(ParserError::from(e)).into());
            in_users_words(error)
        })?;
        words.retain(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
        if words.iter().all(|t| t.token == Token::SemiColon) {
            let error = Error::invalid("there is no SQL statement in the text");
            return Err(error.with_position(Position { line: 1, column: 1 }));
        }
        Ok(Self(words))
    }

    /// The words.
    pub(super) fn words(&self) -> Vec<TokenWithSpan> {
        self.0.clone()
    }

    /// The error with its place in this text, in the user's words.
    pub(super) fn locate(&self, error: Error, state: &SessionState) -> Error {
        let of_parser = parsers_words(error.message()).is_some();
        let mut error = locate(error);
        if error.position().is_none()
            && let Some(place) = diagnosed(&error)
        {
            error = at_location(error, place);
        }
        if error.position().is_none() {
            let place = match of_parser && error.message().contains("EOF") {
                true => self.0.last().map(|t| t.span.end),
                false => self.spoken_of(error.message()),
            };
            let place = place.or(self.0.first().map(|t| t.span.start));
            error = at_location(error, place.unwrap_or(Location::empty()));
        }
        if error.hint().is_none()
            && let Some(meant) = self.suggestion(&error, of_parser, state)
        {
            error = error.with_hint(format!("did you mean `{meant}`?"));
        }
        let error = in_users_words(error);
        match of_parser {
            true => self.with_found(error),
            false => error,
        }
    }

    /// What the parser has found, as it stands in the text: it may have read another word in its place.
    fn with_found(&self, error: Error) -> Error {
        const FOUND: &str = ", found: ";
        let there = error.position().and_then(|at| {
            let at = (at.line, at.column);
            let mut words = self.0.iter();
            words.find(|t| (t.span.start.line, t.span.start.column) == at)
        });
        let (Some(there), Some((expected, _))) = (there, error.message().split_once(FOUND)) else {
            return error;
        };
        let told = format!("{expected}{FOUND}{}", there.token);
        error.with_message(told)
    }

    /// The place of the first name that the message quotes and the text has.
    fn spoken_of(&self, message: &str) -> Option<Location> {
        let of_type = message.strip_prefix("Unsupported SQL type ");
        let quoted = message
            .split(['\'', '`', '"'])
            .skip(1)
            .step_by(2)
            .flat_map(|name| name.rsplit('.').take(1))
            .map(str::trim);
        let mut names = of_type
            .into_iter()
            .chain(quoted)
            .filter(|name| !name.is_empty());
        names.find_map(|name| {
            let found = self.0.iter().find(|t| match &t.token {
                Token::Word(word) => word.value.eq_ignore_ascii_case(name),
                Token::SingleQuotedString(text) => text == name,
                other => other.to_string() == name,
            });
            found.map(|t| t.span.start)
        })
    }

    /// The word that was probably meant where the parser stumbled, or the table that was not found.
    fn suggestion(&self, error: &Error, of_parser: bool, state: &SessionState) -> Option<String> {
        let at = error.position()?;
        let here = self.0.iter().position(|t| {
            let start = t.span.start;
            (start.line, start.column) >= (at.line, at.column)
        });
        let word = |index: usize| match &self.0.get(index)?.token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.as_str()),
            _ => None,
        };
        if of_parser {
            let here = here.unwrap_or(self.0.len());
            let around = [
                Some(here),
                here.checked_sub(1),
                here.checked_sub(2),
                Some(here + 1),
            ];
            let mut words = around.into_iter().flatten().filter_map(word);
            return words.find_map(|w| nearest(w, KEYWORDS)).map(str::to_owned);
        }
        if let Some(word) = error.message().strip_prefix("Unsupported SQL type ") {
            return nearest_type(word).map(str::to_owned);
        }
        if !error.message().contains("not found") {
            return None;
        }
        let missing = word(here?)?;
        let schema = state.schema_for_ref(missing.to_lowercase()).ok()?;
        let tables = schema.table_names();
        let near = nearest(missing, tables.iter().map(String::as_str));
        near.or_else(|| nearest(missing, ["STREAM"]))
            .map(str::to_owned)
    }
}

/// Takes the position out of the parser's message (`… at Line: 1, Column: 8`) into the error.
pub(super) fn locate(error: Error) -> Error {
    if error.position().is_some() {
        return error;
    }
    let Some((line, column)) = parse(error.message()) else {
        return error;
    };
    error.with_position(Position { line, column })
}

fn parse(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once("at Line: ")?;
    let (line, rest) = place.split_once(", Column: ")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((line.trim().parse().ok()?, rest[..digits].parse().ok()?))
}

/// The place that DataFusion's planner has noted.
fn diagnosed(error: &Error) -> Option<Location> {
    let cause = error.source()?.downcast_ref::<DataFusionError>()?;
    let diagnostic = cause.diagnostic()?;
    let place = diagnostic.span?.start;
    (place.line > 0).then_some(Location {
        line: place.line,
        column: place.column,
    })
}

/// The error without what the user has not written: prefixes, the place (which is told apart), catalogs, our functions.
fn in_users_words(error: Error) -> Error {
    let mut message = error.message();
    message = parsers_words(message).unwrap_or(message);
    if parse(message).is_some()
        && let Some((before, _)) = message.rsplit_once("at Line: ")
    {
        message = before.trim_end();
    }
    let mut told = message
        .replace("datafusion.public.", "")
        .replace("found: EOF", "found the end of the statement");
    for (ours, theirs) in OURS {
        told = told.replace(ours, theirs);
    }
    if told == error.message() {
        return error;
    }
    error.with_message(told)
}

/// What the parser or the tokenizer says, without its name around it.
fn parsers_words(message: &str) -> Option<&str> {
    if let Some(words) = message.strip_prefix("sql parser error: ") {
        return Some(words);
    }
    let inner = |name: &str| message.strip_prefix(name)?.strip_suffix("\")");
    inner("ParserError(\"").or_else(|| inner("TokenizerError(\""))
}

/// Our functions, and the words they stand for; the longer names first.
const OURS: [(&str, &str); 8] = [
    ("highwater.streamed", "STREAM"),
    ("highwater.stream", "STREAM"),
    ("highwater.watermark", "WATERMARK"),
    ("highwater.window", "TUMBLE"),
    ("highwater.session", "SESSION"),
    (
        "highwater.distinct_within",
        "DROP_DUPLICATES_WITHIN_WATERMARK",
    ),
    ("highwater.distinct", "DROP_DUPLICATES"),
    ("highwater.state", "state"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_position_becomes_the_errors() {
        let error = locate(Error::invalid(
            "sql parser error: Expected: x, found: y at Line: 2, Column: 17",
        ));
        assert_eq!(
            error.position(),
            Some(Position {
                line: 2,
                column: 17
            })
        );
        assert_eq!(in_users_words(error).message(), "Expected: x, found: y");
        assert_eq!(locate(Error::invalid("no field named x")).position(), None);
    }
}
