//! Statements that a generator has mis-spelt: each word of each form is dropped, swapped with the next, and mis-spelt.
//!
//! Whatever is refused has a line and a column inside the statement, speaks of no word that the user has not written,
//! and says what was probably meant where a word of a form is nearly right.

use highwater::Result;
use highwater::datafusion::sql::sqlparser::dialect::GenericDialect;
use highwater::datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use highwater::prelude::*;

/// Every form; `{in}` is a folder with a file, `{out}` one that is not there yet.
const FORMS: [&str; 24] = [
    "CREATE UNBOUNDED EXTERNAL TABLE a1 (ts TIMESTAMP, k STRING, v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '10' SECOND)\nSTORED AS csv LOCATION '{in}' OPTIONS (maxFilesPerTrigger 1)",
    "CREATE EXTERNAL TABLE IF NOT EXISTS a2 (ts TIMESTAMP, k STRING)\nSTORED AS parquet LOCATION '{out}' PARTITIONED BY (k)",
    "CREATE OR REPLACE EXTERNAL TABLE a3 (k STRING, v BIGINT) STORED AS noop",
    "CREATE TABLE a4 (ts TIMESTAMP, k STRING, WATERMARK FOR ts AS ts) WITH ('connector' = 'csv', 'path' = '{in}')",
    "CREATE STREAMING TABLE b1 OPTIONS (trigger 'available now', output_mode 'update') AS\nSELECT k, count(*) AS n FROM STREAM t GROUP BY k",
    "CREATE OR REPLACE STREAMING TABLE b2 AS SELECT window.start, count(*) AS n FROM STREAM t WATERMARK ts DELAY OF INTERVAL 5 SECONDS\nGROUP BY window(ts, '10 seconds') EMIT ON WINDOW CLOSE",
    "INSERT INTO sink OPTIONS (trigger 'once', query_name 'q9') SELECT k, v FROM STREAM t WHERE v > 1 EMIT CHANGES",
    "AWAIT STREAMING QUERY done TIMEOUT '1 ms'",
    "SHOW STREAMING QUERIES",
    "DESCRIBE STREAMING QUERY done",
    "STOP STREAMING QUERY done",
    "EXPLAIN STREAMING SELECT k, count(*) FROM STREAM t GROUP BY k",
    "EXPLAIN STREAMING QUERY done",
    "SELECT k FROM STREAM t WITH ('maxFilesPerTrigger' = '1') IDENTIFIED BY source AS x WHERE x.v > 1",
    "SELECT k FROM STREAM(t) WATERMARK ts DELAY OF INTERVAL 10 SECONDS AS x",
    "SELECT k, session_window.start, count(*) AS n FROM t WATERMARK ts DELAY OF INTERVAL '5' SECOND\nGROUP BY k, session_window(ts, '5 seconds')",
    "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' MINUTE)\nGROUP BY window_start, window_end",
    "SELECT window_start, k FROM TABLE(HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SLIDE => INTERVAL '5' MINUTE, SIZE => INTERVAL '10' MINUTE))",
    "SELECT k, window_start, count(*) AS n FROM SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)\nGROUP BY k, window_start, window_end",
    "SELECT k FROM DROP_DUPLICATES(TABLE t, DESCRIPTOR(k, ts))",
    "SELECT k FROM drop_duplicates_within_watermark(TABLE t WATERMARK ts DELAY OF INTERVAL 5 SECONDS, DESCRIPTOR(k))",
    "CREATE OR REPLACE TEMP VIEW c1 AS SELECT k, v FROM STREAM t",
    "SET highwater.multiple_watermark_policy = 'max'",
    "SELECT k, sum(v) AS s FROM STREAM t JOIN plain ON k = name WHERE v > 1 GROUP BY k HAVING sum(v) > 2",
];

/// Words that belong to our forms: mis-spelt, they are told what they were meant to be.
const OURS: [&str; 33] = [
    "CREATE",
    "UNBOUNDED",
    "EXTERNAL",
    "STREAMING",
    "STORED",
    "LOCATION",
    "OPTIONS",
    "WATERMARK",
    "INTERVAL",
    "SECOND",
    "SECONDS",
    "MINUTE",
    "PARTITIONED",
    "EXISTS",
    "REPLACE",
    "TIMESTAMP",
    "AWAIT",
    "QUERY",
    "TIMEOUT",
    "DESCRIBE",
    "EXPLAIN",
    "IDENTIFIED",
    "DELAY",
    "DESCRIPTOR",
    "CHANGES",
    "WINDOW",
    "CLOSE",
    "INSERT",
    "SELECT",
    "QUERIES",
    "WHERE",
    "GROUP",
    "connector",
];

struct Told {
    refused: usize,
    faults: Vec<String>,
}

