//! The columns of a declared table, and its `WATERMARK FOR ts AS ts - INTERVAL '10' SECOND`.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::super::cursor::Cursor;
use super::super::interval;
use super::super::near::{nearest, nearest_type};
use super::super::words::{at_location, closes, is, opens};
use crate::{Error, Interval, IntoInterval, Result, parse_schema};

/// A column as it was declared.
#[derive(Clone, Debug)]
pub(in crate::sql) struct Column {
    pub(in crate::sql) field: Field,
    pub(in crate::sql) place: Location,
}

/// A declared watermark.
#[derive(Clone, Debug)]
pub(in crate::sql) struct WatermarkFor {
    pub(in crate::sql) column: String,
    pub(in crate::sql) delay: Interval,
    pub(in crate::sql) place: Location,
}

/// What stands between the parentheses after the name of the table.
#[derive(Clone, Debug, Default)]
pub(in crate::sql) struct Columns {
    pub(in crate::sql) columns: Vec<Column>,
    pub(in crate::sql) watermark: Option<WatermarkFor>,
    /// A constraint, which only DataFusion's tables have, and where.
    pub(in crate::sql) constraint: Option<(String, Location)>,
    /// A column that we do not understand, and DataFusion perhaps does.
    pub(in crate::sql) foreign: Option<Error>,
}

impl Columns {
    /// Reads `(name TYPE, …, WATERMARK FOR ts AS ts - INTERVAL …)`; the parenthesis is the next word.
    ///
    /// # Errors
    /// `Invalid`, with its place, for what is none of these.
    pub(in crate::sql) fn parse(cursor: &mut Cursor<'_>) -> Result<Self> {
        cursor.symbol(&Token::LParen)?;
        let mut all = Self::default();
        loop {
            let (place, start) = (cursor.place(), cursor.at());
            if cursor.sees(&["WATERMARK", "FOR"]) {
                let watermark = watermark(cursor)?;
                if all.watermark.replace(watermark).is_some() {
                    return Err(at_location(twice(), place));
                }
            } else {
                skip_to_comma(cursor)?;
                all.column(cursor.since(start), place)?;
            }
            if cursor.eat_symbol(&Token::RParen) {
                break;
            }
            cursor.symbol(&Token::Comma)?;
        }
        all.check()?;
        Ok(all)
    }

    /// One column, or a constraint.
    fn column(&mut self, tokens: &[TokenWithSpan], place: Location) -> Result<()> {
        const CONSTRAINTS: [&str; 5] = ["PRIMARY", "UNIQUE", "CONSTRAINT", "FOREIGN", "CHECK"];
        let mut cursor = Cursor::new(tokens);
        if let Some(word) = CONSTRAINTS.iter().find(|word| cursor.sees(&[**word])) {
            self.constraint.get_or_insert(((*word).to_owned(), place));
            return Ok(());
        }
        let name = cursor.ident("a column")?;
        if let [_, second, column, ..] = tokens
            && is(second, "FOR")
            && matches!(column.token, Token::Word(_))
        {
            return Err(Cursor::new(tokens).wrong(&["WATERMARK"]));
        }
        if cursor.eat(&["AS"]) {
            let error = Error::unsupported("computed columns")
                .with_column(name)
                .with_hint("compute it where the table is read: `SELECT *, … AS name FROM t`");
            return Err(at_location(error, place));
        }
        if self.columns.iter().any(|c| *c.field.name() == name) {
            let error = Error::invalid(format!("column `{name}` is there twice"));
            return Err(at_location(error.with_column(name), place));
        }
        match field(tokens) {
            Ok(field) => self.columns.push(Column { field, place }),
            Err(error) => {
                let at = tokens.get(1).map_or(place, |t| t.span.start);
                let error = at_location(error.with_column(name), at);
                self.foreign.get_or_insert(error);
            }
        }
        Ok(())
    }

