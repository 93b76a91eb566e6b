//! Functions of tables in FROM: `TUMBLE`, `HOP`, `SESSION`, `DROP_DUPLICATES`; words in, words out.
//!
//! ```text
//!  TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTE)   "highwater.window"((SELECT * FROM t), ts, '10 MINUTE')
//!  HOP(TABLE t, DESCRIPTOR(ts), slide, size)               "highwater.window"((SELECT * FROM t), ts, 'size', 'slide')
//!  SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), gap)    "highwater.session"((SELECT * FROM t), ts, 'gap', k)
//!  DROP_DUPLICATES(TABLE t, DESCRIPTOR(k, l))              "highwater.distinct"((SELECT * FROM t), k, l)
//! ```
//! `TABLE(f(…))` around the call is taken off (Flink). Inner calls are done first.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::cursor::Cursor;
use super::interval;
use super::planner::{DISTINCT, DISTINCT_WITHIN, SESSION, WINDOW};
use super::relation::{Words, begins_relation};
use super::words::{closes, is, opens};
use crate::{Error, IntoInterval, Result};

/// The functions, in capitals.
const FUNCTIONS: [&str; 6] = [
    "TUMBLE",
    "HOP",
    "SESSION",
    "CUMULATE",
    "DROP_DUPLICATES",
    "DROP_DUPLICATES_WITHIN_WATERMARK",
];

/// Rewrites the calls; `users` tells the table functions that the user has registered, which go first.
///
/// # Errors
/// `Invalid`, with its place, for a call that is wrong.
pub(super) fn rewrite(
    mut tokens: Vec<TokenWithSpan>,
    users: impl Fn(&str) -> bool,
) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|t| name_of(t).is_some()) {
        return Ok(tokens);
    }
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
    for here in (1..tokens.len()).rev() {
        let Some(function) = name_of(&tokens[here]) else {
            continue;
        };
        let called = tokens
            .get(here + 1)
            .is_some_and(|t| t.token == Token::LParen);
        let Some(start) = relation_at(&tokens, here) else {
            continue;
        };
        if !called || users(&function.to_lowercase()) {
            continue;
        }
        let call = Call::parse(function, &tokens[here + 1..])?;
        let mut end = here + 1 + call.length;
        if start < here {
            let closed = tokens.get(end).is_some_and(|t| t.token == Token::RParen);
            if !closed {
                let mut cursor = Cursor::new(&tokens);
                cursor.skip(end);
                return Err(cursor.wrong(&[")"]));
            }
            end += 1;
        }
        let made = call.words(tokens[here].span)?;
        tokens.splice(start..end, made);
    }
    Ok(tokens)
}

fn name_of(token: &TokenWithSpan) -> Option<&'static str> {
    FUNCTIONS.into_iter().find(|name| is(token, name))
}

/// Where the relation begins that the word at `here` calls, with a `TABLE (` around it; `None` when it is none.
fn relation_at(tokens: &[TokenWithSpan], here: usize) -> Option<usize> {
    let argument = here >= 2
        && is(&tokens[here - 1], "TABLE")
        && matches!(tokens[here - 2].token, Token::LParen | Token::RArrow);
    if argument || begins_relation(tokens, here) {
        return Some(here);
    }
    let wrapped = here >= 2
        && tokens[here - 1].token == Token::LParen
        && is(&tokens[here - 2], "TABLE")
        && begins_relation(tokens, here - 2);
    wrapped.then(|| here - 2)
}

/// A call as it was written.
struct Call {
    function: &'static str,
    /// The words of the relation.
    input: Vec<TokenWithSpan>,
    /// `PARTITION BY`.
    partition_by: Vec<Vec<TokenWithSpan>>,
    /// `DESCRIPTOR(…)`.
    columns: Vec<Vec<TokenWithSpan>>,
    /// Lengths of time, with their names where they have one.
    lengths: Vec<(Option<String>, String)>,
    /// How many words it has, the parentheses included.
    length: usize,
}

