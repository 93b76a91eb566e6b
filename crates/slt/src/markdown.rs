//! Runs the SQL of a page of documentation.

use std::fmt::Write as _;
use std::path::Path;

use arrow::util::pretty::pretty_format_batches;
use highwater::datafusion::sql::sqlparser::dialect::GenericDialect;
use highwater::datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use highwater::{Error, Result, StreamSession};

use crate::SltSession;

/// Runs every block of a Markdown page that begins with ```` ```sql ````, from top to bottom, in one session.
///
/// Statements end with `;`. A block ```` ```text ```` right after one of SQL holds the result of its last statement, as
/// a table. `'data/…` in the SQL, with or without more after it, is a folder below `folder`, and so is `'out/…`.
///
/// Gives the number of statements that were run.
///
/// # Errors
/// The first statement that fails or gives another result, with the line of its block.
pub async fn run_markdown(page: &str, session: StreamSession, folder: &Path) -> Result<usize> {
    let mut session = SltSession::new(session);
    let mut run = 0;
    let mut last = String::new();
    for block in blocks(page) {
        let at = |e: Error| e.context(format!("the block at line {}", block.line));
        if block.language == "text" {
            if last.trim() != block.text.trim() {
                let text = &block.text;
                return Err(at(Error::invalid(format!(
                    "expected\n{text}\ncame\n{last}"
                ))));
            }
            continue;
        }
        for statement in statements(&block.text).map_err(at)? {
            let sql = below(&statement, folder);
            let rows = session.statement(&sql).await;
            let rows = rows.map_err(|e| at(e.context(format!("`{statement}`"))))?;
            last.clear();
            // Formatting into a String does not fail.
            let _written = write!(last, "{}", pretty_format_batches(&rows)?);
            run += 1;
        }
    }
    Ok(run)
}

struct Block {
    language: String,
    line: usize,
    text: String,
}

/// The blocks of SQL, and those of text right after them.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut adjacent = false;
    for (number, line) in page.lines().enumerate() {
        if let Some(block) = &mut open {
            if line.trim_start().starts_with("```") {
                let wanted = block.language == "sql" || (block.language == "text" && adjacent);
                let done = open.take().filter(|_| wanted);
                adjacent = done.as_ref().is_some_and(|b| b.language == "sql");
                blocks.extend(done);
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            open = Some(Block {
                language: language.trim().to_owned(),
                line: number + 1,
                text: String::new(),
            });
        } else if !line.trim().is_empty() {
            adjacent = false;
        }
    }
    blocks
}

/// The statements of a text, cut at semicolons outside texts and comments.
fn statements(text: &str) -> Result<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let tokens = tokens.map_err(|e| Error::invalid(e.to_string()))?;
    let ends = tokens.iter().filter(|t| t.token == Token::SemiColon);
    let mut starts: Vec<usize> = text.split_inclusive('\n').map(str::len).collect();
    let mut offset = 0;
    for start in &mut starts {
        offset += std::mem::replace(start, offset);
    }
    let mut cut = Vec::new();
    let mut from = 0;
    for end in ends {
        let place = end.span.start;
        let (line, column) = (to_index(place.line), to_index(place.column));
        let begin = starts.get(line).copied().unwrap_or(text.len());
        let width = text[begin..].chars().take(column).map(char::len_utf8);
        let to = begin + width.sum::<usize>();
        cut.push(text[from..to].trim().to_owned());
        from = to + 1;
    }
    let rest = text.get(from..).unwrap_or_default().trim();
    cut.push(rest.to_owned());
    cut.retain(|statement| !statement.is_empty());
    Ok(cut)
}

/// Lines and columns are counted from 1.
fn to_index(number: u64) -> usize {
    usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX)
}

fn below(sql: &str, folder: &Path) -> String {
    let folder = folder.display();
    sql.replace("'data", &format!("'{folder}/data"))
        .replace("'out", &format!("'{folder}/out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_at_semicolons_outside_texts() {
        let text = "SELECT ';' AS a; -- and; so\nSELECT\n  'é;';\nSELECT 3";
        let cut = statements(text).expect("cut");
        assert_eq!(
            cut,
            ["SELECT ';' AS a", "-- and; so\nSELECT\n  'é;'", "SELECT 3"]
        );
    }

    #[test]
    fn blocks_of_text_count_right_after_sql() {
        let page =
            "# a\n```sql\nSELECT 1\n```\n\n```text\n1\n```\n```text\nno\n```\n```rust\nx\n```\n";
        let languages: Vec<_> = blocks(page).into_iter().map(|b| b.language).collect();
        assert_eq!(languages, ["sql", "text"]);
    }
}