    /// The column of the watermark must be one of those declared.
    fn check(&self) -> Result<()> {
        let Some(watermark) = &self.watermark else {
            return Ok(());
        };
        let mut names = self.columns.iter().map(|c| c.field.name().as_str());
        if self.foreign.is_some()
            || self.columns.is_empty()
            || names.any(|name| name == watermark.column)
        {
            return Ok(());
        }
        let column = &watermark.column;
        let names = self.columns.iter().map(|c| c.field.name().as_str());
        let error = Error::invalid(format!("the table has no column `{column}`"))
            .with_operator("watermark")
            .with_column(column);
        let error = match nearest(column, names) {
            Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
            None => error.with_hint("the watermark is for a column that is declared here"),
        };
        Err(at_location(error, watermark.place))
    }

    /// The columns as a schema; `None` where none are declared.
    pub(in crate::sql) fn schema(&self) -> Option<SchemaRef> {
        let fields = self.columns.iter().map(|c| c.field.clone());
        (!self.columns.is_empty()).then(|| Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }
}

/// `name TYPE …`, as the schema strings of readers have it.
fn field(tokens: &[TokenWithSpan]) -> Result<Field> {
    let words: Vec<String> = tokens.iter().map(|t| t.token.to_string()).collect();
    let schema = parse_schema(&words.join(" ")).map_err(|error| {
        // The message speaks of the text as we have put it together: only the reason is of use.
        let reason = error.message().rsplit_once("`: ").map(|(_, reason)| reason);
        let reason = reason.unwrap_or(error.message()).to_owned();
        unknown_type(&reason, &words).unwrap_or_else(|| {
            Error::invalid(reason)
                .with_hint("write it as `ts TIMESTAMP`, `pump STRING` or `psi DOUBLE`")
        })
    })?;
    match schema.fields().as_ref() {
        [field] => Ok(field.as_ref().clone()),
        _ => Err(Error::invalid("expected a column")),
    }
}

/// The reason for a type that nobody knows, as the user has written it, with the type that was probably meant.
fn unknown_type(reason: &str, words: &[String]) -> Option<Error> {
    let folded = reason.strip_prefix("unknown type `")?.strip_suffix('`')?;
    let written = words.iter().find(|w| w.eq_ignore_ascii_case(folded));
    let written = written.map_or(folded, String::as_str);
    let error = Error::invalid(format!("unknown type `{written}`"));
    let meant = nearest_type(folded)?;
    Some(error.with_hint(format!("did you mean `{meant}`?")))
}

fn skip_to_comma(cursor: &mut Cursor<'_>) -> Result<()> {
    let mut depth = 0;
    while let Some(token) = cursor.peek() {
        let angle = match token.token {
            Token::Lt => 1,
            Token::Gt => -1,
            Token::ShiftRight => -2,
            _ => 0,
        };
        let ends = matches!(token.token, Token::Comma | Token::RParen);
        if depth == 0 && ends {
            return Ok(());
        }
        depth += opens(token) - closes(token) + angle;
        cursor.advance();
    }
    Err(cursor.wrong(&[",", ")"]))
}

fn watermark(cursor: &mut Cursor<'_>) -> Result<WatermarkFor> {
    cursor.expect(&["WATERMARK", "FOR"])?;
    let place = cursor.place();
    let column = cursor.ident("the column of the watermark")?;
    cursor.expect(&["AS"])?;
    let (from_place, from) = (cursor.place(), cursor.ident("the column of the watermark")?);
    if from != column {
        let error = Error::invalid(format!(
            "the watermark for `{column}` is `{column}` less an interval, not `{from}`"
        ))
        .with_operator("watermark")
        .with_hint("for another time declare the watermark on its column");
        return Err(at_location(error, from_place));
    }
    let delay = if cursor.eat_symbol(&Token::Minus) {
        let rest = cursor.rest();
        let (text, length) = interval::after(rest, 0, "`-`")?;
        cursor.skip(length);
        text.as_str().into_interval()?
    } else {
        "0 seconds".into_interval()?
    };
    if !cursor.sees_symbol(&Token::Comma) && !cursor.sees_symbol(&Token::RParen) {
        return Err(cursor.wrong(&["-", ",", ")"]));
    }
    Ok(WatermarkFor {
        column,
        delay,
        place,
    })
}

fn twice() -> Error {
    Error::invalid("the table has two watermarks")
        .with_operator("watermark")
        .with_hint("declare one")
}
