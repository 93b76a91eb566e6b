//! Schemas as users type them: Spark's DDL strings, or Arrow's own schemas.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::{Error, Result};

/// What stands for a schema: an Arrow [`Schema`], or DDL such as `"ts TIMESTAMP, pump STRING"`.
///
/// Sealed: new spellings are added here, for every call at once.
pub trait IntoSchema: sealed::Sealed {
    /// The schema.
    ///
    /// # Errors
    /// `Invalid` when the text is no DDL; the message names the word that is wrong.
    fn into_schema(self) -> Result<SchemaRef>;
}

impl IntoSchema for &str {
    fn into_schema(self) -> Result<SchemaRef> {
        parse_schema(self).map(Arc::new)
    }
}

impl IntoSchema for String {
    fn into_schema(self) -> Result<SchemaRef> {
        self.as_str().into_schema()
    }
}

impl IntoSchema for Schema {
    fn into_schema(self) -> Result<SchemaRef> {
        Ok(Arc::new(self))
    }
}

impl IntoSchema for SchemaRef {
    fn into_schema(self) -> Result<SchemaRef> {
        Ok(self)
    }
}

impl IntoSchema for &SchemaRef {
    fn into_schema(self) -> Result<SchemaRef> {
        Ok(Arc::clone(self))
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for &str {}
    impl Sealed for String {}
    impl Sealed for arrow::datatypes::Schema {}
    impl Sealed for arrow::datatypes::SchemaRef {}
    impl Sealed for &arrow::datatypes::SchemaRef {}
}

/// Reads `name TYPE [NOT NULL] [COMMENT '…'], …`; an optional `struct<…>` around it is taken off.
///
/// Type names are Spark's and SQL's. `STRING` is Utf8View, `TIMESTAMP` is Timestamp(µs) without a
/// zone (read as UTC), `TIMESTAMP_LTZ` is Timestamp(µs, "UTC"). Names fold to lower case unless they
/// are in double quotes or backquotes, as DataFusion's SQL and `col()` fold them.
///
/// # Errors
/// `Invalid`, naming the word that is wrong.
pub fn parse_schema(text: &str) -> Result<Schema> {
    let mut parser = Parser::new(text)?;
    let fields = parser.columns()?;
    parser.end()?;
    Ok(Schema::new(fields))
}

/// Reads one type, such as `DECIMAL(10,2)` or `ARRAY<STRUCT<a: INT>>`.
///
/// # Errors
/// `Invalid`, naming the word that is wrong.
pub fn parse_data_type(text: &str) -> Result<DataType> {
    let mut parser = Parser::new(text)?;
    let data_type = parser.data_type()?;
    parser.end()?;
    Ok(data_type)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// An unquoted word or number.
    Word(String),
    /// A name in double quotes or backquotes.
    Quoted(String),
    /// A text in single quotes.
    Text(String),
    Symbol(char),
}

/// A recursive-descent parser over the tokens of one DDL string.
struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        Ok(Self {
            text,
            tokens: tokenize(text)?,
            next: 0,
        })
    }

    /// `name TYPE …` separated by commas, up to the end or a `>`.
    fn columns(&mut self) -> Result<Fields> {
        let mut fields: Vec<Arc<Field>> = Vec::new();
        loop {
            let field = self.column()?;
            if fields.iter().any(|f| f.name() == field.name()) {
                return Err(self.error(&format!("column `{}` is there twice", field.name())));
            }
            fields.push(Arc::new(field));
            if !self.eat_symbol(',') {
                return Ok(fields.into());
            }
        }
    }

    fn column(&mut self) -> Result<Field> {
        let name = match self.advance() {
            Some(Token::Word(word)) => word.to_lowercase(),
            Some(Token::Quoted(name)) => name,
            other => return Err(self.unexpected("a column name", other.as_ref())),
        };
        self.eat_symbol(':');
        let data_type = self.data_type()?;
        let mut nullable = true;
        if self.eat_word("not") {
            if !self.eat_word("null") {
                return Err(self.error("expected NULL after NOT"));
            }
            nullable = false;
        }
        if self.eat_word("comment") && !matches!(self.advance(), Some(Token::Text(_))) {
            return Err(self.error("expected a text in single quotes after COMMENT"));
        }
        Ok(Field::new(name, data_type, nullable))
    }

    fn data_type(&mut self) -> Result<DataType> {
        let word = match self.advance() {
            Some(Token::Word(word)) => word.to_lowercase(),
            other => return Err(self.unexpected("a type", other.as_ref())),
        };
        match word.as_str() {
            "array" => {
                self.symbol('<')?;
                let item = self.data_type()?;
                self.symbol('>')?;
                Ok(DataType::new_list(item, true))
            }
            "map" => self.map(),
            "struct" => {
                self.symbol('<')?;
                let fields = self.columns()?;
                self.symbol('>')?;
                Ok(DataType::Struct(fields))
            }
            "decimal" | "dec" | "numeric" => self.decimal(),
            "varchar" | "char" | "character" => {
                self.arguments()?;
                Ok(DataType::Utf8View)
            }
            "double" => {
                self.eat_word("precision");
                Ok(DataType::Float64)
            }
            "timestamp" => Ok(self.timestamp()),
            other => {
                simple_type(other).ok_or_else(|| self.error(&format!("unknown type `{word}`")))
            }
        }
    }

    fn map(&mut self) -> Result<DataType> {
        self.symbol('<')?;
        let key = self.data_type()?;
        self.symbol(',')?;
        let value = self.data_type()?;
        self.symbol('>')?;
        let entries = Fields::from(vec![
            Field::new("key", key, false),
            Field::new("value", value, true),
        ]);
        Ok(DataType::Map(
            Arc::new(Field::new("entries", DataType::Struct(entries), false)),
            false,
        ))
    }

    /// Spark's default is `DECIMAL(10, 0)`.
    fn decimal(&mut self) -> Result<DataType> {
        let arguments = self.arguments()?;
        let precision = arguments.first().copied().unwrap_or(10);
        let scale = arguments.get(1).copied().unwrap_or(0);
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(p), Ok(s)) if (1..=38).contains(&p) && (0..=p.cast_signed()).contains(&s) => {
                Ok(DataType::Decimal128(p, s))
            }
            _ => Err(self.error(&format!(
                "DECIMAL({precision},{scale}): the precision is 1 to 38, the scale at most the precision"
            ))),
        }
    }

    /// `TIMESTAMP [WITH TIME ZONE | WITH LOCAL TIME ZONE | WITHOUT TIME ZONE]`.
    fn timestamp(&mut self) -> DataType {
        let zoned = self.eat_word("with");
        if zoned || self.eat_word("without") {
            self.eat_word("local");
            self.eat_word("time");
            self.eat_word("zone");
        }
        DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| "UTC".into()))
    }

    /// `(n[, n])`, which may be missing.
    fn arguments(&mut self) -> Result<Vec<u32>> {
        let mut numbers = Vec::new();
        if !self.eat_symbol('(') {
            return Ok(numbers);
        }
        loop {
            match self.advance() {
                Some(Token::Word(word)) => numbers.push(
                    word.parse()
                        .map_err(|_| self.error(&format!("`{word}` is no number")))?,
                ),
                other => return Err(self.unexpected("a number", other.as_ref())),
            }
            if !self.eat_symbol(',') {
                self.symbol(')')?;
                return Ok(numbers);
            }
        }
    }

    fn advance(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    fn eat_symbol(&mut self, symbol: char) -> bool {
        let found = self.tokens.get(self.next) == Some(&Token::Symbol(symbol));
        self.next += usize::from(found);
        found
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.next), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: char) -> Result<()> {
        if self.eat_symbol(symbol) {
            return Ok(());
        }
        let found = self.advance();
        Err(self.unexpected(&format!("`{symbol}`"), found.as_ref()))
    }

    fn end(&mut self) -> Result<()> {
        match self.advance() {
            None => Ok(()),
            Some(token) => Err(self.unexpected("`,` or the end", Some(&token))),
        }
    }

    fn unexpected(&self, wanted: &str, found: Option<&Token>) -> Error {
        let found = match found {
            None => "the end".to_string(),
            Some(Token::Word(w) | Token::Quoted(w) | Token::Text(w)) => format!("`{w}`"),
            Some(Token::Symbol(c)) => format!("`{c}`"),
        };
        self.error(&format!("expected {wanted}, found {found}"))
    }

    fn error(&self, why: &str) -> Error {
        Error::invalid(format!("the schema `{}`: {why}", self.text.trim()))
            .with_condition("PARSE_SYNTAX_ERROR")
            .with_hint("write it as `ts TIMESTAMP, pump STRING, psi DOUBLE`")
    }
}

