//! `STREAM t` and `t WATERMARK ts DELAY OF INTERVAL 10 SECONDS`, which no SQL parser knows: words in, words out.
//!
//! ```text
//!  STREAM t                           "highwater.stream"((SELECT * FROM t))
//!  STREAM t WITH ('k' = 'v') IDENTIFIED BY n    "highwater.stream"((SELECT * FROM t), 'n', 'k', 'v')
//!  t WATERMARK ts DELAY OF i AS a     "highwater.watermark"((SELECT * FROM t), ts, 'i') AS a
//!  t WATERMARK e AS x DELAY OF i      "highwater.watermark"((SELECT *, e AS x FROM t), x, 'i')
//! ```
//! Each word keeps its place in the user's text, so that errors speak of that. The functions are planned by
//! [`StreamRelations`](super::planner::StreamRelations). A clause is one only where a relation stands before it and
//! all of it follows; elsewhere `stream`, `watermark` and `delay` are names like others.

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::cursor::{Cursor, Written};
use super::planner::{STREAM, WATERMARK};
use super::words::{at, closes, is, names_a_table, opens};
use super::{interval, position};
use crate::{Error, Result};

/// Rewrites the streaming forms of relations.
///
/// # Errors
/// `Invalid` with its position for a clause whose expression or interval is wrong, `Unsupported` for what a later
/// version takes.
pub(super) fn rewrite(
    tokens: Vec<TokenWithSpan>,
    dialect: &dyn Dialect,
) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|t| is(t, "STREAM") || is(t, "WATERMARK")) {
        return Ok(tokens);
    }
    let mut tokens = tokens;
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
    streams(&mut tokens)?;
    watermarks(&mut tokens, dialect)?;
    Ok(tokens)
}

/// `STREAM t` and `STREAM(t)`, with options and a name.
fn streams(tokens: &mut Vec<TokenWithSpan>) -> Result<()> {
    let mut here = 0;
    while here < tokens.len() {
        if let Some((relation, end)) = stream_at(tokens, here) {
            let (reading, end) = Reading::parse(tokens, end)?;
            let relation = tokens[relation.0..relation.1].to_vec();
            let mut made = Words::at(tokens[here].span);
            made.call(STREAM).select(None).relation(relation);
            made.close();
            reading.put(&mut made);
            made.close();
            let next = here + made.0.len();
            tokens.splice(here..end, made.0);
            here = next;
        } else {
            here += 1;
        }
    }
    Ok(())
}

/// `WITH ('key' = 'value')` and `IDENTIFIED BY name`, after the table.
struct Reading {
    options: Vec<(Written, Span)>,
    identity: Option<(String, Span)>,
}

impl Reading {
    /// Reads them from the word at `end` on, and tells where they end.
    fn parse(tokens: &[TokenWithSpan], end: usize) -> Result<(Self, usize)> {
        let mut cursor = Cursor::new(tokens);
        cursor.skip(end);
        let mut reading = Self {
            options: Vec::new(),
            identity: None,
        };
        let parenthesis =
            |c: &Cursor<'_>| c.rest().get(1).is_some_and(|t| t.token == Token::LParen);
        if cursor.sees(&["WITH"]) && parenthesis(&cursor) {
            cursor.skip(1);
            let spanned = |o: Written| (o.clone(), Span::new(o.place, o.place));
            reading.options = cursor.options()?.into_iter().map(spanned).collect();
        }
        if cursor.eat(&["IDENTIFIED"]) {
            cursor.expect(&["BY"])?;
            let span = cursor.peek().map_or(Span::empty(), |t| t.span);
            reading.identity = Some((cursor.ident("the name of the source")?, span));
        }
        if cursor.sees(&["CHANGES"]) && !cursor.sees(&["CHANGES", "AS"]) {
            let follows = cursor.rest().get(1);
            if follows.is_some_and(|t| is(t, "FROM")) {
                return Err(at(
                    Error::unsupported("`CHANGES` after STREAM in SQL"),
                    &tokens[cursor.at()],
                )
                .with_operator("CHANGES")
                .with_hint("read the table with a source that tells its changes"));
            }
        }
        Ok((reading, cursor.at()))
    }

    /// Adds them to the arguments of the function.
    fn put(self, made: &mut Words) {
        if self.options.is_empty() && self.identity.is_none() {
            return;
        }
        let text =
            |text: String, span: Span| TokenWithSpan::new(Token::SingleQuotedString(text), span);
        let (identity, span) = self.identity.unwrap_or((String::new(), made.1));
        made.put(Token::Comma).words(vec![text(identity, span)]);
        for (option, span) in self.options {
            made.put(Token::Comma).words(vec![text(option.key, span)]);
            made.put(Token::Comma).words(vec![text(option.value, span)]);
        }
    }
}

