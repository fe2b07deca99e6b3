//! Tables: rows of numbers under named columns, as a CSV file holds them.
//!
//! Decides what counts as a number and what as missing. Knows no model.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::Limits;
use crate::input::InputError;

/// Rows of numbers under named columns; a missing value is NaN.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The columns' names, in file order.
    pub columns: Vec<String>,
    /// As many values in each row as there are columns.
    pub rows: Vec<Vec<f32>>,
}

impl Table {
    /// Reads a CSV file whose first line names the columns.
    ///
    /// # Errors
    /// `InputError`, with line and column where a cell is wrong.
    pub fn read(path: &Path, limits: &Limits) -> Result<Table, InputError> {
        let file = File::open(path);
        let file = file.map_err(|source| InputError::Io { path: path.to_owned(), source })?;
        Table::parse(file, limits)
    }

    /// Reads CSV whose first line names the columns. A cell that is empty, `NA` or
    /// `nan` is missing.
    ///
    /// # Errors
    /// `InputError`, with line and column where a cell is wrong.
    pub fn parse(source: impl Read, limits: &Limits) -> Result<Table, InputError> {
        // No single cell can be longer than the whole table may be. One byte more shows that it was cut.
        let limit = (limits.input_elements as u64).saturating_mul(16);
        let mut source = source.take(limit.saturating_add(1));
        let table = Table::parse_within(&mut source, limits);
        if source.limit() == 0 {
            return Err(InputError::TooLarge { what: "bytes or more", size: limit + 1, limit });
        }
        table
    }

    fn parse_within(source: impl Read, limits: &Limits) -> Result<Table, InputError> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(source);
        let columns = columns(&mut reader)?;
        let most = limits.input_elements / columns.len();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            if rows.len() == most {
                return Err(InputError::TooLarge { what: "rows or more", size: most as u64 + 1, limit: most as u64 });
            }
            if record.len() != columns.len() {
                let reason = format!("{} cells where the header names {} columns", record.len(), columns.len());
                return Err(InputError::Line { line, reason });
            }
            let cells = record.iter().zip(&columns).map(|(text, column)| {
                number(text).ok_or_else(|| InputError::Cell {
                    line,
                    column: column.clone(),
                    value: text.chars().take(40).collect(),
                })
            });
            rows.push(cells.collect::<Result<Vec<f32>, _>>()?);
        }
        if rows.is_empty() {
            return Err(InputError::Line { line: 2, reason: "there are no rows".to_owned() });
        }
        Ok(Table { columns, rows })
    }
}

fn columns<R: Read>(reader: &mut csv::Reader<R>) -> Result<Vec<String>, InputError> {
    let header = |reason: String| InputError::Line { line: 1, reason };
    let names = reader.headers().map_err(broken)?;
    // Spreadsheets put a byte order mark before the first name.
    let name = |name: &str| name.trim_start_matches('\u{feff}').to_owned();
    let names: Vec<String> = names.iter().map(name).collect();
    if names.iter().all(|name| number(name).is_some()) {
        return Err(header("it must name the columns, but holds no names".to_owned()));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(header(format!("two columns are named {twice:?}"))),
        None => Ok(names),
    }
}

/// A finite number, or NaN for what is missing.
fn number(text: &str) -> Option<f32> {
    if text.is_empty() || text == "NA" || text.eq_ignore_ascii_case("nan") {
        return Some(f32::NAN);
    }
    text.parse::<f32>().ok().filter(|number| number.is_finite())
}

fn broken(error: csv::Error) -> InputError {
    let line = error.position().map_or(0, csv::Position::line);
    InputError::Line { line, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        let limits = Limits { input_elements: 8, ..Limits::default() };
        Table::parse(text.as_bytes(), &limits).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_is_never_cut_silently() {
        // 8 elements allow 128 bytes: padded cells reach that before there are too many rows.
        let padded = format!("age\n1{}\n2\n", " ".repeat(200));
        assert!(parse(&padded).unwrap_err().contains("bytes"), "{:?}", parse(&padded));
    }

    #[test]
    fn missing_values_are_nan() {
        let table = parse("\u{feff}age, bmi\n1,2.5\n,NA\nnan,-1e3\n").unwrap();
        assert_eq!(table.columns, ["age", "bmi"]);
        assert_eq!(table.rows[0], [1.0, 2.5]);
        assert!(table.rows[1].iter().all(|x| x.is_nan()));
        assert!(table.rows[2][0].is_nan() && table.rows[2][1] == -1000.0);
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, expected) in [
            ("a,b\n1,2\n3,x\n", "line 3, column \"b\": \"x\" is no number"),
            ("a,b\n1,inf\n", "line 2, column \"b\": \"inf\" is no number"),
            ("a,b\n1,1e99\n", "line 2, column \"b\": \"1e99\" is no number"),
            ("a,b\n1\n", "line 2: 1 cells where the header names 2 columns"),
            ("a,a\n1,2\n", "line 1: two columns are named \"a\""),
            ("1,2\n3,4\n", "line 1: it must name the columns"),
            ("", "line 1: it must name the columns"),
            ("a,b\n", "line 2: there are no rows"),
            ("a,b\n1,1\n1,1\n1,1\n1,1\n1,1\n", "at most 4 are allowed"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = Table::parse(&b"a,b\n1,\xff\n"[..], &Limits::default()).unwrap_err();
        assert!(matches!(error, InputError::Line { line: 2, .. }), "{error}");
    }
}
