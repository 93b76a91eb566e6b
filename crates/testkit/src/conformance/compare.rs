//! Expected rows against the rows that came.

use crate::value::{Row, Value, show};

/// How many rows a difference shows of each side.
const SHOWN: usize = 6;

/// Says what differs, as a multiset or in order; `None` when nothing does.
#[must_use]
pub fn difference(expected: &[Row], actual: &[Row], ordered: bool) -> Option<String> {
    if ordered {
        in_order(expected, actual)
    } else {
        as_multiset(expected, actual)
    }
}

fn in_order(expected: &[Row], actual: &[Row]) -> Option<String> {
    let same = expected.len() == actual.len()
        && expected.iter().zip(actual).all(|(e, a)| rows_agree(e, a));
    if same {
        return None;
    }
    Some(format!(
        "expected in order {}; came {}",
        list(expected.iter()),
        list(actual.iter())
    ))
}

fn as_multiset(expected: &[Row], actual: &[Row]) -> Option<String> {
    let mut left: Vec<&Row> = actual.iter().collect();
    let mut missing = Vec::new();
    for row in expected {
        match left.iter().position(|other| rows_agree(row, other)) {
            Some(found) => {
                left.swap_remove(found);
            }
            None => missing.push(row),
        }
    }
    if missing.is_empty() && left.is_empty() {
        return None;
    }
    Some(format!(
        "{} of {} rows are missing {}, {} came too many {}",
        missing.len(),
        expected.len(),
        list(missing.into_iter()),
        left.len(),
        list(left.into_iter())
    ))
}

fn rows_agree(a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.agrees(b))
}

fn list<'a>(rows: impl ExactSizeIterator<Item = &'a Row>) -> String {
    let more = rows.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = rows.take(SHOWN).map(|row| show(row)).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    format!("[{}]", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row;

    #[test]
    fn order_counts_only_when_it_is_asked_for() {
        let (ab, ba) = ([row!["a"], row!["b"]], [row!["b"], row!["a"]]);
        assert_eq!(difference(&ab, &ba, false), None);
        assert!(difference(&ab, &ba, true).is_some());
    }

    #[test]
    fn duplicates_count() {
        let one = [row![1]];
        let two = [row![1], row![1]];
        assert_eq!(
            difference(&two, &one, false).as_deref(),
            Some("1 of 2 rows are missing [[1]], 0 came too many []")
        );
    }
}
