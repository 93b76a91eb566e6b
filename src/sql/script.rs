//! Scripts: a text of several statements, cut at its semicolons, with `${name}` put in.
//!
//! ```text
//!  script ──► lexemes ──► statements, each with the pieces it was put together from
//!                              │ sql() says: line 2, column 8 of the statement
//!                              ▼
//!                         locate: line 14, column 11 of the script
//! ```
//! A `;` ends a statement where it is neither in quotes (`'…'`, `"…"`, `` `…` ``), in dollar quotes (`$$…$$`, `$tag$…$tag$`),
//! nor in a comment (`-- …`, `/* … */`, which may be nested). A first line that begins with `#!` is a comment, too.
//!
//! `${name}` stands for the value of a variable, `${name:-else}` for `else` where there is none. Inside quotes the
//! quotes of a value are doubled, so that it stays one literal, and `$${` is `${` itself. In comments and in dollar
//! quotes nothing is put in. A value is never cut: a `;` in it does not end the statement.

use std::sync::Arc;

use crate::{Error, Position, Result};

/// The statements of a script.
///
/// ```
/// # fn main() -> highwater::Result<()> {
/// use highwater::script::Script;
///
/// let text = "SELECT ';' AS a; -- the first\nSELECT '${dir:-data}' AS b, ${n};";
/// let script = Script::parse(text, |name| (name == "n").then(|| "42".to_owned()))?;
/// let texts: Vec<&str> = script.statements().iter().map(|s| s.text()).collect();
/// assert_eq!(texts, ["SELECT ';' AS a", "SELECT 'data' AS b, 42"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Script {
    statements: Vec<Statement>,
}

/// A statement of a script.
#[derive(Clone, Debug)]
pub struct Statement {
    script: Arc<str>,
    text: String,
    offset: usize,
    pieces: Vec<Piece>,
}

/// A part of a statement's text: it begins at `at` there, and comes from `from` in the script.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: usize,
    from: usize,
    /// False for what stands in the place of a variable.
    copied: bool,
}

impl Script {
    /// Cuts `text` into statements and asks `variables` for what stands for a name.
    ///
    /// # Errors
    /// `Invalid`, with the position in the script, for a quote or a comment without an end, and for a variable that
    /// is not known.
    pub fn parse(text: &str, variables: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let script: Arc<str> = Arc::from(text);
        let mut statements = Vec::new();
        let mut current = Draft::default();
        let mut at = 0;
        while at < text.len() {
            let (lexeme, end) = next(text, at)?;
            match lexeme {
                Lexeme::End => statements.extend(std::mem::take(&mut current).finish(&script)),
                Lexeme::Blank => current.blank(text, at, end),
                Lexeme::Plain | Lexeme::Verbatim => current.copy(text, at, end),
                Lexeme::Variable => current.variable(text, at, end, None, &variables)?,
                Lexeme::Quoted(quotes) => current.quoted(text, at, end, quotes, &variables)?,
            }
            at = end;
        }
        statements.extend(current.finish(&script));
        Ok(Self { statements })
    }

    /// The statements, in their order; what has only blanks and comments is none.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

/// True when nothing is open at the end of `text`: its last statement is ended by a `;`.
///
/// An interactive program asks for another line as long as it is false.
#[must_use]
pub fn is_complete(text: &str) -> bool {
    let (mut at, mut complete) = (0, true);
    while at < text.len() {
        let Ok((lexeme, end)) = next(text, at) else {
            return false;
        };
        complete = match lexeme {
            Lexeme::End => true,
            Lexeme::Blank => complete,
            _ => false,
        };
        at = end;
    }
    complete
}

/// Line and column of a byte of `text`, counted from 1, the column in characters.
#[must_use]
pub fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() as u64 + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].chars().count() as u64 + 1;
    Position { line, column }
}

