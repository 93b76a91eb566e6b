//! Which statement it is: those of streams are read here, all others are DataFusion's.
//!
//! | statement | what it does |
//! |---|---|
//! | `CREATE STREAMING TABLE t [OPTIONS (…)] AS SELECT …` | starts a query into a table in memory |
//! | `INSERT INTO t [OPTIONS (…)] SELECT …` | starts a query into a declared table, when the SELECT streams |
//! | `AWAIT STREAMING QUERY q [TIMEOUT '10 s']`, `STOP …`, `DESCRIBE …`, `SHOW STREAMING QUERIES` | about queries |
//! | `EXPLAIN STREAMING SELECT …`, `EXPLAIN STREAMING QUERY q` | the incremental plan |

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::cursor::{Cursor, Name, Written};
use super::declare::{self, Declaration};
use super::emit::{self, Emit};
use super::near::nearest;
use super::words::at_location;
use crate::{Error, Interval, IntoInterval, Result};

/// A statement, as far as streams are concerned.
pub(super) enum Statement {
    /// DataFusion's, perhaps with forms of streams in it.
    Other(Other),
    /// `CREATE EXTERNAL TABLE`.
    Declare(Box<Declaration>),
    /// `CREATE STREAMING TABLE`.
    Create(Box<CreateStreaming>),
    /// `AWAIT STREAMING QUERY`.
    Await(QueryName, Option<Interval>),
    /// `STOP STREAMING QUERY`.
    Stop(QueryName),
    /// `DESCRIBE STREAMING QUERY`.
    Describe(QueryName),
    /// `SHOW STREAMING QUERIES`.
    Show,
    /// `EXPLAIN STREAMING QUERY`.
    ExplainQuery(QueryName),
    /// `EXPLAIN STREAMING SELECT …`.
    Explain(Other),
}

/// The words of a statement without those that only we know.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) tokens: Vec<TokenWithSpan>,
    /// The `OPTIONS` of an INSERT, and where.
    pub(super) options: Option<(Vec<Written>, Location)>,
    pub(super) emit: Option<Emit>,
}

/// The name of a query, and where.
#[derive(Clone, Debug)]
pub(super) struct QueryName {
    pub(super) name: String,
    pub(super) place: Location,
}

/// `CREATE STREAMING TABLE`.
#[derive(Debug)]
pub(super) struct CreateStreaming {
    pub(super) name: Name,
    pub(super) or_replace: bool,
    pub(super) if_not_exists: bool,
    pub(super) options: Vec<Written>,
    pub(super) query: Vec<TokenWithSpan>,
    pub(super) query_place: Location,
    pub(super) emit: Option<Emit>,
}

/// Reads the words of one statement.
///
/// # Errors
/// `Invalid`, with its place, for a statement of streams that is wrong.
pub(super) fn parse(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let mut cursor = Cursor::new(&tokens);
    if cursor.eat(&["AWAIT"]) {
        return await_query(cursor);
    }
    if cursor.eat(&["STOP"]) {
        cursor.expect(&["STREAMING", "QUERY"])?;
        return query_name(&mut cursor, &[]).map(Statement::Stop);
    }
    if cursor.eat(&["DESCRIBE", "STREAMING", "QUERY"])
        || cursor.eat(&["DESC", "STREAMING", "QUERY"])
    {
        return query_name(&mut cursor, &[]).map(Statement::Describe);
    }
    if cursor.eat(&["SHOW", "STREAMING"]) {
        cursor.expect(&["QUERIES"])?;
        cursor.end(&[])?;
        return Ok(Statement::Show);
    }
    if cursor.eat(&["EXPLAIN", "STREAMING"]) {
        if cursor.eat(&["QUERY"]) {
            return query_name(&mut cursor, &[]).map(Statement::ExplainQuery);
        }
        if !begins_query(&cursor) {
            return Err(cursor.wrong(&["SELECT", "WITH", "QUERY"]));
        }
        let (tokens, emit) = emit::take(cursor.rest().to_vec())?;
        return Ok(Statement::Explain(Other {
            tokens,
            options: None,
            emit,
        }));
    }
    if let Some(create) = create_streaming(&tokens)? {
        return Ok(Statement::Create(Box::new(create)));
    }
    if let Some(declaration) = declare::parse(&tokens)? {
        return Ok(Statement::Declare(Box::new(declaration)));
    }
    misspelt_head(&tokens)?;
    other(tokens).map(Statement::Other)
}

fn await_query(mut cursor: Cursor<'_>) -> Result<Statement> {
    cursor.expect(&["STREAMING", "QUERY"])?;
    let name = one_name(&mut cursor)?;
    let mut limit = None;
    if cursor.eat(&["TIMEOUT"]) {
        let place = cursor.place();
        let text = cursor.text("a length of time in single quotes")?;
        let length = text.as_str().into_interval();
        limit = Some(length.map_err(|e| at_location(e, place))?);
    }
    cursor.end(&["TIMEOUT"])?;
    Ok(Statement::Await(name, limit))
}

/// A name, and then the end.
fn query_name(cursor: &mut Cursor<'_>, expected: &[&str]) -> Result<QueryName> {
    let name = one_name(cursor)?;
    cursor.end(expected)?;
    Ok(name)
}

fn one_name(cursor: &mut Cursor<'_>) -> Result<QueryName> {
    let place = cursor.place();
    let name = match cursor.text("") {
        Ok(text) => text,
        Err(_) => cursor.ident("the name of a query")?,
    };
    Ok(QueryName { name, place })
}