/// The relation after the word STREAM at `here`, without its parentheses, and where the form ends.
fn stream_at(tokens: &[TokenWithSpan], here: usize) -> Option<((usize, usize), usize)> {
    if !is(&tokens[here], "STREAM") || !begins_relation(tokens, here) {
        return None;
    }
    let next = tokens.get(here + 1)?;
    if is(next, "WATERMARK") && !tokens.get(here + 2).is_some_and(|t| is(t, "WATERMARK")) {
        return None; // a table called `stream`
    }
    if matches!(next.token, Token::LParen) {
        let end = name_end(tokens, here + 2)?;
        let closed = matches!(tokens.get(end)?.token, Token::RParen);
        return closed.then_some(((here + 2, end), end + 1));
    }
    if !is_quoted(next) && !names_a_table(&next.token.to_string().to_ascii_uppercase()) {
        return None;
    }
    let end = name_end(tokens, here + 1)?;
    Some(((here + 1, end), end))
}

fn is_quoted(token: &TokenWithSpan) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_some())
}

/// Where a name, or a call of a table function, that begins at `start` ends.
fn name_end(tokens: &[TokenWithSpan], start: usize) -> Option<usize> {
    let is_word = |at: usize| matches!(tokens.get(at).map(|t| &t.token), Some(Token::Word(_)));
    if !is_word(start) {
        return None;
    }
    let mut end = start + 1;
    while matches!(tokens.get(end).map(|t| &t.token), Some(Token::Period)) && is_word(end + 1) {
        end += 2;
    }
    if !matches!(tokens.get(end).map(|t| &t.token), Some(Token::LParen)) {
        return Some(end);
    }
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(end) {
        depth += opens(token) - closes(token);
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// `WATERMARK … DELAY OF …`, from left to right, so that inner clauses are done first.
fn watermarks(tokens: &mut Vec<TokenWithSpan>, dialect: &dyn Dialect) -> Result<()> {
    let mut here = 1;
    while here < tokens.len() {
        let Some((start, delay)) = clause_at(tokens, here) else {
            here += 1;
            continue;
        };
        let column = EventTimeColumn::parse(&tokens[here + 1..delay], &tokens[delay], dialect)?;
        let (delay, end) = interval::parse(tokens, delay + 2)?;
        let mut made = Words::at(tokens[here].span);
        made.call(WATERMARK).select(column.added);
        made.relation(tokens[start..here].to_vec()).close();
        made.put(Token::Comma).words(column.name);
        made.put(Token::Comma).put(Token::SingleQuotedString(delay));
        made.close();
        here = start + made.0.len();
        tokens.splice(start..end, made.0);
    }
    Ok(())
}

/// Where the relation before a WATERMARK at `here` begins, and where its DELAY OF is.
fn clause_at(tokens: &[TokenWithSpan], here: usize) -> Option<(usize, usize)> {
    if !is(&tokens[here], "WATERMARK") {
        return None;
    }
    let start = relation_start(tokens, here - 1)?;
    begins_relation(tokens, start).then_some(())?;
    Some((start, delay_of(tokens, here + 1)?))
}

/// Where the relation that ends with the token at `end` begins: a name, `f(…)`, or `(…)`.
fn relation_start(tokens: &[TokenWithSpan], end: usize) -> Option<usize> {
    const NO_NAMES: [&str; 5] = ["FROM", "JOIN", "LATERAL", "SELECT", "AS"];
    let mut start = end;
    let closed = matches!(tokens[end].token, Token::RParen);
    if closed {
        let mut depth = 0;
        loop {
            depth += closes(&tokens[start]) - opens(&tokens[start]);
            if depth == 0 {
                break;
            }
            start = start.checked_sub(1)?;
        }
    }
    let is_name = |at: usize| {
        matches!(tokens[at].token, Token::Word(_)) && !NO_NAMES.iter().any(|w| is(&tokens[at], w))
    };
    if closed && (start == 0 || !is_name(start - 1)) {
        return Some(start);
    }
    start -= usize::from(closed);
    if !is_name(start) {
        return None;
    }
    while start >= 2 && matches!(tokens[start - 1].token, Token::Period) && is_name(start - 2) {
        start -= 2;
    }
    Some(start)
}

/// True where the token at `start` is the first of a relation in a FROM clause.
pub(super) fn begins_relation(tokens: &[TokenWithSpan], start: usize) -> bool {
    let Some(before) = start.checked_sub(1) else {
        return false;
    };
    match &tokens[before].token {
        Token::LParen => begins_relation(tokens, before),
        Token::Comma => is_in_from(tokens, before),
        _ if is(&tokens[before], "FROM") => before == 0 || !is(&tokens[before - 1], "DISTINCT"),
        _ => is(&tokens[before], "JOIN"),
    }
}

/// True where the comma at `comma` parts relations, not columns.
fn is_in_from(tokens: &[TokenWithSpan], comma: usize) -> bool {
    const OTHER_CLAUSES: [&str; 6] = ["SELECT", "WHERE", "BY", "HAVING", "SET", "VALUES"];
    let mut depth = 0;
    for at in (0..comma).rev() {
        depth += closes(&tokens[at]) - opens(&tokens[at]);
        if depth < 0 {
            return begins_relation(tokens, at);
        }
        if depth == 0 && is(&tokens[at], "FROM") {
            return true;
        }
        if depth == 0 && OTHER_CLAUSES.iter().any(|w| is(&tokens[at], w)) {
            return false;
        }
    }
    false
}

/// Where DELAY OF is, when nothing but one expression stands between `start` and it.
fn delay_of(tokens: &[TokenWithSpan], start: usize) -> Option<usize> {
    const ENDS: [&str; 9] = [
        "FROM", "WHERE", "JOIN", "GROUP", "ORDER", "HAVING", "LIMIT", "UNION", "SELECT",
    ];
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        depth += opens(token) - closes(token);
        let separates = matches!(token.token, Token::Comma | Token::SemiColon);
        if depth < 0 || (depth == 0 && (separates || ENDS.iter().any(|w| is(token, w)))) {
            return None;
        }
        if depth == 0 && at > start && is(token, "DELAY") && is(tokens.get(at + 1)?, "OF") {
            return Some(at);
        }
    }
    None
}

/// The named expression of a clause.
struct EventTimeColumn {
    /// `e AS x`, where the clause adds a column.
    added: Option<Vec<TokenWithSpan>>,
    /// The column's name.
    name: Vec<TokenWithSpan>,
}

impl EventTimeColumn {
    /// Reads a column, or `expression AS name`; `delay` is the word after it.
    fn parse(
        tokens: &[TokenWithSpan],
        delay: &TokenWithSpan,
        dialect: &dyn Dialect,
    ) -> Result<Self> {
        let mut parser = Parser::new(dialect).with_tokens_with_locations(tokens.to_vec());
        let expr = parser.parse_expr().map_err(|e| {
            // What fails at the end of the expression has no place of its own.
            let error = at(DataFusionError::from(e).into(), delay);
            position::locate(error)
        })?;
        let named_by_as = is(&parser.peek_token(), "AS");
        if named_by_as {
            parser.next_token();
        }
        let (name, after) = (parser.next_token(), parser.next_token());
        let error =
            |message: &str| at(Error::invalid(message), &tokens[0]).with_operator("watermark");
        match (&name.token, &after.token) {
            (Token::EOF, _) if !named_by_as && is_column(&expr) => Ok(Self {
                added: None,
                name: tokens.to_vec(),
            }),
            (Token::EOF, _) if !named_by_as => {
                Err(error("the expression of WATERMARK needs a name")
                    .with_condition("REQUIRES_EXPLICIT_NAME_IN_WATERMARK_CLAUSE")
                    .with_hint(format!("write `WATERMARK {expr} AS ts DELAY OF …`")))
            }
            (Token::Word(_), Token::EOF) => Ok(Self {
                added: Some(tokens.to_vec()),
                name: vec![name],
            }),
            (Token::LParen, _) => Err(error("the expression of WATERMARK has several names")
                .with_condition("CANNOT_USE_MULTI_ALIASES_IN_WATERMARK_CLAUSE")
                .with_hint("give it one name: `WATERMARK expression AS ts DELAY OF …`")),
            _ => Err(at(
                Error::invalid(format!("expected DELAY OF, found {}", name.token)),
                &name,
            )
            .with_operator("watermark")),
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// Words that are put in, at the place of the word they stand for.
pub(super) struct Words(Vec<TokenWithSpan>, Span);

impl Words {
    pub(super) fn at(span: Span) -> Self {
        Self(Vec::new(), span)
    }

    pub(super) fn take(&mut self) -> Vec<TokenWithSpan> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn put(&mut self, token: Token) -> &mut Self {
        self.0.push(TokenWithSpan::new(token, self.1));
        self
    }

    pub(super) fn words(&mut self, words: Vec<TokenWithSpan>) -> &mut Self {
        self.0.extend(words);
        self
    }

    pub(super) fn call(&mut self, function: &str) -> &mut Self {
        self.put(Token::make_word(function, Some('"')))
            .put(Token::LParen)
    }

    pub(super) fn select(&mut self, added: Option<Vec<TokenWithSpan>>) -> &mut Self {
        self.put(Token::LParen)
            .put(Token::make_keyword("SELECT"))
            .put(Token::Mul);
        if let Some(added) = added {
            self.put(Token::Comma).words(added);
        }
        self
    }

    pub(super) fn relation(&mut self, relation: Vec<TokenWithSpan>) -> &mut Self {
        self.put(Token::make_keyword("FROM")).words(relation)
    }

    pub(super) fn close(&mut self) -> &mut Self {
        self.put(Token::RParen)
    }
}