/// The byte of `text` at a line and column; its end, when it has no such place.
fn offset(text: &str, place: Position) -> usize {
    let line = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let column = usize::try_from(place.column.saturating_sub(1)).unwrap_or(usize::MAX);
    let start = match line {
        0 => Some(0),
        line => text.match_indices('\n').nth(line - 1).map(|(at, _)| at + 1),
    };
    let Some(start) = start else {
        return text.len();
    };
    let within = text[start..].char_indices().nth(column);
    within.map_or(text.len(), |(at, _)| start + at)
}

impl Statement {
    /// The text, without the `;` and with the variables put in.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The byte of the script at which it begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The line and column of the script at which it begins.
    #[must_use]
    pub fn position(&self) -> Position {
        position(&self.script, self.offset)
    }

    /// The error with the position in the script in place of the one in this statement.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        match error.position() {
            Some(place) => {
                let place = position(&self.script, self.origin(offset(&self.text, place)));
                error.with_position(place)
            }
            None => error,
        }
    }

    /// The byte of the script that a byte of the statement comes from.
    fn origin(&self, at: usize) -> usize {
        let after = self.pieces.partition_point(|piece| piece.at <= at);
        let piece = after.checked_sub(1).and_then(|last| self.pieces.get(last));
        match piece {
            Some(piece) if piece.copied => piece.from + (at - piece.at),
            Some(piece) => piece.from,
            None => self.offset,
        }
    }
}

/// A statement that is being put together.
#[derive(Default)]
struct Draft {
    text: String,
    pieces: Vec<Piece>,
    /// Where it begins in the script.
    start: Option<usize>,
    /// The length of its text up to the last character that is no blank.
    length: usize,
}

impl Draft {
    fn finish(mut self, script: &Arc<str>) -> Option<Statement> {
        self.text.truncate(self.length);
        Some(Statement {
            script: Arc::clone(script),
            offset: self.start?,
            text: self.text,
            pieces: self.pieces,
        })
    }

    /// Blanks and comments: kept inside a statement, left out around it.
    fn blank(&mut self, script: &str, from: usize, to: usize) {
        if self.start.is_some() {
            self.piece(from, true);
            self.text.push_str(&script[from..to]);
        }
    }

    fn copy(&mut self, script: &str, from: usize, to: usize) {
        self.piece(from, true);
        self.text.push_str(&script[from..to]);
        self.length = self.text.len();
    }

    /// Begins a piece, where it does not go on with the last one.
    fn piece(&mut self, from: usize, copied: bool) {
        self.start.get_or_insert(from);
        let at = self.text.len();
        let goes_on = |last: &Piece| last.copied && copied && last.from + (at - last.at) == from;
        if !self.pieces.last().is_some_and(goes_on) {
            self.pieces.push(Piece { at, from, copied });
        }
    }

    /// What stands for `${…}`, which is the script from `from` to `to`.
    fn variable(
        &mut self,
        script: &str,
        from: usize,
        to: usize,
        quotes: Option<Quotes>,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let inner = &script[from + 2..to - 1];
        let (name, or_else) = match inner.split_once(":-") {
            Some((name, or_else)) => (name, Some(or_else)),
            None => (inner, None),
        };
        if !is_variable(name) {
            let error = Error::invalid(format!("`{name}` is no name of a variable"));
            let hint = "write `${name}` or `${name:-default}`; in quotes `$${` stands for `${`";
            return Err(at(script, from, error.with_hint(hint)));
        }
        let value = variables(name).or_else(|| or_else.map(str::to_owned));
        let value = value.ok_or_else(|| {
            let error = Error::invalid(format!("the variable `{name}` has no value"));
            let hint = format!("give it one, or a default: `${{{name}:-default}}`");
            at(script, from, error.with_hint(hint))
        })?;
        self.piece(from, false);
        match quotes {
            Some(quotes) => self.text.push_str(&quotes.keep(&value)),
            None => self.text.push_str(&value),
        }
        if !value.is_empty() {
            self.length = self.text.len();
        }
        Ok(())
    }

