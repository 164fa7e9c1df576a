//! Aligns cells as Go's text/tabwriter does, because Cilium's users know its tables.
//!
//! A cell is ended by a tab; the rest of a line is no cell. A column is a run of lines that have that cell; it is as
//! wide as its widest cell plus the padding, and at least the minimum.

/// Tables of most lists.
pub const LIST: Table = Table { min_width: 5, padding: 3 };
/// `status` and `node list`.
pub const STATUS: Table = Table { min_width: 2, padding: 3 };
/// `config view`.
pub const CONFIG: Table = Table { min_width: 0, padding: 4 };

/// How wide columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Least width of a column, padding included.
    pub min_width: usize,
    /// Spaces after the widest cell.
    pub padding: usize,
}

impl Table {
    /// Replaces the tabs of `text` by spaces.
    ///
    /// # Examples
    /// ```
    /// assert_eq!(kinesin_cli::table::STATUS.align("a\tb\nlonger\tc\n"), "a        b\nlonger   c\n");
    /// ```
    #[must_use]
    pub fn align(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
        let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns {
            let mut from = 0;
            while from < lines.len() {
                let run = widths[from..].iter().take_while(|cells| cells.len() > column).count();
                let widest = lines[from..from + run].iter().map(|cells| cells[column].chars().count()).max();
                let width = self.min_width.max(widest.unwrap_or(0) + self.padding);
                for cells in &mut widths[from..from + run] {
                    cells[column] = width;
                }
                from += run.max(1);
            }
        }
        let mut aligned = String::with_capacity(text.len() * 2);
        for (cells, widths) in lines.iter().zip(&widths) {
            for (index, cell) in cells.iter().enumerate() {
                aligned.push_str(cell);
                if let Some(width) = widths.get(index) {
                    aligned.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
                }
            }
            // Padding before an empty rest of the line would only be blanks at its end.
            if cells.last().is_some_and(|rest| rest.is_empty()) {
                aligned.truncate(aligned.trim_end_matches(' ').len());
            }
            aligned.push('\n');
        }
        aligned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_is_aligned_over_consecutive_lines_only() {
        let text = "a\tb\theader\nlonger cell\tb\nno cell\nx\ty\n";
        let aligned = "a             b    header\nlonger cell   b\nno cell\nx    y\n";
        assert_eq!(LIST.align(text), aligned);
    }

    #[test]
    fn narrow_columns_have_the_minimum() {
        let wide = Table { min_width: 8, padding: 1 };
        assert_eq!(wide.align("a\tb\n"), "a       b\n");
    }

    #[test]
    fn letters_are_counted_not_bytes() {
        assert_eq!(CONFIG.align("é\t1\nee\t2\n"), "é     1\nee    2\n");
    }

    #[test]
    fn empty_text_stays_empty() {
        assert_eq!(LIST.align(""), "");
    }
}
