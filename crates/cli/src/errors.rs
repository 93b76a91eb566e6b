//! Errors as a person reads them: what is wrong, the place in the text with a caret, the way out, the causes.

use std::error::Error as _;
use std::fmt::Write as _;

use highwater::{Error, ErrorKind, Position};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text an error is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// Where it comes from: a file, `stdin`.
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
    /// Where the statement begins, for an error that does not say its own place.
    pub(crate) statement: Option<Position>,
}

/// The widest part of a line that is shown.
const WIDEST: usize = 120;

/// The error as a text without a newline at its end.
pub(crate) fn render(error: &Error, source: Option<Source<'_>>, coloured: bool) -> String {
    let paint = Paint(coloured);
    let mut text = paint.red("error");
    let _ = write!(text, ": {}", paint.bold(&message(error)));
    if let Some(source) = source {
        place(&mut text, error, source, paint);
    }
    if let Some(query) = error.query() {
        let name = query.name.as_deref().unwrap_or("without a name");
        let _ = write!(text, "\n  {} in query {name}", paint.blue("="));
        if let Some(batch) = query.batch {
            let _ = write!(text, ", batch {batch}");
        }
        if !query.offsets.is_empty() {
            let _ = write!(text, ", {}", query.offsets);
        }
        let _ = write!(text, " (id {}, run {})", query.id, query.run_id);
    }
    if let Some(condition) = error.condition() {
        let _ = write!(text, "\n  {} condition: {condition}", paint.blue("="));
    }
    for cause in causes(error) {
        let _ = write!(text, "\n  {} caused by: {cause}", paint.blue("="));
    }
    if let Some(hint) = error.hint() {
        let _ = write!(text, "\n  {} hint: {hint}", paint.blue("="));
    }
    if error.kind() == ErrorKind::Internal {
        let report = "this is a mistake of Highwater: please report it";
        let _ = write!(text, "\n  {} {report}", paint.blue("="));
    }
    text
}

/// The message without the place in the statement, which is told as the place in the script.
fn message(error: &Error) -> String {
    let message = error.message();
    let message = message
        .strip_prefix("sql parser error: ")
        .unwrap_or(message);
    let message = message.strip_prefix("ParserError(\"").unwrap_or(message);
    match message.rsplit_once(" at Line: ") {
        Some((before, place)) if error.position().is_some() && is_place(place) => before.to_owned(),
        _ => message.to_owned(),
    }
}

/// `2, Column: 17`.
fn is_place(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.split_once(", Column: ")
        .is_some_and(|(line, column)| digits(line.trim()) && digits(column.trim()))
}

/// The causes that say more than what was said before them.
fn causes(error: &Error) -> Vec<String> {
    let mut said = vec![error.message().to_owned()];
    let mut cause = error.source();
    while let Some(error) = cause {
        // The place in the statement is told as the place in the script.
        let text = error.to_string();
        let text = text.split(" at Line: ").next().unwrap_or_default();
        let text = text.trim_start_matches("sql parser error: ").to_owned();
        if !said
            .iter()
            .any(|s| s.contains(&text) || text.contains(s.as_str()))
        {
            said.push(text);
        }
        cause = error.source();
    }
    said.split_off(1)
}

/// The line of the text that the error is in, with a caret where it says so.
fn place(to: &mut String, error: &Error, source: Source<'_>, paint: Paint) {
    let Some(at) = error.position().or(source.statement) else {
        let _ = write!(to, "\n --> {}", source.name);
        return;
    };
    let (number, gap) = (at.line.to_string(), " ".repeat(at.line.to_string().len()));
    let arrow = paint.blue("-->");
    let _ = write!(
        to,
        "\n{gap}{arrow} {}:{}:{}",
        source.name, at.line, at.column
    );
    let line = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(line) = source.text.lines().nth(line) else {
        return;
    };
    let (line, before) = cut(line, at.column);
    let bar = paint.blue("|");
    let number = paint.blue(&number);
    let _ = write!(to, "\n{gap} {bar}\n{number} {bar} {line}");
    if error.position().is_some() {
        let blanks = " ".repeat(before);
        let _ = write!(to, "\n{gap} {bar} {blanks}{}", paint.red("^"));
    }
}

/// The part of a line around a column, and how wide what stands before the column is.
fn cut(line: &str, column: u64) -> (String, usize) {
    let column = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let chars: Vec<char> = line.chars().map(shown).collect();
    let column = column.min(chars.len());
    let first = column.saturating_sub(WIDEST * 2 / 3);
    let last = chars.len().min(first + WIDEST);
    let mut text: String = chars[first..last].iter().collect();
    let before: usize = chars[first..column].iter().filter_map(|c| c.width()).sum();
    if last < chars.len() {
        text.push('…');
    }
    if first == 0 {
        return (text, before);
    }
    (format!("…{text}"), before + "…".width())
}

/// Colours, where there are any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    pub(crate) fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn blue(self, text: &str) -> String {
        self.with("1;34", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Option<Source<'_>> {
        let (line, column) = (1, 1);
        Some(Source {
            name: "a.sql",
            text,
            statement: Some(Position { line, column }),
        })
    }

    #[test]
    fn the_caret_stands_under_the_place() {
        let (line, column) = (2, 10);
        let error = Error::invalid("Expected: an expression, found: FROM at Line: 1, Column: 9")
            .with_position(Position { line, column })
            .with_hint("leave the comma out");
        let text = render(&error, source("SELECT 1;\nSELECT 水, FROM t"), false);
        let expected = "\
error: Expected: an expression, found: FROM
 --> a.sql:2:10
  |
2 | SELECT 水, FROM t
  |           ^
  = hint: leave the comma out";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_a_place_the_statement_is_shown() {
        let text = render(&Error::invalid("no"), source("SELECT 1"), false);
        assert_eq!(text, "error: no\n --> a.sql:1:1\n  |\n1 | SELECT 1");
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let line = format!("{}x{}", "a".repeat(300), "b".repeat(300));
        let (text, before) = cut(&line, 301);
        assert_eq!(text.chars().nth(before), Some('x'));
        assert!(text.starts_with("…a") && text.ends_with("b…"), "{text}");
    }

    #[test]
    fn a_cause_that_says_nothing_new_is_left_out() {
        let inner = Error::invalid("the disk is full");
        let error = Error::invalid("writing the state").with_source(inner);
        assert!(render(&error, None, false).ends_with("caused by: the disk is full"));
        let inner = Error::invalid("the disk is full");
        let error = Error::invalid("writing: the disk is full").with_source(inner);
        assert!(!render(&error, None, false).contains("caused by"));
    }
}