async fn session() -> Result<(StreamSession, tempfile::TempDir)> {
    let folder = tempfile::tempdir().expect("as planned");
    std::fs::create_dir(folder.path().join("in")).expect("as planned");
    std::fs::write(folder.path().join("in/1.csv"), "2024-05-01 00:00:03,a,1\n")
        .expect("as planned");
    let session = StreamSession::new();
    let path = folder.path().display();
    for statement in [
        format!(
            "CREATE UNBOUNDED EXTERNAL TABLE t (ts TIMESTAMP, k STRING, v BIGINT) STORED AS csv LOCATION '{path}/in'"
        ),
        "CREATE EXTERNAL TABLE sink (k STRING, v BIGINT) STORED AS noop".to_owned(),
        "CREATE TABLE plain (name STRING)".to_owned(),
        "CREATE STREAMING TABLE done OPTIONS (trigger 'available now') AS SELECT k FROM t"
            .to_owned(),
        "AWAIT STREAMING QUERY done".to_owned(),
    ] {
        session.sql(&statement).await?.collect().await?;
    }
    Ok((session, folder))
}

/// The words of a statement, with the white space after each.
fn words(text: &str) -> Vec<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize()
        .expect(text);
    let mut words: Vec<String> = Vec::new();
    for token in tokens {
        match (&token, words.last_mut()) {
            (Token::Whitespace(_), Some(last)) => last.push_str(&token.to_string()),
            _ => words.push(token.to_string()),
        }
    }
    words
}

/// A letter is doubled, dropped, or changes places with the next.
fn misspelt(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.trim_end().chars().collect();
    if letters.len() < 5 || !letters.iter().all(|c| c.is_alphabetic() || *c == '_') {
        return Vec::new();
    }
    let end = &word[word.trim_end().len()..];
    let middle = letters.len() / 2;
    let mut doubled = letters.clone();
    doubled.insert(middle, letters[middle]);
    let mut dropped = letters.clone();
    dropped.remove(middle);
    let mut swapped = letters.clone();
    swapped.swap(middle - 1, middle);
    [doubled, dropped, swapped]
        .into_iter()
        .filter(|wrong| *wrong != letters)
        .map(|wrong| wrong.into_iter().collect::<String>() + end)
        .collect()
}

impl Told {
    /// Runs the statement and judges its error; `meant` is the word that was mis-spelt.
    async fn judge(&mut self, session: &StreamSession, text: &str, meant: Option<&str>) {
        let Err(error) = session.sql(text).await else {
            return;
        };
        self.refused += 1;
        let message = error.message();
        let mut wrong = |what: &str| self.faults.push(format!("{what}: {text}\n    {error}"));
        match error.position() {
            None => wrong("no place"),
            Some(at) => {
                let line = usize::try_from(at.line - 1).expect("as planned");
                let inside = text.lines().nth(line).is_some_and(|line| {
                    at.column >= 1 && at.column <= line.chars().count() as u64 + 1
                });
                if !inside {
                    wrong("outside");
                }
            }
        }
        if [
            "highwater.s",
            "highwater.w",
            "highwater.d",
            "datafusion.",
            "EOF",
        ]
        .iter()
        .any(|w| message.contains(w))
        {
            wrong("not the user's words");
        }
        if let Some((_, found)) = message
            .split_once("found `")
            .or_else(|| message.split_once("found: "))
            && let Some(found) = found.split(['`', ' ']).next()
            && !text.to_lowercase().contains(&found.to_lowercase())
            && !found.starts_with("the")
        {
            wrong("found what is not there");
        }
        if let Some(meant) = meant
            && OURS.contains(&meant)
            && !error
                .hint()
                .unwrap_or_default()
                .to_uppercase()
                .contains(&meant[..4].to_uppercase())
            && !message.to_uppercase().contains(&meant.to_uppercase())
        {
            wrong("no suggestion");
        }
    }
}

#[tokio::test]
async fn every_error_has_its_place_and_the_users_words() -> Result<()> {
    let (session, folder) = session().await?;
    let path = folder.path().display().to_string();
    let mut told = Told {
        refused: 0,
        faults: Vec::new(),
    };
    for form in FORMS {
        let text = form
            .replace("{in}", &format!("{path}/in"))
            .replace("{out}", &format!("{path}/out"));
        let words = words(&text);
        for at in 0..words.len() {
            let mut dropped = words.clone();
            let word = dropped.remove(at);
            told.judge(&session, &dropped.concat(), None).await;
            let mut swapped = words.clone();
            if at + 1 < words.len() {
                swapped.swap(at, at + 1);
                told.judge(&session, &swapped.join(" "), None).await;
            }
            for wrong in misspelt(&word) {
                let mut text = words.clone();
                text[at] = wrong;
                told.judge(&session, &text.concat(), Some(word.trim_end()))
                    .await;
            }
        }
    }
    session.streams().stop_all().await?;
    let Told { refused, faults } = told;
    assert!(refused > 500, "only {refused} statements were refused");
    assert!(
        faults.is_empty(),
        "{} faults of {refused}\n{}",
        faults.len(),
        faults.join("\n")
    );
    Ok(())
}

#[tokio::test]
async fn the_forms_themselves_are_right() -> Result<()> {
    let (session, folder) = session().await?;
    let path = folder.path().display().to_string();
    for form in FORMS {
        let text = form
            .replace("{in}", &format!("{path}/in"))
            .replace("{out}", &format!("{path}/out"));
        session
            .sql(&text)
            .await
            .map_err(|e| e.context(text.clone()))?;
    }
    session.streams().stop_all().await
}
