//! Which word was probably meant: suggestions for what is misspelt.

/// The word of `known` that `word` probably is; `None` when none is near, or when it is one of them.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = word.to_lowercase();
    let near = known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&k.to_lowercase(), &folded), k));
    let (distance, meant) = near.min_by_key(|(distance, _)| *distance)?;
    let allowed = match meant.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    (distance > 0 && distance <= allowed).then_some(meant)
}

/// The type of a column that `word` probably is.
pub(super) fn nearest_type(word: &str) -> Option<&'static str> {
    const TYPES: [&str; 17] = [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "INTEGER",
        "BIGINT",
        "FLOAT",
        "REAL",
        "DOUBLE",
        "DATE",
        "STRING",
        "VARCHAR",
        "TEXT",
        "BINARY",
        "TIMESTAMP",
        "DECIMAL",
        "ARRAY",
    ];
    nearest(word, TYPES)
}

/// The words of SQL that begin or part clauses: what a name in their place may have been meant to be.
pub(super) const KEYWORDS: [&str; 56] = [
    "SELECT",
    "STREAM",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "JOIN",
    "LEFT",
    "RIGHT",
    "FULL",
    "INNER",
    "OUTER",
    "CROSS",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "DISTINCT",
    "VALUES",
    "INSERT",
    "INTO",
    "CREATE",
    "REPLACE",
    "EXTERNAL",
    "UNBOUNDED",
    "STREAMING",
    "TABLE",
    "VIEW",
    "STORED",
    "LOCATION",
    "OPTIONS",
    "PARTITIONED",
    "WATERMARK",
    "DELAY",
    "INTERVAL",
    "IDENTIFIED",
    "WITH",
    "EMIT",
    "CHANGES",
    "WINDOW",
    "CLOSE",
    "AWAIT",
    "QUERY",
    "QUERIES",
    "TIMEOUT",
    "SHOW",
    "DESCRIBE",
    "STOP",
    "EXPLAIN",
    "DESCRIPTOR",
    "BETWEEN",
    "USING",
    "TEMPORARY",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        for (word, meant) in [
            ("STREMING", Some("STREAMING")),
            // Two letters change places, and one is missing.
            ("strae", Some("STREAM")),
            ("FORM", Some("FROM")),
            ("locaton", Some("LOCATION")),
            ("SELECT", None),
            ("BX", None),
            ("pumps", None),
        ] {
            assert_eq!(nearest(word, KEYWORDS), meant, "{word}");
        }
    }
}