    /// A text in quotes, with its variables put in.
    fn quoted(
        &mut self,
        script: &str,
        from: usize,
        to: usize,
        quotes: Quotes,
        variables: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let mut begin = from;
        while let Some(found) = script[begin..to].find("${") {
            let dollar = begin + found;
            if dollar > begin && script.as_bytes()[dollar - 1] == b'$' {
                // `$${`: leave one dollar out.
                self.copy(script, begin, dollar);
                self.piece(dollar + 1, true);
                self.text.push('{');
                begin = dollar + 2;
                continue;
            }
            self.copy(script, begin, dollar);
            let end = script[dollar..to].find('}');
            let end = end.ok_or_else(|| open_variable(script, dollar))? + dollar + 1;
            self.variable(script, dollar, end, Some(quotes), &variables)?;
            begin = end;
        }
        self.copy(script, begin, to);
        Ok(())
    }
}

fn is_variable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What the text at a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lexeme {
    /// Blanks, or a comment.
    Blank,
    /// A semicolon.
    End,
    Plain,
    /// Dollar quotes, with what is in them.
    Verbatim,
    /// Quotes, with what is in them.
    Quoted(Quotes),
    /// `${…}` outside of quotes.
    Variable,
}

/// How a text is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quotes {
    quote: char,
    /// `E'…'`: a backslash takes the next character as it is.
    escapes: bool,
}

impl Quotes {
    /// `value` as it stands in these quotes.
    fn keep(self, value: &str) -> String {
        let mut kept = String::with_capacity(value.len());
        for c in value.chars() {
            if c == self.quote || (self.escapes && c == '\\') {
                kept.push(c);
            }
            kept.push(c);
        }
        kept
    }

    /// The byte after the closing quote of the text that begins with one.
    fn end(self, text: &str) -> Option<usize> {
        let mut chars = text.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if self.escapes && c == '\\' {
                chars.next();
            } else if c == self.quote && chars.next_if(|(_, next)| *next == self.quote).is_none() {
                return Some(at + c.len_utf8());
            }
        }
        None
    }
}

/// The lexeme at `from`, and where it ends.
fn next(script: &str, from: usize) -> Result<(Lexeme, usize)> {
    let rest = &script[from..];
    let c = rest.chars().next().unwrap_or(';');
    let ended = |lexeme, length: Option<usize>, what: &str| match length {
        Some(length) => Ok((lexeme, from + length)),
        None => Err(at(script, from, no_end(what))),
    };
    match c {
        ';' => Ok((Lexeme::End, from + 1)),
        '-' if rest.starts_with("--") => Ok((Lexeme::Blank, from + line(rest))),
        '#' if from == 0 && rest.starts_with("#!") => Ok((Lexeme::Blank, line(rest))),
        '/' if rest.starts_with("/*") => ended(Lexeme::Blank, comment(rest), "comment"),
        '\'' | '"' | '`' => {
            let quotes = Quotes {
                quote: c,
                escapes: c == '\'' && after_e(&script[..from]),
            };
            ended(Lexeme::Quoted(quotes), quotes.end(rest), "quote")
        }
        '$' if rest.starts_with("${") => match rest.find('}') {
            Some(end) => Ok((Lexeme::Variable, from + end + 1)),
            None => Err(open_variable(script, from)),
        },
        '$' => match tag(&script[..from], rest) {
            Some(tag) => ended(Lexeme::Verbatim, verbatim(rest, tag), "dollar quote"),
            None => Ok((Lexeme::Plain, from + 1)),
        },
        c if c.is_whitespace() || c == '\u{feff}' => Ok((Lexeme::Blank, from + c.len_utf8())),
        c => Ok((Lexeme::Plain, from + c.len_utf8())),
    }
}

/// The length of the rest of the line; its end belongs to what follows.
fn line(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// The length of a comment, with those that are nested in it.
fn comment(rest: &str) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    None
}

/// True behind the word `E`, which allows escapes in the quotes that follow.
fn after_e(before: &str) -> bool {
    let Some(rest) = before.strip_suffix(['E', 'e']) else {
        return false;
    };
    !rest.chars().next_back().is_some_and(in_a_word)
}

