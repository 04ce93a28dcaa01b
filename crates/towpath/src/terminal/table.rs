//! Rows whose columns stand below each other.

use super::Style;
use super::sanitise::inline;

/// A cell: text and its style. The text is made safe here.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Option<Style>,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell { text: inline(text), style: None }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::from(text.as_str())
    }
}

/// Text in a style.
pub fn styled(style: Style, text: impl AsRef<str>) -> Cell {
    Cell { style: Some(style), ..Cell::from(text.as_ref()) }
}

/// The rows as lines, two spaces between columns, no space at the end.
pub fn lines(rows: &[Vec<Cell>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widths = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line(row: &[Cell], widths: &[usize]) -> String {
    let last = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
    let mut line = String::new();
    for (at, (cell, width)) in row[..last].iter().zip(widths).enumerate() {
        let padding = if at + 1 == last { 0 } else { width - cell.text.chars().count() + 2 };
        match cell.style {
            Some(style) => line.push_str(&style.paint(&cell.text)),
            None => line.push_str(&cell.text),
        }
        line.push_str(&" ".repeat(padding));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_titles_cannot_break_them() {
        let rows =
            [vec!["7".into(), "open".into(), "a\nb".into()], vec!["12".into(), "landed".into(), "".into()]];
        assert_eq!(lines(&rows), ["7   open    a\\nb", "12  landed"]);
    }
}