impl Call {
    fn parse(function: &'static str, tokens: &[TokenWithSpan]) -> Result<Self> {
        let mut cursor = Cursor::new(tokens);
        if function == "CUMULATE" {
            let error = Error::unsupported("`CUMULATE` windows")
                .with_operator("CUMULATE")
                .with_hint("use TUMBLE or HOP");
            return Err(super::words::at_location(error, cursor.place()));
        }
        cursor.symbol(&Token::LParen)?;
        named(&mut cursor, "DATA");
        let input = input(&mut cursor)?;
        let mut partition_by = Vec::new();
        if function == "SESSION" && cursor.eat(&["PARTITION"]) {
            cursor.expect(&["BY"])?;
            partition_by.push(column(&mut cursor)?);
            // `, DESCRIPTOR (` and `, TIMECOL =>` are what comes next.
            while !matches!(
                cursor.rest().get(2).map(|t| &t.token),
                Some(Token::LParen | Token::RArrow)
            ) && cursor.eat_symbol(&Token::Comma)
            {
                partition_by.push(column(&mut cursor)?);
            }
        }
        let mut call = Self {
            function,
            input,
            partition_by,
            columns: Vec::new(),
            lengths: Vec::new(),
            length: 0,
        };
        let windows = !function.starts_with("DROP");
        if windows || cursor.sees_symbol(&Token::Comma) {
            cursor.symbol(&Token::Comma)?;
            named(&mut cursor, "TIMECOL");
            call.columns = descriptor(&mut cursor)?;
        }
        while windows && cursor.eat_symbol(&Token::Comma) {
            let name = NAMES.into_iter().find(|name| named(&mut cursor, name));
            call.lengths
                .push((name.map(str::to_owned), length(&mut cursor)?));
        }
        let place = cursor.place();
        if !cursor.eat_symbol(&Token::RParen) {
            let expected: &[&str] = if windows { &[",", ")"] } else { &[")"] };
            return Err(cursor.wrong(expected));
        }
        call.length = cursor.at();
        call.check()
            .map_err(|e| super::words::at_location(e, place))?;
        Ok(call)
    }

    fn check(&self) -> Result<()> {
        let (least, most, usage) = match self.function {
            "TUMBLE" => (
                1,
                2,
                "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTE)",
            ),
            "HOP" => (
                2,
                3,
                "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '10' MINUTE): slide, then size",
            ),
            "SESSION" => (
                1,
                1,
                "SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
            ),
            _ => return Ok(()),
        };
        let wrong = |message: String| {
            Error::invalid(message)
                .with_operator(self.function)
                .with_hint(format!("write {usage}"))
        };
        if self.columns.len() != 1 {
            return Err(wrong(format!(
                "the time of `{}` is one column, not {}",
                self.function,
                self.columns.len()
            )));
        }
        if !(least..=most).contains(&self.lengths.len()) {
            return Err(wrong(format!(
                "`{}` has {} lengths of time, not {}",
                self.function,
                least,
                self.lengths.len()
            )));
        }
        Ok(())
    }

    /// The length with one of these names, or else the one at `position`.
    fn length_of(&self, name: &str, position: usize) -> Option<&str> {
        let by_name = self
            .lengths
            .iter()
            .find(|(n, _)| n.as_deref() == Some(name));
        let by_position = self.lengths.get(position).filter(|(n, _)| n.is_none());
        by_name.or(by_position).map(|(_, length)| length.as_str())
    }

