//! `INTERVAL 10 SECONDS` and its kin, from words of SQL to words that are read as a length of time.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::near::nearest;
use super::words::{at, is};
use crate::{Error, IntoInterval, Result};

/// The interval that begins at `start`, as text, and where it ends.
///
/// `INTERVAL 10 SECONDS`, `INTERVAL 1 HOUR 30 MINUTES`, `INTERVAL '10 seconds'`, `INTERVAL '10' SECOND`.
///
/// # Errors
/// `Invalid`, with its position, for what is none of these.
pub(super) fn parse(tokens: &[TokenWithSpan], start: usize) -> Result<(String, usize)> {
    after(tokens, start, "DELAY OF")
}

/// The same after `words`, which errors name.
pub(super) fn after(
    tokens: &[TokenWithSpan],
    start: usize,
    words: &str,
) -> Result<(String, usize)> {
    let here = tokens.get(start).or(tokens.last());
    let placed = |error: Error| match here {
        Some(token) => at(error, token),
        None => error,
    };
    if !tokens.get(start).is_some_and(|t| is(t, "INTERVAL")) {
        return Err(placed(no_interval(tokens.get(start), words)));
    }
    let mut text = String::new();
    let mut end = start + 1;
    while let Some(length) = part(&tokens[end..], &mut text) {
        end += length;
    }
    if tokens.get(end).is_some_and(|t| is(t, "TO")) {
        return Err(placed(bad(
            "an interval from one unit TO another as a delay",
        )));
    }
    text.as_str().into_interval().map_err(|error| {
        match misspelt_unit(&tokens[start..], end - start) {
            Some((unit, meant)) => at(bad(&format!("unknown unit `{}`", unit.token)), unit)
                .with_hint(format!("did you mean `{meant}`?")),
            None => placed(error),
        }
    })?;
    Ok((text, end))
}

fn bad(message: &str) -> Error {
    Error::invalid(message)
        .with_condition("CANNOT_PARSE_INTERVAL")
        .with_operator("watermark")
        .with_hint("write it as in `INTERVAL 10 SECONDS`")
}

fn no_interval(found: Option<&TokenWithSpan>, words: &str) -> Error {
    let error = bad(&format!("expected INTERVAL after {words}"));
    let near = match found.map(|t| &t.token) {
        Some(Token::Word(word)) => nearest(&word.value, ["INTERVAL"]),
        _ => None,
    };
    match near {
        Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
        None => error,
    }
}

/// The word after a number that is no unit, and the unit it was probably meant to be.
fn misspelt_unit(tokens: &[TokenWithSpan], end: usize) -> Option<(&TokenWithSpan, &'static str)> {
    let token = tokens.get(end)?;
    let Token::Word(word) = &token.token else {
        return None;
    };
    let meant = nearest(&word.value, UNITS)?;
    Some((token, meant))
}

/// Adds one number with its unit, or one text, to `text`: how many words it took.
fn part(tokens: &[TokenWithSpan], text: &mut String) -> Option<usize> {
    let signed = matches!(tokens.first()?.token, Token::Minus | Token::Plus);
    let mut length = usize::from(signed);
    let number = match &tokens.get(length)?.token {
        Token::Number(number, _) => number.clone(),
        Token::SingleQuotedString(words) => words.trim().to_owned(),
        _ => return None,
    };
    length += 1;
    text.push(' ');
    if signed {
        text.push_str(&tokens[0].token.to_string());
    }
    text.push_str(&number);
    if let Some(unit) = tokens
        .get(length)
        .filter(|t| UNITS.iter().any(|u| is_unit(t, u)))
    {
        text.push(' ');
        text.push_str(&unit.token.to_string());
        length += 1;
    }
    Some(length)
}

const UNITS: [&str; 9] = [
    "YEAR",
    "MONTH",
    "WEEK",
    "DAY",
    "HOUR",
    "MINUTE",
    "SECOND",
    "MILLISECOND",
    "MICROSECOND",
];

fn is_unit(token: &TokenWithSpan, unit: &str) -> bool {
    is(token, unit) || is(token, &format!("{unit}S"))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn words(text: &str) -> Vec<TokenWithSpan> {
        let mut tokens = Tokenizer::new(&GenericDialect {}, text)
            .tokenize_with_location()
            .expect(text);
        tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
        tokens
    }

    #[test]
    fn all_spellings_are_read_up_to_what_follows() {
        for (text, micros, length) in [
            ("INTERVAL 10 SECONDS", 10_000_000, 3),
            ("interval '10 seconds' AS a", 10_000_000, 2),
            ("INTERVAL '10' SECOND a", 10_000_000, 3),
            ("INTERVAL 1 HOUR 30 MINUTES)", 5_400_000_000, 5),
            ("INTERVAL '1 hour' 30 minutes", 5_400_000_000, 4),
            ("INTERVAL 0 SECONDS, u", 0, 3),
            ("INTERVAL -5 SECONDS", -5_000_000, 4),
            ("INTERVAL 1.5 SECONDS", 1_500_000, 3),
        ] {
            let (read, end) = parse(&words(text), 0).expect(text);
            let read = read.as_str().into_interval().expect(text);
            assert_eq!(
                (read.to_micros().ok(), end),
                (Some(micros), length),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_interval_is_told_with_its_place() {
        for text in [
            "10 seconds",
            "INTERVAL",
            "INTERVAL 10",
            "INTERVAL 3 FORTNIGHTS",
            "INTERVAL '1:30' MINUTE TO SECOND",
        ] {
            let error = parse(&words(text), 0).expect_err(text);
            assert!(error.position().is_some(), "{text}");
        }
    }
}