/// True where a query begins.
fn begins_query(cursor: &Cursor<'_>) -> bool {
    ["SELECT", "WITH", "FROM", "VALUES", "TABLE"]
        .iter()
        .any(|word| cursor.sees(&[*word]))
        || cursor.sees_symbol(&Token::LParen)
}

fn create_streaming(tokens: &[TokenWithSpan]) -> Result<Option<CreateStreaming>> {
    let mut cursor = Cursor::new(tokens);
    cursor.eat(&["CREATE"]);
    let or_replace = cursor.eat(&["OR", "REPLACE"]);
    if cursor.at() == 0 || !cursor.eat(&["STREAMING"]) {
        return Ok(None);
    }
    cursor.expect(&["TABLE"])?;
    let if_not_exists = cursor.sees(&["IF"]);
    if if_not_exists {
        let place = cursor.place();
        cursor.expect(&["IF", "NOT", "EXISTS"])?;
        if or_replace {
            let error = Error::invalid("`OR REPLACE` and `IF NOT EXISTS` exclude each other");
            return Err(at_location(error, place));
        }
    }
    let name = cursor.name("the name of the table")?;
    let mut options = Vec::new();
    let mut expected: &[&str] = &["OPTIONS", "AS"];
    if cursor.eat(&["OPTIONS"]) {
        options = cursor.options()?;
        expected = &["AS"];
    }
    if !cursor.eat(&["AS"]) {
        let error = cursor.wrong(expected);
        return Err(match cursor.sees_symbol(&Token::LParen) {
            true => error.with_hint("the columns are those of the SELECT"),
            false => error,
        });
    }
    let query_place = cursor.place();
    if !begins_query(&cursor) {
        return Err(cursor.wrong(&["SELECT", "WITH"]));
    }
    let (query, emit) = emit::take(cursor.rest().to_vec())?;
    Ok(Some(CreateStreaming {
        name,
        or_replace,
        if_not_exists,
        options,
        query,
        query_place,
        emit,
    }))
}

/// Takes out what DataFusion's parser does not know.
fn other(tokens: Vec<TokenWithSpan>) -> Result<Other> {
    let (mut tokens, emit) = emit::take(tokens)?;
    temporary_view(&mut tokens);
    let mut cursor = Cursor::new(&tokens);
    let insert = cursor.eat(&["INSERT"]) && {
        let into = cursor.eat(&["INTO"]) || cursor.eat(&["OVERWRITE"]);
        cursor.eat(&["TABLE"]);
        into
    };
    let mut options = None;
    let mut taken = 0..0;
    if insert && cursor.name("").is_ok() {
        let query_follows = cursor.rest().get(1).is_some_and(|t| {
            ["SELECT", "WITH", "VALUES"]
                .iter()
                .any(|w| super::words::is(t, w))
        });
        if !query_follows {
            cursor.skip_parentheses()?;
        }
        let parenthesis = cursor
            .rest()
            .get(1)
            .is_some_and(|t| t.token == Token::LParen);
        if cursor.sees(&["OPTIONS"]) && parenthesis {
            let (start, place) = (cursor.at(), cursor.place());
            cursor.skip(1);
            options = Some((cursor.options()?, place));
            taken = start..cursor.at();
            if !begins_query(&cursor) {
                return Err(cursor.wrong(&["SELECT", "WITH"]));
            }
        }
    }
    tokens.drain(taken);
    Ok(Other {
        tokens,
        options,
        emit,
    })
}

/// `CREATE [OR REPLACE] TEMP VIEW`: every view lives as long as the session.
fn temporary_view(tokens: &mut Vec<TokenWithSpan>) {
    let mut cursor = Cursor::new(tokens);
    if !cursor.eat(&["CREATE"]) {
        return;
    }
    cursor.eat(&["OR", "REPLACE"]);
    let at = cursor.at();
    let temporary = cursor.eat(&["TEMP"]) || cursor.eat(&["TEMPORARY"]);
    if temporary && cursor.sees(&["VIEW"]) {
        tokens.remove(at);
    }
}

/// The beginnings of our statements.
const HEADS: [&[&str]; 9] = [
    &["CREATE", "STREAMING", "TABLE"],
    &["CREATE", "UNBOUNDED", "EXTERNAL", "TABLE"],
    &["CREATE", "EXTERNAL", "TABLE"],
    &["AWAIT", "STREAMING", "QUERY"],
    &["STOP", "STREAMING", "QUERY"],
    &["DESCRIBE", "STREAMING", "QUERY"],
    &["SHOW", "STREAMING", "QUERIES"],
    &["EXPLAIN", "STREAMING", "QUERY"],
    &["EXPLAIN", "STREAMING", "SELECT"],
];

/// One word that is nearly a word of a beginning, and the others are all there: it is told, as DataFusion would
/// stumble over another word.
fn misspelt_head(tokens: &[TokenWithSpan]) -> Result<()> {
    for head in HEADS {
        let Some(words) = tokens.get(..head.len()) else {
            continue;
        };
        let mut misspelt = None;
        let mut others = 0;
        for (token, word) in words.iter().zip(head) {
            let Token::Word(typed) = &token.token else {
                others += 2;
                continue;
            };
            if typed.value.eq_ignore_ascii_case(word) {
                continue;
            }
            others += 1;
            if nearest(&typed.value, [*word]).is_some() {
                misspelt = Some((token, word));
            }
        }
        if let (Some((token, word)), 1) = (misspelt, others) {
            let error = Error::invalid(format!("expected `{word}`, found `{}`", token.token))
                .with_hint(format!("did you mean `{word}`?"));
            return Err(at_location(error, token.span.start));
        }
    }
    Ok(())
}
