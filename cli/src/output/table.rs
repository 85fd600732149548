//! Aligned columns.

use std::fmt::Write as _;

/// To which side a column's texts are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under heads. Numbers stand to the right.
#[derive(Debug)]
pub(crate) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    pub(crate) fn new(heads: &[(&str, Align)]) -> Self {
        Self {
            aligns: heads.iter().map(|(_, align)| *align).collect(),
            rows: vec![heads.iter().map(|(head, _)| (*head).to_owned()).collect()],
        }
    }

    /// Adds a row; cells that are missing are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// All lines, heads first, without blanks at their ends.
    pub(crate) fn lines(&self) -> Vec<String> {
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::with_capacity(widths.iter().map(|width| width + 2).sum());
            for ((cell, align), width) in row.iter().zip(&self.aligns).zip(&widths) {
                // Writing to a string does not fail.
                let _ = match align {
                    Align::Left => write!(line, "{cell:<width$}  "),
                    Align::Right => write!(line, "{cell:>width$}  "),
                };
            }
            line.truncate(line.trim_end().len());
            line
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut table = Table::new(&[("IMAGE", Align::Left), ("SIZE", Align::Right)]);
        table.row(["é".to_owned(), "1 KiB".to_owned()]);
        table.row(["a-long-one".to_owned(), "12 KiB".to_owned()]);
        let lines = table.lines();
        assert_eq!(lines[0], "IMAGE         SIZE");
        assert_eq!(lines[1], "é            1 KiB");
        assert_eq!(lines[2], "a-long-one  12 KiB");
    }
}
