//! What the shell's Tab key knows: words of SQL, functions, tables and their columns.

use std::sync::Arc;

use highwater::StreamSession;
use highwater::script::is_complete;
use parking_lot::RwLock;
use rustyline::completion::Completer;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

const WORDS: [&str; 98] = [
    "ALL",
    "AND",
    "AS",
    "ASC",
    "AVAILABLE",
    "AWAIT",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CHANGES",
    "CLOSE",
    "COPY",
    "CREATE",
    "CROSS",
    "DATE",
    "DELAY",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DESCRIPTOR",
    "DISTINCT",
    "DROP",
    "DROP_DUPLICATES",
    "DROP_DUPLICATES_WITHIN_WATERMARK",
    "ELSE",
    "EMIT",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FILTER",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "HOP",
    "IDENTIFIED",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NAMED",
    "NOT",
    "NULL",
    "NULLS",
    "OF",
    "OFFSET",
    "ON",
    "OPTIONS",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "QUERIES",
    "QUERY",
    "REPLACE",
    "RIGHT",
    "SELECT",
    "SEMI",
    "SESSION",
    "SET",
    "SHOW",
    "STOP",
    "STORED",
    "STREAM",
    "STREAMING",
    "TABLE",
    "TABLES",
    "TEMP",
    "THEN",
    "TIMEOUT",
    "TIMESTAMP",
    "TRUE",
    "TUMBLE",
    "UNBOUNDED",
    "UNION",
    "USING",
    "VALUES",
    "VIEW",
    "WATERMARK",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
];

/// What can be named in a session.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Tables with their columns.
    tables: Vec<(String, Vec<String>)>,
    functions: Vec<String>,
}

impl Names {
    /// What there is now.
    pub(crate) async fn of(session: &StreamSession) -> Self {
        let mut tables = Vec::new();
        for name in tables_of(session) {
            let columns = match session.table(name.as_str()).await {
                Ok(frame) => frame.schema().field_names(),
                Err(_) => Vec::new(),
            };
            let plain = |column: &String| column.rsplit('.').next().unwrap_or(column).to_owned();
            let columns = columns.iter().map(plain).collect();
            tables.push((name, columns));
        }
        let state = session.context().state();
        let mut functions: Vec<String> = state.scalar_functions().keys().cloned().collect();
        functions.extend(state.aggregate_functions().keys().cloned());
        functions.extend(state.window_functions().keys().cloned());
        functions.sort_unstable();
        functions.dedup();
        Self { tables, functions }
    }

    /// The words that go on with `word`, which stands after `before`.
    fn completions(&self, before: &str, word: &str) -> Vec<String> {
        let columns = |table: &str| -> Vec<&String> {
            let named = self
                .tables
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(table));
            named.flat_map(|(_, columns)| columns).collect()
        };
        if let Some((table, start)) = word.rsplit_once('.') {
            let columns = columns(table).into_iter().filter(|c| begins(c, start));
            return columns.map(|column| format!("{table}.{column}")).collect();
        }
        let tables = self.tables.iter().map(|(name, _)| name);
        if before.trim_start().starts_with('\\') {
            return tables.filter(|name| begins(name, word)).cloned().collect();
        }
        if word.is_empty() {
            return tables.cloned().collect();
        }
        let columns = self.tables.iter().flat_map(|(_, columns)| columns);
        let names = columns.chain(tables).chain(&self.functions);
        let mut found: Vec<String> = names.filter(|name| begins(name, word)).cloned().collect();
        let small = word.chars().all(|c| !c.is_uppercase());
        let words = WORDS.iter().filter(|known| begins(known, word));
        found.extend(words.map(|known| match small {
            true => known.to_lowercase(),
            false => (*known).to_owned(),
        }));
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The tables and views of the session's own schema, by name.
pub(crate) fn tables_of(session: &StreamSession) -> Vec<String> {
    let state = session.context().state();
    let options = &state.config_options().catalog;
    let catalog = session.context().catalog(&options.default_catalog);
    let schema = catalog.and_then(|catalog| catalog.schema(&options.default_schema));
    let mut names = schema
        .map(|schema| schema.table_names())
        .unwrap_or_default();
    names.sort_unstable();
    names
}

fn begins(name: &str, word: &str) -> bool {
    let start = name.get(..word.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(word)) && name.len() > word.len()
}

/// Completes words, and asks for more lines until a statement is ended.
#[derive(Debug, Default, Helper, Highlighter, Hinter)]
pub(crate) struct Guide(pub(crate) Arc<RwLock<Names>>);

impl Completer for Guide {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..position];
        let in_a_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let start = before.trim_end_matches(in_a_word).len();
        let (before, word) = before.split_at(start);
        Ok((start, self.0.read().completions(before, word)))
    }
}

impl Validator for Guide {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_whole(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

/// True for statements that are ended, for an order to the shell, and for nothing.
pub(crate) fn is_whole(input: &str) -> bool {
    input.trim_start().starts_with('\\') || is_complete(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            tables: vec![
                (
                    "readings".to_owned(),
                    vec!["ts".to_owned(), "pump".to_owned()],
                ),
                ("rates".to_owned(), vec!["value".to_owned()]),
            ],
            functions: vec!["substr".to_owned()],
        }
    }

    #[test]
    fn words_tables_columns_and_functions_are_completed() {
        for (before, word, expected) in [
            ("", "sel", vec!["select"]),
            ("", "SEL", vec!["SELECT"]),
            ("SELECT ", "pu", vec!["pump"]),
            ("SELECT ", "readings.p", vec!["readings.pump"]),
            ("SELECT ", "su", vec!["substr"]),
            (
                "SELECT * FROM ",
                "r",
                vec!["rates", "readings", "replace", "right"],
            ),
            ("SELECT * FROM ", "", vec!["readings", "rates"]),
            ("\\d ", "r", vec!["readings", "rates"]),
            ("SELECT ", "nothing", vec![]),
            ("", "wä", vec![]),
        ] {
            assert_eq!(
                names().completions(before, word),
                expected,
                "{before}{word}"
            );
        }
    }

    #[test]
    fn a_statement_needs_its_end_and_an_order_does_not() {
        for (input, whole) in [
            ("", true),
            ("\\d", true),
            ("SELECT 1", false),
            ("SELECT 1;", true),
        ] {
            assert_eq!(is_whole(input), whole, "{input}");
        }
    }
}