/// The types of one word.
fn simple_type(word: &str) -> Option<DataType> {
    Some(match word {
        "boolean" | "bool" => DataType::Boolean,
        "byte" | "tinyint" => DataType::Int8,
        "short" | "smallint" => DataType::Int16,
        "int" | "integer" => DataType::Int32,
        "long" | "bigint" => DataType::Int64,
        "float" | "real" => DataType::Float32,
        "date" => DataType::Date32,
        "string" | "text" => DataType::Utf8View,
        "binary" | "bytea" | "varbinary" => DataType::BinaryView,
        "timestamp_ntz" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamp_ltz" | "timestamptz" => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        _ => return None,
    })
}

fn tokenize(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '"' | '`' | '\'' => {
                let mut inside = String::new();
                loop {
                    match chars.next() {
                        Some(end) if end == c && chars.peek() == Some(&c) => {
                            chars.next();
                            inside.push(c);
                        }
                        Some(end) if end == c => break,
                        Some(other) => inside.push(other),
                        None => {
                            return Err(Error::invalid(format!(
                                "the schema `{}`: a {c} is not closed",
                                text.trim()
                            )));
                        }
                    }
                }
                tokens.push(if c == '\'' {
                    Token::Text(inside)
                } else {
                    Token::Quoted(inside)
                });
            }
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(next) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            symbol => tokens.push(Token::Symbol(symbol)),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    #[test]
    fn types_are_read() {
        for (text, expected) in [
            ("BIGINT", DataType::Int64),
            ("varchar(20)", DataType::Utf8View),
            ("timestamp", MICROS),
            (
                "TIMESTAMP WITH TIME ZONE",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ),
            ("decimal(12, 2)", DataType::Decimal128(12, 2)),
            ("decimal", DataType::Decimal128(10, 0)),
            ("array<int>", DataType::new_list(DataType::Int32, true)),
        ] {
            assert_eq!(parse_data_type(text).ok(), Some(expected), "{text}");
        }
    }

    #[test]
    fn names_fold_unless_quoted() {
        let schema = parse_schema(
            "Ts TIMESTAMP NOT NULL COMMENT 'when', `Id` int, \"A b\": struct<x: int, y string>",
        )
        .expect("parsed");
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["ts", "Id", "A b"]);
        assert!(!schema.field(0).is_nullable());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("a", "expected a type, found the end"),
            ("a flot", "unknown type `flot`"),
            ("a int, A int", "column `a` is there twice"),
            ("a int b int", "expected `,` or the end, found `b`"),
            ("a decimal(2,3)", "the scale at most the precision"),
        ] {
            let error = parse_schema(text).expect_err(text);
            assert!(error.message().contains(why), "{error}");
        }
    }
}