/// `$tag$` at the beginning of `rest`, where a dollar does not belong to a word.
fn tag<'a>(before: &str, rest: &'a str) -> Option<&'a str> {
    if before.chars().next_back().is_some_and(in_a_word) {
        return None;
    }
    let inner = &rest[1..];
    let end = inner.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    inner[end..].starts_with('$').then(|| &rest[..end + 2])
}

fn in_a_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '@' | '#')
}

/// The length of a text in dollar quotes.
fn verbatim(rest: &str, tag: &str) -> Option<usize> {
    let inner = rest[tag.len()..].find(tag)?;
    Some(inner + 2 * tag.len())
}

/// The error at a byte of the script.
fn at(script: &str, offset: usize, error: Error) -> Error {
    error.with_position(position(script, offset))
}

fn no_end(what: &str) -> Error {
    Error::invalid(format!("the {what} that begins here has no end"))
        .with_hint(format!("close the {what}"))
}

fn open_variable(script: &str, offset: usize) -> Error {
    let error = Error::invalid("the variable that begins here has no `}`");
    let hint = "write `${name}` or `${name:-default}`; in quotes `$${` stands for `${`";
    at(script, offset, error.with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Script> {
        Script::parse(text, |name| match name {
            "dir" => Some("it's here".to_owned()),
            "n" => Some("7".to_owned()),
            "evil" => Some("1; DROP TABLE t".to_owned()),
            "back" => Some(r"a\b".to_owned()),
            _ => None,
        })
    }

    fn texts(text: &str) -> Vec<String> {
        let script = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let statements = script.statements().iter();
        statements.map(|s| s.text().to_owned()).collect()
    }

    #[test]
    fn only_a_semicolon_of_the_statement_itself_ends_it() {
        for (text, expected) in [
            ("", vec![]),
            (" ;; -- no\n ; /* none */", vec![]),
            ("a; b", vec!["a", "b"]),
            ("a ;\n\n b ;\n", vec!["a", "b"]),
            ("'a;b'; c", vec!["'a;b'", "c"]),
            ("'it''s;'; c", vec!["'it''s;'", "c"]),
            (r#""a;""b"; c"#, vec![r#""a;""b""#, "c"]),
            ("`a;b`; c", vec!["`a;b`", "c"]),
            // a backslash escapes only in E'…', as in DataFusion's own dialect
            (r"'a\'; b", vec![r"'a\'", "b"]),
            (r"E'a\';'; b", vec![r"E'a\';'", "b"]),
            (r"some'a\'; b", vec![r"some'a\'", "b"]),
            ("$$a;b$$; c", vec!["$$a;b$$", "c"]),
            ("$f$a;$$;$f$; c", vec!["$f$a;$$;$f$", "c"]),
            ("SELECT $1; c", vec!["SELECT $1", "c"]),
            ("a$b$; c$b$", vec!["a$b$", "c$b$"]),
            ("a -- b;\n c; d", vec!["a -- b;\n c", "d"]),
            ("a - -1; d", vec!["a - -1", "d"]),
            (
                "a /* ; /* ; */ ; */ b; c",
                vec!["a /* ; /* ; */ ; */ b", "c"],
            ),
            ("a -- the end", vec!["a"]),
            ("#!/usr/bin/env highwater;\na", vec!["a"]),
            ("\u{feff}a;b", vec!["a", "b"]),
            ("'ä;ö'; ü", vec!["'ä;ö'", "ü"]),
        ] {
            assert_eq!(texts(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_are_put_in() {
        for (text, expected) in [
            ("SELECT ${n}", "SELECT 7"),
            ("SELECT ${none:-3} + ${n:-4}", "SELECT 3 + 7"),
            ("SELECT ${none:-}", "SELECT"),
            ("SELECT ${none:-a;b}", "SELECT a;b"),
            // in quotes a value stays one literal
            ("SELECT '${dir}/x'", "SELECT 'it''s here/x'"),
            (r#"SELECT "${dir}""#, r#"SELECT "it's here""#),
            (r"SELECT E'${back}'", r"SELECT E'a\\b'"),
            (r"SELECT '${back}'", r"SELECT 'a\b'"),
            ("SELECT '$${dir}'", "SELECT '${dir}'"),
            ("SELECT '$5 ${n} $'", "SELECT '$5 7 $'"),
            ("SELECT $$${dir}$$", "SELECT $$${dir}$$"),
            ("SELECT 1 -- ${unknown}\n, 2", "SELECT 1 -- ${unknown}\n, 2"),
            (
                "SELECT 1 /* ${unknown} */, 2",
                "SELECT 1 /* ${unknown} */, 2",
            ),
            // a value is never cut into statements
            ("SELECT ${evil}", "SELECT 1; DROP TABLE t"),
        ] {
            assert_eq!(texts(text), [expected], "{text}");
        }
    }

    #[test]
    fn mistakes_have_their_place_in_the_script() {
        for (text, line, column, said) in [
            ("a;\n  'b", 2, 3, "quote"),
            ("a;\nb `c;", 2, 3, "quote"),
            ("ä /* /* */", 1, 3, "comment"),
            ("a;\n\n $x$ b $y$;", 3, 2, "dollar quote"),
            ("a; ${unknown}", 1, 4, "`unknown` has no value"),
            ("a;\n'b ${unknown}'", 2, 4, "`unknown` has no value"),
            ("a ${n", 1, 3, "no `}`"),
            ("a '${n'", 1, 4, "no `}`"),
            ("a ${}", 1, 3, "no name"),
            ("a ${1x}", 1, 3, "no name"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.position(), Some(Position { line, column }), "{text}");
            assert!(error.message().contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_statement_knows_where_it_is() {
        let text = "-- head\n  SELECT 1;\nSELECT\n 2";
        let script = parse(text).expect("statements");
        let places: Vec<_> = script
            .statements()
            .iter()
            .map(|s| (s.offset(), s.position()))
            .collect();
        let (line, column) = (2, 3);
        assert_eq!(places[0], (10, Position { line, column }));
        let (line, column) = (3, 1);
        assert_eq!(places[1], (20, Position { line, column }));
        assert_eq!(&text[20..], script.statements()[1].text());
    }

    /// The word `bad` is found in the statement, and is to be told at its place in the script.
    #[test]
    fn an_error_moves_into_the_script() {
        for (text, line, column) in [
            ("bad", 1, 1),
            ("a;\n b bad", 2, 4),
            ("a;\n b\n  ü bad", 3, 5),
            ("a; '${dir}' bad", 1, 13),
            ("a;\n'$${dir}' bad", 2, 11),
            ("a; ${none:-x\ny\nz} bad", 3, 4),
            // what is wrong in a value is told where the variable stands
            ("a; b ${none:- c bad}", 1, 6),
            ("a; ${n} ${n} ${n} bad", 1, 19),
        ] {
            let script = parse(text).expect("statements");
            let last = script.statements().last().expect("a statement");
            let found = last.text().find("bad").expect("the word");
            let error = Error::invalid("here").with_position(position(last.text(), found));
            let expected = Some(Position { line, column });
            assert_eq!(last.locate(error).position(), expected, "{text}");
        }
        let script = parse("a; b").expect("statements");
        let error = script.statements()[1].locate(Error::invalid("no place"));
        assert_eq!(error.position(), None);
        let end = Error::invalid("the end").with_position(Position { line: 9, column: 9 });
        let place = script.statements()[1].locate(end).position();
        assert_eq!(place, Some(Position { line: 1, column: 5 }));
    }

    #[test]
    fn it_is_said_whether_a_statement_is_complete() {
        for (text, complete) in [
            ("", true),
            ("-- nothing", true),
            ("a", false),
            ("a;", true),
            ("a; -- done", true),
            ("a; b", false),
            ("a ';", false),
            ("a '\n;'", false),
            ("a '\n;';", true),
            ("/* ;", false),
            ("$$;", false),
            ("${x};", true),
        ] {
            assert_eq!(is_complete(text), complete, "{text}");
        }
    }
}