    /// The words that stand for the call.
    fn words(
        &self,
        span: datafusion::sql::sqlparser::tokenizer::Span,
    ) -> Result<Vec<TokenWithSpan>> {
        let mut made = Words::at(span);
        made.call(match self.function {
            "SESSION" => SESSION,
            "DROP_DUPLICATES" => DISTINCT,
            "DROP_DUPLICATES_WITHIN_WATERMARK" => DISTINCT_WITHIN,
            _ => WINDOW,
        });
        made.select(None).relation(self.input.clone()).close();
        for column in &self.columns {
            made.put(Token::Comma).words(column.clone());
        }
        let (size, slide, offset) = match self.function {
            "HOP" => (
                self.length_of("SIZE", 1),
                self.length_of("SLIDE", 0),
                self.length_of("OFFSET", 2),
            ),
            "SESSION" => (self.length_of("GAP", 0), None, None),
            _ => (self.length_of("SIZE", 0), None, self.length_of("OFFSET", 1)),
        };
        if self.function.starts_with("DROP") {
            return Ok(made.close().take());
        }
        let size = size.ok_or_else(|| {
            Error::invalid(format!("`{}` has no size", self.function)).with_operator(self.function)
        })?;
        let text = |length: &str| Token::SingleQuotedString(length.trim().to_owned());
        made.put(Token::Comma).put(text(size));
        if let (slide, Some(offset)) = (slide.unwrap_or(size), offset) {
            made.put(Token::Comma).put(text(slide));
            made.put(Token::Comma).put(text(offset));
        } else if let Some(slide) = slide {
            made.put(Token::Comma).put(text(slide));
        }
        for key in &self.partition_by {
            made.put(Token::Comma).words(key.clone());
        }
        Ok(made.close().take())
    }
}

/// The names that lengths of time may have.
const NAMES: [&str; 4] = ["SIZE", "SLIDE", "GAP", "OFFSET"];

/// Reads `NAME =>`.
fn named(cursor: &mut Cursor<'_>, name: &str) -> bool {
    let arrow = cursor
        .rest()
        .get(1)
        .is_some_and(|t| t.token == Token::RArrow);
    arrow && cursor.eat(&[name]) && cursor.eat_symbol(&Token::RArrow)
}

/// `TABLE relation`, up to the comma or PARTITION; or a query in parentheses.
fn input(cursor: &mut Cursor<'_>) -> Result<Vec<TokenWithSpan>> {
    let query = cursor.sees_symbol(&Token::LParen);
    if !query {
        cursor.expect(&["TABLE"])?;
    }
    let start = cursor.at();
    let mut depth = 0;
    while let Some(token) = cursor.peek() {
        let ends = matches!(token.token, Token::Comma | Token::RParen) || is(token, "PARTITION");
        if depth == 0 && ends {
            break;
        }
        depth += opens(token) - closes(token);
        cursor.advance();
    }
    let input = cursor.since(start);
    if input.is_empty() {
        return Err(cursor.unexpected("a table", []));
    }
    Ok(input.to_vec())
}

/// A column, with its table or without.
fn column(cursor: &mut Cursor<'_>) -> Result<Vec<TokenWithSpan>> {
    let start = cursor.at();
    cursor.name("a column")?;
    Ok(cursor.since(start).to_vec())
}

/// `DESCRIPTOR(a, b)`.
fn descriptor(cursor: &mut Cursor<'_>) -> Result<Vec<Vec<TokenWithSpan>>> {
    cursor.expect(&["DESCRIPTOR"])?;
    cursor.symbol(&Token::LParen)?;
    let mut columns = vec![column(cursor)?];
    while cursor.eat_symbol(&Token::Comma) {
        columns.push(column(cursor)?);
    }
    if !cursor.eat_symbol(&Token::RParen) {
        return Err(cursor.wrong(&[",", ")"]));
    }
    Ok(columns)
}

/// `INTERVAL '10' MINUTE`, or a text.
fn length(cursor: &mut Cursor<'_>) -> Result<String> {
    if matches!(
        cursor.peek().map(|t| &t.token),
        Some(Token::SingleQuotedString(_))
    ) {
        let place = cursor.place();
        let text = cursor.text("a length of time")?;
        text.as_str()
            .into_interval()
            .map_err(|e| super::words::at_location(e, place))?;
        return Ok(text);
    }
    if !cursor.sees(&["INTERVAL"]) {
        return Err(cursor.wrong(&["INTERVAL"]));
    }
    let (text, length) = interval::after(cursor.rest(), 0, "`,`")?;
    cursor.skip(length);
    Ok(text)
}
