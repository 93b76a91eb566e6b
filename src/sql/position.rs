//! Where in the user's text an error is.

use crate::{Error, Position};

/// Takes the position out of the parser's message (`… at Line: 1, Column: 8`) into the error.
pub(super) fn locate(error: Error) -> Error {
    let Some((line, column)) = parse(error.message()) else {
        return error;
    };
    error.with_position(Position { line, column })
}

fn parse(message: &str) -> Option<(u64, u64)> {
    let (_, place) = message.rsplit_once("at Line: ")?;
    let (line, rest) = place.split_once(", Column: ")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((line.trim().parse().ok()?, rest[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_position_becomes_the_errors() {
        let error = locate(Error::invalid(
            "sql parser error: Expected: x, found: y at Line: 2, Column: 17",
        ));
        assert_eq!(
            error.position(),
            Some(Position {
                line: 2,
                column: 17
            })
        );
        assert_eq!(locate(Error::invalid("no field named x")).position(), None);
    }
}
