//! A walk over the words of a statement that says what it expected, and where.

use datafusion::common::TableReference;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::near::nearest;
use super::words::{at_location, closes, is, opens};
use crate::{Error, Options, Result};

/// Words of one statement, without white space, and how far they are read.
pub(super) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    next: usize,
}

/// A name as it was written, and where.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// The name, folded as DataFusion folds names.
    pub(super) table: TableReference,
    pub(super) place: Location,
}

/// An option as it was written, and where.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Location,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &'a [TokenWithSpan]) -> Self {
        Self { tokens, next: 0 }
    }

    /// How many words are read.
    pub(super) fn at(&self) -> usize {
        self.next
    }

    /// The words from `start` up to here.
    pub(super) fn since(&self, start: usize) -> &'a [TokenWithSpan] {
        &self.tokens[start..self.next]
    }

    /// The words that are left.
    pub(super) fn rest(&self) -> &'a [TokenWithSpan] {
        &self.tokens[self.next..]
    }

    pub(super) fn peek(&self) -> Option<&'a TokenWithSpan> {
        self.tokens.get(self.next)
    }

    /// The place of the next word, or of the end.
    pub(super) fn place(&self) -> Location {
        match self.peek() {
            Some(token) => token.span.start,
            None => self.tokens.last().map_or(Location::empty(), |t| t.span.end),
        }
    }

    /// Passes over so many words.
    pub(super) fn skip(&mut self, words: usize) {
        self.next = (self.next + words).min(self.tokens.len());
    }

    pub(super) fn advance(&mut self) -> Option<&'a TokenWithSpan> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    /// True when the next words are these, which are given in capitals.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        let tokens = self.tokens.get(self.next..self.next + words.len());
        tokens.is_some_and(|tokens| tokens.iter().zip(words).all(|(t, w)| is(t, w)))
    }

    pub(super) fn sees_symbol(&self, symbol: &Token) -> bool {
        self.peek().is_some_and(|t| t.token == *symbol)
    }

    /// Reads these words, if they are the next.
    pub(super) fn eat(&mut self, words: &[&str]) -> bool {
        let found = self.sees(words);
        if found {
            self.next += words.len();
        }
        found
    }

    pub(super) fn eat_symbol(&mut self, symbol: &Token) -> bool {
        let found = self.sees_symbol(symbol);
        self.next += usize::from(found);
        found
    }

    /// Reads these words, which must be the next.
    ///
    /// # Errors
    /// `Invalid`, at the word that is another one.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.eat(&[*word]) {
                return Err(self.wrong(&[*word]));
            }
        }
        Ok(())
    }

    /// # Errors
    /// `Invalid`, at the word that stands there.
    pub(super) fn symbol(&mut self, symbol: &Token) -> Result<()> {
        if self.eat_symbol(symbol) {
            return Ok(());
        }
        Err(self.wrong(&[&symbol.to_string()]))
    }

    /// What to say when none of `expected` stands here.
    pub(super) fn wrong(&self, expected: &[&str]) -> Error {
        let expected_text = match expected {
            [] => String::from("something else"),
            [one] => format!("`{one}`"),
            [most @ .., last] => format!(
                "{} or `{last}`",
                most.iter()
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        self.unexpected(&expected_text, expected.iter().copied())
    }

    /// What to say when something else stands here than `what`; `words` are those that fit.
    pub(super) fn unexpected<'w>(
        &self,
        what: &str,
        words: impl IntoIterator<Item = &'w str>,
    ) -> Error {
        let Some(found) = self.peek() else {
            let error = Error::invalid(format!("expected {what}, found the end of the statement"));
            return at_location(error, self.place());
        };
        let error = Error::invalid(format!("expected {what}, found `{}`", found.token));
        let near = match &found.token {
            Token::Word(word) => nearest(&word.value, words),
            _ => None,
        };
        let error = at_location(error, found.span.start);
        match near {
            Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
            None => error,
        }
    }

    /// A name of up to three parts.
    ///
    /// # Errors
    /// `Invalid` when there is none.
    pub(super) fn name(&mut self, what: &str) -> Result<Name> {
        let place = self.place();
        let mut parts = vec![self.ident(what)?];
        while self.sees_symbol(&Token::Period) {
            self.next += 1;
            parts.push(self.ident("a name after the dot")?);
        }
        let table = match <[String; 1]>::try_from(parts) {
            Ok([table]) => TableReference::bare(table),
            Err(parts) => match parts.as_slice() {
                [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
                [catalog, schema, table] => {
                    TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())
                }
                _ => {
                    let error = Error::invalid("a name has three parts at most");
                    return Err(at_location(error, place));
                }
            },
        };
        Ok(Name { table, place })
    }

    /// One word as a name; unquoted ones are folded to lower case.
    ///
    /// # Errors
    /// `Invalid` when there is none.
    pub(super) fn ident(&mut self, what: &str) -> Result<String> {
        match self.peek().map(|t| &t.token) {
            Some(Token::Word(word)) => {
                self.next += 1;
                Ok(fold(word.value.as_str(), word.quote_style.is_some()))
            }
            _ => Err(self.unexpected(what, [])),
        }
    }

    /// A text in single quotes.
    ///
    /// # Errors
    /// `Invalid` when there is none.
    pub(super) fn text(&mut self, what: &str) -> Result<String> {
        match self.peek().map(|t| &t.token) {
            Some(Token::SingleQuotedString(text)) => {
                self.next += 1;
                Ok(text.clone())
            }
            _ => Err(self.unexpected(what, [])),
        }
    }

    /// `(key value, 'key' 'value', 'key' = 'value')`.
    ///
    /// # Errors
    /// `Invalid` for anything else, and for a key that is there twice.
    pub(super) fn options(&mut self) -> Result<Vec<Written>> {
        self.symbol(&Token::LParen)?;
        let mut all: Vec<Written> = Vec::new();
        loop {
            let place = self.place();
            let key = self.key()?;
            self.eat_symbol(&Token::Eq);
            let value = self.value(&key)?;
            let known = folded(&key);
            if all.iter().any(|other| folded(&other.key) == known) {
                let error = Error::invalid(format!("option `{key}` is there twice"));
                return Err(at_location(error.with_option(key), place));
            }
            all.push(Written { key, value, place });
            let comma = self.eat_symbol(&Token::Comma);
            if self.eat_symbol(&Token::RParen) {
                return Ok(all);
            }
            if !comma {
                return Err(self.wrong(&[",", ")"]));
            }
        }
    }

    fn key(&mut self) -> Result<String> {
        let mut key = String::new();
        loop {
            match self.peek().map(|t| &t.token) {
                Some(Token::Word(word)) => key.push_str(&word.value),
                Some(Token::SingleQuotedString(text)) if key.is_empty() => key.push_str(text),
                _ => return Err(self.unexpected("the name of an option", [])),
            }
            self.next += 1;
            if !self.eat_symbol(&Token::Period) {
                return Ok(key);
            }
            key.push('.');
        }
    }

    fn value(&mut self, key: &str) -> Result<String> {
        let negative = self.eat_symbol(&Token::Minus);
        let value = match self.peek().map(|t| &t.token) {
            Some(Token::Number(number, _)) if negative => format!("-{number}"),
            Some(Token::Number(number, _)) => number.clone(),
            Some(Token::Word(word)) if !negative => word.value.clone(),
            Some(Token::SingleQuotedString(text)) if !negative => text.clone(),
            _ => return Err(self.unexpected(&format!("the value of option `{key}`"), [])),
        };
        self.next += 1;
        Ok(value)
    }

    /// Passes over `(…)`; false when the next word opens nothing.
    ///
    /// # Errors
    /// `Invalid` when it is not closed.
    pub(super) fn skip_parentheses(&mut self) -> Result<bool> {
        if !self.sees_symbol(&Token::LParen) {
            return Ok(false);
        }
        let mut depth = 0;
        while let Some(token) = self.advance() {
            depth += opens(token) - closes(token);
            if depth == 0 {
                return Ok(true);
            }
        }
        Err(self.wrong(&[")"]))
    }

    /// The end of the statement, with a semicolon or without.
    ///
    /// # Errors
    /// `Invalid` when something follows; `expected` are the words that could have.
    pub(super) fn end(&mut self, expected: &[&str]) -> Result<()> {
        while self.eat_symbol(&Token::SemiColon) {}
        if self.peek().is_none() {
            return Ok(());
        }
        Err(self.unexpected("the end of the statement", expected.iter().copied()))
    }
}

/// A name as DataFusion folds it.
pub(super) fn fold(name: &str, quoted: bool) -> String {
    if quoted {
        name.to_owned()
    } else {
        name.to_lowercase()
    }
}

/// Case and `_` of an option's name do not count.
pub(super) fn folded(key: &str) -> String {
    key.chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

/// The options as a map.
pub(super) fn map(written: &[Written]) -> Options {
    let pairs = written.iter();
    pairs.map(|o| (o.key.clone(), o.value.clone())).collect()
}

/// The error at the option it is about, if it is about one of these.
pub(super) fn at_option(error: Error, written: &[Written]) -> Error {
    let Some(option) = error.option().map(folded) else {
        return error;
    };
    let place = written.iter().find(|o| folded(&o.key) == option);
    match place {
        Some(written) if error.position().is_none() => at_location(error, written.place),
        _ => error,
    }
}
