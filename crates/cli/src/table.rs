//! Rows as a table with lines around the cells; numbers stand to the right.

use std::iter::repeat_n;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use highwater::Result;
use unicode_width::UnicodeWidthStr;

use crate::output::Shown;

/// A time to the second, and what there is of a fraction.
const TIME: &str = "%Y-%m-%d %H:%M:%S%.f";
const TIME_WITH_ZONE: &str = "%Y-%m-%d %H:%M:%S%.f%:z";

/// The columns with a header, and their first rows.
///
/// # Errors
/// `Invalid` when a value cannot be shown as text.
pub(crate) fn table(schema: &SchemaRef, rows: &[RecordBatch], shown: Shown) -> Result<String> {
    let mut columns: Vec<Column> = schema.fields().iter().map(Column::new).collect();
    let mut left = shown.rows;
    for batch in rows {
        let taken = left.min(batch.num_rows());
        left -= taken;
        for (column, values) in columns.iter_mut().zip(batch.columns()) {
            column.add(values, taken, shown)?;
        }
    }
    let count = rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    let mut text = draw(&columns, count.min(shown.rows));
    if count > shown.rows {
        let rows = if shown.rows == 1 { "row" } else { "rows" };
        text.push_str(&format!("only showing top {} {rows}\n", shown.rows));
    }
    Ok(text)
}

/// The cells of a column as text, the header first.
struct Column {
    cells: Vec<Vec<String>>,
    width: usize,
    right: bool,
}

impl Column {
    fn new(field: &arrow::datatypes::FieldRef) -> Self {
        let mut column = Self {
            cells: Vec::new(),
            width: 0,
            right: is_number(field.data_type()),
        };
        column.push(field.name());
        column
    }

    fn add(&mut self, values: &dyn arrow::array::Array, rows: usize, shown: Shown) -> Result<()> {
        let options = FormatOptions::new()
            .with_null("NULL")
            .with_timestamp_format(Some(TIME))
            .with_datetime_format(Some(TIME))
            .with_timestamp_tz_format(Some(TIME_WITH_ZONE));
        let formatter = ArrayFormatter::try_new(values, &options)?;
        for row in 0..rows {
            let text = formatter.value(row).try_to_string()?;
            match shown.cell {
                Some(most) => self.push(&cut(&text, most)),
                None => self.push(&text),
            }
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        let lines: Vec<String> = text.lines().map(printable).collect();
        let widest = lines.iter().map(|line| line.width()).max();
        self.width = self.width.max(widest.unwrap_or(0));
        self.cells.push(lines);
    }

    /// A line of a cell, as wide as the column.
    fn padded(&self, row: usize, line: usize, to: &mut String) {
        let cell = self.cells.get(row).and_then(|lines| lines.get(line));
        let text = cell.map_or("", String::as_str);
        let pad = self.width - text.width();
        let before = if self.right { pad } else { 0 };
        to.extend(repeat_n(' ', before + 1));
        to.push_str(text);
        to.extend(repeat_n(' ', pad - before + 1));
    }
}

/// Characters that would move the cursor are blanks.
fn printable(line: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(shown).collect()
}

/// All but the last three of `most` characters and three dots, for a longer text (Spark).
fn cut(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(most.saturating_sub(3)).collect();
    kept.push_str("...");
    kept
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() && !matches!(data_type, DataType::Dictionary(..))
}

fn draw(columns: &[Column], rows: usize) -> String {
    let mut text = String::new();
    if columns.is_empty() {
        return format!("{}\n", crate::output::counted(rows as u64, "row"));
    }
    rule(columns, ['┌', '┬', '┐'], &mut text);
    for row in 0..=rows {
        let height = columns.iter().map(|c| c.cells.get(row).map_or(0, Vec::len));
        for line in 0..height.max().unwrap_or(0).max(1) {
            for column in columns {
                text.push('│');
                column.padded(row, line, &mut text);
            }
            text.push_str("│\n");
        }
        if row == 0 {
            rule(columns, ['├', '┼', '┤'], &mut text);
        }
    }
    rule(columns, ['└', '┴', '┘'], &mut text);
    text
}

fn rule(columns: &[Column], [left, middle, right]: [char; 3], to: &mut String) {
    for (at, column) in columns.iter().enumerate() {
        to.push(if at == 0 { left } else { middle });
        to.extend(repeat_n('─', column.width + 2));
    }
    to.push(right);
    to.push('\n');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn rows() -> RecordBatch {
        let names = StringArray::from(vec![Some("a"), Some("水泵 12"), None]);
        let counts = Int64Array::from(vec![Some(5), Some(1_234), Some(-1)]);
        let times = TimestampMicrosecondArray::from(vec![Some(0), Some(1_500_000), None]);
        let columns: [(&str, ArrayRef); 3] = [
            ("pump", Arc::new(names)),
            ("n", Arc::new(counts)),
            ("seen", Arc::new(times)),
        ];
        RecordBatch::try_from_iter(columns).expect("rows")
    }

    #[test]
    fn numbers_stand_to_the_right_and_wide_characters_count_twice() {
        let text = table(&rows().schema(), &[rows()], Shown::ALL).expect("a table");
        let expected = "\
┌─────────┬──────┬─────────────────────────┐
│ pump    │    n │ seen                    │
├─────────┼──────┼─────────────────────────┤
│ a       │    5 │ 1970-01-01 00:00:00     │
│ 水泵 12 │ 1234 │ 1970-01-01 00:00:01.500 │
│ NULL    │   -1 │ NULL                    │
└─────────┴──────┴─────────────────────────┘
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_too_much_is_cut() {
        let rows = RecordBatch::try_from_iter([(
            "text",
            Arc::new(StringArray::from(vec!["two\nlines", "0123456789", "no"])) as ArrayRef,
        )])
        .expect("rows");
        let shown = Shown {
            rows: 2,
            cell: Some(9),
        };
        let text = table(&rows.schema(), &[rows], shown).expect("a table");
        let expected = "\
┌───────────┐
│ text      │
├───────────┤
│ two       │
│ lines     │
│ 012345... │
└───────────┘
only showing top 2 rows
";
        assert_eq!(text, expected);
    }
}
