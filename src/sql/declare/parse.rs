//! The statement's words become a [`Declaration`].

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::super::cursor::{Cursor, Name, Written, folded};
use super::super::near::nearest;
use super::super::words::{at_location, is};
use super::columns::Columns;
use crate::{Error, Result};

/// A table as it was declared.
#[derive(Clone, Debug)]
pub(in crate::sql) struct Declaration {
    pub(in crate::sql) name: Name,
    /// `UNBOUNDED`, or Flink's spelling: the table streams when it is named.
    pub(in crate::sql) unbounded: bool,
    pub(in crate::sql) or_replace: bool,
    pub(in crate::sql) if_not_exists: bool,
    pub(in crate::sql) columns: Columns,
    pub(in crate::sql) format: String,
    pub(in crate::sql) format_place: Location,
    pub(in crate::sql) location: Option<(String, Location)>,
    pub(in crate::sql) partition_by: Vec<String>,
    pub(in crate::sql) options: Vec<Written>,
    /// A clause that only DataFusion's tables have, and where.
    pub(in crate::sql) of_datafusion: Option<(&'static str, Location)>,
    /// The statement in Flink's spelling.
    pub(in crate::sql) flink: bool,
}

/// Reads the statement; `None` when it creates no external table.
///
/// # Errors
/// `Invalid`, with its place.
pub(in crate::sql) fn parse(tokens: &[TokenWithSpan]) -> Result<Option<Declaration>> {
    let mut cursor = Cursor::new(tokens);
    if !cursor.eat(&["CREATE"]) {
        return Ok(None);
    }
    let or_replace = cursor.eat(&["OR", "REPLACE"]);
    let unbounded = cursor.eat(&["UNBOUNDED"]);
    if unbounded {
        cursor.expect(&["EXTERNAL"])?;
    } else if !cursor.eat(&["EXTERNAL"]) {
        return match has_with_options(tokens) {
            true => flink(cursor, or_replace).map(Some),
            false => Ok(None),
        };
    }
    let _temporary = cursor.eat(&["TEMP"]) || cursor.eat(&["TEMPORARY"]);
    let mut parsed = head(&mut cursor, or_replace)?;
    parsed.unbounded = unbounded;
    clauses(&mut cursor, &mut parsed)?;
    Ok(Some(parsed))
}

/// `TABLE [IF NOT EXISTS] name (columns)`.
fn head(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Declaration> {
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
    let columns = match cursor.sees_symbol(&Token::LParen) {
        true => Columns::parse(cursor)?,
        false => Columns::default(),
    };
    Ok(Declaration {
        format_place: name.place,
        name,
        unbounded: false,
        or_replace,
        if_not_exists,
        columns,
        format: String::new(),
        location: None,
        partition_by: Vec::new(),
        options: Vec::new(),
        of_datafusion: None,
        flink: false,
    })
}

/// `STORED AS …`, `LOCATION …`, `PARTITIONED BY …`, `OPTIONS …`, in any order.
fn clauses(cursor: &mut Cursor<'_>, table: &mut Declaration) -> Result<()> {
    const CLAUSES: [&str; 5] = ["STORED", "LOCATION", "PARTITIONED", "OPTIONS", "WITH"];
    let mut seen: Vec<&str> = Vec::new();
    loop {
        let place = cursor.place();
        let Some(clause) = CLAUSES.into_iter().find(|word| cursor.eat(&[*word])) else {
            break;
        };
        if seen.contains(&clause) && clause != "WITH" {
            let error = Error::invalid(format!("`{clause}` is there twice"));
            return Err(at_location(error, place));
        }
        seen.push(clause);
        match clause {
            "STORED" => {
                cursor.expect(&["AS"])?;
                table.format_place = cursor.place();
                table.format = format(cursor)?;
            }
            "LOCATION" => location(cursor, table, place)?,
            "PARTITIONED" => partitions(cursor, table)?,
            "OPTIONS" => table.options = cursor.options()?,
            _ => {
                if !cursor.sees(&["ORDER"]) {
                    return Err(cursor.wrong(&["ORDER"]).with_hint(
                        "the options of a table follow the word OPTIONS: `OPTIONS (header true)`",
                    ));
                }
                cursor.advance();
                cursor.skip_parentheses()?;
                table.of_datafusion.get_or_insert(("WITH ORDER", place));
            }
        }
    }
    cursor.end(&CLAUSES)?;
    if table.format.is_empty() {
        let error = Error::invalid("the table has no format: `STORED AS …` is missing")
            .with_option("format")
            .with_hint("say for instance `STORED AS csv`");
        return Err(at_location(error, table.name.place));
    }
    Ok(())
}

/// A format: a word, words with hyphens (`rate-micro-batch`), or a text.
fn format(cursor: &mut Cursor<'_>) -> Result<String> {
    if let Ok(text) = cursor.text("") {
        return Ok(text);
    }
    let mut format = cursor.ident("a format")?;
    while cursor.eat_symbol(&Token::Minus) {
        format = format!("{format}-{}", cursor.ident("the rest of the format")?);
    }
    Ok(format)
}

fn location(cursor: &mut Cursor<'_>, table: &mut Declaration, place: Location) -> Result<()> {
    if cursor.skip_parentheses()? {
        table
            .of_datafusion
            .get_or_insert(("LOCATION of several paths", place));
        return Ok(());
    }
    let place = cursor.place();
    table.location = Some((cursor.text("a path in single quotes")?, place));
    Ok(())
}

/// `BY (a, b)` or `BY (a TYPE, b TYPE)`.
fn partitions(cursor: &mut Cursor<'_>, table: &mut Declaration) -> Result<()> {
    cursor.expect(&["BY"])?;
    if !cursor.sees_symbol(&Token::LParen) {
        return Err(cursor.wrong(&["("]));
    }
    let typed = !matches!(
        cursor.rest().get(2).map(|t| &t.token),
        Some(Token::Comma | Token::RParen)
    );
    if typed {
        let columns = Columns::parse(cursor)?;
        if let Some(error) = columns.foreign {
            return Err(error);
        }
        let names = columns.columns.iter().map(|c| c.field.name().clone());
        table.partition_by = names.collect();
        table.columns.columns.extend(columns.columns);
        return Ok(());
    }
    cursor.symbol(&Token::LParen)?;
    loop {
        table.partition_by.push(cursor.ident("a column")?);
        if cursor.eat_symbol(&Token::RParen) {
            return Ok(());
        }
        cursor.symbol(&Token::Comma)?;
    }
}

/// True for `… WITH ('key' = …` after the columns of a table.
fn has_with_options(tokens: &[TokenWithSpan]) -> bool {
    let mut cursor = Cursor::new(tokens);
    let begins = cursor.eat(&["CREATE"]) && {
        cursor.eat(&["OR", "REPLACE"]);
        cursor.eat(&["TABLE"])
    };
    if !begins {
        return false;
    }
    cursor.eat(&["IF", "NOT", "EXISTS"]);
    if cursor.name("a name").is_err() || !cursor.skip_parentheses().unwrap_or(false) {
        return false;
    }
    let with = cursor.rest();
    let watermark = tokens
        .windows(2)
        .any(|w| is(&w[0], "WATERMARK") && is(&w[1], "FOR"));
    let has_with =
        matches!(with, [word, paren, ..] if is(word, "WITH") && paren.token == Token::LParen);
    has_with || (watermark && !with.iter().any(|t| is(t, "AS")))
}

/// `CREATE TABLE t (…) WITH ('connector' = 'csv', 'path' = '…')`.
fn flink(mut cursor: Cursor<'_>, or_replace: bool) -> Result<Declaration> {
    let mut table = head(&mut cursor, or_replace)?;
    table.unbounded = true;
    table.flink = true;
    let place = cursor.place();
    cursor.expect(&["WITH"])?;
    let mut options = cursor.options()?;
    cursor.end(&[])?;
    let connector = take(&mut options, "connector");
    let connector = connector.ok_or_else(|| no_connector(&options, place))?;
    table.format_place = connector.place;
    table.format = connector.value;
    if table.format.eq_ignore_ascii_case("filesystem") {
        let format = take(&mut options, "format").ok_or_else(|| {
            let error = Error::invalid("the connector `filesystem` needs a format")
                .with_option("format")
                .with_hint("say for instance `'format' = 'csv'`");
            at_location(error, connector.place)
        })?;
        table.format_place = format.place;
        table.format = format.value;
    }
    let path = take(&mut options, "path");
    table.location = path.map(|path| (path.value, path.place));
    table.options = options;
    Ok(table)
}

/// What is said where `connector` is missing, or mis-spelt.
fn no_connector(options: &[Written], place: Location) -> Error {
    let error = Error::invalid("the table has no connector").with_option("connector");
    let near = |option: &&Written| nearest(&option.key, ["connector"]).is_some();
    match options.iter().find(near) {
        Some(option) => at_location(error, option.place).with_hint("did you mean `connector`?"),
        None => at_location(error, place)
            .with_hint("say for instance `WITH ('connector' = 'csv', 'path' = '…')`"),
    }
}

fn take(options: &mut Vec<Written>, key: &str) -> Option<Written> {
    let at = options.iter().position(|o| folded(&o.key) == key)?;
    Some(options.remove(at))
}
